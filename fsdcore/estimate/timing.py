"""Seconds: every rank's way through the layers, with what it must wait for.

On one rank, a layer consists of these steps: encode and send; multiply its own rows while the messages travel; wait
until the last message has arrived and decode all; multiply the rows received. The slowest rank of a layer delays those
that it sends to.

Several batches may be in flight: while the messages of one travel, the rank works on the next, each in its turn.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fsdcore.arrays import Float64s, Int64s
from fsdcore.client.run import Polling
from fsdcore.contracts.compute import children
from fsdcore.estimate.speeds import ChannelModel, Model, StoreModel

PHASES = ("start", "load", "multiply", "encode", "decode", "send", "receive", "wait")


@dataclass(frozen=True, eq=False)
class Loads:
    """What one batch makes each rank do, each `(layers, workers)`.

    `local`, `remote`: multiply-adds before and after others' rows are there. `encoded`, `decoded`: values.
    `messages`: sent and received. `sends`, `receives`: calls that carry something. `bytes_out`, `bytes_in`.
    `edges`: for each layer the (sources, targets) of its messages; None if all wait for all.
    `output_bytes`: by rank.
    """

    local: Float64s
    remote: Float64s
    encoded: Float64s
    decoded: Float64s
    messages: Float64s
    sends: Float64s
    receives: Float64s
    bytes_out: Float64s
    bytes_in: Float64s
    edges: tuple[tuple[Int64s, Int64s], ...] | None
    output_bytes: Float64s


@dataclass(frozen=True, eq=False)
class Timeline:
    """By rank: `worker_seconds`, from its first line to its end, and `billed_seconds`; `wait`: seconds of waiting.

    `phases`: seconds summed over workers. `wall_seconds`: from the client's call to the end of the last.
    """

    worker_seconds: Float64s
    billed_seconds: Float64s
    wait: Float64s
    phases: dict[str, float]
    wall_seconds: float


class _Clock:
    """The time of every rank, and where it went."""

    def __init__(self, begun: Float64s) -> None:
        self.now = begun.copy()
        self.spent = {phase: np.zeros(begun.size) for phase in PHASES}

    def spend(self, phase: str, seconds: npt.NDArray[np.floating[Any]]) -> None:
        self.now = self.now + seconds
        self.spent[phase] = self.spent[phase] + seconds

    def until(self, moment: Float64s) -> None:
        self.spend("wait", np.maximum(0.0, moment - self.now))


def begin_seconds(workers: int, branching: int, model: Model) -> Float64s:
    """When each rank's first line runs, after the client's call."""
    compute = model.compute
    begun = np.zeros(workers)
    begun[0] = compute.invoke_seconds + compute.start_seconds
    for rank in range(workers):
        for place, child in enumerate(children(rank, workers, branching), start=1):
            begun[child] = begun[rank] + place * compute.invoke_seconds + compute.start_seconds
    return begun


@dataclass(frozen=True)
class _Rates:
    """How fast one run is. `multiply`, `codec`, `message`: seconds of computing."""

    model: Model
    channel: ChannelModel | None
    multiply: float
    codec: float
    message: float


def timeline(
    batches: Sequence[Loads],
    model: Model,
    channel: ChannelModel | None,
    branching: int,
    share: float,
    plan: Float64s,
    in_flight: int = 1,
) -> Timeline:
    """The way of all ranks through `batches`, `in_flight` of them at once.

    `channel` is None for one worker. `share`: of a vCPU that a worker's thread has, 1 at most. `plan`: bytes of the
    stored plan by rank.
    """
    workers, compute, store = plan.size, model.compute, model.store
    begun = begin_seconds(workers, branching, model)
    clock = _Clock(begun)
    started = [len(children(rank, workers, branching)) for rank in range(workers)]
    clock.spend("start", np.array(started) * compute.invoke_seconds)
    clock.spend("load", 2 * store.get_seconds + plan / store.bytes_per_second)
    seconds = 1 / (compute.multiply_rate * share), 1 / (compute.codec_rate * share), compute.message_seconds / share
    rates = _Rates(model, channel, *seconds)
    _in_turn([_batch(clock, loads, rates) for loads in batches], in_flight)
    _gather(clock, model, channel)
    spent = clock.now - begun
    return Timeline(
        worker_seconds=spent,
        billed_seconds=spent + compute.billed_start_seconds,
        wait=clock.spent["wait"],
        phases={phase: float(each.sum()) for phase, each in clock.spent.items()},
        wall_seconds=float(clock.now.max() + store.get_seconds),
    )


def _in_turn(batches: Sequence[Iterator[None]], in_flight: int) -> None:
    """Each batch up to its next wait; a new one is begun as long as fewer than `in_flight` are under way."""
    fresh, waiting = deque(batches), deque[Iterator[None]]()
    while fresh or waiting:
        batch = fresh.popleft() if fresh and len(waiting) < in_flight else waiting.popleft()
        if next(batch, True) is None:
            waiting.append(batch)


def _batch(clock: _Clock, loads: Loads, rates: _Rates) -> Iterator[None]:
    """One batch; gives way where it must wait for others."""
    store, channel = rates.model.store, rates.channel
    clock.spend("load", np.full(clock.now.size, store.get_seconds))
    for k in range(loads.local.shape[0]):
        if channel is None or not loads.messages[k].any():
            clock.spend("multiply", (loads.local[k] + loads.remote[k]) * rates.multiply)
            continue
        # What a message costs beside its values is spread evenly over its two ends.
        clock.spend("encode", loads.encoded[k] * rates.codec + loads.messages[k] * rates.message / 2)
        clock.spend("send", loads.sends[k] * channel.send_seconds + loads.bytes_out[k] / channel.bytes_per_second)
        sent = clock.now + channel.delivery_seconds
        clock.spend("multiply", loads.local[k] * rates.multiply)
        yield
        arrived = _arrived(sent, None if loads.edges is None else loads.edges[k])
        # Who must look for it finds it half a round later.
        clock.until(arrived + (arrived > clock.now) * (channel.poll_seconds / 2))
        taken = loads.receives[k] * channel.receive_seconds + loads.bytes_in[k] / channel.bytes_per_second
        clock.spend("receive", taken)
        clock.spend("decode", loads.decoded[k] * rates.codec + loads.messages[k] * rates.message / 2)
        clock.spend("multiply", loads.remote[k] * rates.multiply)
    clock.spend("send", store.put_seconds + loads.output_bytes / store.bytes_per_second)


def _arrived(sent: Float64s, edges: tuple[Int64s, Int64s] | None) -> Float64s:
    """When the last message for each rank can be had."""
    if edges is None:
        return np.full(sent.size, sent.max())
    last = np.zeros(sent.size)
    np.maximum.at(last, edges[1], sent[edges[0]])
    return last


def _gather(clock: _Clock, model: Model, channel: ChannelModel | None) -> None:
    """Every rank sends its record to rank 0, which waits for all and says that the run is done."""
    others = np.arange(clock.now.size) > 0
    if channel is not None:
        clock.spend("send", others * channel.send_seconds)
        last = np.where(others, 0.0, clock.now.max() + channel.delivery_seconds + channel.receive_seconds)
        clock.until(last)
    clock.spend("send", ~others * model.store.put_seconds)


class Looks(NamedTuple):
    """Requests until the client has found that the run is done, and when that was; the one that reads it included."""

    lists: int
    gets: int
    found: float


def looks(since: float, done: float, latency: float, store: StoreModel) -> Looks:
    """The polls of a client whose run began at 0, which polls from `since` on for a result that exists from `done` on
    (seconds).

    `latency`: how long the client assumes a request takes, 0 where requests cost nothing; `store`: how long they do
    take.
    """
    polling = Polling(latency, 0.0)
    now, lists, gets = since, 0, 0
    while True:
        listing = polling.lists(now)
        lists, gets = lists + listing, gets + (not listing)
        now += store.get_seconds
        if now >= done:
            return Looks(lists, gets + listing, now + store.get_seconds * listing)
        now += polling.pause(now - since)


def found_after(seconds: float, latency: float, store: StoreModel) -> float:
    """When a client that polls from 0 on has a result that appears after `seconds`, on average: half a pause later."""
    return seconds + Polling(latency, 0.0).pause(seconds) / 2 + 2 * store.get_seconds


def writing(input_bytes: Sequence[float], store: StoreModel) -> float:
    """Seconds to write the inputs of all batches."""
    return len(input_bytes) * store.put_seconds + sum(input_bytes) / store.bytes_per_second


def reading(objects: int, output_bytes: float, store: StoreModel) -> float:
    """Seconds to read the outputs."""
    return objects * store.get_seconds + output_bytes / store.bytes_per_second
