"""What is particular to objects as files: names, folders, and others that share them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsd_local.stores import DirectoryStore, _key, _names
from fsdcore.contracts.store import check_key
from fsdcore.errors import AccessDeniedError

# Parts that come near the endings that the store gives to names, and near the longest name of a file.
PARTS = st.one_of(
    st.text("ab.", min_size=1, max_size=4),
    st.sampled_from(
        ["x.object", "x.object.object", ".object", ".unfinished-x", "p" * 200, "p" * 200 + ".object", "q" * 450]
    ),
).filter(lambda part: part not in {".", ".."})
KEYS = st.lists(PARTS, min_size=1, max_size=3).map("/".join).filter(lambda key: len(key) <= 900)


@given(KEYS)
def test_names_lead_back_to_their_key(key: str) -> None:
    names = _names(check_key(key))
    assert _key(names) == key
    assert all(len(name) < 255 for name in names)
    assert [name.endswith(".object") for name in names] == [False] * (len(names) - 1) + [True]


def test_no_key_is_in_the_way_of_another(tmp_path: Path) -> None:
    keys = sorted(["x", "x/y", "x.object", "x.object/y", "x.object.object", "p" * 600, "p" * 600 + "/x", "p" * 200])
    store = DirectoryStore(tmp_path)
    for key in keys:
        store.put(key, key.encode())
    assert [store.get(key) for key in keys] == [key.encode() for key in keys]
    assert store.list("") == keys
    assert store.list("x.object") == [key for key in keys if key.startswith("x.object")]
    assert store.list("p" * 400) == [key for key in keys if key.startswith("p" * 400)]


@pytest.mark.parametrize("prefix", ["../", "/", "a//", "./", "../outside/", "..", "\0/", "x" * 1_000 + "/"])
def test_a_prefix_is_text_and_leads_nowhere_else(tmp_path: Path, prefix: str) -> None:
    DirectoryStore(tmp_path / "outside").put("a", b"")
    store = DirectoryStore(tmp_path / "store")
    store.put("a", b"")
    assert store.list(prefix) == []


def test_folders_that_others_empty_at_the_same_time_do_no_harm(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)

    def churn(worker: int) -> None:
        for number in range(300):
            key = f"a/b/{worker}-{number}"
            store.put(key, b"x")
            assert key in store.list("a/")
            store.delete([key])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(churn, range(4)))
    assert list(tmp_path.iterdir()) == []


def test_it_stays_where_it_was_when_the_process_goes_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path)
    store = DirectoryStore("store")
    store.put("a", b"data")
    monkeypatch.chdir("other")
    store.put("b", b"data")
    assert store.list("") == ["a", "b"]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["other", "store"]


def test_a_full_disk_is_named_and_leaves_nothing() -> None:
    # A limit on the size of files stands in for the disk.
    code = (
        "import resource, signal, sys, tempfile; from fsd_local.stores import DirectoryStore as D\n"
        "from fsdcore.errors import StoreError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "folder = tempfile.mkdtemp()\n"
        "try: D(folder).put('k', bytes(10_000))\n"
        "except StoreError as error: print(error, D(folder).list(''))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.endswith("cannot hold objects: File too large []\n")


def test_what_an_index_claims_is_not_set_aside(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    store.put("k", b"data")
    assert store.get_range("k", 1, 1 << 62) == b"ata"
    assert store.get_range("k", 1 << 80, 1 << 80) == b""


def test_another_process_sees_the_objects(tmp_path: Path) -> None:
    DirectoryStore(tmp_path).put("a/b", b"data")
    code = "import sys; from fsd_local.stores import DirectoryStore as D; print(D(sys.argv[1]).get('a/b'))"
    seen = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert seen.stdout == "b'data'\n"


@pytest.mark.parametrize("call", ["get", "put", "list", "delete"])
def test_a_refusal_of_the_file_system_is_access_denied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    store = DirectoryStore(tmp_path)
    store.put("k", b"data")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", "somewhere")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    monkeypatch.setattr(Path, "unlink", refuse)
    monkeypatch.setattr("fsd_local.stores.new_file", refuse)
    monkeypatch.setattr("fsd_local.stores.os.walk", refuse)
    calls: dict[str, Callable[[], object]] = {
        "get": lambda: store.get("k"),
        "put": lambda: store.put("k", b""),
        "list": lambda: store.list(""),
        "delete": lambda: store.delete(["k"]),
    }
    with pytest.raises(AccessDeniedError, match="somewhere"):
        calls[call]()


@pytest.mark.parametrize("far", [1 << 40, 1 << 63, 1 << 64])
def test_a_range_takes_no_more_memory_than_the_object(tmp_path: Path, far: int) -> None:
    store = DirectoryStore(tmp_path)
    store.put("k", b"0123456789")
    assert store.get_range("k", 4, far) == b"456789"
    assert store.get_range("k", far, far) == b""
