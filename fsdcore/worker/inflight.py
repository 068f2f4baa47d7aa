"""Several batches under way in one worker: while the frames of one travel, another is computed.

Batches share the worker's one thread, so nothing they hold needs a lock. The oldest that can go on does, so each ends
as soon as it can, and a batch is begun when all that are under way wait. What a batch computes does not depend on the
others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeAlias

from fsdcore.messages.messenger import Awaited, Messenger

__all__ = ["Steps", "run_in_flight"]

Steps: TypeAlias = Iterator[Awaited]


def run_in_flight(batches: Iterable[Callable[[], Steps]], most: int, messenger: Messenger | None) -> None:
    """Run every batch to its end, `most` of them at once; each gives what it must wait for, then goes on.

    What a batch raises ends all; `DeadlineError` if all wait and the time of one is over.
    """
    fresh = iter(batches)
    waits: dict[Steps, Awaited] = {}
    while True:
        steps = _able(waits, messenger)
        if steps is None and len(waits) < most:
            begin = next(fresh, None)
            steps = begin() if begin is not None else None
        if steps is None:
            if not waits or messenger is None:
                return
            messenger.wait_any(list(waits.values()))
            continue
        awaited = next(steps, None)
        if awaited is None:
            waits.pop(steps, None)
        else:
            waits[steps] = awaited


def _able(waits: dict[Steps, Awaited], messenger: Messenger | None) -> Steps | None:
    """The oldest batch whose message is there."""
    if messenger is None:
        return None
    return next((steps for steps, awaited in waits.items() if messenger.arrived(awaited)), None)
