"""Lanes: runs that share the queues of one deployment each hold one alone.

A lease is an object ``lanes/{channel}/{lane}/{generation}``, written only if absent, so that one of several that
try gets it. It ends by being given back or at its expiry; the next generation is then free to take.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import msgspec

from fsdcore.clock import Clock, Deadline
from fsdcore.errors import DeadlineError, KeyMissingError, PreconditionError, WireError
from fsdcore.store import Store
from fsdcore.wire import new_run_id

__all__ = ["Lease", "lease_lane"]

_POLL_SECONDS = 0.05


class _Terms(msgspec.Struct, frozen=True):
    run: str
    expires: float


_NOBODY = _Terms("", 0.0)


@dataclass(frozen=True)
class Lease:
    """A lane held for `run`, whose id is above those of all runs that held it before."""

    store: Store
    prefix: str
    lane: int
    generation: int
    run: str

    @property
    def key(self) -> str:
        """The object of this lease."""
        return _key(self.prefix, self.lane, self.generation)

    def release(self) -> None:
        """Give the lane back. The object stays until the next holder removes it, so that generations never repeat."""
        self.store.put(self.key, msgspec.json.encode(_Terms(self.run, 0.0)))


def _key(prefix: str, lane: int, generation: int) -> str:
    return f"{prefix}{lane}/{generation:012d}"


def _generations(store: Store, prefix: str) -> dict[int, list[int]]:
    found: defaultdict[int, list[int]] = defaultdict(list)
    for key in store.list(prefix):
        lane, generation = key[len(prefix) :].split("/")
        found[int(lane)].append(int(generation))
    return found


def _terms(store: Store, key: str) -> _Terms | None:
    """The terms of a lease; None if another took the next generation and removed this one: its lane is held."""
    try:
        return msgspec.json.decode(store.get(key), type=_Terms)
    except KeyMissingError:
        return None
    except msgspec.MsgspecError as error:
        raise WireError(f"object {key} is damaged: {error}; delete it once no run is under way") from error


@dataclass(frozen=True)
class _Lanes:
    """The lanes of a channel, for one that wants to hold one for `seconds`."""

    store: Store
    prefix: str
    seconds: float
    clock: Clock

    def take_any(self, lanes: int) -> Lease | None:
        """The first lane that is free."""
        known = _generations(self.store, self.prefix)
        leases = (self._take(lane, known.get(lane, [])) for lane in range(lanes))
        return next((lease for lease in leases if lease is not None), None)

    def _take(self, lane: int, known: list[int]) -> Lease | None:
        latest = max(known, default=0)
        last = _terms(self.store, _key(self.prefix, lane, latest)) if known else _NOBODY
        if last is None or last.expires > self.clock.wall():
            return None
        lease = Lease(self.store, self.prefix, lane, latest + 1, new_run_id(last.run))
        terms = _Terms(lease.run, self.clock.wall() + self.seconds)
        try:
            self.store.put(lease.key, msgspec.json.encode(terms), if_absent=True)
        except PreconditionError:
            return None
        if max(_generations(self.store, self.prefix).get(lane, []), default=0) != lease.generation:
            self.store.delete([lease.key])
            return None
        self.store.delete(_key(self.prefix, lane, generation) for generation in known if generation < latest)
        return lease


def lease_lane(store: Store, channel: str, lanes: int, run_seconds: float, deadline: Deadline) -> Lease:
    """Hold one of `lanes` for a new run, for `run_seconds` at most; wait for one until `deadline`.

    `DeadlineError` if all stay taken.
    """
    clock = deadline.clock
    wanted = _Lanes(store, f"lanes/{channel}/", run_seconds, clock)
    while True:
        lease = wanted.take_any(lanes)
        if lease is not None:
            return lease
        if deadline.passed():
            raise DeadlineError(f"all {lanes} lanes of the {channel} channel are taken by other runs")
        clock.sleep(min(_POLL_SECONDS, deadline.remaining()))
