"""The compiled kernel refuses what would make it read or write where it must not."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.usefixtures("native")

STARTS = np.array([0, 2, 3], np.int64)
INDICES = np.array([0, 2, 1], np.int32)
DATA = np.ones(3, np.float32)
ORDER = np.array([1, 0], np.int32)


def ints(*values: int) -> Any:
    return np.array(values, np.int32)


def longs(*values: int) -> Any:
    return np.array(values, np.int64)


def floats(size: int) -> Any:
    return np.zeros(size, np.float32)


BLOCKS = {
    "index too large": (STARTS, ints(0, 3, 1), DATA, ORDER, 3),
    "index below zero": (STARTS, ints(0, -1, 1), DATA, ORDER, 3),
    "starts beyond": (longs(0, 2, 4), INDICES, DATA, ORDER, 3),
    "starts fall": (longs(0, 4, 3), INDICES, DATA, ORDER, 3),
    "starts below zero": (longs(-1, 2, 3), INDICES, DATA, ORDER, 3),
    "starts too few": (longs(0, 3), INDICES, DATA, ORDER, 3),
    "no starts": (longs(), INDICES, DATA, ints(), 3),
    "data too few": (STARTS, INDICES, floats(2), ORDER, 3),
    "a row twice": (STARTS, INDICES, DATA, ints(0, 0), 3),
    "a row beyond": (STARTS, INDICES, DATA, ints(0, 2), 3),
    "a row below zero": (STARTS, INDICES, DATA, ints(0, -1), 3),
    "width below zero": (STARTS, INDICES, DATA, ORDER, -1),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_blocks_that_lie_are_refused(name: str) -> None:
    from fsdcore.kernels import _native

    with pytest.raises(ValueError, match="not a sound block"):
        _native.block(*BLOCKS[name])


def call(**changes: Any) -> None:
    """A sound call, but for the changes."""
    from fsdcore.kernels import _native

    given: dict[str, Any] = {
        "x": floats(3 * 20), "x_tile": 20, "x_lanes": 20, "lane_of": np.arange(32, dtype=np.int32) % 20,
        "number_of": ints(),
        "z": floats(2 * 32), "tile": 16, "lanes": 32, "bias": floats(2), "activation": 1,
        "live": np.zeros(32, np.uint8), "threads": 2, "chunks": 2, "scratch": floats(3 * 32),
    } | changes  # fmt: skip
    _native.multiply(
        _native.block(STARTS, INDICES, DATA, ORDER, 3),
        (given["x"], given["x_tile"], given["x_lanes"], given["lane_of"], given["number_of"]),
        (given["z"], given["tile"], given["lanes"], False),
        (given["bias"], given["activation"], 0.0, given["live"]),
        (given["threads"], given["chunks"], given["scratch"]),
    )


CALLS: dict[str, dict[str, Any]] = {
    "x too small": {"x": floats(59)},
    "lanes of x beyond": {"x_lanes": 21},
    "a lane beyond": {"lane_of": np.full(32, 20, np.int32)},
    "a lane below": {"lane_of": np.full(32, -2, np.int32)},
    "lanes too few": {"lane_of": ints(1)},
    "numbers too few": {"number_of": ints(0, 1)},
    "a number beyond": {"number_of": ints(0, 3, 1)},
    "a number below zero": {"number_of": ints(0, -1, 1)},
    "numbers over several tiles": {"number_of": ints(0, 1, 2), "x_tile": 16},
    "numbers of its own lanes": {
        "x": floats(3 * 32),
        "x_tile": 16,
        "x_lanes": 32,
        "lane_of": ints(),
        "number_of": ints(0, 1, 2),
    },
    "its own lanes, of another shape": {"lane_of": ints()},
    "z too small": {"z": floats(63)},
    "tile of no width": {"tile": 0},
    "tile too wide": {"tile": 80},
    "tile uneven": {"tile": 20},
    "lanes uneven": {"lanes": 30},
    "lanes below zero": {"lanes": -16},
    "bias too small": {"bias": floats(1)},
    "marks too few": {"live": np.zeros(31, np.uint8)},
    "unknown activation": {"activation": 9},
    "no thread": {"threads": 0},
    "too many threads": {"threads": 65},
    "no chunks": {"chunks": 0},
    "scratch too small for all tiles": {"scratch": floats(3 * 32 - 1)},
    "scratch too small for each thread": {"chunks": 1, "threads": 3, "scratch": floats(3 * 48 - 1)},
}


def test_the_sound_call_is_taken() -> None:
    call()
    call(chunks=1000)


@pytest.mark.parametrize("name", CALLS)
def test_arrays_that_do_not_fit_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="do not fit"):
        call(**CALLS[name])


SAMPLES: dict[str, tuple[Any, ...]] = {
    "row beyond": (longs(0, 1), ints(3), floats(1)),
    "row below zero": (longs(0, 1), ints(-1), floats(1)),
    "starts beyond": (longs(0, 2), ints(0), floats(1)),
    "values too few": (longs(0, 2), ints(0, 1), floats(1)),
    "no starts": (longs(), ints(), floats(0)),
}


@pytest.mark.parametrize("name", SAMPLES)
def test_samples_that_lie_are_refused(name: str) -> None:
    from fsdcore.kernels import _native

    made = _native.block(STARTS, INDICES, DATA, ORDER, 3)
    lane_of = np.full(16, -1, np.int32)
    with pytest.raises(ValueError, match="do not fit"):
        _native.multiply_samples(
            made,
            (*SAMPLES[name], lane_of),
            (floats(2 * 16), 16, 16, False),
            (floats(2), 0, 0.0, np.zeros(16, np.uint8)),
            (1, 1, floats(3 * 16)),
        )


def test_rows_and_lanes_beyond_are_refused() -> None:
    from fsdcore.kernels import _native

    x = (floats(3 * 16), 3, 16, 16)
    for picked, lane_of in ((ints(3), ints(0)), (ints(-1), ints(0)), (ints(0), ints(16)), (ints(0, 0), ints(1, 0))):
        with pytest.raises(ValueError, match="do not fit"):
            _native.take(x, picked, lane_of, floats(picked.size * lane_of.size))
    with pytest.raises(ValueError, match="do not fit"):
        _native.move(x, np.full(16, 16, np.int32), (floats(3 * 16), 16, 16))
    with pytest.raises(ValueError, match="not sound"):
        _native.turn((longs(0, 1), ints(5), floats(1)), (longs(0, 0), ints(0), floats(1)))


def test_only_instruction_sets_that_are_there_are_used() -> None:
    from fsdcore.kernels import _native

    assert not _native.use("mmx")
    assert _native.use("portable")
    assert _native.instructions() == "portable"


def test_answers_that_are_none_are_counted() -> None:
    """By what counts references to it; from 3.12 on nothing does."""
    from fsdcore.kernels import _native

    starts, rows, values = np.zeros(3, np.int64), ints(), floats(0)
    before = sys.getrefcount(None)
    for _ in range(1_000):
        _native.turn((STARTS * 0, ints(), floats(0)), (starts, rows, values))
    assert sys.getrefcount(None) > before - 500
