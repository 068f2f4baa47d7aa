"""Small files that unpack to much: refused in one line, before the memory is taken."""

from __future__ import annotations

import gzip
import io
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp

from fsd_local.stores import MemoryStore
from fsdcore.decoding import UNPACK_VARIABLE, unpack_limit
from fsdcore.errors import ConfigError, FormatError, WireError
from fsdcore.messages.segments import SegmentReader, compress_segment, pack_segments
from fsdcore.messages.zstd import compress
from fsdcore.network.formats import load_inputs, save_outputs
from fsdcore.partition import load_partition

MIB = 1 << 20

# Reads a file as inputs, and says what came of it and by how many MiB the process grew.
_READ = """
import resource, sys
from fsdcore.errors import FsdError
from fsdcore.network.formats import load_inputs
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    load_inputs(sys.argv[1], 4, None if sys.argv[2] == "None" else 4)
    said = "read"
except FsdError as error:
    said = str(error)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10, said)
"""


def read_apart(file: Path, samples: str = "4") -> tuple[int, str]:
    command = [sys.executable, "-c", _READ, str(file), samples]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    grown, _, said = done.stdout.partition(" ")
    return int(grown), said


def member(archive: zipfile.ZipFile, name: str, mib: int) -> None:
    """Add an array of zeros, so many MiB of them."""
    head = io.BytesIO()
    shape = (mib * MIB // 4,)
    np.lib.format.write_array_header_1_0(head, {"descr": "<f4", "fortran_order": False, "shape": shape})
    with archive.open(f"{name}.npy", "w", force_zip64=True) as stream:
        stream.write(head.getvalue())
        for _ in range(mib):
            stream.write(bytes(MIB))


@pytest.fixture
def low(monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit that small files pass."""
    monkeypatch.setenv(UNPACK_VARIABLE, "1")


def test_the_limit_grows_with_what_is_stored_and_is_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    assert unpack_limit(0) == 256 * MIB
    assert unpack_limit(100 * MIB) == 6_400 * MIB
    monkeypatch.setenv(UNPACK_VARIABLE, "3")
    assert unpack_limit(100 * MIB) == 3 * MIB
    for wrong in ("0", "-1", "1.5", "much", "1" * 20):
        monkeypatch.setenv(UNPACK_VARIABLE, wrong)
        with pytest.raises(ConfigError, match="FSD_UNPACK_MB must be a whole number of MiB"):
            unpack_limit(0)


def test_a_packed_text(tmp_path: Path) -> None:
    file = tmp_path / "x.tsv.gz"
    file.write_bytes(gzip.compress(b"1\t1\t1\n" + b"\n" * (600 * MIB), 1))
    grown, said = read_apart(file)
    assert f"x.tsv.gz: unpacks to more than 256 MiB; if it is meant to, set {UNPACK_VARIABLE}" in said
    assert grown < 400


@pytest.mark.usefixtures("low")
@pytest.mark.parametrize("name", ["x.tsv.gz", "x.tsv"])
def test_the_limit_of_a_packed_text_is_exact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    lines = "".join(f"1\t{number:08}\t1\n" for number in range(1, 90_001))
    (tmp_path / name).write_bytes(gzip.compress(lines.encode()))
    assert len(lines) > MIB
    with pytest.raises(FormatError, match="unpacks to more than 1 MiB"):
        load_inputs(tmp_path / name, 90_000)
    monkeypatch.setenv(UNPACK_VARIABLE, "2")
    assert load_inputs(tmp_path / name, 90_000).nnz == 90_000


def test_an_array_that_nobody_asks_for_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "x.npz"
    save_outputs(file, np.eye(4))
    with zipfile.ZipFile(file, "a", zipfile.ZIP_DEFLATED) as archive:
        member(archive, "more", 600)
    grown, said = read_apart(file)
    assert said == "read\n"
    assert grown < 100


def test_an_array_that_is_asked_for_is_looked_at_first(tmp_path: Path) -> None:
    file = tmp_path / "x.npz"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("indptr", "indices", "shape"):
            member(archive, name, 600)
    grown, said = read_apart(file)
    assert "x.npz: unpacks to more than 256 MiB" in said
    assert grown < 100


@pytest.mark.usefixtures("low")
def test_arrays_share_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_outputs(tmp_path / "x.npz", np.ones((600, 300)))
    with pytest.raises(FormatError, match="unpacks to more than 1 MiB"):
        load_inputs(tmp_path / "x.npz")
    monkeypatch.setenv(UNPACK_VARIABLE, "4")
    assert load_inputs(tmp_path / "x.npz").nnz == 180_000


@pytest.mark.usefixtures("low")
def test_a_partition(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "p.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("owners", "widths", "about"):
            member(archive, name, 2)
    with pytest.raises(FormatError, match="unpacks to more than 1 MiB"):
        load_partition(tmp_path / "p.npz")


def test_a_header_that_names_more_than_there_is(tmp_path: Path) -> None:
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": "<f4", "fortran_order": False, "shape": (1 << 20, 1 << 19)})
    (tmp_path / "x.npy").write_bytes(head.getvalue())
    with pytest.raises(FormatError, match=r"its header names 2,199,[\d,]+ bytes, 128 are there"):
        load_inputs(tmp_path / "x.npy")


def test_a_segment_says_how_large_it_is_before_it_is_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore()
    store.put("bomb", pack_segments([compress_segment(b"small"), (compress(bytes(8 * MIB)), 600 * MIB)], {}))
    store.put("sound", pack_segments([compress_segment(bytes(3 * MIB))], {}))
    read = SegmentReader(store, "bomb").read([0, 1])
    assert next(read) == b"small"
    with pytest.raises(WireError, match="a segment of bomb unpacks to 600 MiB, 256 are the most"):
        next(read)
    assert [len(part) for part in SegmentReader(store, "sound").read([0])] == [3 * MIB]
    monkeypatch.setenv(UNPACK_VARIABLE, "2")
    with pytest.raises(WireError, match=f"3 MiB, 2 are the most; if it is meant to, set {UNPACK_VARIABLE}"):
        list(SegmentReader(store, "sound").read([0]))


@pytest.mark.parametrize("kind", ["coo", "csc", "dia", "mtx"])
def test_a_claim_of_many_empty_samples(tmp_path: Path, kind: str) -> None:
    if kind == "mtx":
        file = tmp_path / "x.mtx"
        file.write_text("%%MatrixMarket matrix coordinate real general\n2000000000 4 1\n1 1 1.0\n")
    else:
        file = tmp_path / "x.npz"
        matrix = sp.coo_array(([1.0], ([0], [0])), shape=(2_000_000_000, 4))
        sp.save_npz(file, {"coo": sp.coo_array, "csc": sp.csc_array, "dia": sp.dia_array}[kind](matrix))
    grown, said = read_apart(file, samples="None")
    assert "sample 2000000000 in a file of 1 values: give `samples` if meant" in said
    assert grown < 100
