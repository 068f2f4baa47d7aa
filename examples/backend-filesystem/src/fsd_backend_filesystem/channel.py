"""A queue as folders: one per lane and rank, one file per frame.

A frame's file is ``{id}.{deliveries}``. To receive it is to rename it to the next number, which one of several succeeds
in; its time of change says since when it is taken, and after the visibility timeout anyone may take it again.
"""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from fsd_backend_filesystem.store import write_aside
from fsdcore.capabilities import ChannelCapabilities
from fsdcore.channel import Address, Channel, Outgoing, Received
from fsdcore.clock import Deadline
from fsdcore.errors import ChannelError
from fsdcore.packing import check_publish

LIMITS = ChannelCapabilities(max_frame_bytes=1 << 20, max_publish_frames=10, max_publish_bytes=10 << 20, lanes=16)
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.001, 0.05


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ChannelError(f"the spool folder cannot be used: {error}") from error


class SpoolChannel(Channel):
    """The endpoint of one rank, over the folders below `root`."""

    def __init__(self, root: Path, address: Address, visibility_timeout: float) -> None:
        self._root, self._lane, self._visibility_timeout = root, address.lane, visibility_timeout
        with _translated():
            self._own = self._folder(address.rank)

    def _folder(self, rank: int) -> Path:
        folder = self._root / str(self._lane) / str(rank)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    @property
    def capabilities(self) -> ChannelCapabilities:
        return LIMITS

    def send(self, frames: Sequence[Outgoing]) -> None:
        check_publish(frames, LIMITS)
        with _translated():
            for frame in frames:
                aside = write_aside(self._folder(frame.target), frame.data)
                aside.rename(aside.with_name(f"{aside.name.strip('=~')}.0"))

    def receive(self, deadline: Deadline) -> list[Received]:
        pause = _SHORTEST_PAUSE
        while True:
            with _translated():
                received = self._take()
            if received or deadline.passed():
                return received
            deadline.clock.sleep(min(pause, deadline.remaining()))
            pause = min(pause * 1.5, _LONGEST_PAUSE)

    def _take(self) -> list[Received]:
        received: list[Received] = []
        for file in self._own.iterdir():
            if len(received) == LIMITS.max_receive_frames:
                break
            # A file that is gone: another endpoint of this rank was first, or it has been acknowledged.
            with suppress(FileNotFoundError):
                if self._is_due(file):
                    received.append(_claim(file))
        return received

    def _is_due(self, file: Path) -> bool:
        """Whether nobody has taken the frame, or too long ago. A file without a number is not finished."""
        taken = file.suffix not in ("", ".0")
        return file.suffix == ".0" or (taken and file.stat().st_mtime + self._visibility_timeout <= time.time())

    def acknowledge(self, received: Sequence[Received]) -> None:
        for item in received:
            if isinstance(item.token, Path):
                with _translated():
                    item.token.unlink(missing_ok=True)

    def purge(self) -> int:
        with _translated():
            files = list(self._own.iterdir())
            for file in files:
                file.unlink(missing_ok=True)
        return len(files)

    def close(self) -> None:
        """Nothing to give back: the folders belong to the deployment."""


def _claim(file: Path) -> Received:
    claimed = file.with_suffix(f".{int(file.suffix[1:]) + 1}")
    # The time first: from its new name on, the frame must look taken.
    os.utime(file)
    file.rename(claimed)
    return Received(claimed.read_bytes(), claimed)
