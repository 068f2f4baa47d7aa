"""Google's own Pub/Sub emulator, where the Google Cloud SDK has it: a second opinion on ours."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from fsd_emulators.processes import HOST, ServerProcess, free_port, tcp_ready
from fsdcore.errors import MissingExtraError

_VARIABLE = "PUBSUB_EMULATOR_JAR"
_JARS = "platform/pubsub-emulator/lib/cloud-pubsub-emulator-*-all.jar"
_SDK = Path("/usr/lib/google-cloud-sdk")
_MEMORY = "-Xmx512m"


class GooglePubsub(ServerProcess):
    """The emulator, whose log is in `folder`; `MissingExtraError` if it, or Java, is not installed."""

    def __init__(self, folder: Path) -> None:
        if shutil.which("java") is None:
            raise MissingExtraError("Google's Pub/Sub emulator needs Java")
        port = free_port()
        self.target = f"{HOST}:{port}"
        command = ["java", _MEMORY, "-jar", str(_jar()), f"--host={HOST}", f"--port={port}"]
        log = folder / "google-pubsub.log"
        super().__init__("Google's Pub/Sub emulator", command, ready=tcp_ready(port), log=log)


def _jar() -> Path:
    if _VARIABLE in os.environ:
        return Path(os.environ[_VARIABLE])
    gcloud = shutil.which("gcloud")
    roots = [Path(gcloud).resolve().parent.parent] if gcloud else []
    found = [jar for root in [*roots, _SDK] for jar in sorted(root.glob(_JARS))]
    if not found:
        raise MissingExtraError(
            f"Google's Pub/Sub emulator is not installed; run: gcloud components install pubsub-emulator; "
            f"or name its jar in {_VARIABLE}"
        )
    return found[-1]
