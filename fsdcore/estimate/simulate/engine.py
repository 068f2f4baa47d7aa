"""The loop of every worker, the launch tree and the channel in virtual time: events in order, nothing computed.

An event is a worker whose thread is free: it goes on with the oldest batch whose messages are there, or begins the
next one, as `fsdcore.worker.loop` does, up to its next wait. What it sends on the way is due at its targets later
than the event itself, so that all that has come by then is known when an event's turn is.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from fsdcore.arrays import Float64s
from fsdcore.contracts.compute import children
from fsdcore.estimate.simulate.conditions import Chance, Conditions
from fsdcore.estimate.simulate.inbox import Costs, Taken, take_by_name, take_from_queue
from fsdcore.estimate.simulate.ledger import Ledger
from fsdcore.estimate.simulate.work import LayerTraffic, Work
from fsdcore.estimate.speeds import ComputeModel
from fsdcore.estimate.timing import Loads, looks, reading, writing
from fsdcore.messages.object_channel import ABORT_CHECK_SECONDS

_NEVER = math.inf
# Who waits on an object channel looks so often whether the run was stopped.
# The record of a worker, which rank 0 gathers; with one that is longer nothing would change.
_RECORD_BYTES = 1500.0


class _Box:
    """The frames of one batch and layer on their way: when each arrives, in order of target and source."""

    __slots__ = ("arrival", "missing", "ready", "users")

    def __init__(self, traffic: LayerTraffic) -> None:
        ends = np.array(traffic.arrivals)
        self.arrival = np.empty(int(ends[-1]))
        self.missing = np.diff(ends)
        self.users = int(np.count_nonzero(self.missing))
        self.ready: dict[int, float] = {}


@dataclass(eq=False)
class _Worker:
    """A rank: the moment its thread is free, the batches that wait and at which layer, the next one to begin."""

    free: float = _NEVER
    waiting: dict[int, int] = field(default_factory=dict)
    fresh: int = 0
    flushed: float = 0.0
    woken: float = _NEVER
    abort_look: float = 0.0
    extra: dict[tuple[int, int], list[float]] = field(default_factory=dict)
    done: bool = False


def simulate_once(work: Work, conditions: Conditions, seed: int, traced: bool = False) -> tuple[Ledger, int]:
    """One run; the same for the same seed. Also gives how many calls were refused and repeated.

    With `traced`, the ledger also knows when each worker did what.
    """
    engine = _Engine(work, Chance(conditions, work.workers, seed), traced)
    engine.run()
    return engine.ledger, engine.chance.refused


class _Engine:
    def __init__(self, work: Work, chance: Chance, traced: bool) -> None:
        self.work, self.chance, self.ledger = work, chance, Ledger(work, traced)
        self._workers = [_Worker() for _ in range(work.workers)]
        self._events: list[tuple[float, int]] = []
        self._boxes: dict[tuple[int, int], _Box] = {}
        model = work.model
        self._compute, self._store = model.compute, model.store
        self._by_name = work.channel == "object"
        self._wire = model.channel(work.channel) if work.limits is not None else None
        self._computing: list[float] = (chance.slowness / work.share).tolist()
        self._store_pace: list[float] = (chance.narrowness / self._store.bytes_per_second).tolist()
        self._pace: list[float] = (
            (chance.narrowness / self._wire.bytes_per_second).tolist() if self._wire is not None else []
        )
        self._loads = {id(batch): _Loads(batch.loads, model.compute) for batch in work.batches}
        self._gathered = np.full(max(0, work.workers - 1), _NEVER)
        self._reporting = work.workers - 1

    # The whole ----------------------------------------------------------------------------------------------

    def run(self) -> None:
        """From the client's call to the last output in its hands."""
        work, ledger = self.work, self.ledger
        begun = writing([batch.input_bytes for batch in work.batches], self._store)
        self._launch(0, begun)
        events, workers, limited = self._events, self._workers, [g for g in self.chance.gates.values() if not g.open]
        while events:
            moment, rank = heapq.heappop(events)
            if workers[rank].woken == moment:
                workers[rank].woken = _NEVER
                for gate in limited:
                    gate.now = moment
                self._wake(rank, moment)
        done = ledger.ended[0] + self._store.put_seconds * self.chance.factors["put"].one()
        looked = looks(begun, done, work.latency_seconds, self._store)
        outputs = int(np.count_nonzero(work.holds)) * len(work.batches)
        size = sum(float(batch.loads.output_bytes.sum()) for batch in work.batches)
        ledger.client = {
            "invocations": 1,
            "puts": len(work.batches),
            "gets": looked.gets + outputs,
            "lists": looked.lists,
        }
        ledger.wall_seconds = looked.found + reading(outputs, size, self._store)

    def _launch(self, rank: int, moment: float) -> float:
        """Start a worker, called at `moment`; returns when the call has been answered."""
        factors, model = self.chance.factors, self._compute
        called = moment + self.chance.gates["invoke"].delay(moment)
        called += model.invoke_seconds * factors["invoke"].one()
        usual = model.start_seconds if self.chance.cold[rank] else self.chance.conditions.warm_start_seconds
        start = called + usual * factors["start"].one()
        worker = self._workers[rank]
        worker.free = start
        self.ledger.started[rank] = start
        self._wake_at(rank, start)
        return called

    def _wake_at(self, rank: int, moment: float) -> None:
        worker = self._workers[rank]
        if moment < worker.woken:
            worker.woken = moment
            heapq.heappush(self._events, (moment, rank))

    # One worker ---------------------------------------------------------------------------------------------

    def _wake(self, rank: int, now: float) -> None:
        worker, batches = self._workers[rank], len(self.work.batches)
        if worker.done:
            self._gather(worker)
            return
        if worker.fresh == 0:
            worker.free = self._begin(rank, now)
        batch = next((b for b, k in worker.waiting.items() if self._boxes[b, k].ready.get(rank, _NEVER) <= now), None)
        if batch is not None:
            layer = worker.waiting.pop(batch)
            self._advance(rank, batch, layer + 1, self._take(rank, batch, layer))
        elif worker.fresh < batches and len(worker.waiting) < self.work.in_flight:
            self._start_batch(rank, max(now, worker.free))
        if not worker.waiting and worker.fresh == batches:
            self._finish(rank)
        else:
            self._rest(rank, batches)

    def _rest(self, rank: int, batches: int) -> None:
        """Wake again when something can be done: at once, when a message is there, or when one is sent."""
        worker = self._workers[rank]
        if worker.fresh < batches and len(worker.waiting) < self.work.in_flight:
            self._wake_at(rank, worker.free)
            return
        ready = min((self._boxes[key].ready.get(rank, _NEVER) for key in worker.waiting.items()), default=_NEVER)
        if ready < _NEVER:
            self._wake_at(rank, max(worker.free, ready))

    def _begin(self, rank: int, now: float) -> float:
        """Start the children, read the plan."""
        for child in children(rank, self.work.workers, self.work.branching):
            now = self._launch(child, now)
        spent = self._read(rank, now, 2, float(self.work.plan_bytes[rank]))
        return self.ledger.spend("load", rank, (-1, 0), now, spent)

    def _read(self, rank: int, now: float, requests: int, size: float) -> float:
        """Seconds of so many requests to the store."""
        spent = self._store.get_seconds * float(self.chance.factors["get"].take(requests).sum())
        spent += size * self._store_pace[rank]
        return spent + self.chance.gates["get"].delay(now)

    def _start_batch(self, rank: int, now: float) -> None:
        worker = self._workers[rank]
        batch, worker.fresh = worker.fresh, worker.fresh + 1
        now = self.ledger.spend("load", rank, (batch, 1), now, self._read(rank, now, 1, 0.0))
        first = self._of(batch).first[rank] * self._computing[rank] / self._compute.multiply_rate
        self._advance(rank, batch, 2, self.ledger.spend("multiply", rank, (batch, 1), now, first))

    def _of(self, batch: int) -> _Loads:
        return self._loads[id(self.work.batches[batch])]

    def _advance(self, rank: int, batch: int, layer: int, now: float) -> None:
        """From `layer` on up to the next wait, or to the end of the batch."""
        worker, traffic, loads = self._workers[rank], self.work.batches[batch].traffic, self._of(batch)
        pace = self._computing[rank] / self._compute.multiply_rate
        while layer <= self.work.layers:
            sent = traffic[layer - 1]
            if sent is not None:
                now = self._send(rank, batch, layer, now, sent)
            now = self.ledger.spend("multiply", rank, (batch, layer), now, loads.local[layer - 1][rank] * pace)
            if sent is not None and sent.arrivals[rank] < sent.arrivals[rank + 1]:
                self._box(batch, layer, sent)
                worker.waiting[batch] = layer
                worker.free = now
                return
            layer += 1
        worker.free = self._end_batch(rank, batch, now)

    def _end_batch(self, rank: int, batch: int, now: float) -> float:
        size, worker = self._of(batch).outputs[rank], self._workers[rank]
        end = now
        if self.work.holds[rank]:
            end += self.chance.gates["put"].delay(now)
            end += self._store.put_seconds * self.chance.factors["put"].one() + size * self._store_pace[rank]
        return self.ledger.spend("send", rank, (batch, self.work.layers), now, max(end, worker.flushed) - now)

    # Sending ------------------------------------------------------------------------------------------------

    def _send(self, rank: int, batch: int, layer: int, now: float, sent: LayerTraffic) -> float:
        """Encode and publish what the rank sends in a layer; returns when its thread is free."""
        start, stop = sent.first[rank], sent.first[rank + 1]
        if start == stop:
            return now
        encode = self._of(batch).encode[layer - 1][rank] * self._computing[rank]
        first, last = sent.first_publish[rank], sent.first_publish[rank + 1]
        usual = self._wire.send_seconds if self._wire is not None else 0.0
        costs = self.chance.factors["send"].take(last - first) * usual + sent.size[first:last] * self._pace[rank]
        ready = now + encode * sent.leaves[first:last]
        end, taken = self._published(rank, ready, costs, now + encode)
        begun = self.ledger.spend("encode", rank, (batch, layer), now, encode)
        self.ledger.spend("send", rank, (batch, layer), begun, max(0.0, end - begun))
        self._deliver(batch, layer, sent, slice(start, stop), taken[sent.publish[start:stop]])
        return end

    def _published(self, rank: int, ready: Float64s, costs: Float64s, encoded: float) -> tuple[float, Float64s]:
        """When the thread is free, and when each publish was taken, of those that are ready at `ready`."""
        gate = self.chance.gates["put" if self._by_name else "send"]
        if not gate.open:
            costs = costs + gate.delays(ready)
        limits = self.work.limits
        if limits is None or limits.publishes_in_flight == 1:
            held = np.cumsum(costs)
            return encoded + float(held[-1]), ready + held
        lanes = [0.0] * limits.publishes_in_flight
        taken = np.empty(ready.size)
        for number, (moment, cost) in enumerate(zip(ready.tolist(), costs.tolist(), strict=True)):
            taken[number] = max(moment, lanes[0]) + cost
            heapq.heapreplace(lanes, float(taken[number]))
        worker = self._workers[rank]
        worker.flushed = max(worker.flushed, float(taken.max()))
        return encoded, taken

    def _deliver(self, batch: int, layer: int, sent: LayerTraffic, own: slice, taken: Float64s) -> None:
        wire, chance, conditions = self._wire, self.chance, self.chance.conditions
        assert wire is not None
        target, box = sent.target[own], self._box(batch, layer, sent)
        arrival = taken + chance.factors["delivery"].take(taken.size) * wire.delivery_seconds
        if not self._by_name:
            lost = chance.chosen(conditions.redelivered, taken.size)
            arrival[lost] += conditions.redelivery_seconds
            for double in chance.chosen(conditions.duplicates, taken.size).tolist():
                again = float(arrival[double]) + wire.delivery_seconds * chance.factors["delivery"].one()
                self._workers[int(target[double])].extra.setdefault((batch, layer), []).append(again)
        box.arrival[sent.place[own]] = arrival
        if sent.single:
            left = box.missing[target] - 1
            box.missing[target] = left
            complete = target[left == 0]
        else:
            np.subtract.at(box.missing, target, 1)
            complete = np.unique(target[box.missing[target] == 0])
        for rank in complete.tolist():
            ready = float(box.arrival[sent.arrivals[rank] : sent.arrivals[rank + 1]].max())
            box.ready[rank] = ready
            worker = self._workers[rank]
            if worker.waiting.get(batch) == layer:
                self._wake_at(rank, max(worker.free, ready))

    def _box(self, batch: int, layer: int, sent: LayerTraffic) -> _Box:
        box = self._boxes.get((batch, layer))
        if box is None:
            box = self._boxes[batch, layer] = _Box(sent)
        return box

    # Receiving ----------------------------------------------------------------------------------------------

    def _take(self, rank: int, batch: int, layer: int) -> float:
        """Receive, open and use the messages of a layer; returns when the thread is free."""
        sent, box, loads = self.work.batches[batch].traffic[layer - 1], self._boxes[batch, layer], self._of(batch)
        assert sent is not None
        start, stop = sent.arrivals[rank], sent.arrivals[rank + 1]
        count, computing = stop - start, self._computing[rank]
        opened = loads.decode[layer - 1][rank] * computing
        used = loads.remote[layer - 1][rank] * computing / self._compute.multiply_rate
        brought = loads.bytes_in[layer - 1][rank] * self._pace[rank]
        shares = (brought / count, opened / count, used / count)
        worker = self._workers[rank]
        beyond = sent.beyond[start:stop] if sent.beyond is not None else None
        taken = self._receive(worker, (batch, layer), box.arrival[start:stop], shares, beyond)
        self._count(rank, layer, taken, count, 0 if beyond is None else int(beyond.sum()))
        spend, place = self.ledger.spend, (batch, layer)
        latest = sent.source[start + int(box.arrival[start:stop].argmax())]
        waited = max(0.0, taken.end - worker.free - opened - used)
        now = spend("wait", rank, place, worker.free, waited, int(latest))
        spend("multiply", rank, place, spend("decode", rank, place, now, opened), used)
        box.users -= 1
        if box.users == 0:
            del self._boxes[batch, layer]
        return taken.end

    def _receive(
        self,
        worker: _Worker,
        slot: tuple[int, int],
        arrivals: Float64s,
        shares: tuple[float, float, float],
        beyond: npt.NDArray[np.bool_] | None = None,
    ) -> Taken:
        wire, limits, chance = self._wire, self.work.limits, self.chance
        assert wire is not None
        assert limits is not None
        extra = worker.extra.pop(slot, [])
        service = "get" if self._by_name else "receive"
        calls = chance.factors[service].take(arrivals.size + len(extra)) * wire.receive_seconds
        if self._by_name:
            if beyond is not None:
                calls = calls * (1 + beyond)
            gate = chance.gates["get"]
            if not gate.open:
                calls = calls + gate.delays(np.maximum(arrivals, worker.free))
            phases = chance.phases(arrivals.size)
            return take_by_name(worker.free, arrivals, Costs(calls, *shares), wire.poll_seconds, phases)
        costs = Costs(calls, *shares)
        if not limits.background_receive:
            return take_from_queue(worker.free, arrivals, costs, limits.max_receive_frames, extra)
        # Another thread receives; this one only opens and uses.
        first = float(arrivals.min())
        alone = take_from_queue(first, arrivals, Costs(calls, shares[0], 0, 0), limits.max_receive_frames, extra)
        end = max(worker.free + arrivals.size * (shares[1] + shares[2]), alone.end + shares[1] + shares[2])
        return alone._replace(end=end)

    def _count(self, rank: int, layer: int, taken: Taken, frames: int, beyond: int) -> None:
        counts, worker = self.ledger.counts, self._workers[rank]
        counts["receives"][layer][rank] += taken.receives
        counts["acknowledges"][layer][rank] += taken.receives
        if self._by_name:
            waited = worker.free + taken.idle
            aborts = 0
            if waited >= worker.abort_look:
                aborts = 1 + int(taken.idle / ABORT_CHECK_SECONDS)
                worker.abort_look = waited + ABORT_CHECK_SECONDS
            counts["gets"][layer][rank] += frames + beyond + taken.looks + aborts
            self.ledger.vain += taken.looks + aborts

    # The end ------------------------------------------------------------------------------------------------

    def _finish(self, rank: int) -> None:
        """All batches are done: the record goes to rank 0, which waits for all of them."""
        worker = self._workers[rank]
        worker.done = True
        self.ledger.ended[rank] = worker.free
        if rank > 0 and self._wire is not None:
            chance, wire = self.chance, self._wire
            sent = worker.free + wire.send_seconds * chance.factors["send"].one() + _RECORD_BYTES * self._pace[rank]
            self._gathered[rank - 1] = sent + wire.delivery_seconds * chance.factors["delivery"].one()
            self._reporting -= 1
        if self._reporting == 0 and self._workers[0].done and self.work.workers > 1:
            self._wake_at(0, max(self._workers[0].free, float(self._gathered.max())))

    def _gather(self, worker: _Worker) -> None:
        taken = self._receive(worker, (-1, 0), self._gathered, (_RECORD_BYTES * self._pace[0], 0.0, 0.0))
        self._count(0, 0, taken, self._gathered.size, 0)
        self.ledger.spend("wait", 0, (-1, 0), worker.free, taken.end - worker.free, 1 + int(self._gathered.argmax()))
        self.ledger.ended[0] = worker.free = taken.end


class _Loads:
    """What a batch makes each rank do, as lists by layer and rank, which are read one number at a time."""

    def __init__(self, loads: Loads, compute: ComputeModel) -> None:
        codec, each = 1 / compute.codec_rate, compute.message_seconds / 2
        self.first = (loads.local[0] + loads.remote[0]).tolist()
        self.local, self.remote = loads.local.tolist(), loads.remote.tolist()
        self.encode = (loads.encoded * codec + loads.messages * each).tolist()
        self.decode = (loads.decoded * codec + loads.messages * each).tolist()
        self.bytes_in = loads.bytes_in.tolist()
        self.outputs = loads.output_bytes.tolist()
