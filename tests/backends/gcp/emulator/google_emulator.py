"""Google's own Pub/Sub emulator, where the Google Cloud SDK has it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fsdcore.testing.processes import HOST, ServerProcess, free_port, tcp_ready

__all__ = ["google_pubsub"]

_VARIABLE = "PUBSUB_EMULATOR_JAR"
_JARS = "platform/pubsub-emulator/lib/cloud-pubsub-emulator-*-all.jar"


def _jar() -> Path:
    """The program; skips the test where it, or Java, is not."""
    if shutil.which("java") is None:
        pytest.skip("Google's Pub/Sub emulator needs Java")
    if _VARIABLE in os.environ:
        return Path(os.environ[_VARIABLE])
    gcloud = shutil.which("gcloud")
    roots = [Path(gcloud).resolve().parent.parent] if gcloud else []
    found = [jar for root in [*roots, Path("/usr/lib/google-cloud-sdk")] for jar in sorted(root.glob(_JARS))]
    if not found:
        pytest.skip(f"Google's Pub/Sub emulator is not installed (gcloud component, or {_VARIABLE}=path of its jar)")
    return found[-1]


@contextmanager
def google_pubsub(folder: Path) -> Iterator[str]:
    """Where it listens, while it runs."""
    jar, port = _jar(), free_port()
    command = ["java", "-Xmx512m", "-jar", str(jar), f"--host={HOST}", f"--port={port}"]
    log = folder / "google-pubsub.log"
    with ServerProcess("Google's Pub/Sub emulator", command, ready=tcp_ready(port), log=log):
        yield f"{HOST}:{port}"
