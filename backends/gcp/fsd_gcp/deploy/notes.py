"""What a deploy has to say besides its end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from fsdcore.errors import FsdError
from fsdcore.record.observer import Observer, notice

__all__ = ["Notes"]


class Notes:
    """Lines for the user, told at once: what they are about may be why the deploy does not come to its end."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self.told: list[str] = []

    def add(self, *lines: str) -> None:
        """Tell what is not empty."""
        for line in filter(None, lines):
            notice(self._observer, line)
            self.told.append(line)

    @contextmanager
    def kept(self) -> Iterator[None]:
        """A failure of the block says them, too."""
        try:
            yield
        except FsdError as error:
            error.message = "; ".join([error.message, *self.told])
            raise
