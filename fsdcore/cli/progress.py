"""Progress bars, on a terminal only."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from fsdcore.cli.output import console, tell
from fsdcore.record.observer import Observer, Silent
from fsdcore.text import printable

__all__ = ["Bars", "watching"]


class Bars:
    """An observer that draws one bar per task, and takes it away when the task ends.

    Threads may call it at once, and out of order: a bar never goes back.
    """

    def __init__(self, drawn: Progress) -> None:
        self._drawn = drawn
        self._bars: dict[str, tuple[TaskID, int]] = {}
        self._lock = threading.Lock()

    def progress(self, task: str, done: int, total: int) -> None:
        """Move the bar of `task`."""
        with self._lock:
            bar, before = self._bars.get(task) or (self._drawn.add_task(printable(task), total=total), 0)
            if done >= total:
                self._drawn.remove_task(bar)
                self._bars.pop(task, None)
                return
            done = max(done, before)
            self._drawn.update(bar, completed=done, total=total)
            self._bars[task] = (bar, done)

    def notice(self, text: str) -> None:
        """Write the line above the bars."""
        self._drawn.console.print(Text(f"fsd: {printable(text)}"))


@contextmanager
def watching() -> Iterator[Observer]:
    """An observer for the block: bars on stderr if that is a terminal, only notices if it is not."""
    drawn_on = console(stderr=True)
    if not drawn_on.is_terminal:
        yield _Plain()
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=drawn_on, transient=True) as drawn:
        yield Bars(drawn)


class _Plain(Silent):
    """An observer that writes notices alone, a line each on stderr."""

    def notice(self, text: str) -> None:
        tell(text)
