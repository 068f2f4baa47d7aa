"""Files as all readers and writers of the project treat them: whole or not at all, UTF-8 whatever the locale.

No numbers are imported here: the configuration and the command line need this before them.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import stat
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, TypeAlias

from fsdcore.errors import ConfigError, FormatError, InputError

PathLike: TypeAlias = str | os.PathLike[str]

# What editors of Windows begin a UTF-8 file with.
MARK = b"\xef\xbb\xbf"
_DESCRIPTOR = re.compile(r"/(?:dev|proc/(self|thread-self|\d+))/fd/(\d+)")
_STREAMS = {"/dev/stdin": 0, "/dev/stdout": 1, "/dev/stderr": 2}
_MODE = 0o666
# Not passed on to programs, and no line ends made of bytes; each where the system knows of such.
_PLAIN = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_PERMISSIONS = 0o777


def first_line(error: BaseException) -> str:
    """What `error` says, as one line; the name of its class where it says nothing."""
    text = getattr(error, "strerror", None) or str(error)
    return text.splitlines()[0].strip() if text.strip() else type(error).__name__


def settled(path: PathLike) -> Path:
    """`path` with ``~`` replaced, and absolute, so that it stays the same when the process changes its folder.

    `ConfigError` where the home folder, or the current one, is not known.
    """
    try:
        return Path(path).expanduser().absolute()
    except RuntimeError as error:
        raise ConfigError(f"{path}: the home folder is not known: set HOME, or write the path in full") from error
    except OSError as error:
        raise ConfigError(f"{path}: the current folder is not there: {first_line(error)}") from error


# Reading ---------------------------------------------------------------------------------------------------


def read_text(path: PathLike) -> str:
    """The text of a UTF-8 file, without the mark that some editors begin it with.

    `FormatError` if it cannot be read, or, with the line, if it is no such text.
    """
    try:
        return read_document(path).decode()
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise FormatError("not UTF-8 text", file=os.fspath(path), line=line) from error


def read_document(path: PathLike) -> bytes:
    """The bytes of a file of text, such as JSON, without that mark; `FormatError` if it cannot be read."""
    try:
        with open(path, "rb") as stream:
            return stream.read().removeprefix(MARK)
    except (OSError, ValueError) as error:
        raise FormatError(f"cannot be read: {first_line(error)}", file=os.fspath(path)) from error


# Writing ---------------------------------------------------------------------------------------------------


class _Target(NamedTuple):
    """Where what is written to a path ends up: a file, by its own name, or something that is written straight."""

    path: str
    mode: int | None = None
    descriptor: int | None = None
    straight: bool = False


def _target(path: PathLike) -> _Target:
    """Through all links; `OSError` if nothing can be written there."""
    descriptor = _descriptor(os.fspath(path))
    if descriptor is not None:
        # Not on Windows, which has no such names either.
        import fcntl

        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, "it is open for reading only")
        return _Target(os.fspath(path), descriptor=descriptor, straight=True)
    real = os.path.realpath(path)
    if os.path.islink(real):
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
    try:
        found = os.stat(real).st_mode
    except FileNotFoundError:
        return _Target(real)
    if not (stat.S_ISREG(found) or stat.S_ISCHR(found) or stat.S_ISFIFO(found)):
        raise OSError(errno.EINVAL, "it is there and is not a file")
    if not os.access(real, os.W_OK):
        raise OSError(errno.EACCES, os.strerror(errno.EACCES))
    if stat.S_ISREG(found):
        return _Target(real, mode=stat.S_IMODE(found) & _PERMISSIONS)
    return _Target(real, straight=True)


def _descriptor(path: str) -> int | None:
    """The number of the open file that `path` stands for, such as ``/dev/stdout``; None if it is a name of its own.

    Opened anew by that name, a file that a shell has opened would be cut to nothing.
    """
    for _ in range(40):
        path = os.path.abspath(path)
        if path in _STREAMS:
            return _STREAMS[path]
        found = _DESCRIPTOR.fullmatch(path)
        if found is not None and found[1] in (None, "self", "thread-self", str(os.getpid())):
            return int(found[2])
        if not os.path.islink(path):
            return None
        path = os.path.join(os.path.dirname(path), os.readlink(path))
    return None


def same_file(one: PathLike, other: PathLike) -> bool:
    """Whether both are names of one file, there or yet to be made; links and hard links are seen through.

    What is no regular file, such as ``/dev/null``, may have as many names as it likes.
    """
    with contextlib.suppress(OSError, ValueError):
        first, second = os.path.realpath(one), os.path.realpath(other)
        if os.path.exists(first) and os.path.exists(second):
            return os.path.isfile(first) and os.path.samefile(first, second)
        (folder, name), (another, last) = os.path.split(first), os.path.split(second)
        return name == last and os.path.samefile(folder, another)
    return False


def is_straight(path: PathLike) -> bool:
    """Whether `path` is no file of its own, but a pipe, a device or an open file such as ``/dev/stdout``."""
    try:
        return _target(path).straight
    except (OSError, ValueError):
        return False


def check_writable(path: PathLike) -> None:
    """`FormatError` if `path` cannot be written: found by trying, with a file that is removed at once."""
    with _refused(path):
        target = _target(path)
        os.unlink(_begin(target)[0])


@contextlib.contextmanager
def replacing(path: PathLike) -> Iterator[Path]:
    """A new empty file to write to; it takes the place of `path` when the block ends well.

    A reader sees the old file or the whole new one. If the block fails nothing is left behind; what the operating
    system refused becomes a `FormatError`. A link stays, and what it leads to is replaced. A file that is replaced
    keeps its mode, a new one has that of the umask. Where `path` is a pipe, a device or an open file such as
    ``/dev/stdout``, the whole is written to it at the end.
    """
    with _refused(path):
        target = _target(path)
        temporary, mode = _begin(target)
        try:
            yield Path(temporary)
            if target.straight:
                _pour(temporary, target)
            else:
                # Some writers make a file of their own in place of this one.
                os.chmod(temporary, mode if target.mode is None else target.mode)
                os.replace(temporary, target.path)
        finally:
            with contextlib.suppress(OSError):
                os.unlink(temporary)


@contextlib.contextmanager
def _refused(path: PathLike) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise FormatError(f"cannot be written: {_reason(path, error)}", file=os.fspath(path)) from error


def _reason(path: PathLike, error: OSError | ValueError) -> str:
    # As it was written, but for links, which lead elsewhere.
    folder = os.path.dirname(os.path.realpath(path) if os.path.islink(path) else path) or "."
    if isinstance(error, FileNotFoundError) and not os.path.isdir(folder):
        return f"there is no folder {folder}"
    if isinstance(error, PermissionError) and not os.access(folder, os.W_OK | os.X_OK):
        return f"no permission to write in {folder}"
    return first_line(error)


def _begin(target: _Target) -> tuple[str, int]:
    """A new file beside the target, or among the temporary ones, and the mode that it was given."""
    if target.straight:
        handle, temporary = tempfile.mkstemp()
    else:
        # Its name must not be too long, which looking for it finds.
        with contextlib.suppress(FileNotFoundError):
            os.lstat(target.path)
        handle, temporary = new_file(os.path.dirname(target.path), ".", ".tmp")
    with os.fdopen(handle, "wb") as stream:
        return temporary, stat.S_IMODE(os.fstat(stream.fileno()).st_mode)


def new_file(folder: PathLike, prefix: str, suffix: str = "") -> tuple[int, str]:
    """A new file in `folder`, open for writing, and its path; its mode follows the umask, as `mkstemp`'s does not."""
    path = os.path.join(folder, f"{prefix}{uuid.uuid4().hex}{suffix}")
    return os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | _PLAIN, _MODE), path


def _pour(source: str, target: _Target) -> None:
    opened = os.open(target.path, os.O_WRONLY) if target.descriptor is None else os.dup(target.descriptor)
    with open(source, "rb") as content, os.fdopen(opened, "wb") as stream:
        shutil.copyfileobj(content, stream)


def write_text(path: PathLike, text: str) -> None:
    """Write `text` to `path` as UTF-8, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")
