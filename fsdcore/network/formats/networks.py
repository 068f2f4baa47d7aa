"""A network as one safetensors file.

Layer k (from 1) is four tensors, ``layer{k}.indptr``, ``.indices``, ``.data`` and ``.bias``; the weights are
CSR `(outputs, inputs)`. ``data`` and ``bias`` hold one value where all are equal; indices are uint16 where
they fit. The metadata hold ``format``, ``version``, ``name``, ``fingerprint``, and ``layers``: JSON with sizes
and activation of each layer.
"""

from __future__ import annotations

import os
from typing import Annotated, Any, NoReturn

import msgspec
import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from fsdcore.arrays import Float32s
from fsdcore.decoding import from_json
from fsdcore.errors import FormatError, InputError
from fsdcore.files import PathLike, first_line, replacing
from fsdcore.network.activations import Activation
from fsdcore.network.matrices import MOST_NEURONS, check_csr
from fsdcore.network.network import Layer, Network, as_network
from fsdcore.record.observer import SILENT, Observer

_FORMAT = "fsd-network"
_VERSION = "1"
_DTYPES = {
    "indptr": {"I32", "I64"},
    "indices": {"U16", "I32"},
    "data": {"F32"},
    "bias": {"F32"},
}

_Size = Annotated[int, msgspec.Meta(ge=0, le=MOST_NEURONS)]
# Values already made, by bits and length: layers of one equal weight share them.
_Constants = dict[tuple[bytes, int], Float32s]


class _LayerHeader(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    inputs: _Size
    outputs: _Size
    activation: str
    parameter: float


def save_network(network: Network, path: PathLike) -> None:
    """Write `network` to one file at `path`, which is replaced as a whole; `FormatError` if it cannot."""
    tensors: dict[str, npt.NDArray[Any]] = {}
    for number, layer in enumerate(as_network(network).layers, start=1):
        for part, array in _parts(layer).items():
            tensors[_name(number, part)] = np.ascontiguousarray(array)
    with replacing(path) as temporary:
        try:
            save_file(tensors, temporary, metadata=_metadata(network))
        except SafetensorError as error:
            raise FormatError(f"cannot be written: {first_line(error)}", file=os.fspath(path)) from error


def load_network(path: PathLike, observer: Observer = SILENT) -> Network:
    """The network in the file at `path`, as `save_network` wrote it.

    Nothing in the file is trusted: sizes, types, structure and fingerprint are checked before they are used.
    `FormatError`, with the file's name, for a file that is missing, is something else, or was changed.
    """
    file = os.fspath(path)
    try:
        if os.path.isdir(file):
            raise InputError("is a folder, not a network file")
        with safe_open(file, framework="numpy") as archive:
            return _read(archive, observer)
    except InputError as error:
        raise FormatError(error.message, file=file) from error
    except SafetensorError as error:
        raise FormatError(f"is not a safetensors file: {first_line(error)}", file=file) from error
    except (OSError, ValueError) as error:
        raise FormatError(f"cannot be read: {first_line(error)}", file=file) from error


def _name(number: int, part: str) -> str:
    return f"layer{number}.{part}"


def _parts(layer: Layer) -> dict[str, npt.NDArray[Any]]:
    weights = layer.weights
    index = np.uint16 if layer.inputs <= 2**16 else np.int32
    return {
        "indptr": weights.indptr,
        "indices": weights.indices.astype(index, copy=False),
        "data": _packed(weights.data),
        "bias": _packed(layer.bias),
    }


def _packed(values: Float32s) -> Float32s:
    """The first of `values` alone if all are equal, bit by bit (0.0 and -0.0 are not)."""
    bits = np.ascontiguousarray(values).view(np.uint32)
    return values[:1] if bits.size and bool((bits == bits[0]).all()) else values


def _metadata(network: Network) -> dict[str, str]:
    headers = [
        _LayerHeader(layer.inputs, layer.outputs, layer.activation.name, float(layer.activation.parameter))
        for layer in network.layers
    ]
    return {
        "format": _FORMAT,
        "version": _VERSION,
        "name": network.name,
        "fingerprint": network.fingerprint,
        "layers": msgspec.json.encode(headers).decode(),
    }


def _read(archive: Any, observer: Observer) -> Network:
    metadata = archive.metadata() or {}
    headers = _headers(metadata)
    _check_names(set(archive.keys()), len(headers))
    constants: _Constants = {}
    layers = []
    for number, header in enumerate(headers, start=1):
        layers.append(_layer(archive, number, header, constants))
        observer.progress("load layers", number, len(headers))
    network = Network(layers, name=metadata.get("name", "network"))
    if network.fingerprint != metadata.get("fingerprint"):
        raise InputError("the fingerprint does not match: the file was damaged or changed, write it again")
    return network


def _headers(metadata: dict[str, str]) -> list[_LayerHeader]:
    if metadata.get("format") != _FORMAT:
        raise InputError("is a safetensors file but holds no network (metadata `format: fsd-network`)")
    version = metadata.get("version", "")
    if version != _VERSION:
        raise InputError(f"has format version {version[:20]!r}, this program reads version {_VERSION!r}")
    return from_json(
        metadata.get("layers", ""),
        list[_LayerHeader],
        lambda reason: InputError(f"the metadata `layers` are not sound: {reason}"),
    )


def _check_names(found: set[str], layers: int) -> None:
    expected = {_name(number, part) for number in range(1, layers + 1) for part in _DTYPES}
    if expected - found:
        raise InputError(f"the tensor {min(expected - found)!r} is missing")
    if found - expected:
        raise InputError(f"there is a tensor {min(found - expected)[:40]!r} that belongs to no layer")


def _layer(archive: Any, number: int, header: _LayerHeader, constants: _Constants) -> Layer:
    try:
        parts = {part: _tensor(archive, number, part) for part in _DTYPES}
        shape = (header.outputs, header.inputs)
        check_csr(parts["indptr"], parts["indices"], shape)
        data = _unpacked("data", parts["data"], parts["indices"].size, constants)
        bias = _unpacked("bias", parts["bias"], header.outputs, constants)
        indices = parts["indices"].astype(np.int32, copy=False)
        weights = sp.csr_array((data, indices, parts["indptr"]), shape=shape)
        return Layer(weights, bias, Activation(header.activation, header.parameter))
    except InputError as error:
        _fail(number, error)


def _fail(number: int, error: InputError) -> NoReturn:
    raise InputError(f"layer {number}: {error.message}") from error


def _tensor(archive: Any, number: int, part: str) -> npt.NDArray[Any]:
    """One tensor; its type and shape are looked at before its bytes are read."""
    name = _name(number, part)
    view = archive.get_slice(name)
    dtype, shape = str(view.get_dtype()), view.get_shape()
    if dtype not in _DTYPES[part] or len(shape) != 1:
        wanted = " or ".join(sorted(_DTYPES[part]))
        raise InputError(f"{part} must be one row of {wanted}, not {dtype} of shape {shape}")
    return np.asarray(archive.get_tensor(name))


def _unpacked(part: str, values: Float32s, size: int, constants: _Constants) -> Float32s:
    if values.size == size:
        return values
    if values.size != 1:
        raise InputError(f"{part} has {values.size} values, {size} or 1 are needed")
    key = (values.tobytes(), size)
    if key not in constants:
        constants[key] = np.full(size, values[0], dtype=np.float32)
        constants[key].setflags(write=False)
    return constants[key]
