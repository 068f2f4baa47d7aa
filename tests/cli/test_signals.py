"""What ends a command: Ctrl-C and its kin, in processes of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from backends.local.directory_store import DirectoryStore
from fsdcore.cli.signals import exit_code, requests_to_end
from fsdcore.clock import SYSTEM_CLOCK, Deadline
from fsdcore.formats import save_network
from fsdcore.leases import LEASES
from fsdcore.testing import random_network

# A run that waits for a lane that another run holds: it is under way, for as long as it takes.
_WAITS = """
import sys
from backends.local.directory_store import DirectoryStore
from fsdcore.clock import Deadline
from fsdcore.leases import take_lane
take_lane(DirectoryStore(sys.argv[1]), "queue", 1, 900.0, Deadline.after(0.0), print)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_a_signal_ends_a_run_in_one_line_with_its_exit_code(tmp_path: Path, number: signal.Signals) -> None:
    save_network(random_network((12, 16, 10)), tmp_path / "net.safetensors")
    (tmp_path / "in.tsv").write_text("1\t1\t1\n")
    store = tmp_path / "store"
    subprocess.run([sys.executable, "-c", _WAITS, str(store)], check=True)
    given = ["run", "net.safetensors", "in.tsv", "--workers", "2", "--method", "block", "--channel", "queue"]
    environ = {**os.environ, "FSD_LOCAL_PATH": str(store), "FSD_LOCAL_LANES": "1"}
    command = [sys.executable, "-m", "fsdcore.cli", *given]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environ, cwd=tmp_path)
    assert process.stderr is not None
    assert process.stderr.readline().startswith("fsd: waiting for a lane of the queue channel: run ")
    process.send_signal(number)
    _, err = process.communicate(timeout=60.0)
    assert (process.returncode, err) == (128 + number, "fsd: stopped; all workers were told to stop\n")
    assert DirectoryStore(store).list("runs/") == []


def test_what_the_parent_has_ignored_stays_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert requests_to_end() == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGHUP, before)


def test_the_exit_code_is_what_a_shell_gives() -> None:
    assert [exit_code(KeyboardInterrupt()), exit_code(KeyboardInterrupt(signal.SIGTERM))] == [130, 143]


def test_a_run_begins_soon_after_its_predecessor_was_killed(tmp_path: Path) -> None:
    """The one test that waits for a lease to end, as a user would."""
    store = tmp_path / "store"
    subprocess.run([sys.executable, "-c", _WAITS, str(store)], check=True)
    save_network(random_network((12, 16, 10)), tmp_path / "net.safetensors")
    (tmp_path / "in.tsv").write_text("1\t1\t1\n")
    given = ["run", "net.safetensors", "in.tsv", "--workers", "2", "--method", "block", "--channel", "queue"]
    environ = {**os.environ, "FSD_LOCAL_PATH": str(store), "FSD_LOCAL_LANES": "1"}
    soon = Deadline.after(35.0)
    command = [sys.executable, "-m", "fsdcore.cli", *given]
    done = subprocess.run(command, capture_output=True, text=True, env=environ, cwd=tmp_path, timeout=60.0)
    assert done.returncode == 0, done.stderr
    assert not soon.passed(), SYSTEM_CLOCK.now()
    assert DirectoryStore(store).list("runs/") == []
    assert len(DirectoryStore(store).list(LEASES)) == 1
