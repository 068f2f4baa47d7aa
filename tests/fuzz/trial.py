"""One input to one decoder, and what came of it."""

from __future__ import annotations

import signal
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TypeAlias

from fsdcore.errors import FsdError
from tests.fuzz import files, stored, travelling
from tests.fuzz.draws import Draws
from tests.fuzz.world import World

Decoder: TypeAlias = Callable[[World, Draws], None]

DECODERS: dict[str, Decoder] = {**travelling.DECODERS, **stored.DECODERS, **files.DECODERS}
# Of a file there are fewer inputs than of what travels, as each takes about a hundred times as long.
_SHARES = ((travelling.DECODERS, 8), (stored.DECODERS, 4), (files.DECODERS, 1))
_SECONDS = 5.0
_OURS = tuple(str(Path(__file__).parents[2] / folder) for folder in ("fsdcore", "backends"))


class Hang(BaseException):
    """A decoder took too long. Not an `Exception`, so that none takes it for one of its own."""


def share(decoder: str) -> int:
    """How many inputs it gets where another gets one."""
    return next(inputs for decoders, inputs in _SHARES if decoder in decoders)


def try_input(world: World, decoder: str, seed: int, number: int) -> str | None:
    """Give a decoder the input of that seed and number; what is wrong with what it did, None if nothing is.

    It may take the input, or raise an error of the framework whose text is one line; nothing else, and within 5 s.
    """
    draws = Draws(f"{seed} {decoder} {number}")
    try:
        with _hurried():
            DECODERS[decoder](world, draws)
    except FsdError as error:
        return f"more than one line: {error!r}" if "\n" in str(error) else None
    except (Exception, Hang) as error:  # noqa: BLE001 - what is looked for
        return f"{type(error).__name__} at {_place(error)}: {str(error)[:160]!r}"
    return None


@contextmanager
def _hurried() -> Iterator[None]:
    def hang(number: int, frame: FrameType | None) -> None:
        raise Hang(f"it took more than {_SECONDS:g} s")

    before = signal.signal(signal.SIGALRM, hang)
    signal.setitimer(signal.ITIMER_REAL, _SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _place(error: BaseException) -> str:
    """The last line of the project that the error passed."""
    ours = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.startswith(_OURS)]
    return f"{ours[-1].filename}:{ours[-1].lineno}" if ours else "a library"
