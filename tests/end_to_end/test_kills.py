"""A client that dies: the next run begins soon and is exact, no worker lives on, and nothing is left.

How often each is tried is taken from the variables KILLS_TRIED and STOPS_TRIED.
"""

from __future__ import annotations

import itertools
import logging
import os
import random
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import scipy.sparse as sp

from fsd_local import LocalBackend, LocalSettings
from fsdcore.clock import SYSTEM_CLOCK, Deadline
from fsdcore.contracts.backend import Backend
from fsdcore.contracts.store import Store
from fsdcore.record.file import read_record
from fsdcore.worker.leases import LEASES
from tests.end_to_end.sites import Site, bits

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3000)]

_KILLS = int(os.environ.get("KILLS_TRIED", "3"))
_STOPS = int(os.environ.get("STOPS_TRIED", "1"))
_LOG = logging.getLogger(__name__)
_SOON = 35.0
# Workers hear of an end within this time.
_HEARD = {"local": 2.0, "aws": 5.0, "gcp": 5.0}
# So that a run lasts some seconds.
_SAMPLES = {"local": "40000", "aws": "4000", "gcp": "4000"}
_PATIENCE = 120.0
_WORKERS = 3


@dataclass(frozen=True)
class Commands:
    """Runs `fsd run` in processes of its own against a site."""

    site: Site
    folder: Path
    store: Store
    # What tests of other things have left in the store of the site.
    known: frozenset[str]

    @property
    def environ(self) -> Mapping[str, str]:
        of_store = {"FSD_LOCAL_PATH": str(self.folder / "store"), "FSD_LOCAL_LANES": "1"}
        return {**os.environ, **self.site.environ, **self.site.of_commands, **of_store}

    def begin(self, channel: str, *more: str) -> subprocess.Popen[str]:
        workers = 1 if channel == "serial" else _WORKERS
        given = ["--backend", self.site.name, "--workers", str(workers), "--method", "block", *more]
        if channel != "serial":
            given += ["--channel", channel]
        command = [sys.executable, "-m", "fsdcore.cli", "run", "net.safetensors", "in.npz", *given]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=self.environ, cwd=self.folder)

    def begun(self, channel: str) -> tuple[subprocess.Popen[str], str]:
        """A run whose rank 0 has begun, and its id."""
        before = self.runs()
        process, deadline = self.begin(channel), Deadline.after(_PATIENCE, SYSTEM_CLOCK)
        while not (fresh := self.runs() - before):
            assert process.poll() is None, process.communicate()
            assert not deadline.passed()
            SYSTEM_CLOCK.sleep(0.02)
        return process, fresh.pop()

    def left(self) -> list[str]:
        """What is there of this test's runs."""
        return [key for key in self.store.list("runs/") if key not in self.known]

    def runs(self) -> set[str]:
        return {key.split("/")[1] for key in self.store.list("runs/") if "/claims/" in key}

    def exact(self, channel: str) -> float:
        """Run to the end; when its first worker began, in wall-clock seconds."""
        known = self.folder / f"outputs-{'serial' if channel == 'serial' else 'split'}.npz"
        file = self.folder / "outputs.npz" if known.exists() else known
        process = self.begin(channel, "-o", str(file), "--record", "run.json")
        out, err = process.communicate(timeout=_PATIENCE)
        assert process.returncode == 0, (out, err)
        assert bits(sp.load_npz(file)) == bits(sp.load_npz(known))
        return min(worker.started for worker in read_record(self.folder / "run.json").per_worker)


def _opened(site: Site, folder: Path) -> Backend:
    return LocalBackend(LocalSettings(path=str(folder / "store"), lanes=1)) if site.name == "local" else site.open()


@pytest.fixture
def commands(site: Site, tmp_path: Path) -> Commands:
    store = _opened(site, tmp_path).store
    made = Commands(site, tmp_path, store, frozenset(store.list("runs/")))
    for given in (
        ("radixnet", "--neurons", "1024", "--layers", "120", "-o", "net.safetensors"),
        ("digits", "--neurons", "1024", "--samples", _SAMPLES[site.name], "-o", "in.npz"),
    ):
        command = [sys.executable, "-m", "fsdcore.cli", "generate", *given]
        subprocess.run(command, check=True, env=made.environ, cwd=tmp_path, capture_output=True)
    for channel in ("serial", site.channels[0]):
        made.exact(channel)
    return made


def _channels(site: Site) -> list[str]:
    return ["serial", *site.channels]


def _wait_until_idle(site: Site, deadline: Deadline) -> None:
    while site.busy():
        assert not deadline.passed(), f"{site.busy()} workers live on"
        SYSTEM_CLOCK.sleep(0.05)


def test_after_a_killed_client_the_next_run_begins_soon_and_nothing_is_left(commands: Commands) -> None:
    chance, site = random.Random(7), commands.site
    for channel in itertools.islice(itertools.cycle(_channels(site)), _KILLS):
        process, old = commands.begun(channel)
        SYSTEM_CLOCK.sleep(chance.uniform(0.0, 2.0))
        process.kill()
        killed, over = SYSTEM_CLOCK.wall(), Deadline.after(_SOON, SYSTEM_CLOCK)
        process.communicate()
        begun = commands.exact(channel)
        _LOG.info("%s %s: begun %.1f s after the kill", site.name, channel, begun - killed)
        assert begun - killed < _SOON
        _wait_until_idle(site, over)
        if commands.store.list(f"runs/{old}/"):
            # Where runs need no lane the next may end before the old one is known to be dead.
            SYSTEM_CLOCK.sleep(over.remaining())
            commands.exact("serial")
        assert commands.left() == []
        assert commands.store.list(f"{LEASES}runs/") == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT], ids=lambda number: number.name)
def test_a_client_that_is_told_to_end_leaves_nothing_at_once(commands: Commands, number: signal.Signals) -> None:
    chance, site = random.Random(8), commands.site
    for channel in itertools.islice(itertools.cycle(_channels(site)), _STOPS * len(_channels(site))):
        process, _ = commands.begun(channel)
        # A serial run is over in half a second.
        SYSTEM_CLOCK.sleep(chance.uniform(0.0, 0.1 if channel == "serial" else 1.0))
        process.send_signal(number)
        heard = Deadline.after(_HEARD[site.name], SYSTEM_CLOCK)
        _wait_until_idle(site, heard)
        out, err = process.communicate(timeout=_PATIENCE)
        assert (process.returncode, out) == (128 + number, ""), (out, err)
        assert err == "fsd: stopped; all workers were told to stop\n"
        SYSTEM_CLOCK.sleep(heard.remaining())
        assert commands.left() == []
        assert commands.store.list(f"{LEASES}runs/") == []
        commands.exact(channel)
