"""How much a small file or object may unpack to: readers look before they allocate."""

from __future__ import annotations

import os
import re

from fsdcore.errors import ConfigError

__all__ = ["UNPACK_VARIABLE", "unpack_limit"]

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
