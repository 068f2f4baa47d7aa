"""Ctrl-C during the commands of a deployment on local AWS: one line, and the same command again does the rest."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fsd_emulators.aws import LocalAws
from fsdcore.clock import SYSTEM_CLOCK, Deadline
from fsdcore.faults import Delay, Fault

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

_FSD = (sys.executable, "-m", "fsdcore.cli")
_PATIENCE = 120.0
_GOES_ON = "fsd: stopped; what was begun is kept; to go on, run the same command again\n"
_STOPPED = "fsd: stopped; all workers were told to stop\n"


class Terminal:
    """Runs `fsd` in processes of its own, as a user of `local` would."""

    def __init__(self, local: LocalAws, folder: Path) -> None:
        self.local, self._folder = local, folder
        settings = {"FSD_AWS_NAME": "stopped", "FSD_AWS_TOPICS": "1", "FSD_AWS_MEMORY_MB": "1024"}
        self._environ = {**os.environ, **local.environment, **settings}

    def _begin(self, arguments: tuple[str, ...]) -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        return subprocess.Popen(
            [*_FSD, *arguments], stdout=pipe, stderr=pipe, text=True, env=self._environ, cwd=self._folder
        )

    def fsd(self, *arguments: str) -> tuple[int, str, str]:
        """Exit code, stdout and stderr."""
        process = self._begin(arguments)
        out, err = process.communicate(timeout=_PATIENCE)
        return process.returncode, out, err

    def stopped(self, *arguments: str, after: str, before: Fault) -> tuple[int, str, str]:
        """The same, with Ctrl-C once request `after` was answered: request `before` is so late that it comes first."""
        start = max((record.number for record in self.local.requests()), default=0)
        self.local.set_faults(before)
        process = self._begin(arguments)
        deadline = Deadline.after(_PATIENCE, SYSTEM_CLOCK)
        while not any(record.action == after for record in self.local.requests(start)):
            assert process.poll() is None, process.communicate()
            assert not deadline.passed()
            SYSTEM_CLOCK.sleep(0.05)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=_PATIENCE)
        self.local.set_faults()
        return process.returncode, out, err


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    with LocalAws(tmp_path) as local:
        yield Terminal(local, tmp_path)


def late(service: str, action: str, resource: str = "") -> Fault:
    return Delay(f"{service}:{action}", resource, by="client", seconds=60.0)


def test_each_command_may_be_stopped_and_given_again(terminal: Terminal) -> None:
    deploy = ("deploy", "aws", "--max-workers", "2")
    assert terminal.stopped(*deploy, after="CreateStack", before=late("s3", "HeadBucket")) == (130, "", _GOES_ON)
    assert terminal.fsd("status", "aws")[0] == 1
    code, out, err = terminal.fsd(*deploy)
    assert (code, err) == (0, "")
    assert out.startswith("deployment 'stopped': ready for runs of up to 2 workers\n")

    assert terminal.fsd("generate", "radixnet", "--neurons", "256", "--layers", "4", "-o", "net.safetensors")[0] == 0
    assert terminal.fsd("generate", "digits", "--neurons", "256", "--samples", "20", "-o", "in.npz")[0] == 0
    run = ("run", "net.safetensors", "in.npz", "--backend", "aws", "--workers", "2", "--method", "block", "--verify")
    for channel in ("queue", "sqs", "object"):
        given = (*run, "--channel", channel)
        assert terminal.stopped(*given, after="Invoke", before=late("s3", "GetObject", "/end/")) == (130, "", _STOPPED)
        code, out, err = terminal.fsd(*given)
        assert (code, err) == (0, "")
        assert "within what float32 allows" in out

    destroy = ("destroy", "aws", "--yes")
    late_list = late("s3", "ListObjectsV2")
    assert terminal.stopped(*destroy, after="DeleteStack", before=late_list) == (130, "", _GOES_ON)
    code, out, err = terminal.fsd(*destroy)
    assert (code, err) == (0, "")
    assert terminal.fsd(*destroy) == (0, "nothing to remove\n", "")
    assert terminal.fsd("status", "aws")[0] == 2
