"""What asks a command to end: Ctrl-C, SIGTERM and SIGHUP, which a closed terminal sends."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, TypeAlias

_Handler: TypeAlias = Callable[[int, FrameType | None], Any]


def requests_to_end() -> list[signal.Signals]:
    """SIGTERM and, where there is such, SIGHUP; not what the parent, as nohup does, has this process ignore."""
    known = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    return [number for number in known if signal.getsignal(number) is not signal.SIG_IGN]


@contextmanager
def handling(numbers: list[signal.Signals], handler: _Handler) -> Iterator[None]:
    """Have `handler` called for these signals in the block. Only the main thread may; in another that is nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, former)


@contextmanager
def ending_like_ctrl_c() -> Iterator[None]:
    """In the block the first request to end raises `KeyboardInterrupt`, with its number.

    Those after it are ignored, since services and terminals send several: what was begun is cleaned up in peace. A
    second Ctrl-C ends that as well.
    """
    numbers = requests_to_end()

    def stop(number: int, frame: FrameType | None) -> None:
        del frame
        for each in numbers:
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt(number)

    with handling(numbers, stop):
        yield


@contextmanager
def running_workers() -> Iterator[None]:
    """A run, which tells its workers to stop when it is stopped: the user is told so, too."""
    try:
        yield
    except KeyboardInterrupt as error:
        error.add_note("all workers were told to stop")
        raise


def exit_code(error: KeyboardInterrupt) -> int:
    """What a shell expects of a process that ended for a signal."""
    return 128 + int(error.args[0] if error.args else signal.SIGINT)
