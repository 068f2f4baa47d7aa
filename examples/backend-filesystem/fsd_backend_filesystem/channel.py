"""A queue as folders: one spool per lane and rank, one file per frame.

A frame is written in ``unfinished``, and moved to ``new`` when it is whole. To receive it is to move it to ``taken``,
which only one of several succeeds in; the time is part of its name there, and when the visibility timeout has passed
since then, it may be taken again.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from fsdcore.clock import Deadline
from fsdcore.contracts.channel import Address, Channel, Outgoing, Received
from fsdcore.contracts.limits import ChannelCapabilities
from fsdcore.errors import ChannelError
from fsdcore.messages.packing import check_publish

LIMITS = ChannelCapabilities(
    max_frame_bytes=1 << 20,
    max_publish_frames=32,
    max_publish_bytes=32 << 20,
    max_receive_frames=32,
    lanes=64,
)
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.001, 0.05


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ChannelError(f"the spool cannot be used: {error}") from error


class _Spool:
    """The frames that wait for one rank."""

    def __init__(self, folder: Path) -> None:
        self._unfinished, self._new, self._taken = (folder / name for name in ("unfinished", "new", "taken"))
        for part in (self._unfinished, self._new, self._taken):
            part.mkdir(parents=True, exist_ok=True)

    def add(self, data: bytes) -> None:
        file = self._unfinished / uuid.uuid4().hex
        file.write_bytes(data)
        file.rename(self._new / file.name)

    def due(self, taken_before: float) -> Iterator[Path]:
        """Frames that nobody has taken, or not since `taken_before`."""
        for file in self._taken.iterdir():
            if int(file.name.partition("-")[0]) / 1000 <= taken_before:
                yield file
        yield from self._new.iterdir()

    def take(self, file: Path, now: float) -> Received:
        """`FileNotFoundError` if another was first, or the frame has been acknowledged meanwhile."""
        taken = file.rename(self._taken / f"{int(now * 1000)}-{file.name.rpartition('-')[2]}")
        return Received(taken.read_bytes(), taken)

    def purge(self) -> int:
        waiting = [*self._new.iterdir(), *self._taken.iterdir()]
        # What a sender that died had not finished was never sent: it goes, but does not count.
        for file in [*waiting, *self._unfinished.iterdir()]:
            file.unlink(missing_ok=True)
        return len(waiting)


class SpoolChannel(Channel):
    """The endpoint of one rank, over the spools below `root`."""

    def __init__(self, root: Path, address: Address, visibility_timeout: float) -> None:
        self._lane, self._visibility_timeout = root / str(address.lane), visibility_timeout
        with _translated():
            self._own = _Spool(self._lane / str(address.rank))

    @property
    def capabilities(self) -> ChannelCapabilities:
        return LIMITS

    def send(self, frames: Sequence[Outgoing]) -> None:
        check_publish(frames, LIMITS)
        with _translated():
            spools = {target: _Spool(self._lane / str(target)) for target in {frame.target for frame in frames}}
            for frame in frames:
                spools[frame.target].add(frame.data)

    def receive(self, deadline: Deadline) -> list[Received]:
        pause = _SHORTEST_PAUSE
        while True:
            with _translated():
                received = self._take(deadline.clock.wall())
            if received or deadline.passed():
                return received
            deadline.clock.sleep(min(pause, deadline.remaining()))
            pause = min(pause * 1.5, _LONGEST_PAUSE)

    def _take(self, now: float) -> list[Received]:
        received: list[Received] = []
        for file in self._own.due(now - self._visibility_timeout):
            if len(received) == LIMITS.max_receive_frames:
                break
            with suppress(FileNotFoundError):
                received.append(self._own.take(file, now))
        return received

    def acknowledge(self, received: Sequence[Received]) -> None:
        with _translated():
            for item in received:
                if isinstance(item.token, Path):
                    item.token.unlink(missing_ok=True)

    def purge(self) -> int:
        with _translated():
            return self._own.purge()

    def close(self) -> None:
        """Nothing to give back: the spools belong to the deployment."""
