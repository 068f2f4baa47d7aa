"""What a worker imports is billed at every cold start."""

from __future__ import annotations

import subprocess
import sys

import pytest

NEVER = ("scipy", "mtkahypar", "typer", "rich", "fsdcore.client", "fsdcore.partition", "fsdcore.network.network")
# What workers on objects never ask, and what only deploys.
GOOGLE = ("google.pubsub_v1", "google.cloud.functions_v2", "fsd_gcp.deploy", "fsd_emulators.gcp")


@pytest.mark.parametrize(
    ("module", "never"),
    [
        ("fsdcore.worker.worker", NEVER),
        ("fsd_local", NEVER),
        ("fsd_gcp.worker", (*NEVER, *GOOGLE)),
        ("fsd_gcp.store", (*NEVER, *GOOGLE)),
    ],
)
def test_a_worker_imports_nothing_that_only_a_client_needs(module: str, never: tuple[str, ...]) -> None:
    code = f"import sys, {module}; print(*[name for name in {never} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == []
