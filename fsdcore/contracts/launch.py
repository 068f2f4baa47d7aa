"""The worker tree: rank r starts ranks r*b+1 .. r*b+b (paper, section III-D)."""

from __future__ import annotations

from collections.abc import Callable

from fsdcore.clock import Deadline
from fsdcore.contracts.compute import Compute, Invocation

__all__ = ["children", "start_children"]


def children(rank: int, workers: int, branching: int) -> range:
    """The ranks that `rank` starts, in a tree of `workers` with the given fan-out."""
    first = rank * branching + 1
    return range(min(first, workers), min(first + branching, workers))


def start_children(compute: Compute, invocation: Invocation, end: Deadline, count: Callable[[str], None]) -> None:
    """Start the children of the invocation's rank for a run that ends at `end`; `count` is told of each call."""
    for rank in children(invocation.rank, invocation.workers, invocation.branching):
        count("invocations")
        compute.invoke(invocation.for_rank(rank, end.remaining()))
