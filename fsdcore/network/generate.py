"""Networks with the structure of the Graph Challenge (RadiX-Net), of any depth and many sizes.

With N neurons there are B = log2(N / 16) base layers. Base layer j joins input i to the outputs
``(i + {0, -2^j} + (N / 16) m) mod N`` for m = 0..15: 32 a neuron. The first B layers are these; every later
block of B layers is these again, their inputs renumbered by one random permutation per block.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import count, islice
from numbers import Integral

import numpy as np
import numpy.typing as npt
import scipy.ndimage
import scipy.sparse as sp

from fsdcore.arrays import Int32s
from fsdcore.errors import InputError, MissingExtraError
from fsdcore.network.formats.graph_challenge import ACTIVATION, official_bias
from fsdcore.network.matrices import MOST_NEURONS, as_floats, as_whole
from fsdcore.network.network import Layer, Network
from fsdcore.record.observer import SILENT, Observer

_FEWEST, _MOST = 64, 65536
_CONNECTIONS = 32
_WEIGHT = 1 / 16
_BIAS_OF_SMALL = -0.3


def radixnet(
    neurons: int,
    layers: int,
    seed: int = 0,
    bias: float | None = None,
    observer: Observer = SILENT,
) -> Network:
    """`layers` layers of `neurons` neurons, each with 32 connections of 1/16 and a ReLU clipped at 32.

    `neurons` is a power of two, 64 to 65536. `bias` is the official one of that size (-0.3 below 1,024)
    unless given; sizes between the official ones need it. The same `seed` gives the same network. The first
    log2(neurons / 16) layers do not depend on it; for 1,024 neurons they equal the official ones.
    `InputError` if a number does not fit.
    """
    if not isinstance(neurons, Integral) or neurons not in {2**power for power in range(6, 17)}:
        raise InputError(f"neurons must be a power of two from {_FEWEST} to {_MOST}, not {neurons!r}")
    neurons, layers = int(neurons), as_whole(layers, "layers", 1, MOST_NEURONS)
    # One array for all layers: their values, row ends and biases are the same.
    data = np.full(neurons * _CONNECTIONS, _WEIGHT, dtype=np.float32)
    indptr = np.arange(0, data.size + 1, _CONNECTIONS, dtype=np.int32)
    biases = np.full(neurons, as_floats(_bias(neurons) if bias is None else bias, "bias"), dtype=np.float32)
    for shared in (data, indptr, biases):
        # Or each layer would make a copy of its own.
        shared.setflags(write=False)
    made = []
    for number, inputs in enumerate(islice(_structures(neurons, seed), layers), start=1):
        weights = sp.csr_array((data, inputs.reshape(-1), indptr), shape=(neurons, neurons))
        made.append(Layer(weights, biases, ACTIVATION))
        observer.progress("generate layers", number, layers)
    return Network(made, name=f"radixnet-{neurons}x{layers}")


def _bias(neurons: int) -> float:
    return _BIAS_OF_SMALL if neurons < 1024 else official_bias(neurons)


def _structures(neurons: int, seed: int) -> Iterator[Int32s]:
    """The inputs of each output, ascending, int32 `(neurons, 32)`, layer after layer without end."""
    base = list(_base(neurons))
    random = np.random.default_rng(seed)
    yield from base
    for _ in count():
        renumbered = random.permutation(neurons).astype(np.int32)
        for structure in base:
            yield np.sort(renumbered[structure], axis=1)


def _base(neurons: int) -> Iterator[Int32s]:
    sixteenth = neurons // 16
    outputs = np.arange(neurons, dtype=np.int32)[:, None]
    multiples = sixteenth * np.arange(16, dtype=np.int32)
    for j in range(sixteenth.bit_length() - 1):
        steps = np.concatenate([multiples, multiples + 2**j])
        yield np.sort((outputs + steps) % neurons, axis=1).astype(np.int32, copy=False)


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
