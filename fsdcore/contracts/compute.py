"""The contract of the service that runs workers."""

from __future__ import annotations

import secrets
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Any, NamedTuple, Self, TypeAlias

import msgspec

from fsdcore.clock import Clock, Deadline
from fsdcore.contracts.limits import ComputeCapabilities
from fsdcore.contracts.settings import RunSettings
from fsdcore.decoding import converted, from_json
from fsdcore.errors import WireError

_RANDOM_BITS = 20
# As `new_run_id` makes them.
RunId: TypeAlias = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{16}$")]
# What a worker counts on: sizes that fit 32 bits, and seconds that can be added to a clock.
_Size = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]
_Seconds = Annotated[float, msgspec.Meta(ge=-1e9, le=1e9)]


def new_run_id(clock: Clock, after: str = "") -> str:
    """A fresh run id: 16 hex digits, 44 bits of milliseconds and 20 random ones; above `after` whatever the clock says.

    So of two runs that hold one lane in turn the younger has the larger id, and a worker can tell left-over frames of
    an older run from those of a younger one, which are not its own to throw away.
    """
    fresh = (int(1000 * clock.wall()) << _RANDOM_BITS) + secrets.randbits(_RANDOM_BITS)
    return f"{max(fresh, int(after or '0', 16) + 1):016x}"


class Invocation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All that a worker is told when it starts; everything else it reads from the store.

    `plan` is the id of the plan, which ends in the digest of its partition; `batches` is the number of samples in each
    batch, in order. `settings` are those of the run, nothing in them left open; `run_seconds` is what is left of the
    run when this is sent. `lease` is the key of the lease of the run, which ends with it; empty if nobody holds one.
    """

    run: RunId
    rank: _Size
    lane: _Size
    plan: str
    batches: tuple[_Size, ...]
    settings: RunSettings
    run_seconds: _Seconds
    lease: str = ""

    def for_rank(self, rank: int, run_seconds: float | None = None) -> Invocation:
        """The same run for another rank, with what is left of the run by now."""
        left = self.run_seconds if run_seconds is None else run_seconds
        return msgspec.structs.replace(self, rank=rank, run_seconds=left)

    def to_json(self) -> bytes:
        return msgspec.json.encode(self)

    @classmethod
    def from_json(cls, data: bytes | str) -> Self:
        """Read what `to_json` wrote; `WireError` for anything else."""
        return from_json(data, cls, _not_an_invocation)

    @classmethod
    def from_event(cls, event: Any) -> Self:
        """As `from_json`, of JSON that a service has read already."""
        return converted(event, cls, _not_an_invocation)


def _not_an_invocation(reason: str) -> WireError:
    return WireError(f"not an invocation: {reason}")


class Exit(NamedTuple):
    """How a worker ended: `error` is None if it finished."""

    rank: int
    error: str | None


class Exits:
    """How the workers of the last runs ended; older runs are forgotten. Threads may call it at once."""

    def __init__(self, most_runs: int = 256) -> None:
        self._most, self._lock = most_runs, threading.Lock()
        self._of: dict[str, list[Exit]] = {}

    def add(self, run: str, ends: Iterable[Exit]) -> None:
        """Workers of the run have ended so."""
        with self._lock:
            self._of.setdefault(run, []).extend(ends)
            while len(self._of) > self._most:
                del self._of[next(iter(self._of))]

    def of(self, run: str) -> tuple[Exit, ...]:
        """What is known of the run."""
        with self._lock:
            return tuple(self._of.get(run, ()))


class Compute(ABC):
    """Starts workers.

    `invoke` starts one worker asynchronously and returns once the service has accepted the request; it does not
    wait for the worker, which may start late, or twice (services repeat), or die without a word. Starting the
    same (run, rank) twice does no harm: the second finds the first one's claim in the store and ends.

    The worker runs `fsdcore.worker.worker.run_worker` with this backend. `invoke` is called by the client for rank 0
    and by workers for the others, so every worker must be allowed to invoke.

    **Errors.** `ComputeError` if the service refuses; repeating is safe.
    """

    @property
    @abstractmethod
    def capabilities(self) -> ComputeCapabilities:
        """The limits of this service; does not change."""

    @abstractmethod
    def invoke(self, invocation: Invocation) -> None:
        """Start one worker."""

    def exits(self, run: str) -> Sequence[Exit]:
        """Workers of the run known to have ended so far. Only if `capabilities.reports_exit`."""
        return ()

    def cancel(self, run: str) -> None:  # noqa: B027 - not every service can
        """Stop what can be stopped of the run; the abort frames stop the rest."""

    def close(self) -> None:  # noqa: B027 - most hold nothing
        """Give back what the client of the service holds; workers that run are left alone."""


def children(rank: int, workers: int, branching: int) -> range:
    """The ranks that `rank` starts, in a tree of `workers` with the given fan-out."""
    first = rank * branching + 1
    return range(min(first, workers), min(first + branching, workers))


def start_children(compute: Compute, invocation: Invocation, end: Deadline, count: Callable[[str], None]) -> None:
    """Start the children of the invocation's rank for a run that ends at `end`; `count` is told of each call."""
    settings = invocation.settings
    for rank in children(invocation.rank, settings.workers, settings.branching):
        count("invocations")
        compute.invoke(invocation.for_rank(rank, end.remaining()))
