"""Lanes: runs that share the queues of one deployment each hold one alone.

A lease is an object ``lanes/{channel}/{lane}/{generation}``, written only if absent, so that one of several that
try gets it. It ends by being given back or at its expiry; the next generation is then free to take.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import msgspec

from fsdcore.clock import Clock, Deadline
from fsdcore.errors import DeadlineError, KeyMissingError, PreconditionError
from fsdcore.store import Store

__all__ = ["Lease", "lease_lane"]

_POLL_SECONDS = 0.05


class _Terms(msgspec.Struct, frozen=True):
    run: str
    expires: float


@dataclass(frozen=True)
class Lease:
    """A lane held for a run."""

    store: Store
    prefix: str
    lane: int
    generation: int

    @property
    def key(self) -> str:
        """The object of this lease."""
        return _key(self.prefix, self.lane, self.generation)

    def release(self) -> None:
        """Give the lane back. The object stays until the next holder removes it, so that generations never repeat."""
        self.store.put(self.key, msgspec.json.encode(_Terms("", 0.0)))


def _key(prefix: str, lane: int, generation: int) -> str:
    return f"{prefix}{lane}/{generation:012d}"


def _generations(store: Store, prefix: str) -> dict[int, list[int]]:
    found: defaultdict[int, list[int]] = defaultdict(list)
    for key in store.list(prefix):
        lane, generation = key[len(prefix) :].split("/")
        found[int(lane)].append(int(generation))
    return found


def _free(store: Store, key: str, now: float) -> bool:
    try:
        return msgspec.json.decode(store.get(key), type=_Terms).expires <= now
    except KeyMissingError:
        # Another took the next generation and removed this one: its lane is held.
        return False


def _try_lane(store: Store, prefix: str, lane: int, known: list[int], terms: bytes, now: float) -> Lease | None:
    latest = max(known, default=0)
    if known and not _free(store, _key(prefix, lane, latest), now):
        return None
    lease = Lease(store, prefix, lane, latest + 1)
    try:
        store.put(lease.key, terms, if_absent=True)
    except PreconditionError:
        return None
    current = _generations(store, prefix).get(lane, [])
    if max(current, default=0) != lease.generation:
        store.delete([lease.key])
        return None
    store.delete(_key(prefix, lane, generation) for generation in known if generation < latest)
    return lease


def lease_lane(
    store: Store, channel: str, lanes: int, run: str, run_seconds: float, deadline: Deadline, clock: Clock
) -> Lease:
    """Hold one of `lanes` for `run`, for `run_seconds` at most; wait for one until `deadline`.

    `DeadlineError` if all stay taken.
    """
    prefix = f"lanes/{channel}/"
    while True:
        terms = msgspec.json.encode(_Terms(run, clock.wall() + run_seconds))
        known = _generations(store, prefix)
        for lane in range(lanes):
            lease = _try_lane(store, prefix, lane, known.get(lane, []), terms, clock.wall())
            if lease is not None:
                return lease
        if deadline.passed():
            raise DeadlineError(f"all {lanes} lanes of the {channel} channel are taken by other runs", run=run)
        clock.sleep(min(_POLL_SECONDS, deadline.remaining()))
