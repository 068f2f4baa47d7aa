"""Inputs, outputs and categories as files."""

from __future__ import annotations

import gzip
import io
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.io import mmwrite

from fsdcore.errors import FormatError, InputError
from fsdcore.network.formats import load_categories, load_inputs, save_categories, save_outputs
from tests.shared_data import graph_challenge_data

_SETTINGS = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])

matrices = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=2, max_dims=2, max_side=6),
    elements=st.one_of(st.just(0.0), st.floats(-1e6, 1e6, width=32)),
)


def refusal(path: Path, **arguments: Any) -> str:
    with pytest.raises(FormatError) as caught:
        load_inputs(path, **arguments)
    assert caught.value.file == str(path)
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix(str(path))


@_SETTINGS
@given(outputs=matrices, ending=st.sampled_from([".npz", ".npy"]), sparse=st.booleans())
def test_outputs_are_read_back_as_inputs(tmp_path: Path, outputs: Any, ending: str, sparse: bool) -> None:
    path = tmp_path / f"outputs{ending}"
    save_outputs(path, sp.csr_array(outputs) if sparse else outputs)
    loaded = load_inputs(path, outputs.shape[1], samples=outputs.shape[0])
    np.testing.assert_array_equal(loaded.toarray(), outputs)
    assert [str(loaded.dtype), str(loaded.indices.dtype)] == ["float32", "int32"]
    assert loaded.has_canonical_format
    assert [entry.name for entry in tmp_path.iterdir() if entry.suffix not in (".npz", ".npy")] == []


@_SETTINGS
@given(inputs=matrices)
def test_lines_are_read_as_they_are_written(tmp_path: Path, inputs: Any) -> None:
    rows, columns = np.nonzero(inputs)
    text = "".join(
        f"{row + 1}\t{column + 1}\t{float(inputs[row, column])!r}\n" for row, column in zip(rows, columns, strict=True)
    )
    (tmp_path / "inputs.tsv").write_text(text)
    if not text:
        assert "the file is empty" in refusal(tmp_path / "inputs.tsv", neurons=inputs.shape[1])
        return
    loaded = load_inputs(tmp_path / "inputs.tsv", inputs.shape[1], samples=inputs.shape[0])
    np.testing.assert_array_equal(loaded.toarray(), inputs)


def test_samples_are_as_many_as_the_largest_index_unless_given(tmp_path: Path) -> None:
    path = tmp_path / "inputs.tsv"
    path.write_text("1\t2\t1.0\n4\t1\t1.0\n")
    assert load_inputs(path, 3).shape == (4, 3)
    assert load_inputs(path, 3, samples=6).shape == (6, 3)
    assert ":2: sample 4 is out of range: 1 to 3" in refusal(path, neurons=3, samples=3)
    assert ":1: neuron 2 is out of range: 1 to 1" in refusal(path, neurons=1)
    assert "give `neurons`" in refusal(path)


def test_a_stray_sample_number_takes_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "inputs.tsv"
    path.write_text("1\t1\t1\n2000000000\t1\t1\n")
    assert "sample 2000000000 in a file of 2 lines: give `samples` if meant" in refusal(path, neurons=4)


def test_packed_lines_are_read(tmp_path: Path) -> None:
    (tmp_path / "inputs.tsv.gz").write_bytes(gzip.compress(b"1\t2\t1.5\n"))
    np.testing.assert_array_equal(load_inputs(tmp_path / "inputs.tsv.gz", 2).toarray(), [[0, 1.5]])


@pytest.mark.graph_challenge
def test_the_official_inputs_without_values_are_read() -> None:
    x = load_inputs(graph_challenge_data() / "images-10000.npz", 1024)
    assert x.shape == (10000, 1024)
    assert x.nnz == 1067804
    assert set(x.data) == {1.0}


@pytest.mark.parametrize("build", [sp.csr_array, sp.csc_array, sp.csr_matrix, sp.csc_matrix])
@pytest.mark.parametrize("compressed", [True, False])
def test_what_scipy_saves_is_read(tmp_path: Path, build: Callable[[Any], Any], compressed: bool) -> None:
    dense = np.array([[0, 1, 2], [0, 0, 0]], dtype=np.float64)
    sp.save_npz(tmp_path / "x.npz", build(dense), compressed=compressed)
    np.testing.assert_array_equal(load_inputs(tmp_path / "x.npz").toarray(), dense)


@pytest.mark.parametrize("dtype", [np.uint8, np.bool_, np.int64, np.float64, np.float16, ">f4"])
def test_dense_arrays_of_any_real_type_are_read(tmp_path: Path, dtype: Any) -> None:
    dense = np.array([[0, 1, 1], [1, 0, 0]]).astype(dtype)
    np.save(tmp_path / "x.npy", dense)
    np.testing.assert_array_equal(load_inputs(tmp_path / "x.npy", 3).toarray(), dense.astype(np.float32))


def parts(**changes: Any) -> dict[str, Any]:
    sound = {
        "format": np.array(b"csr"),
        "shape": np.array([2, 3]),
        "indptr": np.array([0, 2, 3]),
        "indices": np.array([0, 1, 2]),
        "data": np.ones(3),
    }
    return {name: value for name, value in {**sound, **changes}.items() if value is not None}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"indices": np.array([0, 1, 3])}, "indices must be 0 to 2, they are 0 to 3"),
        ({"indices": np.array([0, -1, 2])}, "they are -1 to 2"),
        ({"indices": np.array([0, 1, 2**40])}, "indices must be 0 to 2"),
        ({"indices": np.array([0.0, 1, 2])}, "indices must be one row of integers"),
        ({"indices": None}, "has no array 'indices'"),
        ({"indptr": np.array([0, 9, 3])}, "indptr must never fall"),
        ({"indptr": np.array([0, 2, 9])}, "indptr must go from 0 to 3"),
        ({"indptr": np.array([[0, 2, 3]])}, "indptr must be one row of integers"),
        ({"indptr": np.array([0, 3])}, "indptr has 2 numbers, 2 rows need 3"),
        ({"shape": np.array([2, -3])}, "is out of range"),
        ({"shape": np.array([2, 2**60])}, "is out of range"),
        ({"shape": np.array([2.0, 3.0])}, "shape must be 2 whole numbers"),
        ({"shape": np.array([2, 3, 1])}, "shape must be 2 whole numbers"),
        ({"data": np.ones(2)}, "data has shape (2,), indices has (3,)"),
        ({"data": np.ones(3) * 1j}, "values must be real numbers, not complex128"),
        ({"data": np.array(["a", "b", "c"])}, "values must be real numbers"),
        ({"data": np.array([1, np.nan, 1])}, "inputs must be finite"),
        ({"data": np.array([1, 1e300, 1])}, "inputs must be finite"),
        ({"format": np.array(b"bsr")}, "blocks of shape (3,) do not fit the shape (2, 3)"),
        ({"format": np.array(b"lil")}, "the sparse format is 'lil': save the matrix as csr, csc, bsr, coo, dia"),
        ({"format": np.array(b"coo")}, "has no array 'row'"),
        ({"format": np.array(b"dia")}, "has no array 'offsets'"),
        ({"format": np.array(["csr", "csc"])}, "the sparse format is"),
        ({"format": np.array(b"\xff\xfe")}, "the sparse format is"),
    ],
)
def test_unsound_archives_are_refused(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    np.savez(tmp_path / "x.npz", **parts())
    assert load_inputs(tmp_path / "x.npz").shape == (2, 3)
    np.savez(tmp_path / "x.npz", **parts(**changes))
    assert says in refusal(tmp_path / "x.npz")


class Trap:
    def __reduce__(self) -> tuple[Any, ...]:
        return (pytest.fail, ("a pickle was read",))


def test_pickles_are_never_read(tmp_path: Path) -> None:
    for name in ("x.npy", "x.npz"):
        (tmp_path / name).write_bytes(pickle.dumps(Trap()))
        assert "is not a file of numpy" in refusal(tmp_path / name)
    objects = np.array([[Trap()]], dtype=object)
    np.save(tmp_path / "x.npy", objects, allow_pickle=True)
    assert "it holds objects of Python, which are never read" in refusal(tmp_path / "x.npy")
    np.savez(tmp_path / "x.npz", **parts(data=objects))
    assert "it holds objects of Python, which are never read" in refusal(tmp_path / "x.npz")


def test_arrays_of_other_shapes_and_types(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.ones(3))
    assert "inputs must have 2 dimensions (samples, neurons), not 1" in refusal(tmp_path / "x.npy")
    np.save(tmp_path / "x.npy", np.array([["a"]]))
    assert "values must be real numbers" in refusal(tmp_path / "x.npy")
    np.save(tmp_path / "x.npy", np.ones((2, 3)))
    assert "inputs have 3 neurons per sample, the network reads 4" in refusal(tmp_path / "x.npy", neurons=4)
    assert "there are 2 samples, 5 were asked for" in refusal(tmp_path / "x.npy", samples=5)


def test_names_that_do_not_fit_the_content(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.ones((2, 3)))
    (tmp_path / "x.npz").write_bytes(buffer.getvalue())
    assert "its name should end in .npy" in refusal(tmp_path / "x.npz")
    with zipfile.ZipFile(tmp_path / "x.npy", "w") as archive:
        archive.writestr("a.npy", buffer.getvalue())
    assert "its name should end in .npz" in refusal(tmp_path / "x.npy")


def test_a_header_that_claims_more_than_there_is(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.ones((2, 3)))
    content = (tmp_path / "x.npy").read_bytes()
    for claim in (b"(2, 9)", b"(2, 30000000000)", b"(-2, -3)"):
        claimed = content.replace(b"(2, 3), }" + b" " * (len(claim) - 6), claim + b", }", 1)
        assert claimed != content
        (tmp_path / "x.npy").write_bytes(claimed)
        assert "cannot be read by numpy" in refusal(tmp_path / "x.npy")


@pytest.mark.parametrize("name", ["x.npy", "x.npz", "x.tsv", "x.tsv.gz", "x.mtx"])
def test_missing_files_and_folders(tmp_path: Path, name: str) -> None:
    assert "no such file" in refusal(tmp_path / name, neurons=4).lower()
    (tmp_path / name).mkdir()
    assert "cannot be read" in refusal(tmp_path / name, neurons=4)


@pytest.mark.parametrize("name", ["x.csv", "x", "x.gz", "x.npz.gz"])
def test_other_endings_are_refused(tmp_path: Path, name: str) -> None:
    assert "inputs are read from .tsv, .tsv.gz, .npz, .npy" in refusal(tmp_path / name)
    with pytest.raises(FormatError, match=r"outputs are written as \.npz \(sparse\) or \.npy \(dense\)"):
        save_outputs(tmp_path / name, np.ones((2, 2)))


@settings(_SETTINGS, max_examples=300)
@pytest.mark.filterwarnings("ignore::UserWarning")
@given(data=st.data(), ending=st.sampled_from([".npz", ".npy"]))
def test_mutated_bytes_give_a_matrix_or_one_clear_line(tmp_path: Path, data: st.DataObject, ending: str) -> None:
    path = tmp_path / f"x{ending}"
    save_outputs(path, np.array([[1, 0, 2], [0, 3, 0]]))
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.one_of(st.just(len(content)), st.integers(0, len(content))))
    path.write_bytes(bytes(content[:cut]))
    text = ""
    try:
        assert np.isfinite(load_inputs(path).data).all()
    except FormatError as error:
        text = str(error)
    assert "\n" not in text


@pytest.mark.parametrize(
    ("outputs", "says"),
    [("text", "outputs must be real numbers"), (np.ones(3), "outputs must have 2 dimensions")],
)
@pytest.mark.parametrize("name", ["x.npz", "x.npy"])
def test_outputs_that_are_no_matrix(tmp_path: Path, name: str, outputs: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        save_outputs(tmp_path / name, outputs)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="cannot be written"):
        save_outputs(tmp_path / "missing" / "x.npy", np.ones((1, 1)))
    (tmp_path / "x.npy").mkdir()
    with pytest.raises(FormatError, match=r"x\.npy: cannot be written"):
        save_outputs(tmp_path / "x.npy", np.ones((1, 1)))
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.npy"]


@_SETTINGS
@given(categories=st.lists(st.integers(0, 2**31 - 2), unique=True))
def test_categories_are_read_back(tmp_path: Path, categories: list[int]) -> None:
    save_categories(tmp_path / "categories.tsv", categories)
    loaded = load_categories(tmp_path / "categories.tsv")
    assert loaded.dtype == np.int64
    assert loaded.tolist() == categories


def test_categories_are_written_from_one(tmp_path: Path) -> None:
    save_categories(tmp_path / "c.tsv", np.array([0, 4], dtype=np.uint16))
    assert (tmp_path / "c.tsv").read_bytes() == b"1\n5\n"


@pytest.mark.graph_challenge
def test_official_categories_survive_byte_by_byte(tmp_path: Path) -> None:
    official = graph_challenge_data() / "categories.tsv"
    categories = load_categories(official)
    assert categories.size == 337
    save_categories(tmp_path / "c.tsv", categories)
    assert (tmp_path / "c.tsv").read_bytes() == official.read_bytes()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"1\nx\n", ":2: sample 'x' is not a whole number"),
        (b"1\n0\n", ":2: sample 0 is out of range"),
        (b"1\n\n2\n", ":2: sample '' is not a whole number"),
        (b"1\n7\n1\n", ":3: sample 1 is there again: it is on line 1"),
        (b"1\n72", ":2: the line '72' has no newline at its end: is the file truncated?"),
    ],
)
def test_categories_that_cannot_be_read(tmp_path: Path, text: bytes, says: str) -> None:
    path = tmp_path / "c.tsv"
    path.write_bytes(text)
    with pytest.raises(FormatError) as caught:
        load_categories(path)
    assert str(caught.value).startswith(f"{path}{says}")


@pytest.mark.parametrize("categories", [[-1], [0.5], [[1]], ["a"]])
def test_categories_that_are_no_sample_numbers(tmp_path: Path, categories: Any) -> None:
    with pytest.raises(InputError, match="categories must be one row of sample numbers, 0 or more"):
        save_categories(tmp_path / "c.tsv", categories)


@pytest.mark.parametrize("kind", ["csr", "csc", "bsr", "coo", "dia"])
def test_every_format_that_scipy_saves_is_read(tmp_path: Path, kind: Any) -> None:
    dense = np.random.default_rng(0).random((4, 6)).round() * 2.5
    sp.save_npz(tmp_path / "x.npz", sp.csr_array(dense).asformat(kind))
    np.testing.assert_array_equal(load_inputs(tmp_path / "x.npz").toarray(), dense)


def test_one_dense_array_of_an_archive_is_read(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", images=np.eye(3))
    np.testing.assert_array_equal(load_inputs(tmp_path / "x.npz").toarray(), np.eye(3))
    np.savez(tmp_path / "x.npz", images=np.eye(3), labels=np.ones(3))
    assert "has no array 'indptr'" in refusal(tmp_path / "x.npz")


@pytest.mark.parametrize("changes", [{"row": np.array([0, 9])}, {"col": np.array([0, -1])}, {"col": np.array([0])}])
def test_coordinates_that_lie_are_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    sound = {"row": np.array([0, 1]), "col": np.array([0, 1]), "data": np.ones(2), "shape": np.array([2, 2])}
    np.savez(tmp_path / "x.npz", format=np.array(b"coo"), **{**sound, **changes})
    assert "\n" not in refusal(tmp_path / "x.npz")


@pytest.mark.parametrize("dense", [True, False])
def test_a_matrix_market_file_is_read(tmp_path: Path, dense: bool) -> None:
    matrix = np.arange(6.0).reshape(2, 3)
    mmwrite(tmp_path / "x.mtx", matrix if dense else sp.coo_array(matrix))
    np.testing.assert_array_equal(load_inputs(tmp_path / "x.mtx").toarray(), matrix)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "cannot be read as Matrix Market"),
        ("%%MatrixMarket matrix coordinate real general\n2 2 1\n3 1 1.0\n", "cannot be read as Matrix Market"),
        ("%%MatrixMarket matrix coordinate real general\n2 2 2\n1 1 1.0\n", "cannot be read as Matrix Market"),
        ("%%MatrixMarket matrix coordinate complex general\n1 1 1\n1 1 1 1\n", "inputs must be real numbers"),
        ("%%MatrixMarket matrix coordinate real general\n9 9 4000000000\n", "more than the file can hold"),
        ("%%MatrixMarket matrix array real general\n2000000000 2000000000\n", "more than the file can hold"),
    ],
)
def test_a_matrix_market_file_that_is_not_sound_is_refused(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "x.mtx").write_text(text)
    assert says in refusal(tmp_path / "x.mtx")


def test_blank_lines_at_the_end_of_a_tsv_and_gzip_under_any_name(tmp_path: Path) -> None:
    text = b"1\t1\t1\n2\t3\t1\n\n\r\n\n"
    for name, content in (("x.tsv", text), ("y.tsv", gzip.compress(text)), ("z.tsv.gz", gzip.compress(text))):
        (tmp_path / name).write_bytes(content)
        assert load_inputs(tmp_path / name, neurons=3, samples=5).shape == (5, 3)
    (tmp_path / "x.tsv").write_bytes(b"1\t1\t1\n\n2\t3\t1\n")
    assert ":2: a line has 3 fields" in refusal(tmp_path / "x.tsv", neurons=3)


@pytest.mark.parametrize("cut", [b"1 2 0.5\x00\n", b"1 2 0.\x00\x00\x005\n", b"1 2 0.\x7f\n"])
def test_a_matrix_with_control_characters_is_refused(tmp_path: Path, cut: bytes) -> None:
    """In a process of its own a reader that runs beyond its memory would end; here it would end the tests."""
    (tmp_path / "x.mtx").write_bytes(b"%%MatrixMarket matrix coordinate real general\n9 9 200\n" + cut * 200)
    assert "control characters" in refusal(tmp_path / "x.mtx")


def test_a_matrix_whose_last_line_has_no_end_is_read_or_refused(tmp_path: Path) -> None:
    text = b"%%MatrixMarket matrix coordinate real general\n9 9 2\n1 2 0.5\n3 4 1.25"
    (tmp_path / "x.mtx").write_bytes(text)
    assert load_inputs(tmp_path / "x.mtx")[2, 3] == 1.25
    (tmp_path / "x.mtx").write_bytes(text[:-6])
    assert "line 4 is not real coordinate" in refusal(tmp_path / "x.mtx")


@pytest.mark.parametrize("value", ["3,5", "0x10", "1_000", "3.5abc", "1.5 9", "1e", "", "1.5 %", "--1"])
def test_a_value_with_something_behind_it_is_refused_by_its_line(tmp_path: Path, value: str) -> None:
    file = tmp_path / "x.mtx"
    file.write_text(f"%%MatrixMarket matrix coordinate real general\n% a word\n2 64 2\n1 1 2.5\n1 2 {value}\n")
    with pytest.raises(FormatError, match="line 5 is not real coordinate"):
        load_inputs(file)


@pytest.mark.parametrize("value", ["3.5", "-1", "2.5e-3", ".5", "1.", "1E5", "7 "])
def test_numbers_of_all_kinds_are_read(tmp_path: Path, value: str) -> None:
    file = tmp_path / "x.mtx"
    file.write_text(f"%%MatrixMarket matrix coordinate real general\n\n2 64 2\n\n  1 1 2.5\n1\t2 {value}\r\n")
    assert load_inputs(file)[0, 1] == np.float32(value)


@pytest.mark.parametrize("form", ["array real", "array integer", "coordinate real", "coordinate pattern"])
@pytest.mark.parametrize("size", [(0, 4), (0, 0), (3, 0)])
def test_a_matrix_market_file_of_nothing_is_read(tmp_path: Path, form: str, size: tuple[int, int]) -> None:
    file = tmp_path / "x.mtx"
    file.write_text(f"%%MatrixMarket matrix {form} general\n{size[0]} {size[1]}{' 0' * form.startswith('c')}\n")
    assert load_inputs(file).shape == size


def test_a_claim_of_samples_without_values_is_refused_before_it_is_made(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((2**31 - 1, 0), np.float32))
    (tmp_path / "x.mtx").write_text("%%MatrixMarket matrix array real general\n2147483647 0\n")
    for name in ("x.npy", "x.mtx"):
        with pytest.raises(FormatError, match="sample 2147483647 in a file of 0 values"):
            load_inputs(tmp_path / name)


def test_small_files_whose_values_are_large_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FSD_UNPACK_MB", "1")
    np.savez_compressed(tmp_path / "dense.npz", np.ones((1 << 19, 1), np.int8))
    sp.save_npz(tmp_path / "blocks.npz", sp.bsr_array(np.ones((1 << 10, 1 << 9), np.int8), blocksize=(1 << 10, 1 << 9)))
    # As text these are within the limit, as float32 they are not.
    text = "%%MatrixMarket matrix array integer general\n300000 1\n" + "1\n" * 300_000
    (tmp_path / "packed.mtx").write_bytes(gzip.compress(text.encode()))
    for name in ("dense.npz", "blocks.npz", "packed.mtx"):
        with pytest.raises(FormatError, match="FSD_UNPACK_MB"):
            load_inputs(tmp_path / name)


@pytest.mark.parametrize("places", [[0.7, 1.0], ["0", "1"], [True, False], [0, 2**33]])
def test_places_that_are_no_small_whole_numbers_are_refused(tmp_path: Path, places: list[Any]) -> None:
    arrays: dict[str, Any] = {"row": np.array(places), "col": np.array([0, 1]), "data": np.ones(2, np.float32)}
    np.savez(tmp_path / "x.npz", format=b"coo", shape=np.array([4, 4]), **arrays)
    with pytest.raises(FormatError, match="places must be"):
        load_inputs(tmp_path / "x.npz")


@pytest.mark.parametrize("given", [{"neurons": 2.5}, {"neurons": "4"}, {"samples": 2.5}, {"samples": 2**40}])
def test_sizes_that_are_none_are_refused(tmp_path: Path, given: dict[str, Any]) -> None:
    (tmp_path / "x.tsv").write_text("1\t1\t1\n")
    with pytest.raises(InputError, match=next(iter(given))):
        load_inputs(tmp_path / "x.tsv", **{"neurons": 4, **given})
