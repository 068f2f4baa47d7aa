"""The loop over layers: the partitioned sparse product, for one batch on one rank (paper, section III-B).

For layer k a rank sends the rows of ``x^(k-1)`` that others need, multiplies its local block while they travel, then
adds the block of each other rank in rank order, whatever the order of arrival, so that results are the same to the bit.

Samples are dropped as they die: a rank carries only those in which it holds or has received anything, which is exact
where ``f(b) = 0`` for its rows; where it is not, all samples are carried.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from typing import NamedTuple, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from fsdcore.contracts.channel import Slot
from fsdcore.errors import FsdError
from fsdcore.kernels.base import Activations, Kernel, PreparedLayer, Strip
from fsdcore.messages.frames import DATA, Body
from fsdcore.messages.messenger import Awaited, Messenger
from fsdcore.messages.rows import Encoded, Message, RowEncoder, Rows, Table, open_rows
from fsdcore.messages.sample_lists import Columns
from fsdcore.plan.plan import Send
from fsdcore.record.recorder import Recorder

_T = TypeVar("_T")
Positions = npt.NDArray[np.integer]

# Messages that came before their turn are opened while the worker would only wait, up to so many bytes of values.
_OPENED_BYTES = 1024 * 1024
# From so many values on, the messages of a layer are encoded by several threads.
_WORTH_THREADS = 1 << 20
# Messages that threads encode beside the one that is waited for.
_AHEAD = 1


class Tools(NamedTuple):
    """What all batches of a worker share. `encoders` is a pool for large layers, None to encode in this thread."""

    kernel: Kernel
    recorder: Recorder
    messenger: Messenger | None = None
    encoders: Executor | None = None


class BatchLoop:
    """One batch of `samples` on one rank.

    It holds the rank's rows of the last layer that was run: `first` runs layer 1, `later` each that follows, `encode`
    gives them as bytes. At most two activations are held at a time, and what a few messages hold.
    """

    def __init__(self, tools: Tools, batch: int, samples: int) -> None:
        self._kernel, self._recorder = tools.kernel, tools.recorder
        self._messenger, self._encoders = tools.messenger, tools.encoders
        self._batch, self._samples = batch, samples
        self._x: Activations | None = None
        # The columns of the last message that had any row, to each target and from each source.
        self._listed: dict[int, Columns] = {}
        self._columns: dict[int, Columns] = {}

    def first(self, layer: PreparedLayer, inputs: Iterable[Strip]) -> None:
        """Layer 1, over the input rows it reads, strip by strip."""
        strips = iter(inputs)
        while (strip := self._loaded(strips)) is not None:
            with self._recorder.timed("multiply"):
                self._x = self._kernel.first(layer, strip, self._samples, self._x)

    def _loaded(self, strips: Iterator[Strip]) -> Strip | None:
        with self._recorder.timed("load"):
            return next(strips, None)

    def later(self, number: int, layer: PreparedLayer) -> Iterator[Awaited]:
        """Layer `number` of 2 and up. Gives each message it must wait for, and goes on once that is there."""
        slot, x = Slot(DATA, self._batch, number), self._held()
        if self._messenger is not None:
            self._messenger.expect(slot, list(layer.ranks))
            if layer.sends:
                self._send(self._messenger, slot, layer, x)
        self._x = None
        with self._recorder.timed("multiply"):
            z = self._kernel.local(layer, x, self._samples)
        del x
        if self._messenger is not None:
            opened = _Opened(self._messenger, self._recorder, slot, layer, self._samples, self._columns)
            for source in range(len(layer.ranks)):
                yield from opened.until(source)
                rows = opened.rows(source)
                with self._recorder.timed("multiply"):
                    z = self._kernel.add(layer, source, rows, z)
        self._x = z

    def outputs(self) -> Rows:
        """This rank's rows."""
        x = self._held()
        return Rows(x.columns, x.rows(None))

    def encode(self) -> tuple[Body, int]:
        """This rank's rows as the body of a message, and how many there are."""
        with self._recorder.timed("encode"):
            rows = self.outputs()
            return RowEncoder(rows, self._samples).encode().body, rows.values.shape[0]

    def _held(self) -> Activations:
        if self._x is None:
            raise AssertionError("layer 1 runs first, and each layer to its end")
        return self._x

    def _send(self, messenger: Messenger, slot: Slot, layer: PreparedLayer, x: Activations) -> None:
        # The largest first, as they travel longest.
        sends = sorted(layer.sends, key=lambda send: -send.rows.size)
        messenger.send(slot, self._messages(sends, x))

    def _messages(self, sends: list[Send], x: Activations) -> Iterator[tuple[int, Body]]:
        """Each message as soon as it is encoded; in the order of `sends`, on which the publishes depend."""
        with self._recorder.timed("encode"):
            encoder = RowEncoder(Rows(x.columns, x.rows(None)), self._samples)
        encoded = self._encoded(encoder, sends, x.columns.size)
        for send in sends:
            with self._recorder.timed("encode"):
                message = next(encoded)
            if message.columns is not None:
                self._listed[send.rank] = message.columns
            self._recorder.add("rows_sent", message.rows)
            self._recorder.add("nonzeros_sent", message.nonzeros)
            yield send.rank, message.body

    def _encoded(self, encoder: RowEncoder, sends: list[Send], width: int) -> Iterator[Encoded]:
        positions, before = [send.rows for send in sends], [self._listed.get(send.rank) for send in sends]
        if self._encoders is not None and width * sum(map(len, positions)) > _WORTH_THREADS:
            return _ahead(self._encoders, encoder.encode, zip(positions, before, strict=True))
        return map(encoder.encode, positions, before)


def _ahead(
    threads: Executor,
    call: Callable[[Positions, Columns | None], Encoded],
    each: Iterable[tuple[Positions, Columns | None]],
) -> Iterator[Encoded]:
    """What `call` gives for each, in order, of which a few are made before they are asked for."""
    made: deque[Future[Encoded]] = deque()
    for given in each:
        made.append(threads.submit(call, *given))
        if len(made) > _AHEAD:
            yield made.popleft().result()
    while made:
        yield made.popleft().result()


class _Opened:
    """The messages of one layer: opened as they come, used in rank order.

    `columns` has those of the last message of each source that had any row, of the layers before.
    """

    def __init__(
        self,
        messenger: Messenger,
        recorder: Recorder,
        slot: Slot,
        layer: PreparedLayer,
        samples: int,
        columns: dict[int, Columns],
    ) -> None:
        self._messenger, self._recorder, self._slot = messenger, recorder, slot
        self._ranks, self._widths, self._samples = layer.ranks, layer.widths, samples
        self._columns = columns
        self._messages: dict[int, Message] = {}
        self._opened_bytes = 0

    def until(self, source: int) -> Iterator[Awaited]:
        """Give the wait for the source's message, unless it is there."""
        if source in self._messages or self._open(source):
            return
        self._open_others(source + 1)
        yield self._messenger.awaiting(self._slot, self._ranks[source])
        if not self._open(source):
            raise AssertionError("a wait that ended before its message came")

    def rows(self, source: int) -> Table:
        """What the source sent, decoded."""
        message = self._messages.pop(source)
        self._opened_bytes -= message.size
        with self._recorder.timed("decode"):
            return self._named(source, message.table)

    def _open_others(self, first: int) -> None:
        """Nothing else to do: open what came before its turn."""
        for source in range(first, len(self._ranks)):
            if self._opened_bytes > _OPENED_BYTES:
                return
            if source not in self._messages:
                self._open(source)

    def _open(self, source: int) -> bool:
        body = self._messenger.take_ready(self._slot, self._ranks[source])
        if body is None:
            return False
        rank, width = self._ranks[source], self._widths[source]
        with self._recorder.timed("decode"):
            message = self._named(source, lambda: open_rows(body, width, self._samples, self._columns.get(rank)))
        if message.columns.size:
            self._columns[rank] = message.columns
        self._messages[source] = message
        self._opened_bytes += message.size
        return True

    def _named(self, source: int, work: Callable[[], _T]) -> _T:
        """What `work` gives; an error it raises names the peer."""
        try:
            return work()
        except FsdError as error:
            raise error.at(peer=self._ranks[source]) from None


Steps: TypeAlias = Iterator[Awaited]


def run_in_flight(batches: Iterable[Callable[[], Steps]], most: int, messenger: Messenger | None) -> None:
    """Run every batch to its end, `most` of them at once; each gives what it must wait for, then goes on.

    What a batch raises ends all; `DeadlineError` if all wait and the time of one is over.
    """
    fresh = iter(batches)
    waits: dict[Steps, Awaited] = {}
    while True:
        steps = _able(waits, messenger)
        if steps is None and len(waits) < most:
            begin = next(fresh, None)
            steps = begin() if begin is not None else None
        if steps is None:
            if not waits or messenger is None:
                return
            messenger.wait_any(list(waits.values()))
            continue
        awaited = next(steps, None)
        if awaited is None:
            waits.pop(steps, None)
        else:
            waits[steps] = awaited


def _able(waits: dict[Steps, Awaited], messenger: Messenger | None) -> Steps | None:
    """The oldest batch whose message is there."""
    if messenger is None:
        return None
    return next((steps for steps, awaited in waits.items() if messenger.arrived(awaited)), None)
