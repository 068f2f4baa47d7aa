"""Inputs, outputs and categories as files."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from fsdcore.errors import FormatError, InputError
from fsdcore.files import PathLike, first_line, replacing, write_text
from fsdcore.formats.files import MOST_NEURONS, Archive, check_csr, read_array
from fsdcore.formats.tsv import Axis, read_indices, read_triples
from fsdcore.network import as_inputs

__all__ = ["load_categories", "load_inputs", "save_categories", "save_outputs"]

_ZIP = b"PK\x03\x04"


def load_inputs(path: PathLike, neurons: int | None = None, samples: int | None = None) -> sp.csr_array:
    """Inputs as CSR float32 `(samples, neurons)`, by the ending of the name:

    - ``.tsv``, ``.tsv.gz``: lines of ``sample<TAB>neuron<TAB>value`` from 1, as in the Graph Challenge;
      `neurons` must be given, and `samples` if the last ones are all zero (they have no line)
    - ``.npz``: a matrix saved by `scipy.sparse.save_npz` as CSR or CSC; without ``data`` every value is 1
    - ``.npy``: a dense array

    `neurons` and `samples`, where given, must fit. `FormatError` names the file, and the line of a TSV;
    pickles are never read.
    """
    file = os.fspath(path)
    reader = _reader(file)
    try:
        inputs = reader(file, neurons, samples)
        matrix = as_inputs(inputs, inputs.shape[1] if neurons is None else neurons)
    except FormatError:
        raise
    except InputError as error:
        raise FormatError(error.message, file=file) from error
    except OSError as error:
        raise FormatError(f"cannot be read: {first_line(error)}", file=file) from error
    if samples is not None and matrix.shape[0] != samples:
        raise FormatError(f"there are {matrix.shape[0]} samples, {samples} were asked for", file=file)
    return matrix


def save_outputs(path: PathLike, outputs: Any) -> None:
    """Write outputs `(samples, neurons)`, sparse or dense, as float32: ``.npz`` sparse, ``.npy`` dense."""
    file = os.fspath(path)
    ending = Path(file).suffix
    if ending not in (".npz", ".npy"):
        raise FormatError(f"outputs are written as .npz (sparse) or .npy (dense), not {ending!r}", file=file)
    matrix = _matrix(outputs, sparse=ending == ".npz")
    # Open for reading as well: to a file that is not, numpy writes by a way that does not say why it fails.
    with replacing(file) as temporary, open(temporary, "r+b") as stream:
        if isinstance(matrix, np.ndarray):
            np.save(stream, matrix, allow_pickle=False)
        else:
            sp.save_npz(stream, matrix)


def _matrix(outputs: Any, sparse: bool) -> sp.csr_array | npt.NDArray[np.float32]:
    toarray = getattr(outputs, "toarray", None)
    matrix: sp.csr_array | npt.NDArray[np.float32]
    try:
        if sparse:
            matrix = sp.csr_array(outputs, dtype=np.float32)
        else:
            matrix = np.asarray(outputs if toarray is None else toarray(), dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise InputError(f"outputs must be a matrix of numbers: {first_line(error)}") from error
    if matrix.ndim != 2:
        raise InputError(f"outputs must have 2 dimensions (samples, neurons), not {matrix.ndim}")
    return matrix


def load_categories(path: PathLike) -> npt.NDArray[np.int64]:
    """The samples a categories file names (from 1, one a line), 0-based, int64, in the order of the file."""
    return read_indices(path, Axis("sample"))


def save_categories(path: PathLike, categories: npt.ArrayLike) -> None:
    """Write 0-based sample numbers in the official form: one a line, from 1."""
    numbers = np.asarray(categories)
    numbers = numbers.astype(np.int64) if numbers.size == 0 else numbers
    if numbers.ndim != 1 or numbers.dtype.kind not in "iu" or (numbers.size and numbers.min() < 0):
        raise InputError("categories must be one row of sample numbers, 0 or more")
    write_text(path, "".join(f"{number + 1}\n" for number in numbers.tolist()))


def _tsv(file: str, neurons: int | None, samples: int | None) -> sp.csr_array:
    if neurons is None:
        raise InputError("a TSV does not say how many neurons a sample has: give `neurons`")
    most = MOST_NEURONS if samples is None else samples
    lines = read_triples(file, Axis("sample", most), Axis("neuron", neurons))
    count = int(lines.first.max()) + 1 if samples is None else samples
    if samples is None and count > 1_000_000 + 100 * lines.first.size:
        # One stray number must not make gigabytes of empty samples.
        raise InputError(f"sample {count} in a file of {lines.first.size} lines: give `samples` if meant")
    places = (lines.first.astype(np.int32), lines.second.astype(np.int32))
    return sp.csr_array((lines.values, places), shape=(count, neurons))


def _npy(file: str, neurons: int | None, samples: int | None) -> npt.NDArray[np.float32]:
    del neurons, samples
    with open(file, "rb") as stream:
        _check_start(stream.read(len(_ZIP)), zipped=False)
        stream.seek(0)
        loaded = read_array(stream, os.fstat(stream.fileno()).st_size)
    if loaded.ndim != 2:
        raise InputError(f"inputs must have 2 dimensions (samples, neurons), not {loaded.ndim}")
    return _floats(loaded)


def _npz(file: str, neurons: int | None, samples: int | None) -> sp.csr_array:
    del neurons, samples
    with open(file, "rb") as stream:
        _check_start(stream.read(len(_ZIP)), zipped=True)
    with Archive(file) as arrays:
        return _sparse(arrays)


def _check_start(start: bytes, zipped: bool) -> None:
    """`InputError` if the file is of the other kind: both are numpy's, and easily confused."""
    if zipped and start == np.lib.format.MAGIC_PREFIX[: len(_ZIP)]:
        raise InputError("is one array, not an archive of arrays: its name should end in .npy")
    if not zipped and start == _ZIP:
        raise InputError("is an archive of arrays, not one array: its name should end in .npz")


def _sparse(arrays: Archive) -> sp.csr_array:
    kind = _kind(arrays)
    missing = [name for name in ("indptr", "indices", "shape") if name not in arrays]
    if missing:
        raise InputError(f"has no array {missing[0]!r}: write it with scipy.sparse.save_npz")
    shape, indptr, indices = _shape(arrays["shape"]), arrays["indptr"], arrays["indices"]
    check_csr(indptr, indices, shape if kind == "csr" else shape[::-1])
    data = _floats(arrays["data"]) if "data" in arrays else np.ones(indices.size, dtype=np.float32)
    if data.shape != indices.shape:
        raise InputError(f"data has shape {data.shape}, indices has {indices.shape}")
    build = sp.csr_array if kind == "csr" else sp.csc_array
    parts = (data, indices.astype(np.int32, copy=False), indptr.astype(np.int64, copy=False))
    return sp.csr_array(build(parts, shape=shape))


_READERS: dict[str, Callable[[str, int | None, int | None], Any]] = {
    ".tsv": _tsv,
    ".tsv.gz": _tsv,
    ".npz": _npz,
    ".npy": _npy,
}


def _reader(file: str) -> Callable[[str, int | None, int | None], Any]:
    for ending, reader in _READERS.items():
        if file.endswith(ending):
            return reader
    raise FormatError(f"inputs are read from {', '.join(_READERS)}; the name ends in none of them", file=file)


def _kind(arrays: Archive) -> str:
    """Which sparse format the archive holds; CSR if it does not say."""
    tag = arrays["format"].tolist() if "format" in arrays else "csr"
    kind = tag.decode("ascii", "replace") if isinstance(tag, bytes) else str(tag)
    if kind not in ("csr", "csc"):
        raise InputError(f"the sparse format is {kind[:20]!r}: save the matrix as csr or csc")
    return kind


def _shape(array: npt.NDArray[Any]) -> tuple[int, int]:
    if array.shape != (2,) or array.dtype.kind not in "iu":
        raise InputError(f"shape must be 2 whole numbers, not {array.dtype} of shape {array.shape}")
    return int(array[0]), int(array[1])


def _floats(array: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    if array.dtype.kind not in "biuf":
        raise InputError(f"values must be real numbers, not {array.dtype}")
    with np.errstate(over="ignore"):
        return array.astype(np.float32, copy=False)
