"""Data that came from outside, as the types they should be and no larger; or one error, whatever they are instead."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias, TypeVar

import msgspec

from fsdcore.errors import ConfigError, FsdError
from fsdcore.text import printable

_Kind = TypeVar("_Kind")
# Makes the error that says what was to be read, from the reason why it cannot be.
Refusal: TypeAlias = Callable[[str], FsdError]


def from_json(data: bytes | bytearray | memoryview | str, kind: type[_Kind], refusal: Refusal) -> _Kind:
    """`data` as `kind`; raises what `refusal` makes of the reason if they are no JSON, or JSON of something else."""
    with _refusing(refusal):
        return msgspec.json.decode(data, type=kind)


def from_toml(text: str, kind: type[_Kind], refusal: Refusal) -> _Kind:
    """As `from_json`, of TOML."""
    # Here, because workers read none.
    import tomllib

    with _refusing(refusal):
        return msgspec.convert(tomllib.loads(text), kind)


def converted(value: Any, kind: type[_Kind], refusal: Refusal, *, strict: bool = True) -> _Kind:
    """As `from_json`, of lists, tables, texts and numbers that something else has read.

    If not `strict`, text may stand for a number or a truth value.
    """
    with _refusing(refusal):
        return msgspec.convert(value, kind, strict=strict)


@contextmanager
def _refusing(refusal: Refusal) -> Iterator[None]:
    # Beside their own errors decoders raise those of Python for text that is no UTF-8, for numbers that are too long or
    # too large, and for what is nested without end.
    try:
        yield
    except RecursionError as error:
        raise refusal("it is nested too deep") from error
    except (msgspec.MsgspecError, ValueError, OverflowError) as error:
        raise refusal(printable(str(error))) from error


UNPACK_VARIABLE = "FSD_UNPACK_MB"
# What any file may become, and how many times its size; text and numbers shrink far less than that.
_BYTES, _RATIO = 256 << 20, 64


def unpack_limit(stored: int) -> int:
    """The most bytes that `stored` bytes may unpack to: 256 MiB or 64 times as many, whichever is more.

    ``FSD_UNPACK_MB`` in the environment takes their place; `ConfigError` if it is not a whole number of MiB.
    """
    given = os.environ.get(UNPACK_VARIABLE, "")
    if not given:
        return max(_BYTES, _RATIO * stored)
    if not re.fullmatch(r"[1-9][0-9]{0,9}", given):
        raise ConfigError(f"{UNPACK_VARIABLE} must be a whole number of MiB, 1 or more, not {given!r}")
    return int(given) << 20
