"""Inputs, outputs and categories as files."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from fsdcore.decoding import unpack_limit
from fsdcore.errors import FormatError, InputError
from fsdcore.files import PathLike, first_line, replacing, write_text
from fsdcore.network.formats.files import UNREADABLE, Archive, read_array, read_bytes, too_much
from fsdcore.network.formats.tsv import Axis, read_indices, read_triples
from fsdcore.network.matrices import MOST_NEURONS, as_csr, as_floats, as_whole, check_csr, checked_places, undiagonal
from fsdcore.network.network import as_inputs

_Arrays: TypeAlias = Mapping[str, npt.NDArray[Any]]

# What the files of numpy begin with: an archive, and an array.
_ZIP, _ARRAY = b"PK\x03\x04", b"\x93NUM"


def load_inputs(path: PathLike, neurons: int | None = None, samples: int | None = None) -> sp.csr_array:
    """Inputs as CSR float32 `(samples, neurons)`, by the ending of the name:

    - ``.tsv``, ``.tsv.gz``: lines of ``sample<TAB>neuron<TAB>value`` from 1, as in the Graph Challenge;
      `neurons` must be given, and `samples` if the last ones are all zero (they have no line)
    - ``.npz``: a matrix saved by `scipy.sparse.save_npz` (CSR, CSC, BSR, COO or DIA; CSR and CSC without ``data`` have
      1 everywhere), or one dense array saved by `numpy.savez`
    - ``.npy``: a dense array
    - ``.mtx``: a Matrix Market file

    `neurons` and `samples`, where given, must fit. `FormatError` names the file, and the line of a TSV;
    pickles are never read.
    """
    file = os.fspath(path)
    reader = _reader(file)
    if not os.path.exists(file):
        raise FormatError("there is no such file", file=file)
    neurons = None if neurons is None else as_whole(neurons, "neurons", 0, MOST_NEURONS)
    samples = None if samples is None else as_whole(samples, "samples", 0, MOST_NEURONS)
    with _failures_named(file):
        inputs = reader(file, neurons, samples)
        if getattr(inputs, "format", "csr") != "csr":
            _check_count(inputs.shape[0], inputs.nnz, "values", samples)
        matrix = as_inputs(inputs, inputs.shape[1] if neurons is None else neurons)
    if samples is not None and matrix.shape[0] != samples:
        raise FormatError(f"there are {matrix.shape[0]} samples, {samples} were asked for", file=file)
    return matrix


@contextmanager
def _failures_named(file: str) -> Iterator[None]:
    """Raise what goes wrong with the content or the reading of `file` as a `FormatError` that names it."""
    try:
        yield
    except FormatError:
        raise
    except InputError as error:
        raise FormatError(error.message, file=file) from error
    except OSError as error:
        raise FormatError(f"cannot be read: {first_line(error)}", file=file) from error


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
    if sparse or sp.issparse(outputs):
        matrix = as_csr(outputs, "outputs", "(samples, neurons)", finite=False)
        return matrix if sparse else matrix.toarray()
    array = as_floats(outputs, "outputs")
    if array.ndim != 2:
        raise InputError(f"outputs must have 2 dimensions (samples, neurons), not {array.ndim}")
    return array


def load_categories(path: PathLike) -> npt.NDArray[np.int64]:
    """The samples a categories file names (from 1, one a line), 0-based, int64, in the order of the file."""
    return read_indices(path, Axis("sample"))


def save_categories(path: PathLike, categories: npt.ArrayLike) -> None:
    """Write 0-based sample numbers in the official form: one a line, from 1."""
    if isinstance(categories, np.ma.MaskedArray):
        raise InputError("categories must not be masked")
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
    _check_count(count, lines.first.size, "lines", samples)
    places = (lines.first.astype(np.int32), lines.second.astype(np.int32))
    return sp.csr_array((lines.values, places), shape=(count, neurons))


def _check_count(samples: int, size: int, of: str, wanted: int | None = None) -> None:
    """`InputError` where one stray number, or a claim, would make gigabytes of empty samples that nobody asked for."""
    if samples > 1_000_000 + 100 * size and wanted != samples:
        raise InputError(f"sample {samples} in a file of {size} {of}: give `samples` if meant")


def _npy(file: str, neurons: int | None, samples: int | None) -> npt.NDArray[np.float32]:
    del neurons, samples
    with open(file, "rb") as stream:
        if _start(stream) == _ZIP:
            raise InputError("is an archive of arrays, not one array: its name should end in .npz")
        return _dense(read_array(stream, os.fstat(stream.fileno()).st_size))


def _npz(file: str, neurons: int | None, samples: int | None) -> Any:
    """A matrix as `scipy.sparse.save_npz` writes it, or the one dense array of `numpy.savez`."""
    del neurons, samples
    with open(file, "rb") as stream:
        if _start(stream) == _ARRAY:
            raise InputError("is one array, not an archive of arrays: its name should end in .npy")
    with Archive(file) as arrays:
        return _saved(arrays, arrays.limit)


def _start(stream: IO[bytes]) -> bytes:
    """What tells the two kinds of file apart, which are easily confused."""
    start = stream.read(len(_ZIP))
    stream.seek(0)
    return start


def _saved(arrays: _Arrays, limit: int) -> Any:
    """What the arrays stand for; as float32 its values, too, may take no more than `limit` bytes."""
    if "shape" not in arrays and len(arrays) == 1:
        (array,) = arrays.values()
        _check_values(array.size, limit)
        return _dense(array)
    kind = _kind(arrays)
    missing = [name for name in (*_PARTS[kind], "shape") if name not in arrays]
    if missing:
        raise InputError(f"has no array {missing[0]!r}: write it with scipy.sparse.save_npz")
    if "data" in arrays:
        _check_values(arrays["data"].size, limit)
    try:
        return _BUILDERS[kind](arrays, _shape(arrays["shape"]))
    except InputError:
        raise
    except UNREADABLE as error:
        raise InputError(f"holds no sound {kind} matrix: {first_line(error)}") from error


def _check_values(count: int, limit: int) -> None:
    if 4 * count > limit:
        raise InputError(too_much(limit))


def _dense(array: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    if array.ndim != 2:
        raise InputError(f"inputs must have 2 dimensions (samples, neurons), not {array.ndim}")
    _check_count(array.shape[0], array.size, "values")
    return as_floats(array, "values")


def _compressed(arrays: _Arrays, shape: tuple[int, int], by_row: bool) -> sp.sparray:
    indptr, indices = arrays["indptr"], arrays["indices"]
    check_csr(indptr, indices, shape if by_row else shape[::-1])
    data = as_floats(arrays["data"], "values") if "data" in arrays else np.ones(indices.size, dtype=np.float32)
    if data.shape != indices.shape:
        raise InputError(f"data has shape {data.shape}, indices has {indices.shape}")
    build = sp.csr_array if by_row else sp.csc_array
    return build((data, indices.astype(np.int32, copy=False), indptr.astype(np.int64, copy=False)), shape=shape)


def _blocks(arrays: _Arrays, shape: tuple[int, int]) -> sp.sparray:
    data, indptr, indices = arrays["data"], arrays["indptr"], arrays["indices"]
    if data.ndim != 3 or 0 in data.shape[1:] or shape[0] % data.shape[1] or shape[1] % data.shape[2]:
        raise InputError(f"blocks of shape {data.shape} do not fit the shape {shape}")
    check_csr(indptr, indices, (shape[0] // data.shape[1], shape[1] // data.shape[2]))
    return sp.bsr_array((data, indices, indptr), shape=shape)


def _coordinates(arrays: _Arrays, shape: tuple[int, int]) -> sp.sparray:
    places = [checked_places(arrays[name], size) for name, size in zip(("row", "col"), shape, strict=True)]
    return sp.coo_array((arrays["data"], tuple(places)), shape=shape)


class _Diagonals(NamedTuple):
    """As in the file: scipy narrows offsets."""

    data: npt.NDArray[Any]
    offsets: npt.NDArray[Any]
    shape: tuple[int, int]


_BUILDERS: dict[str, Callable[[_Arrays, tuple[int, int]], Any]] = {
    "csr": partial(_compressed, by_row=True),
    "csc": partial(_compressed, by_row=False),
    "bsr": _blocks,
    "coo": _coordinates,
    "dia": lambda arrays, shape: undiagonal(_Diagonals(arrays["data"], arrays["offsets"], shape)),
}
_PARTS = {
    "csr": ("indptr", "indices"),
    "csc": ("indptr", "indices"),
    "bsr": ("data", "indptr", "indices"),
    "coo": ("data", "row", "col"),
    "dia": ("data", "offsets"),
}


def _mtx(file: str, neurons: int | None, samples: int | None) -> Any:
    """A matrix in the exchange format of NIST, coordinates or dense."""
    del neurons, samples
    from scipy import io

    try:
        text = _whole_lines(read_bytes(file))
        rows, columns, entries, form, kind, _ = io.mminfo(BytesIO(text))
        # What is claimed is allocated before it is read: a line takes two bytes at least.
        if not 0 <= 2 * entries <= 2 * len(text) or rows > MOST_NEURONS or columns > MOST_NEURONS:
            raise InputError(f"claims {entries} values of a matrix ({rows}, {columns}), more than the file can hold")
        _check_values(entries, unpack_limit(os.path.getsize(file)))
        _check_lines(text, form, kind)
        if 0 in (rows, columns):
            # scipy's reader divides by the size.
            return sp.coo_array((int(rows), int(columns)), dtype=np.float32)
        found = io.mmread(BytesIO(text), spmatrix=False)
        if not sp.issparse(found):
            _check_count(found.shape[0], found.size, "values")
        return found
    except UNREADABLE as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"cannot be read as Matrix Market: {first_line(error)}") from error


_NUMBER = rb"[-+]?(?:[0-9]+\.?[0-9]*(?:[eEdD][-+]?[0-9]+)?|\.[0-9]+(?:[eEdD][-+]?[0-9]+)?|(?i:nan|inf|infinity))"
_FIELDS = {"pattern": rb"", "integer": rb"[ \t]+[-+]?[0-9]+", "complex": rb"(?:[ \t]+" + _NUMBER + rb"){2}"}
# The comments at the start, and the line that gives the size.
_HEAD = re.compile(rb"(?:[ \t]*(?:%[^\n]*)?\n)*[^\n]*\n")


def _check_lines(text: bytes, form: str, kind: str) -> None:
    """`InputError` for a line that is not the numbers it must be: scipy's reader takes what a number begins with."""
    start = _HEAD.match(text)
    places = rb"[0-9]+[ \t]+[0-9]+" if form == "coordinate" else rb""
    values = _FIELDS.get(kind, rb"[ \t]+" + _NUMBER)
    line = places + values if places else values.removeprefix(rb"[ \t]+")
    wrong = re.compile(rb"^(?![ \t]*(?:%[^\n]*|" + line + rb")?[ \t]*\r?$)[^\n]*$", re.MULTILINE)
    found = wrong.search(text, start.end() if start else 0)
    if found:
        number = text.count(b"\n", 0, found.start()) + 1
        raise InputError(f"line {number} is not {kind} {form}: {found[0][:40].decode('utf-8', 'replace')!r}")


_CONTROL = bytes(code for code in (*range(32), 127) if code not in b"\t\n\r")


def _whole_lines(text: bytes) -> bytes:
    """Text without other control characters than those of lines, and with the end of the last.

    scipy's reader runs beyond its memory where a number ends in a zero byte, or the text in a number.
    """
    if len(text.translate(None, _CONTROL)) < len(text):
        raise InputError("holds control characters, which are not Matrix Market")
    return text if text.endswith(b"\n") else text + b"\n"


_READERS: dict[str, Callable[[str, int | None, int | None], Any]] = {
    ".tsv": _tsv,
    ".tsv.gz": _tsv,
    ".npz": _npz,
    ".npy": _npy,
    ".mtx": _mtx,
}


def _reader(file: str) -> Callable[[str, int | None, int | None], Any]:
    for ending, reader in _READERS.items():
        if file.endswith(ending):
            return reader
    raise FormatError(f"inputs are read from {', '.join(_READERS)}; the name ends in none of them", file=file)


def _kind(arrays: _Arrays) -> str:
    """Which sparse format the archive holds; CSR if it does not say."""
    tag = arrays["format"].tolist() if "format" in arrays else "csr"
    kind = tag.decode("ascii", "replace") if isinstance(tag, bytes) else str(tag)
    if kind not in _BUILDERS:
        raise InputError(f"the sparse format is {kind[:20]!r}: save the matrix as {', '.join(_BUILDERS)}")
    return kind


def _shape(array: npt.NDArray[Any]) -> tuple[int, int]:
    if array.shape != (2,) or array.dtype.kind not in "iu":
        raise InputError(f"shape must be 2 whole numbers, not {array.dtype} of shape {array.shape}")
    return int(array[0]), int(array[1])
