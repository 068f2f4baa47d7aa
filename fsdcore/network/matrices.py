"""Matrices as callers hand them over: checked before any native code sees them, and brought into one form.

scipy does not check the indices of what it is given, and then reads and writes outside its arrays; numpy takes masked
arrays, dates and strings for numbers. Whatever comes from outside passes here.
"""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from fsdcore.arrays import Float32s
from fsdcore.errors import FsdError, InputError

_Parts: TypeAlias = tuple[Float32s, npt.NDArray[Any], npt.NDArray[Any]]

# Indices are int32 everywhere.
MOST_NEURONS = 2**31 - 1
# What numpy, scipy and the objects that are handed over raise when they cannot be read as numbers.
_UNREADABLE = (TypeError, ValueError, RuntimeError, AttributeError, LookupError, OverflowError, BufferError)


def as_csr(matrix: Any, what: str, axes: str, finite: bool = True) -> sp.csr_array:
    """`matrix`, sparse or dense, as CSR float32 with int32 indices, sorted, no duplicates, no stored zeros.

    Arrays that fit are not copied. `InputError`, which begins with `what`, if it is no matrix of real numbers, its
    structure is not sound, or (if `finite`) a value is not finite in float32.
    """
    parts = _sparse(matrix, what, axes) if sp.issparse(matrix) else _dense(matrix, what, axes)
    if not parts.has_canonical_format or np.count_nonzero(parts.data) != parts.nnz:
        parts = parts.copy()
        with np.errstate(over="ignore"):
            parts.sum_duplicates()
        parts.eliminate_zeros()
    if finite and not np.isfinite(parts.data).all():
        raise InputError(f"{what} must be finite: there is a NaN or an infinity")
    parts.indices = parts.indices.astype(np.int32, copy=False)
    parts.indptr = parts.indptr.astype(np.int32 if parts.nnz < 2**31 else np.int64, copy=False)
    return parts


def as_floats(values: Any, what: str) -> Float32s:
    """Dense numbers as a float32 array of any shape; what is too large for it is an infinity. `InputError` if not."""
    if _is_masked(values):
        raise InputError(f"{what} must not be masked: say what the masked values are, for example with .filled(0)")
    try:
        array = np.asarray(values)
    except _UNREADABLE as error:
        raise InputError(f"{what} cannot be read as numbers: {_first_line(error)}") from error
    return _to_float32(array, values, what)


def as_whole(value: Any, what: str, low: int, high: int, kind: type[FsdError] = InputError) -> int:
    """A whole number from `low` to `high`, numpy's as well; `kind` if it is none."""
    if isinstance(value, bool) or not isinstance(value, Integral) or not low <= int(value) <= high:
        raise kind(f"{what} must be {low} to {high}, not {value!r}")
    return int(value)


def _is_masked(values: Any) -> bool:
    rows = values if isinstance(values, list | tuple) else ()
    return isinstance(values, np.ma.MaskedArray) or any(isinstance(row, np.ma.MaskedArray) for row in rows)


def _to_float32(array: npt.NDArray[Any], given: Any, what: str) -> Float32s:
    # Kinds of other packages, such as bfloat16, say by this that they are numbers.
    if array.dtype.kind not in "biuf" and not (array.dtype.kind == "V" and np.can_cast(array.dtype, np.float32)):
        raise InputError(f"{what} must be real numbers, not {_described(array, given)}")
    with np.errstate(over="ignore"):
        return array.astype(np.float32, copy=False)


def _described(array: npt.NDArray[Any], given: Any) -> str:
    if isinstance(given, str | bytes | Path):
        return f"the {type(given).__name__} {str(given)[:60]!r}; a file is read with load_inputs or load_network"
    if array.ndim == 0:
        return type(given).__name__
    return f"{array.dtype}" + ("; lists must be of one length" if array.ndim == 1 and array.dtype == object else "")


def _dense(matrix: Any, what: str, axes: str) -> sp.csr_array:
    array = as_floats(matrix, what)
    if array.ndim != 2:
        raise InputError(f"{what} must have 2 dimensions {axes}, not {array.ndim}")
    _check_shape(array.shape, what)
    return sp.csr_array(array)


def _sparse(matrix: Any, what: str, axes: str) -> sp.csr_array:
    try:
        if matrix.ndim != 2:
            raise InputError(f"{what} must have 2 dimensions {axes}, not {matrix.ndim}")
        if any(isinstance(part, np.ma.MaskedArray) for part in _sources(matrix)):
            raise InputError(f"{what} must not be masked: say what the masked values are, for example with .filled(0)")
        _check_shape(matrix.shape, what)
        return _by_format(matrix, what)
    except InputError as error:
        if error.message.startswith(what):
            raise
        raise InputError(f"{what} cannot be used: {error.message}") from error
    except _UNREADABLE as error:
        raise InputError(f"{what} cannot be read as a sparse matrix: {_first_line(error)}") from error


def _by_format(matrix: Any, what: str) -> sp.csr_array:
    rows, columns = (int(size) for size in matrix.shape)
    if matrix.format in ("csr", "csc"):
        return _compressed(matrix, (rows, columns), what)
    if matrix.format == "bsr":
        return _blocks(matrix, (rows, columns), what)
    found = _entries(matrix)
    places = [checked_places(*each) for each in zip(found.coords, (rows, columns), strict=True)]
    data = _values(found.data, (places[0].size,), what)
    if places[1].size != places[0].size:
        raise InputError(f"there are {places[0].size} rows and {places[1].size} columns of values")
    return sp.csr_array(sp.coo_array((data, tuple(places)), shape=(rows, columns)))


def _entries(matrix: Any) -> Any:
    """A matrix of another format as what has `coords` and `data`, by numpy alone: scipy converts without a look."""
    if matrix.format == "dia":
        return undiagonal(matrix)
    if matrix.format == "lil":
        return _of_lists(matrix)
    if matrix.format == "dok":
        keys = np.array(list(matrix.keys())).reshape(-1, 2) if len(matrix.keys()) else np.zeros((0, 2), np.int64)
        return _Entries((keys[:, 0], keys[:, 1]), np.array(list(matrix.values())))
    return matrix.tocoo()


class _Entries(NamedTuple):
    coords: tuple[npt.NDArray[Any], npt.NDArray[Any]]
    data: npt.NDArray[Any]


def _of_lists(matrix: Any) -> _Entries:
    """A matrix of lists, one of columns and one of values for each row."""
    columns, values = list(matrix.rows), list(matrix.data)
    lengths = [len(row) for row in columns]
    if len(columns) != matrix.shape[0] or lengths != [len(row) for row in values]:
        raise InputError(f"its lists must be {matrix.shape[0]} of columns and as many, as long, of values")
    column, value = (np.array([one for row in rows for one in row]) for rows in (columns, values))
    column = column if column.size else np.zeros(0, np.int64)
    return _Entries((np.repeat(np.arange(len(lengths)), lengths), column), value)


def _compressed(matrix: Any, shape: tuple[int, int], what: str) -> sp.csr_array:
    indptr, indices = np.asarray(matrix.indptr), np.asarray(matrix.indices)
    by_row = matrix.format == "csr"
    check_csr(indptr, indices, shape if by_row else shape[::-1])
    data = _values(matrix.data, indices.shape, what)
    build = sp.csr_array if by_row else sp.csc_array
    return sp.csr_array(build((data, indices, indptr), shape=shape))


def _blocks(matrix: Any, shape: tuple[int, int], what: str) -> sp.csr_array:
    data, indptr, indices = np.asarray(matrix.data), np.asarray(matrix.indptr), np.asarray(matrix.indices)
    if data.ndim != 3 or 0 in data.shape[1:] or shape[0] % data.shape[1] or shape[1] % data.shape[2]:
        raise InputError(f"blocks of shape {data.shape[1:]} do not divide the shape {shape}")
    check_csr(indptr, indices, (shape[0] // data.shape[1], shape[1] // data.shape[2]))
    values = _values(data, (indices.size, *data.shape[1:]), what)
    return sp.csr_array(sp.bsr_array((values, indices, indptr), shape=shape))


def undiagonal(matrix: Any) -> sp.coo_array:
    """A matrix of diagonals, as the values in it that are not zero.

    By hand: scipy goes through CSR, and makes room for as many values and rows as the shape claims.
    """
    data, offsets, (rows, columns) = np.asarray(matrix.data), np.asarray(matrix.offsets), matrix.shape
    if offsets.ndim != 1 or offsets.dtype.kind not in "iu":
        raise InputError(f"offsets must be a row of integers, not {offsets.dtype} of shape {offsets.shape}")
    if offsets.size and not (int(offsets.min()) >= -MOST_NEURONS and int(offsets.max()) <= MOST_NEURONS):
        raise InputError(f"offsets must be {-MOST_NEURONS} to {MOST_NEURONS}")
    if data.shape[:1] != offsets.shape or data.ndim != 2:
        raise InputError(f"data has shape {data.shape}, there are {offsets.size} offsets")
    column = np.arange(data.shape[1])
    row = column - offsets.astype(np.int64)[:, np.newaxis]
    held = (row >= 0) & (row < rows) & (column < columns) & (data != 0)
    places = (row[held], np.broadcast_to(column, row.shape)[held])
    return sp.coo_array((data[held], places), shape=(rows, columns))


def _values(data: Any, shape: tuple[int, ...], what: str) -> Float32s:
    array = np.asarray(data)
    if array.shape != shape:
        raise InputError(f"data has shape {array.shape}, its places are of shape {shape}")
    return _to_float32(array, data, what)


def checked_places(places: Any, size: int) -> npt.NDArray[Any]:
    """The places of values along an axis of that size; `InputError` unless they are whole numbers below it."""
    array = np.asarray(places)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise InputError(f"places must be a row of integers, not {array.dtype} of shape {array.shape}")
    _check_range("places", array, size)
    return array


def _check_shape(shape: Sequence[Any], what: str) -> None:
    if not all(0 <= size <= MOST_NEURONS for size in shape):
        raise InputError(f"{what} has shape {tuple(shape)}: sizes are 0 to {MOST_NEURONS}")


def check_csr(indptr: npt.NDArray[Any], indices: npt.NDArray[Any], shape: tuple[int, int]) -> None:
    """`InputError` unless `indptr` and `indices` are a CSR structure of that shape."""
    rows, columns = shape
    if not (0 <= rows <= MOST_NEURONS and 0 <= columns <= MOST_NEURONS):
        raise InputError(f"the shape ({rows}, {columns}) is out of range: sizes are 0 to {MOST_NEURONS}")
    for name, array in (("indptr", indptr), ("indices", indices)):
        if array.ndim != 1 or array.dtype.kind not in "iu":
            raise InputError(f"{name} must be one row of integers, not {array.dtype} of shape {array.shape}")
    _check_indptr(indptr, rows, indices.size)
    _check_range("indices", indices, columns)


def _check_range(name: str, places: npt.NDArray[Any], size: int) -> None:
    if places.size and not (places.min() >= 0 and places.max() < size):
        raise InputError(f"{name} must be 0 to {size - 1}, they are {places.min()} to {places.max()}")


def _check_indptr(indptr: npt.NDArray[Any], rows: int, entries: int) -> None:
    if indptr.size != rows + 1:
        raise InputError(f"indptr has {indptr.size} numbers, {rows} rows need {rows + 1}")
    if indptr[0] != 0 or indptr[-1] != entries:
        raise InputError(f"indptr must go from 0 to {entries}, it goes from {indptr[0]} to {indptr[-1]}")
    falls = np.flatnonzero(indptr[1:] < indptr[:-1])
    if falls.size:
        raise InputError(f"indptr must never fall, it does after row {falls[0]}")


def _sources(given: Any) -> list[Any]:
    """What a sparse matrix is made of."""
    names = ("data", "indices", "indptr", "offsets", "coords", "row", "col")
    found = [getattr(given, name, None) for name in names]
    return [part for one in found for part in (one if isinstance(one, tuple) else (one,)) if part is not None]


def frozen(array: npt.NDArray[Any], given: Any) -> npt.NDArray[Any]:
    """`array`, which was made of `given`, read-only, on memory to which nobody who has `given` can write."""
    sources = _sources(given) if sp.issparse(given) else [given]
    # What is no array, a view of memory or a tensor, may still share it.
    shared = any(np.may_share_memory(array, np.asarray(each)) for each in sources)
    if shared and not _is_frozen(array):
        array = array.copy()
    array.setflags(write=False)
    return array


def _is_frozen(array: Any) -> bool:
    while isinstance(array, np.ndarray):
        if array.flags.writeable:
            return False
        array = array.base
    return array is None or isinstance(array, bytes)


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0].strip() if str(error).strip() else type(error).__name__
