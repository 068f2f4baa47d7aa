"""Inputs in the style of the Graph Challenge, from real handwritten digits that come with scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import scipy.ndimage
import scipy.sparse as sp

from fsdcore.errors import InputError, MissingExtraError

__all__ = ["digits"]

_SMALLEST_SIDE = 8
# Grey is 0 to 16. At this level an eighth of the pixels are set; in the official inputs it is a tenth.
# Above it strokes break, and small pictures lose all.
_INK = 10.0
# Pictures enlarged at once: bounds the memory that large ones take.
_AT_ONCE = 64


def digits(samples: int, neurons: int, seed: int = 0) -> sp.csr_array:
    """`samples` pictures of handwritten digits, binary CSR float32 `(samples, neurons)`.

    `neurons` is the square of a side of 8 or more (1,024: 32 x 32 pixels). There are 1,797 digits, in an
    order given by `seed`; further samples are the same again, each shifted a little. `InputError` if a number
    does not fit, `MissingExtraError` without scikit-learn.
    """
    side = math.isqrt(max(neurons, 0))
    if side * side != neurons or side < _SMALLEST_SIDE:
        raise InputError(f"neurons must be the square of 8 or more (64, 256, 1024, ...), not {neurons}")
    if samples < 1:
        raise InputError(f"samples must be 1 or more, not {samples}")
    pictures = _pictures()
    which, shifts = _choose(samples, len(pictures), most=side // 16, seed=seed)
    used, place = np.unique(which, return_inverse=True)
    chosen = sp.csr_array(_binary(pictures[used], side)[place])
    by_entry = np.repeat(shifts @ np.array([side, 1]), np.diff(chosen.indptr))
    indices = (chosen.indices + by_entry).astype(np.int32)
    return sp.csr_array((chosen.data, indices, chosen.indptr), shape=(samples, neurons))


def _pictures() -> npt.NDArray[np.float64]:
    """The digits, grey 0 to 16, `(1797, 8, 8)`."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise MissingExtraError(
            "handwritten digits come with scikit-learn: pip install 'fsd-inference[demo]'"
        ) from error
    pictures: npt.NDArray[np.float64] = load_digits().images
    return pictures


def _choose(samples: int, pictures: int, most: int, seed: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Which picture each sample shows, and its shift (rows, columns): none in the first round."""
    random = np.random.default_rng(seed)
    rounds = -(-samples // pictures)
    orders = [random.permutation(pictures)]
    shifts = [np.zeros((pictures, 2), dtype=np.int64)]
    for _ in range(rounds - 1):
        orders.append(random.permutation(pictures))
        shifts.append(random.integers(-most, most, size=(pictures, 2), endpoint=True))
    return np.concatenate(orders)[:samples], np.concatenate(shifts)[:samples]


def _binary(pictures: npt.NDArray[np.float64], side: int) -> sp.csr_array:
    """The pictures enlarged into the middle of `side` x `side` pixels, the margin wider than every shift."""
    inner = side * 3 // 4
    margin = (side - inner) // 2
    parts = []
    for start in range(0, len(pictures), _AT_ONCE):
        grey = pictures[start : start + _AT_ONCE]
        large = scipy.ndimage.zoom(grey, (1, inner / 8, inner / 8), order=1, mode="nearest", grid_mode=True)
        framed = np.zeros((len(grey), side, side), dtype=np.float32)
        framed[:, margin : margin + inner, margin : margin + inner] = large >= _INK
        parts.append(sp.csr_array(framed.reshape(len(grey), side * side)))
    return sp.csr_array(sp.vstack(parts, format="csr"))
