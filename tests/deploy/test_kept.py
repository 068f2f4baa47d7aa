"""What is kept is found whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from fsdcore.deploy.fetching import find, keep, remove


def made(folder: Path, content: str = "content") -> Path:
    """A file and a folder with one."""
    (folder / "made").mkdir(parents=True)
    (folder / "made" / "inner.py").write_text(content)
    return folder / "made"


def test_a_file_is_found_with_its_ending(tmp_path: Path) -> None:
    (tmp_path / "made.so").write_text("content")
    path = keep(tmp_path / "made.so", tmp_path, "kernel-1")
    assert path.suffix == ".so"
    assert find(tmp_path, "kernel-1") == path
    assert find(tmp_path, "kernel-2") is None


def test_a_folder_is_found(tmp_path: Path) -> None:
    path = keep(made(tmp_path / "scratch"), tmp_path, "libraries-1")
    assert find(tmp_path, "libraries-1") == path
    assert (path / "inner.py").read_text() == "content"


@pytest.mark.parametrize("harm", ["", "cont", "other content", None])
def test_what_is_not_as_it_was_is_not_found(harm: str | None, tmp_path: Path) -> None:
    file = made(tmp_path / "a") / "inner.py"
    kept = keep(file, tmp_path, "file"), keep(made(tmp_path / "b"), tmp_path, "folder")
    for path in (kept[0], kept[1] / "inner.py"):
        path.unlink()
        if harm is not None:
            path.write_text(harm)
    assert find(tmp_path, "file") is None
    assert find(tmp_path, "folder") is None


def test_a_file_in_the_place_of_a_folder_is_not_found(tmp_path: Path) -> None:
    path = keep(made(tmp_path / "scratch"), tmp_path, "libraries-1")
    remove([path])
    path.write_text("a file")
    assert find(tmp_path, "libraries-1") is None


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_two_that_make_the_same_keep_one(kind: str, tmp_path: Path) -> None:
    both = [made(tmp_path / name) for name in ("a", "b")]
    if kind == "file":
        both = [folder / "inner.py" for folder in both]
    kept = [keep(each, tmp_path, "x") for each in both]
    assert kept[0] == kept[1] == find(tmp_path, "x")


def test_what_cannot_be_kept_is_told(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="nowhere"):
        keep(made(tmp_path / "a"), tmp_path / "nowhere", "x")


def test_removing_what_is_gone_is_nothing(tmp_path: Path) -> None:
    remove([tmp_path / "gone", made(tmp_path)])
    assert list(tmp_path.iterdir()) == []
