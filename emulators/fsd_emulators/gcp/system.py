"""What Linux says of processes: the port one listens on, the memory it holds."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_PAGE = os.sysconf("SC_PAGE_SIZE")
_LISTENS = "0A"


def listening_port(pid: int) -> int:
    """The TCP port (IPv4) that a process listens on; 0 if it listens on none."""
    sockets = set(_open_files(pid))
    for line in Path("/proc/net/tcp").read_text(encoding="utf-8").splitlines()[1:]:
        _, local, _, state, *_, inode = line.split()[:10]
        if state == _LISTENS and f"socket:[{inode}]" in sockets:
            return int(local.partition(":")[2], 16)
    return 0


def _open_files(pid: int) -> Iterator[str]:
    # A process may end, and a file be closed, while we look.
    with suppress(FileNotFoundError):
        for file in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(FileNotFoundError):
                yield os.readlink(file)


def own_memory(pid: int) -> int:
    """Bytes that a process and its children hold for themselves; what they share with others is not counted."""
    return sum(map(_own_bytes, _family(pid)))


def _family(pid: int) -> Iterator[int]:
    """A process and its children, all the way down."""
    yield pid
    with suppress(FileNotFoundError, ProcessLookupError):
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8").split():
            yield from _family(int(child))


def _own_bytes(pid: int) -> int:
    with suppress(FileNotFoundError, ProcessLookupError):
        _, resident, shared, *_ = Path(f"/proc/{pid}/statm").read_text(encoding="utf-8").split()
        return (int(resident) - int(shared)) * _PAGE
    return 0
