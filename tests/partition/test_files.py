"""Partition files: what is written comes back, and nothing else is taken for one."""

from __future__ import annotations

import io
import os
import pickle
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fsdcore.errors import FormatError
from fsdcore.network.generate import radixnet
from fsdcore.network.network import Network
from fsdcore.partition import Partition, load_partition, make_partition, save_partition
from tests.partition.networks import networks

SPLIT = make_partition(radixnet(64, 2), 3, "random", 5)


def saved(partition: Partition = SPLIT) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        save_partition(Path(folder) / "p.npz", partition)
        return (Path(folder) / "p.npz").read_bytes()


def loaded(content: bytes) -> Partition:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "p.npz").write_bytes(content)
        return load_partition(Path(folder) / "p.npz")


def same(first: Partition, second: Partition) -> bool:
    def words(partition: Partition) -> tuple[int, str, int, str]:
        return partition.workers, partition.method, partition.seed, partition.fingerprint

    owners = zip(first.owners, second.owners, strict=True)
    return words(first) == words(second) and all(a.dtype == b.dtype and np.array_equal(a, b) for a, b in owners)


@given(
    network=networks(),
    workers=st.sampled_from([1, 2, 255, 256, 257, 70000]),
    seed=st.integers(0, 2**31 - 1),
    method=st.sampled_from(["block", "random"]),
)
@settings(deadline=None)
def test_what_is_written_comes_back(network: Network, workers: int, seed: int, method: str) -> None:
    partition = make_partition(network, workers, method, seed)
    assert same(loaded(saved(partition)), partition)


@pytest.mark.parametrize(("workers", "kind"), [(1, "u1"), (256, "u1"), (257, "u2"), (70000, "u4")])
def test_owners_take_the_smallest_type(workers: int, kind: str) -> None:
    content = saved(make_partition(radixnet(64, 1), workers, "block"))
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        assert arrays["owners"].dtype == np.dtype(kind)


CONTENT = saved()


@given(place=st.integers(0, len(CONTENT) - 1), byte=st.integers(0, 255))
@settings(deadline=None, max_examples=300)
def test_a_changed_byte_is_refused_or_changes_nothing(place: int, byte: int) -> None:
    content = bytearray(CONTENT)
    content[place] = byte
    try:
        assert same(loaded(bytes(content)), SPLIT)
    except FormatError as error:
        assert error.file is not None


@given(length=st.integers(0, len(CONTENT) - 1))
@settings(deadline=None)
def test_a_cut_file_is_refused(length: int) -> None:
    with pytest.raises(FormatError):
        loaded(CONTENT[:length])


@given(content=st.binary(max_size=200))
@settings(deadline=None)
def test_other_bytes_are_refused(content: bytes) -> None:
    with pytest.raises(FormatError):
        loaded(content)


def archive(**changed: Any) -> bytes:
    """A partition file with some of its arrays replaced; None leaves one out."""
    with np.load(io.BytesIO(CONTENT), allow_pickle=False) as arrays:
        content = {name: arrays[name] for name in arrays.files} | changed
    stream = io.BytesIO()
    np.savez(stream, **{name: array for name, array in content.items() if array is not None})
    return stream.getvalue()


WORDS = ["fsd-partition-1", "3", "random", "5", ""]


def words(place: int, word: str) -> np.ndarray[tuple[int, ...], Any]:
    return np.array([*WORDS[:place], word, *WORDS[place + 1 :]])


def test_the_archive_of_these_tests_is_sound_where_nothing_is_changed() -> None:
    loaded(archive())
    loaded(archive(about=np.array(WORDS)))


@pytest.mark.parametrize(
    "changed",
    [
        {"owners": None},
        {"widths": None},
        {"about": None},
        {"owners": np.zeros(191, np.uint8)},
        {"owners": np.full(192, 3, np.uint8)},
        {"owners": np.full(192, 2**32, np.uint64)},
        {"owners": np.zeros(192, np.int8)},
        {"owners": np.zeros(192, np.float32)},
        {"owners": np.zeros((3, 64), np.uint8)},
        {"owners": np.array(0, np.uint8)},
        {"widths": np.array([192], np.int64)},
        {"widths": np.array([], np.int64)},
        {"widths": np.array([64, 64, 65], np.int64)},
        {"widths": np.array([256, -64], np.int64)},
        {"widths": np.array([2**62, 2**62, 2**62, 2**62, 192], np.int64)},
        {"widths": np.array([64.0, 64.0, 64.0])},
        {"widths": np.array([[64, 64, 64]])},
        {"about": np.array(WORDS[:4])},
        {"about": np.array([1, 3, 2, 5, 0])},
        {"about": np.array("fsd-partition-1")},
        {"about": words(0, "fsd-partition-9")},
        {"about": words(1, "0")},
        {"about": words(1, "-3")},
        {"about": words(1, "three")},
        {"about": words(1, "9" * 5000)},
        {"about": words(2, "")},
        {"about": words(2, "two\nlines")},
        {"about": words(2, "x" * 1000)},
        {"about": words(3, "1.5")},
        {"about": words(3, "٣")},
        {"about": words(4, "abc")},
    ],
)
def test_an_archive_with_a_wrong_array_is_refused(changed: dict[str, Any]) -> None:
    with pytest.raises(FormatError, match=r"p\.npz: not a partition"):
        loaded(archive(**changed))


class Trap:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, ("sprung",)


def test_a_pickle_is_never_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for content in (pickle.dumps(Trap()), archive(owners=np.array([Trap()], dtype=object))):
        with pytest.raises(FormatError):
            loaded(content)
    assert not (tmp_path / "sprung").exists()


def test_a_file_that_claims_to_unpack_to_more_than_any_network_is_refused() -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("owners.npy", b"\0" * 1000)
    # The size unpacked, in the file's central directory: 24 bytes after its signature.
    content = bytearray(stream.getvalue())
    place = content.rindex(b"PK\x01\x02") + 24
    content[place : place + 4] = (2**32 - 2).to_bytes(4, "little")
    with pytest.raises(FormatError, match="unpacks to"):
        loaded(bytes(content))


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none.npz", tmp_path):
        with pytest.raises(FormatError) as caught:
            load_partition(path)
        assert caught.value.file == str(path)


def test_writing_replaces_the_old_file_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "p.npz"
    save_partition(path, SPLIT)
    other = make_partition(radixnet(64, 1), 2, "block")
    save_partition(path, other)
    assert same(load_partition(path), other)
    assert [*tmp_path.iterdir()] == [path]


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="written"):
        save_partition(tmp_path / "none" / "p.npz", SPLIT)


@pytest.mark.parametrize("order", ["<", ">"])
def test_text_that_is_not_unicode_is_refused(tmp_path: Path, order: str) -> None:
    words = np.array(["fsd-partition-1", "2", "block", "0", "x"])
    codes = words.view(np.uint32).copy()
    codes[-1] = 0x7FFF_FFFF
    about = codes.astype(f"{order}u4").view(f"{order}U15")
    np.savez(tmp_path / "p.npz", owners=np.zeros(4, np.uint8), widths=np.array([2, 2]), about=about)
    with pytest.raises(FormatError, match="not Unicode"):
        load_partition(tmp_path / "p.npz")
