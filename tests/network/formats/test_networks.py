"""Network files: round trips, and bytes that nobody should trust."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from fsdcore.errors import FormatError
from fsdcore.network.activations import IDENTITY, RELU, SIGMOID, SOFTMAX, TANH, clipped_relu, leaky_relu
from fsdcore.network.formats import load_network, save_network
from fsdcore.network.generate import radixnet
from fsdcore.network.network import Layer, Network

_SETTINGS = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


values = st.floats(-1e6, 1e6, width=32)
activations = st.one_of(
    st.sampled_from([IDENTITY, RELU, SIGMOID, TANH]),
    st.floats(0.015625, 64, width=32).map(clipped_relu),
    st.floats(-2, 2).map(leaky_relu),
)


@st.composite
def networks(draw: st.DrawFn) -> Network:
    widths = draw(st.lists(st.integers(1, 6), min_size=2, max_size=4))
    layers = []
    for number, (inputs, outputs) in enumerate(itertools.pairwise(widths), start=2):
        elements = draw(st.sampled_from([values, st.sampled_from([0.0, 0.0625])]))
        weights = draw(hnp.arrays(np.float32, (outputs, inputs), elements=elements))
        bias = draw(st.one_of(hnp.arrays(np.float32, outputs, elements=values), values))
        last = number == len(widths)
        activation = draw(st.one_of(activations, st.just(SOFTMAX)) if last else activations)
        layers.append(Layer(weights, bias, activation))
    return Network(layers, name=draw(st.text(max_size=8)))


def same(one: Network, other: Network) -> None:
    assert one.name == other.name
    assert one.fingerprint == other.fingerprint
    for a, b in zip(one.layers, other.layers, strict=True):
        np.testing.assert_array_equal(a.weights.toarray(), b.weights.toarray())
        assert a.bias.tobytes() == b.bias.tobytes()
        assert a.activation == b.activation
        assert b.weights.indices.dtype == np.int32


@_SETTINGS
@given(network=networks())
def test_what_is_saved_is_loaded(tmp_path: Path, network: Network) -> None:
    path = tmp_path / "network.safetensors"
    save_network(network, path)
    same(network, load_network(path))


def test_a_bias_of_both_zeros_keeps_its_signs(tmp_path: Path) -> None:
    network = Network([Layer(np.eye(2), np.array([0.0, -0.0]), RELU)])
    save_network(network, tmp_path / "n")
    same(network, load_network(tmp_path / "n"))


def test_wide_layers_keep_their_indices(tmp_path: Path) -> None:
    weights = sp.csr_array(([1.0, 2.0, 3.0], ([0, 0, 1], [65535, 65536, 99999])), shape=(2, 100000))
    for width in (65536, 100000):
        network = Network([Layer(weights[:, :width], 0.0, RELU)])
        save_network(network, tmp_path / "n")
        same(network, load_network(tmp_path / "n"))


def test_equal_weights_are_stored_and_held_once(tmp_path: Path) -> None:
    network = radixnet(1024, 4)
    save_network(network, tmp_path / "n")
    # Two bytes for each index; row ends and header besides.
    assert (tmp_path / "n").stat().st_size < 4 * (1024 * 32 * 2 + 1025 * 8 + 1000)
    first, *others = load_network(tmp_path / "n").layers
    assert all(np.shares_memory(first.weights.data, layer.weights.data) for layer in others)


def test_a_file_is_replaced_as_a_whole_and_nothing_else_left(tmp_path: Path) -> None:
    path = tmp_path / "n"
    save_network(radixnet(64, 1), path)
    save_network(radixnet(64, 2), path)
    assert len(load_network(path)) == 2
    assert [entry.name for entry in tmp_path.iterdir()] == ["n"]


def test_progress_is_told(tmp_path: Path) -> None:
    heard: list[tuple[str, int, int]] = []

    class Listener:
        def progress(self, task: str, done: int, total: int) -> None:
            heard.append((task, done, total))

    save_network(radixnet(64, 2), tmp_path / "n")
    load_network(tmp_path / "n", observer=Listener())
    assert heard == [("load layers", 1, 2), ("load layers", 2, 2)]


def refusal(path: Path, call: Callable[[Path], object] = load_network) -> str:
    with pytest.raises(FormatError) as caught:
        call(path)
    text = str(caught.value)
    assert caught.value.file == str(path)
    assert text.startswith(f"{path}: ")
    assert "\n" not in text
    return text.removeprefix(f"{path}: ")


def test_files_that_are_not_there_or_something_else(tmp_path: Path) -> None:
    assert "No such file" in refusal(tmp_path / "missing")
    assert "is a folder" in refusal(tmp_path)
    for name, content in (("empty", b""), ("text", b"hello, this is no network"), ("zeros", bytes(100))):
        (tmp_path / name).write_bytes(content)
        assert "is not a safetensors file" in refusal(tmp_path / name)
    save_file({"a": np.zeros(3)}, tmp_path / "other")
    assert "holds no network" in refusal(tmp_path / "other")


def test_where_nothing_can_be_written(tmp_path: Path) -> None:
    network = radixnet(64, 1)

    def save(path: Path) -> None:
        save_network(network, path)

    assert "cannot be written" in refusal(tmp_path / "missing" / "n", save)
    (tmp_path / "folder").mkdir()
    assert "cannot be written" in refusal(tmp_path / "folder", save)
    assert [entry.name for entry in tmp_path.iterdir()] == ["folder"]


Tensors = dict[str, Any]
Change = Callable[[Tensors, dict[str, str]], object]


def small() -> Network:
    weights = np.array([[1, 2, 0], [0, 0, 3]], dtype=np.float32)
    return Network([Layer(weights, np.array([0.5, -0.5]), RELU), Layer(np.ones((2, 2)), 0.0, TANH)])


def header(metadata: dict[str, str], **changes: Any) -> None:
    layers = json.loads(metadata["layers"])
    layers[0].update(changes)
    metadata["layers"] = json.dumps(layers)


CHANGES: list[tuple[str, Change]] = [
    ("has format version '2'", lambda t, m: m.update(version="2")),
    ("holds no network", lambda t, m: m.update(format="other")),
    ("the metadata `layers` are not sound", lambda t, m: m.update(layers="[")),
    ("the metadata `layers` are not sound", lambda t, m: m.update(layers="[" * 10_000)),
    ("the metadata `layers` are not sound", lambda t, m: m.pop("layers")),
    ("the metadata `layers` are not sound", lambda t, m: header(m, inputs=-1)),
    ("the metadata `layers` are not sound", lambda t, m: header(m, inputs=2**40)),
    ("the metadata `layers` are not sound", lambda t, m: header(m, inputs="3")),
    ("the metadata `layers` are not sound", lambda t, m: header(m, more=1)),
    ("belongs to no layer", lambda t, m: m.update(layers="[]")),
    ("layer 1: unknown activation 'swish'", lambda t, m: header(m, activation="swish")),
    ("layer 1: activation relu takes no parameter", lambda t, m: header(m, parameter=3.0)),
    ("layer 1 has softmax", lambda t, m: header(m, activation="softmax")),
    ("layer 1: indptr has 3 numbers, 7 rows need 8", lambda t, m: header(m, outputs=7)),
    ("layer 1: indices must be 0 to 1", lambda t, m: header(m, inputs=2)),
    ("the fingerprint does not match", lambda t, m: header(m, inputs=4)),
    ("the fingerprint does not match", lambda t, m: header(m, activation="sigmoid")),
    ("the fingerprint does not match", lambda t, m: m.update(fingerprint="0" * 64)),
    ("the fingerprint does not match", lambda t, m: m.pop("fingerprint")),
    ("the tensor 'layer2.bias' is missing", lambda t, m: t.pop("layer2.bias")),
    ("a tensor 'more' that belongs to no layer", lambda t, m: t.update(more=np.zeros(1))),
]

REPLACED: list[tuple[str, str, Any]] = [
    ("indptr must be one row of I32 or I64", "indptr", np.array([0.0, 2, 3])),
    ("indptr must be one row", "indptr", np.array([[0, 2, 3]], dtype=np.int32)),
    ("indptr has 4 numbers, 2 rows need 3", "indptr", np.array([0, 1, 2, 3])),
    ("indptr must go from 0 to 3, it goes from 0 to 2", "indptr", np.array([0, 1, 2])),
    ("indptr must go from 0 to 3, it goes from -1 to 3", "indptr", np.array([-1, 1, 3])),
    ("indptr must never fall, it does after row 1", "indptr", np.array([0, 1000000, 3])),
    ("indptr must never fall, it does after row 0", "indptr", np.array([0, -(2**63), 3])),
    ("indices must be 0 to 2, they are 0 to 3", "indices", np.array([0, 3, 2], dtype=np.int32)),
    ("indices must be 0 to 2, they are -1 to 2", "indices", np.array([0, -1, 2], dtype=np.int32)),
    ("indices must be one row of I32 or U16", "indices", np.array([0, 1, 2], dtype=np.int64)),
    ("indptr must go from 0 to 0", "indices", np.zeros(0, dtype=np.int32)),
    ("data has 2 values, 3 or 1 are needed", "data", np.ones(2, dtype=np.float32)),
    ("data must be one row of F32", "data", np.ones(3)),
    ("weights must be finite", "data", np.full(3, np.nan, dtype=np.float32)),
    ("bias has 3 values, 2 or 1 are needed", "bias", np.ones(3, dtype=np.float32)),
    ("bias must be one row", "bias", np.float32(1)),
    ("bias must be finite", "bias", np.full(1, np.inf, dtype=np.float32)),
    ("the fingerprint does not match", "data", np.full(1, 2, dtype=np.float32)),
    ("the fingerprint does not match", "bias", np.zeros(1, dtype=np.float32)),
    ("the fingerprint does not match", "indices", np.array([0, 2, 2], dtype=np.int32)),
]


def rewrite(path: Path, change: Change) -> None:
    with safe_open(path, framework="numpy") as archive:
        metadata = dict(archive.metadata())
    tensors = load_file(path)
    change(tensors, metadata)
    save_file({name: np.asarray(array) for name, array in tensors.items()}, path, metadata=metadata)


@pytest.mark.parametrize(("says", "change"), CHANGES)
def test_changed_headers_are_refused(tmp_path: Path, says: str, change: Change) -> None:
    path = tmp_path / "n"
    save_network(small(), path)
    rewrite(path, change)
    assert says in refusal(path)


@pytest.mark.parametrize(("says", "part", "array"), REPLACED)
def test_changed_tensors_are_refused(tmp_path: Path, says: str, part: str, array: Any) -> None:
    path = tmp_path / "n"
    save_network(small(), path)
    rewrite(path, lambda tensors, _: tensors.update({f"layer1.{part}": array}))
    assert says in refusal(path)


def test_a_bfloat16_tensor_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "n"
    save_network(small(), path)
    content = path.read_bytes()
    path.write_bytes(content.replace(b'"F32","shape":[3]', b'"BF16","shape":[6]', 1))
    assert refusal(path)


@settings(_SETTINGS, max_examples=300)
@given(data=st.data())
def test_mutated_bytes_give_the_network_or_one_clear_line(tmp_path: Path, data: st.DataObject) -> None:
    network, path = small(), tmp_path / "n"
    save_network(network, path)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.one_of(st.just(len(content)), st.integers(0, len(content))))
    path.write_bytes(bytes(content[:cut]))
    text = ""
    try:
        assert load_network(path).fingerprint == network.fingerprint
    except FormatError as error:
        text = str(error)
    assert "\n" not in text
