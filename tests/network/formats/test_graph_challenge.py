"""Official TSV networks: what is read, and which line is named when it cannot be."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fsdcore.errors import FormatError, InputError
from fsdcore.network.activations import clipped_relu
from fsdcore.network.formats import load_graph_challenge
from fsdcore.network.generate import radixnet
from fsdcore.network.network import Network
from tests.shared_data import official_network

_SETTINGS = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


def lines_of(weights: sp.csr_array, value: str = "{:.6e}") -> bytes:
    by_input = sp.coo_array(sp.csr_array(weights.T))
    rows, columns = by_input.coords
    triples = zip(rows + 1, columns + 1, by_input.data, strict=True)
    return "".join(f"{row}\t{column}\t{value.format(number)}\n" for row, column, number in triples).encode()


def write(network: Network, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, layer in enumerate(network.layers, start=1):
        (folder / f"n{network.inputs}-l{number}.tsv").write_bytes(lines_of(layer.weights))


def test_rows_are_inputs_and_columns_are_outputs(tmp_path: Path) -> None:
    (tmp_path / "n3-l1.tsv").write_bytes(b"1\t2\t0.5\n3\t1\t-2\n3\t2\t1e-1\n")
    (layer,) = load_graph_challenge(tmp_path, 3, 1, bias=0.25).layers
    expected = np.array([[0, 0, -2], [0.5, 0, 0.1], [0, 0, 0]], dtype=np.float32)
    np.testing.assert_array_equal(layer.weights.toarray(), expected)
    np.testing.assert_array_equal(layer.bias, np.full(3, 0.25, dtype=np.float32))
    assert layer.activation == clipped_relu(32)


@pytest.mark.parametrize("inside", ["", "neuron1024"])
def test_a_folder_of_layers_is_the_network(tmp_path: Path, inside: str) -> None:
    network = radixnet(1024, 3)
    write(network, tmp_path / inside)
    loaded = load_graph_challenge(tmp_path, 1024, 3)
    assert loaded.fingerprint == network.fingerprint
    assert np.shares_memory(loaded.layers[0].weights.data, loaded.layers[2].weights.data)
    assert len(load_graph_challenge(tmp_path, 1024, 2)) == 2


@pytest.mark.graph_challenge
def test_official_layers_written_and_read_are_the_same(tmp_path: Path) -> None:
    network = official_network(12)
    write(network, tmp_path / "neuron1024")
    assert load_graph_challenge(tmp_path, 1024, 12).fingerprint == network.fingerprint


def test_packed_files_and_windows_lines_are_read(tmp_path: Path) -> None:
    network = radixnet(64, 2)
    first, second = (lines_of(layer.weights) for layer in network.layers)
    (tmp_path / "n64-l1.tsv.gz").write_bytes(gzip.compress(first))
    (tmp_path / "n64-l2.tsv").write_bytes(second.replace(b"\n", b"\r\n"))
    assert load_graph_challenge(tmp_path, 64, 2, bias=-0.3).fingerprint == network.fingerprint


def test_lines_may_come_in_any_order(tmp_path: Path) -> None:
    network = radixnet(64, 1)
    lines = lines_of(network.layers[0].weights).splitlines(keepends=True)
    np.random.default_rng(0).shuffle(lines)
    (tmp_path / "n64-l1.tsv").write_bytes(b"".join(lines))
    assert load_graph_challenge(tmp_path, 64, 1, bias=-0.3).fingerprint == network.fingerprint


@_SETTINGS
@given(
    entries=st.dictionaries(
        st.tuples(st.integers(1, 5), st.integers(1, 5)),
        st.floats(-1e6, 1e6, width=32).filter(bool),
        min_size=1,
    )
)
def test_any_weights_are_read_exactly(tmp_path: Path, entries: dict[tuple[int, int], float]) -> None:
    text = "".join(f"{row}\t{column}\t{value!r}\n" for (row, column), value in entries.items())
    (tmp_path / "n5-l1.tsv").write_text(text)
    weights = load_graph_challenge(tmp_path, 5, 1, bias=0).layers[0].weights.todok()
    assert {(column + 1, row + 1): value for (row, column), value in weights.items()} == entries


@pytest.mark.parametrize(
    ("bad", "line", "says"),
    [
        (b"2\t3\n", 3, "a line has 3 fields between tabs (input neuron, output neuron, value), here 2"),
        (b"2\t3\t1\t1\n", 3, "here 4"),
        (b"2 3 1\n", 3, "here 1"),
        (b"\n2\t3\t1\n", 3, "here 0"),
        (b"x\t3\t1\n", 3, "input neuron 'x' is not a whole number"),
        (b"2\t1.5\t1\n", 3, "output neuron '1.5' is not a whole number"),
        (b"2\t1e1\t1\n", 3, "output neuron '1e1' is not a whole number"),
        (b"2\t\t1\n", 3, "output neuron '' is not a whole number"),
        (b"2\t" + b"9" * 60 + b"\t1\n", 3, "...' is not a whole number"),
        (b"0\t3\t1\n", 3, "input neuron 0 is out of range: 1 to 4"),
        (b"5\t3\t1\n", 3, "input neuron 5 is out of range: 1 to 4"),
        (b"2\t99999999999\t1\n", 3, "output neuron 99999999999 is out of range: 1 to 4"),
        (b"-2\t3\t1\n", 3, "input neuron '-2' is not a whole number"),
        (b"2\t3\tone\n", 3, "value 'one' is not a number"),
        (b"2\t3\t1_0\n", 3, "value '1_0' is not a number"),
        (b"2\t3\t1.2.3\n", 3, "value '1.2.3' is not a number"),
        (b"2\t3\t\n", 3, "value '' is not a number"),
        (b"2\t3\tnan\n", 3, "value 'nan' is not a finite float32"),
        (b"2\t3\t-Infinity\n", 3, "value '-Infinity' is not a finite float32"),
        (b"2\t3\t1e39\n", 3, "value '1e39' is not a finite float32"),
        (b"1\t2\t7\n", 3, "input neuron 1, output neuron 2 is there again: it is on line 2"),
        (b"\xff\xfe\t3\t1\n", 3, "is not a whole number"),
    ],
)
def test_the_first_bad_line_is_named(tmp_path: Path, bad: bytes, line: int, says: str) -> None:
    path = tmp_path / "n4-l1.tsv"
    path.write_bytes(b"1\t1\t1\n1\t2\t1\n" + bad + b"4\t4\t1\nand\tworse\tlater\n" * 2)
    with pytest.raises(FormatError) as caught:
        load_graph_challenge(tmp_path, 4, 1, bias=0)
    assert (caught.value.file, caught.value.line) == (str(path), line)
    assert str(caught.value).startswith(f"{path}:{line}: ")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("rest", [b"4", b"4\t4", b"4\t4\t6.25", b"4\t4\t6.250000e-02"])
def test_a_truncated_file_is_refused_at_its_last_line(tmp_path: Path, rest: bytes) -> None:
    (tmp_path / "n4-l1.tsv").write_bytes(b"1\t1\t6.250000e-02\n" + rest)
    with pytest.raises(FormatError, match=r":2: the line .* has no newline at its end: is the file truncated"):
        load_graph_challenge(tmp_path, 4, 1, bias=0)


def test_files_that_are_empty_missing_or_no_files(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"neuron4/n4-l1\.tsv: there is no such file"):
        load_graph_challenge(tmp_path, 4, 1, bias=0)
    with pytest.raises(FormatError, match="there is no such file"):
        load_graph_challenge(tmp_path / "nowhere", 4, 1, bias=0)
    (tmp_path / "n4-l1.tsv").write_bytes(b"")
    with pytest.raises(FormatError, match=r"n4-l1\.tsv: the file is empty"):
        load_graph_challenge(tmp_path, 4, 1, bias=0)
    (tmp_path / "n4-l1.tsv").unlink()
    packed = gzip.compress(b"1\t1\t1\n" * 100)
    for content in (packed[:20], b"not packed at all", packed[:12] + b"\xff" * 9):
        (tmp_path / "n4-l1.tsv.gz").write_bytes(content)
        with pytest.raises(FormatError, match=r"n4-l1\.tsv\.gz: cannot be read"):
            load_graph_challenge(tmp_path, 4, 1, bias=0)


def test_a_layer_too_many_is_named(tmp_path: Path) -> None:
    write(radixnet(64, 1), tmp_path)
    with pytest.raises(FormatError, match=r"n64-l2\.tsv"):
        load_graph_challenge(tmp_path, 64, 2, bias=0)


def test_numbers_that_do_not_fit(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no official bias for 64 neurons, only for 1024, 4096, 16384, 65536"):
        load_graph_challenge(tmp_path, 64, 1)
    with pytest.raises(InputError, match="neurons must be 1 to 2147483647, not 0"):
        load_graph_challenge(tmp_path, 0, 1)
    with pytest.raises(InputError, match="layers must be 1 to 2147483647, not 0"):
        load_graph_challenge(tmp_path, 1024, 0)
    for bias in ([0, 1], "x"):
        with pytest.raises(InputError, match="bias"):
            load_graph_challenge(tmp_path, 1024, 1, bias=bias)  # type: ignore[arg-type]
    with pytest.raises(FormatError, match="n64-l1"):
        load_graph_challenge(tmp_path, 64, 2**31 - 1, bias=0)


@settings(_SETTINGS, max_examples=200)
@given(data=st.data())
def test_mutated_bytes_give_a_network_or_a_named_line(tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(b"".join(b"%d\t%d\t0.0625\n" % (row, column) for row in (1, 2, 3) for column in (1, 2, 3)))
    for _ in range(data.draw(st.integers(1, 4))):
        byte = data.draw(st.one_of(st.sampled_from(b"0123456789\t\n\r+-.eE nai_x"), st.integers(0, 255)))
        content[data.draw(st.integers(0, len(content) - 1))] = byte
    (tmp_path / "n3-l1.tsv").write_bytes(bytes(content))
    line: int | None = 0
    text = ""
    try:
        assert load_graph_challenge(tmp_path, 3, 1, bias=0).nonzeros <= 9
    except FormatError as error:
        line, text = error.line, str(error)
    assert line is not None
    assert "\n" not in text
