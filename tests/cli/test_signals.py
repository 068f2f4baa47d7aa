"""What ends a command: Ctrl-C and its kin, in processes of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fsd_local.stores import DirectoryStore
from fsdcore.cli.signals import exit_code, requests_to_end
from fsdcore.network.formats import save_network
from fsdcore.testing import random_network
from fsdcore.worker.leases import LEASES

# Takes the only lane of a store, and dies.
_HOLDS = """
import sys
from fsd_local.stores import DirectoryStore
from fsdcore.clock import SYSTEM_CLOCK, Deadline
from fsdcore.worker.leases import take_lane
take_lane(DirectoryStore(sys.argv[1]), "queue", 1, 900.0, Deadline.after(0.0, SYSTEM_CLOCK), print)
"""


@pytest.fixture
def waiting(tmp_path: Path) -> subprocess.Popen[str]:
    """A run over a directory store whose only lane is held by a client that has died."""
    save_network(random_network((12, 16, 10)), tmp_path / "net.safetensors")
    (tmp_path / "in.tsv").write_text("1\t1\t1\n")
    subprocess.run([sys.executable, "-c", _HOLDS, str(tmp_path / "store")], check=True)
    given = ["run", "net.safetensors", "in.tsv", "--workers", "2", "--method", "block", "--channel", "queue"]
    environ = {**os.environ, "FSD_LOCAL_PATH": str(tmp_path / "store"), "FSD_LOCAL_LANES": "1"}
    command, pipe = [sys.executable, "-m", "fsdcore.cli", *given], subprocess.PIPE
    process = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environ, cwd=tmp_path)
    assert process.stderr is not None
    assert process.stderr.readline().startswith("fsd: waiting for a lane of the queue channel: run ")
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_a_signal_ends_a_run_in_one_line_with_its_exit_code(
    waiting: subprocess.Popen[str], tmp_path: Path, number: signal.Signals
) -> None:
    waiting.send_signal(number)
    out, err = waiting.communicate(timeout=60.0)
    assert (waiting.returncode, out, err) == (128 + number, "", "fsd: stopped; all workers were told to stop\n")
    assert DirectoryStore(tmp_path / "store").list("runs/") == []


def test_a_run_begins_and_ends_soon_after_the_client_before_it_has_died(
    waiting: subprocess.Popen[str], tmp_path: Path
) -> None:
    out, err = waiting.communicate(timeout=35.0)
    assert (waiting.returncode, err) == (0, ""), out
    store = DirectoryStore(tmp_path / "store")
    assert store.list("runs/") == []
    assert len(store.list(LEASES)) == 1


def test_what_the_parent_has_ignored_stays_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert requests_to_end() == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGHUP, before)


def test_the_exit_code_is_what_a_shell_gives() -> None:
    assert [exit_code(KeyboardInterrupt()), exit_code(KeyboardInterrupt(signal.SIGTERM))] == [130, 143]
