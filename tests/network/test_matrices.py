"""What callers hand over as matrices: right, or refused before native code sees it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

from fsdcore.errors import InputError
from fsdcore.network.matrices import as_csr, as_floats, check_csr, undiagonal

_FORMATS = ("csr", "csc", "coo", "bsr", "dia", "lil", "dok")
_TYPES = (np.float32, np.float64, np.float16, np.int8, np.int64, np.uint8, np.bool_, np.longdouble)


def csr(matrix: Any) -> sp.csr_array:
    return as_csr(matrix, "weights", "(outputs, inputs)")


@st.composite
def dense_matrices(draw: st.DrawFn) -> np.ndarray[Any, Any]:
    shape = draw(st.tuples(st.integers(0, 6), st.integers(0, 6)))
    values = draw(
        st.lists(st.sampled_from([0, 0, 0, 1, 3, 100]), min_size=shape[0] * shape[1], max_size=shape[0] * shape[1])
    )
    return np.array(values, draw(st.sampled_from(_TYPES))).reshape(shape)


@given(dense_matrices(), st.sampled_from(_FORMATS), st.sampled_from([np.int32, np.int64]))
def test_a_sound_matrix_is_itself_in_every_format(dense: np.ndarray[Any, Any], kind: str, index: type) -> None:
    usable = dense if dense.dtype != np.float16 else dense.astype(np.float32)
    matrix: Any = sp.coo_array(usable).asformat(kind)  # type: ignore[call-overload]
    for name in ("indices", "indptr"):
        if hasattr(matrix, name):
            setattr(matrix, name, getattr(matrix, name).astype(index))
    for form in (matrix, dense, dense.tolist()):
        if np.size(form) == 0 and isinstance(form, list):
            continue
        made = csr(form)
        np.testing.assert_array_equal(made.toarray(), dense.astype(np.float32))
        assert made.dtype == np.float32
        assert made.indices.dtype == np.int32
        assert made.has_canonical_format
        assert np.all(made.data)


_WRONG = (-1, -(2**31), 4, 5, 2**31 - 1, 2**31, 2**32, 2**40, 2**63 - 1)


@given(
    st.sampled_from(["csr", "csc", "bsr"]),
    st.sampled_from(["indices", "indptr"]),
    st.integers(0, 4),
    st.sampled_from(_WRONG),
    st.sampled_from([np.int32, np.int64, np.uint64]),
)
def test_an_unsound_structure_is_refused(kind: str, name: str, place: int, wrong: int, index: type) -> None:
    matrix: Any = sp.csr_array(np.eye(4, dtype=np.float32)).asformat(kind)  # type: ignore[call-overload]
    array = getattr(matrix, name).astype(np.int64)
    place = min(place, array.size - 1)
    # A row that ends elsewhere is sound.
    sound = wrong == array[place] or (name == "indptr" and 0 < place < array.size - 1 and 0 <= wrong <= 4)
    if sound or not np.iinfo(index).min <= wrong <= np.iinfo(index).max:
        return
    array[place] = wrong
    setattr(matrix, name, array.astype(index))
    with pytest.raises(InputError, match=r"^weights "):
        csr(matrix)


@given(st.integers(0, 1), st.integers(0, 3), st.sampled_from(_WRONG))
def test_coordinates_that_were_edited_are_refused(axis: int, place: int, wrong: int) -> None:
    matrix: Any = sp.coo_array(np.eye(4, dtype=np.float32))
    places = [coordinates.astype(np.int64) for coordinates in matrix.coords]
    places[axis][place] = wrong
    matrix.coords = tuple(places)
    with pytest.raises(InputError, match=r"^weights "):
        csr(matrix)


@pytest.mark.parametrize(
    "changes",
    [
        {"data": np.ones(3, np.float32)},
        {"data": np.ones((4, 1), np.float32)},
        {"data": np.array(list("abcd"))},
        {"indices": np.array([0.0, 1.0, 2.0, 3.0])},
        {"indices": np.array([[0, 1, 2, 3]])},
        {"indptr": np.array([0, 3, 1, 2, 4])},
        {"indptr": np.array([0, 4])},
        {"indptr": np.array([])},
        {"indices": None},
        {"_shape": (2**31, 4)},
        {"_shape": (4, 2**31)},
        {"_shape": (4, 4, 4)},
    ],
    ids=str,
)
def test_parts_that_do_not_fit_are_refused(changes: dict[str, Any]) -> None:
    matrix = sp.csr_array(np.eye(4, dtype=np.float32))
    for name, value in changes.items():
        setattr(matrix, name, value)
    with pytest.raises(InputError, match=r"^weights "):
        csr(matrix)


def test_flags_that_lie_are_not_believed() -> None:
    matrix = sp.csr_array((np.array([1.0, 2.0, 3.0]), np.array([2, 0, 0]), np.array([0, 3])), shape=(1, 3))
    matrix.has_canonical_format = True
    np.testing.assert_array_equal(csr(matrix).toarray(), [[5.0, 0.0, 1.0]])


def test_tuples_are_rows_and_not_the_parts_of_a_matrix() -> None:
    rows = ((1, 2, 3), (0, 1, 2), (0, 1, 3))
    np.testing.assert_array_equal(csr(rows).toarray(), rows)
    with pytest.raises(InputError, match="must have 2 dimensions"):
        csr((4, 3))


def test_what_was_given_is_never_changed() -> None:
    matrix = sp.csr_array((np.array([1.0, 0.0, 2.0]), np.array([2, 1, 2]), np.array([0, 3])), shape=(1, 3))
    before = [array.copy() for array in (matrix.data, matrix.indices, matrix.indptr)]
    csr(matrix)
    for array, was in zip((matrix.data, matrix.indices, matrix.indptr), before, strict=True):
        np.testing.assert_array_equal(array, was)


def test_masked_rows_are_refused_too() -> None:
    with pytest.raises(InputError, match=r"say what the masked values are, for example with \.filled\(0\)"):
        as_floats([np.ma.array([1.0, 2.0], mask=[False, True])], "inputs")


def test_structures_are_checked_by_the_same_rules() -> None:
    check_csr(np.array([0, 1]), np.array([0]), (1, 1))
    with pytest.raises(InputError, match="indices must be 0 to 0"):
        check_csr(np.array([0, 1]), np.array([1]), (1, 1))


@given(
    offsets=st.lists(st.integers(-9, 9), min_size=1, max_size=5, unique=True),
    shape=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    length=st.integers(1, 8),
    seed=st.integers(0, 99),
)
def test_diagonals_are_what_scipy_makes_of_them(
    offsets: list[int], shape: tuple[int, int], length: int, seed: int
) -> None:
    data = np.random.default_rng(seed).integers(0, 3, (len(offsets), length)).astype(np.float32)
    matrix: sp.dia_array[np.float32] = sp.dia_array((data, np.array(offsets)), shape=shape)
    np.testing.assert_array_equal(undiagonal(matrix).toarray(), matrix.toarray())


def lists() -> sp.lil_array:
    matrix = sp.lil_array((1000, 4), dtype=np.float32)
    for row in range(1000):
        matrix[row, row % 4] = row + 1
    return matrix


@pytest.mark.parametrize(
    "harm",
    [
        lambda made: setattr(made, "data", np.array([[1.0] * 1000 for _ in range(1000)] + [None], object)[:-1]),
        lambda made: made.data[0].clear(),
        lambda made: setattr(made, "rows", made.rows[:4]),
        lambda made: made.rows[0].__setitem__(0, 4),
        lambda made: made.rows[0].__setitem__(0, -1),
        lambda made: made.rows[0].__setitem__(0, 1.5),
    ],
)
def test_lists_that_do_not_fit_are_refused_before_scipy_sees_them(harm: Any) -> None:
    made = lists()
    harm(made)
    with pytest.raises(InputError):
        as_csr(made, "weights", "(outputs, inputs)")


def test_lists_and_dictionaries_are_taken_as_scipy_takes_them() -> None:
    for matrix in (lists(), sp.lil_array((3, 4)), sp.dok_array(lists()), sp.dok_array((3, 4), dtype=np.float32)):
        found = as_csr(matrix, "weights", "(outputs, inputs)")
        assert (found.toarray() == matrix.toarray()).all()


@pytest.mark.parametrize("offsets", [[2**40], [2**32], np.array([2**64 - 1], np.uint64), [0.7], [np.nan]])
def test_diagonals_elsewhere_are_refused(offsets: Any) -> None:
    made: Any = sp.dia_array(np.eye(4, dtype=np.float32))
    made.offsets = np.asarray(offsets)
    with pytest.raises(InputError, match="offsets"):
        as_csr(made, "weights", "(outputs, inputs)")


@pytest.mark.parametrize("kind", ["csr", "csc", "coo", "bsr", "dia"])
def test_masked_values_of_a_sparse_matrix_are_refused(kind: str) -> None:
    made: Any = getattr(sp.eye_array(4, dtype=np.float32, format="csr"), f"to{kind}")()
    mask = np.zeros(made.data.shape, bool)
    mask.flat[0] = True
    made.data = np.ma.array(made.data, mask=mask)
    with pytest.raises(InputError, match="masked"):
        as_csr(made, "weights", "(outputs, inputs)")
