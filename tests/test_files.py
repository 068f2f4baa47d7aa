"""Files whole or not at all, through links, with the mode that the umask gives."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from fsdcore.errors import ConfigError, FormatError
from fsdcore.files import check_writable, read_document, read_text, replacing, same_file, settled, write_text

MARK = b"\xef\xbb\xbf"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture(params=[0o022, 0o002, 0o077], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield int(request.param)
    os.umask(before)


def test_a_new_file_has_the_mode_of_the_umask(tmp_path: Path, umask: int) -> None:
    write_text(tmp_path / "new", "text")
    assert mode(tmp_path / "new") == 0o666 & ~umask


def test_that_holds_where_the_writer_makes_a_file_of_its_own(tmp_path: Path, umask: int) -> None:
    with replacing(tmp_path / "new") as temporary:
        (tmp_path / "other").write_text("text")
        (tmp_path / "other").chmod(0o600)
        (tmp_path / "other").rename(temporary)
    assert mode(tmp_path / "new") == 0o666 & ~umask


@pytest.mark.parametrize("kept", [0o600, 0o640, 0o664, 0o755])
def test_a_file_that_is_replaced_keeps_its_mode(tmp_path: Path, kept: int) -> None:
    file = tmp_path / "file"
    file.write_text("old")
    file.chmod(kept)
    write_text(file, "new")
    assert (file.read_text(), mode(file)) == ("new", kept)


def test_it_is_written_through_links_which_stay(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    target = tmp_path / "real" / "target"
    target.write_text("old")
    (tmp_path / "second").symlink_to("real/target")
    (tmp_path / "first").symlink_to("second")
    write_text(tmp_path / "first", "new")
    assert target.read_text() == "new"
    assert (tmp_path / "first").readlink() == Path("second")
    assert (tmp_path / "second").readlink() == Path("real/target")
    assert [*(tmp_path / "real").iterdir()] == [target]


def test_a_link_that_leads_to_nothing_yet_is_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real/target")
    write_text(tmp_path / "link", "new")
    assert (tmp_path / "real" / "target").read_text() == "new"
    assert (tmp_path / "link").is_symlink()


def test_links_in_a_circle_and_into_no_folder_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    (tmp_path / "lost").symlink_to("absent/file")
    for name, reason in (("a", "symbolic links"), ("lost", "there is no folder .*absent")):
        for write in (check_writable, lambda path: write_text(path, "text")):
            with pytest.raises(FormatError, match=reason):
                write(tmp_path / name)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a", "b", "lost"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), ValueError("bad"), KeyboardInterrupt()])
def test_a_block_that_fails_leaves_the_old_file_alone(tmp_path: Path, error: BaseException) -> None:
    (tmp_path / "file").write_text("old")

    def fail() -> None:
        with replacing(tmp_path / "file") as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises((FormatError, KeyboardInterrupt)):
        fail()
    assert [file.read_text() for file in tmp_path.iterdir()] == ["old"]


def test_what_cannot_be_written_is_found_by_a_look_that_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    check_writable(tmp_path / "file")
    check_writable(tmp_path / "new")
    refused = {
        tmp_path: "not a file",
        tmp_path / "absent" / "x": "there is no folder .*absent",
        tmp_path / "file" / "x": "Not a directory",
        tmp_path / ("x" * 300): "File name too long",
    }
    for path, reason in refused.items():
        with pytest.raises(FormatError, match=reason):
            check_writable(path)
    assert [file.name for file in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "old"


def test_a_pipe_is_written_straight_and_stays(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    check_writable(pipe)
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()))
    reader.start()
    write_text(pipe, "text\n" * 100_000)
    reader.join()
    assert read == ["text\n" * 100_000]
    assert pipe.is_fifo()
    assert [*tmp_path.iterdir()] == [pipe]


def test_devices_take_it(tmp_path: Path) -> None:
    write_text("/dev/null", "text")
    (tmp_path / "null").symlink_to("/dev/null")
    write_text(tmp_path / "null", "text")
    assert Path("/dev/null").is_char_device()
    with pytest.raises(FormatError, match="/dev/full: cannot be written: No space left on device"):
        write_text("/dev/full", "text")


@pytest.mark.parametrize("name", ["/dev/fd/{}", "/proc/self/fd/{}"])
def test_an_open_file_goes_on_where_it_is(tmp_path: Path, name: str) -> None:
    with (tmp_path / "file").open("w") as stream:
        stream.write("first\n")
        stream.flush()
        path = name.format(stream.fileno())
        check_writable(path)
        write_text(path, "second\n")
        (tmp_path / "link").symlink_to(path)
        write_text(tmp_path / "link", "third\n")
        stream.write("last\n")
    assert (tmp_path / "file").read_text() == "first\nsecond\nthird\nlast\n"


def test_a_file_that_is_open_for_reading_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    with (tmp_path / "file").open() as stream, pytest.raises(FormatError, match="reading only"):
        check_writable(f"/dev/fd/{stream.fileno()}")


def test_one_file_by_many_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    Path("file").write_text("text")
    Path("link").symlink_to("file")
    Path("way").symlink_to("folder")
    os.link("file", "hard")
    for name in ("file", "./file", "folder/../file", "link", "hard", tmp_path / "file", "way/../file"):
        assert same_file("file", name)
        assert same_file(name, "link")
    assert not same_file("file", "folder/file")


def test_one_file_that_is_yet_to_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    Path("way").symlink_to("folder")
    Path("link").symlink_to("folder/new")
    for name in ("folder/new", "way/new", "./folder/../way/new", "link", tmp_path / "way" / "new"):
        assert same_file("folder/new", name)
    assert not same_file("folder/new", "new")
    assert not same_file("absent/new", "absent/new/x")


def test_devices_may_have_many_names() -> None:
    assert not same_file("/dev/null", "/dev/null")


def test_text_is_read_without_the_mark(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(MARK + "é".encode())
    assert read_text(tmp_path / "file") == "é"
    assert read_document(tmp_path / "file") == "é".encode()
    (tmp_path / "file").write_bytes(b"one\ntwo \xff\n")
    with pytest.raises(FormatError, match="file:2: not UTF-8 text"):
        read_text(tmp_path / "file")
    with pytest.raises(FormatError, match="absent: cannot be read: No such file or directory"):
        read_text(tmp_path / "absent")


def test_a_path_stays_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/ann")
    assert settled("store") == tmp_path / "store"
    assert settled("~/store") == Path("/home/ann/store")


def test_without_a_home_or_a_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"~nobody-of-this-name/x: .*HOME"):
        settled("~nobody-of-this-name/x")
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(ConfigError, match="the current folder is not there"):
        settled("store")
