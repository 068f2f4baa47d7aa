"""Leases: a run is alive as long as its holder says so, and runs that share queues hold a lane each.

A lease is one object. Its holder, the client of the run, writes it anew every few seconds; so a client that dies gives
up what it held by itself. Workers look at the lease of their run now and then, and end when it is over, is gone, or
has not been renewed. They do so by their own clocks, and before anybody else may take the lane.

Keys: ``leases/runs/{run}``, or for a run that holds a lane ``leases/lanes/{pool}/{lane}/{generation}``. The next
generation of a lane is written only if absent, so that one of several that try gets it; the last stays, so that
generations never repeat.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from types import TracebackType
from typing import Annotated, NamedTuple, Self

import msgspec

from fsdcore.clock import Clock, Deadline, Event
from fsdcore.contracts.compute import RunId, new_run_id
from fsdcore.contracts.store import Store
from fsdcore.decoding import from_json
from fsdcore.errors import (
    AbortedError,
    DeadlineError,
    FsdError,
    KeyMissingError,
    PreconditionError,
    RunError,
    StoreError,
    WireError,
)

LEASES = "leases/"
_RUNS, _LANES = f"{LEASES}runs/", f"{LEASES}lanes/"

# A holder renews its lease this often, and each time for so long. Clocks of clients may differ by what lies between.
BEAT_SECONDS, LEASE_SECONDS = 5.0, 30.0
# Workers end when a lease has not been renewed for so long: before it is over, wherever in a beat its holder died.
_SILENT_SECONDS = 22.0
# A worker looks at the lease of its run after so many requests' time, within these bounds.
_REQUESTS_PER_LOOK, _SHORTEST_LOOK, _LONGEST_LOOK = 50, 0.25, 2.0
_POLL_SECONDS = 1.0


class State(StrEnum):
    """What is to be said of the run of a lease."""

    HELD = "held"
    # Its workers are to end; objects of it may be left.
    OVER = "over"
    CLEAN = "clean"


# Until the year 5138; beyond what the calendar can show there are no leases.
_Wall = Annotated[float, msgspec.Meta(ge=0, le=1e11)]


class Terms(msgspec.Struct, frozen=True):
    """What a lease says. `since`, `until` (when its run must have ended) and `expires` are in wall-clock seconds."""

    run: RunId
    state: State
    since: _Wall
    until: _Wall
    expires: _Wall


@dataclass
class Lease:
    """A lease that is held here; `lane` is None for a run that needs none. Threads may call it at once."""

    store: Store
    key: str
    terms: Terms
    clock: Clock
    lane: int | None = None

    def __post_init__(self) -> None:
        # Held while the store is written to, which may take its time.
        self._lock = self.clock.condition()

    @property
    def run(self) -> str:
        """The run that it is of; its id is above those of all runs that held the lane before."""
        return self.terms.run

    def _write(self, state: State) -> None:
        expires = self.clock.wall() + LEASE_SECONDS if state is State.HELD else self.terms.expires
        terms = msgspec.structs.replace(self.terms, state=state, expires=expires)
        self.store.put(self.key, msgspec.json.encode(terms))
        self.terms = terms

    def beat(self) -> None:
        """Renew it, if its run is not over."""
        with self._lock:
            if self.terms.state is State.HELD:
                self._write(State.HELD)

    def lost(self) -> bool:
        """Whether its time has passed, so that another may have taken what it was for."""
        return self.clock.wall() >= self.terms.expires

    def end(self) -> None:
        """Say that the run is over: workers that look end, and whoever comes next removes what is left of it."""
        with self._lock:
            self._write(State.OVER)

    def release(self) -> None:
        """Say that the run is over and nothing is left of it."""
        with self._lock:
            if self.lane is not None:
                self._write(State.CLEAN)
                return
            self.store.delete([self.key])
            self.terms = msgspec.structs.replace(self.terms, state=State.CLEAN)


class Heartbeat:
    """Keeps a lease alive from a thread of its own, in a `with` block; in its first turn it removes dead runs.

    A beat that the store refuses is made up for by the next; `check` tells the holder when that was too late.
    """

    def __init__(self, lease: Lease) -> None:
        self._lease = lease
        self._stopped = Event(lease.clock)
        self._lost = False
        self._error: BaseException | None = None

    def __enter__(self) -> Self:
        self._thread = self._lease.clock.start(self._work, "fsd-heartbeat")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        self._thread.join()

    def check(self) -> None:
        """`RunError` if the lease was not renewed in time; what ended the thread, if anything has."""
        if self._error is not None:
            raise self._error
        if self._lost:
            raise RunError(
                f"the lease of the run could not be renewed for {LEASE_SECONDS:g} s, so its workers have ended; did "
                "this machine sleep, or lose its connection?",
                run=self._lease.run,
            )

    def _work(self) -> None:
        try:
            self._beat()
        except BaseException as error:  # noqa: BLE001 - raised by the thread that checks
            self._error = error

    def _beat(self) -> None:
        _tolerant(lambda: remove_dead(self._lease.store, self._lease.run, self._lease.clock))
        while not self._stopped.wait(BEAT_SECONDS) and not self._lost:
            self._lost = self._lease.lost()
            if not self._lost:
                _tolerant(self._lease.beat)


def _tolerant(step: Callable[[], None]) -> None:
    """Do it, or leave it to a later turn if the store refuses."""
    with suppress(StoreError):
        step()


class Watch:
    """A worker's eye on the lease of its run, at `key`; an empty key says that nobody holds one.

    `check` is called as often as the worker likes; it asks the store every `interval` seconds. A look that fails says
    nothing; if none succeeds for long, that is as if the holder were silent, since another may take the lane meanwhile.
    """

    def __init__(self, store: Store, key: str, clock: Clock) -> None:
        self._store, self._key, self._clock = store, key, clock
        latency = store.capabilities.latency_seconds
        self.interval = min(_LONGEST_LOOK, max(_SHORTEST_LOOK, _REQUESTS_PER_LOOK * latency))
        self._next = clock.now() + self.interval
        self._seen: tuple[Terms | None, float] = (None, clock.now())
        self._failure: FsdError | None = None

    def check(self) -> None:
        """`AbortedError` if the run is over, `RunError` if its holder has died or cannot be seen any more."""
        if not self._key or self._clock.now() < self._next:
            return
        if self.is_over():
            raise AbortedError("the client has stopped the run")
        if self._clock.now() - self._seen[1] > _SILENT_SECONDS:
            text = f"the client of the run has not renewed its lease for {_SILENT_SECONDS:g} s"
            raise RunError(f"{text}, as far as can be seen: {self._failure}" if self._failure else text)

    def is_over(self) -> bool:
        """Ask the store at once whether the run is over."""
        if not self._key:
            return False
        try:
            terms, self._failure = _terms(self._store, self._key), None
        except (StoreError, WireError) as error:
            self._failure = error
            return False
        finally:
            self._next = self._clock.now() + self.interval
        if terms is not None and terms != self._seen[0]:
            self._seen = (terms, self._clock.now())
        return terms is None or terms.state is not State.HELD


def remove_run(store: Store, run: str) -> None:
    """Remove all objects of a run."""
    store.delete(store.list(f"runs/{run}/"))


def _terms(store: Store, key: str) -> Terms | None:
    """What the lease says; None if there is none."""
    try:
        data = store.get(key)
    except KeyMissingError:
        return None
    return from_json(
        data, Terms, lambda reason: WireError(f"object {key} is damaged: {reason}; delete it once no run is under way")
    )


class _Lane(NamedTuple):
    pool: str
    lane: int
    generation: int

    @property
    def key(self) -> str:
        return f"{_LANES}{self.pool}/{self.lane}/{self.generation:012d}"


_LANE = re.compile(re.escape(_LANES) + "([^/]+)/([0-9]{1,9})/([0-9]{12})")


def _parse(key: str) -> _Lane | None:
    """The lane of a lease's key; None if it is the key of something else."""
    found = _LANE.fullmatch(key)
    return _Lane(found[1], int(found[2]), int(found[3])) if found else None


def _latest(keys: Iterable[str]) -> dict[tuple[str, int], int]:
    """The last generation of each lane."""
    found: dict[tuple[str, int], int] = {}
    for lane in filter(None, map(_parse, keys)):
        found[lane.pool, lane.lane] = max(found.get((lane.pool, lane.lane), 0), lane.generation)
    return found


def remove_dead(store: Store, mine: str, clock: Clock) -> None:
    """Remove what is left of runs whose holders have died, and of leases that nobody needs; not of the run `mine`.

    Objects beside them that are no leases, and leases that are damaged, are left alone.
    """
    keys = [key for key in store.list(LEASES) if _parse(key) or key.startswith(_RUNS)]
    kept = {_Lane(*lane, generation).key for lane, generation in _latest(keys).items()}
    for key in keys:
        with suppress(WireError):
            terms = _terms(store, key)
            if terms is not None and terms.run != mine and not _holds(terms, clock):
                _tidy(store, key, terms, key in kept)


def _tidy(store: Store, key: str, terms: Terms, keep: bool) -> None:
    """Remove what is left of a dead run, and its lease, unless that is to `keep` the number of its lane."""
    if terms.state is not State.CLEAN:
        remove_run(store, terms.run)
    if not keep:
        store.delete([key])
    elif terms.state is not State.CLEAN:
        store.put(key, msgspec.json.encode(msgspec.structs.replace(terms, state=State.CLEAN)))


def _holds(terms: Terms, clock: Clock) -> bool:
    return terms.state is State.HELD and clock.wall() < terms.expires


def _fresh(run: str, run_seconds: float, clock: Clock) -> Terms:
    now = clock.wall()
    return Terms(run, State.HELD, now, now + run_seconds, now + LEASE_SECONDS)


def take_lease(store: Store, run_seconds: float, clock: Clock) -> Lease:
    """A lease for a new run that needs no lane and ends within `run_seconds`."""
    terms = _fresh(new_run_id(clock), run_seconds, clock)
    lease = Lease(store, _RUNS + terms.run, terms, clock)
    lease.beat()
    return lease


def take_lane(
    store: Store, pool: str, lanes: int, run_seconds: float, patience: Deadline, waiting: Callable[[str], None]
) -> Lease:
    """A lease for a new run that holds one of `lanes` of `pool` and ends within `run_seconds`.

    Waits for one until `patience` is over, then `DeadlineError`; `waiting` is told, in a line, of each run that is
    waited for.
    """
    wanted = _Wanted(store, pool, run_seconds, patience.clock)
    told: set[str] = set()
    while True:
        lease = wanted.take_any(lanes)
        if lease is not None:
            return lease
        if patience.passed():
            raise DeadlineError(f"all {lanes} lanes of the {pool} channel are taken by other runs: {wanted.holders()}")
        fresh = wanted.runs() - told
        if fresh:
            told |= fresh
            waiting(f"waiting for a lane of the {pool} channel: {wanted.holders()}")
        patience.clock.sleep(min(_POLL_SECONDS, patience.remaining()))


@dataclass
class _Wanted:
    """The lanes of a pool, for one that wants to hold one."""

    store: Store
    pool: str
    seconds: float
    clock: Clock
    # Who holds what as far as was seen, and since when it has said just that, in monotonic seconds.
    seen: dict[int, tuple[Terms, float]] = field(default_factory=dict)

    def take_any(self, lanes: int) -> Lease | None:
        """The first lane that is free."""
        latest = self._latest()
        leases = (self._take(lane, latest.get((self.pool, lane), 0)) for lane in range(lanes))
        return next((lease for lease in leases if lease is not None), None)

    def _latest(self) -> dict[tuple[str, int], int]:
        return _latest(self.store.list(f"{_LANES}{self.pool}/"))

    def _take(self, lane: int, latest: int) -> Lease | None:
        last = _terms(self.store, _Lane(self.pool, lane, latest).key) if latest else None
        if latest and (last is None or self._is_held(lane, last)):
            return None
        run = new_run_id(self.clock, last.run if last else "")
        lease = Lease(
            self.store,
            _Lane(self.pool, lane, latest + 1).key,
            _fresh(run, self.seconds, self.clock),
            self.clock,
            lane,
        )
        try:
            self.store.put(lease.key, msgspec.json.encode(lease.terms), if_absent=True)
        except PreconditionError:
            return None
        if self._latest().get((self.pool, lane)) != latest + 1:
            self.store.delete([lease.key])
            return None
        return lease

    def _is_held(self, lane: int, last: Terms) -> bool:
        """Whether the run still has its lane: its holder lives, as far as can be seen, and it has not ended."""
        known, since = self.seen.get(lane, (None, 0.0))
        if known != last:
            since = self.clock.now()
            self.seen[lane] = (last, since)
        # The second is for a holder whose clock is ahead.
        alive = _holds(last, self.clock) and self.clock.now() - since < LEASE_SECONDS
        return alive and not self.store.exists(f"runs/{last.run}/end/done")

    def runs(self) -> set[str]:
        """The runs that hold the lanes."""
        return {terms.run for terms, _ in self.seen.values()}

    def holders(self) -> str:
        """Who holds the lanes, since when, and until when at most."""
        return "; ".join(_described(terms, self.clock) for terms, _ in self.seen.values())


def _described(terms: Terms, clock: Clock) -> str:
    text = f"run {terms.run} has it since {_hour(terms.since)}, until {_hour(terms.until)} at most"
    ahead = terms.expires - clock.wall() - LEASE_SECONDS
    return f"{text} (its clock is {ahead:.0f} s ahead of this one)" if ahead > BEAT_SECONDS else text


def _hour(wall: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(wall))
