"""What a worker imports is billed at every cold start."""

from __future__ import annotations

import subprocess
import sys

import pytest

NEVER = ["scipy", "mtkahypar", "typer", "rich", "fsdcore.session", "fsdcore.partition", "fsdcore.network"]


@pytest.mark.parametrize("module", ["fsdcore.worker", "backends.local"])
def test_a_worker_imports_nothing_that_only_a_client_needs(module: str) -> None:
    code = f"import sys, {module}; print(*[name for name in {NEVER} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == []
