"""What a simulated run counts and how long it takes, by layer and rank, and the record made of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from fsdcore.arrays import Float64s, Int64s
from fsdcore.estimate.simulate.work import Work
from fsdcore.record.record import ACTIVITIES, COUNTERS, Record, Setting, SpanLog, WorkerRecord

Table = list[list[float]]

# With more workers than this, who sent to whom and who waited for whom is left out: it grows with their square.
_MOST_WITH_PEERS = 2048

# What the engine counts as time goes by; the rest is known before.
_COUNTED = ("receives", "acknowledges", "gets")


def _table(layers: int, workers: int) -> Table:
    return [[0.0] * workers for _ in range(layers + 1)]


@dataclass(eq=False)
class Ledger:
    """``counts[name][k][r]`` and ``seconds[name][k][r]``: of layer k (0 for what belongs to none) and rank r.

    `started`, `ended`: by rank, in seconds from the client's call. `client`: the client's own requests. `vain`: the
    workers' polls that found nothing, which are among their gets. `waits`: each rank's seconds of waiting, by the rank
    it waited for. `logs`: the spans of each rank if the run is `traced`.
    """

    work: Work
    traced: bool = False
    counts: dict[str, list[list[int]]] = field(init=False)
    seconds: dict[str, Table] = field(init=False)
    waits: list[dict[int, float]] = field(init=False)
    logs: list[SpanLog] = field(init=False)
    started: list[float] = field(init=False)
    ended: list[float] = field(init=False)
    client: dict[str, int] = field(default_factory=dict)
    vain: int = 0
    wall_seconds: float = 0.0

    def __post_init__(self) -> None:
        layers, workers = self.work.layers, self.work.workers
        self.counts = {name: [[0] * workers for _ in range(layers + 1)] for name in _COUNTED}
        self.seconds = {name: _table(layers, workers) for name in ACTIVITIES}
        self.waits = [{} for _ in range(workers)]
        self.logs = [SpanLog() for _ in range(workers)] if self.traced else []
        self.started, self.ended = [0.0] * workers, [0.0] * workers

    def spend(
        self, activity: str, rank: int, place: tuple[int, int], start: float, seconds: float, peer: int = -1
    ) -> float:
        """Note what a rank did from `start` on, for `place`, (batch, layer), and for `peer` if it waited; returns when
        it was done."""
        self.seconds[activity][place[1]][rank] += seconds
        if peer >= 0:
            waits = self.waits[rank]
            waits[peer] = waits.get(peer, 0.0) + seconds
        if self.traced and seconds > 0:
            begun = start - self.started[rank]
            self.logs[rank].add(ACTIVITIES.index(activity), place, begun, begun + seconds, peer)
        return start + seconds

    def record(self, run: str, backend: str, settings: Mapping[str, Setting]) -> Record:
        """The record of the run, as a run itself would have written it."""
        counted, spent = self._counters(), {name: np.array(self.seconds[name]) for name in ACTIVITIES}
        work = self.work
        return Record(
            run_id=run,
            backend=backend,
            channel=work.channel,
            workers=work.workers,
            layers=work.layers,
            samples=work.samples,
            batches=len(work.batches),
            wall_seconds=round(self.wall_seconds, 6),
            counters=self._with_client(counted),
            seconds={name: round(seconds, 6) for name, seconds in self.total_seconds().items()},
            per_layer=_by_layer(counted, spent, work.layers),
            per_worker=self._workers(counted, spent),
            settings=dict(settings),
        )

    def totals(self) -> dict[str, int]:
        """All counters, summed over layers and workers, with the client's."""
        return self._with_client(self._counters())

    def _with_client(self, counted: dict[str, Int64s]) -> dict[str, int]:
        return {name: int(counted[name].sum()) + self.client.get(name, 0) for name in COUNTERS}

    def total_seconds(self) -> dict[str, float]:
        """Seconds by activity, summed over layers and workers."""
        return {name: float(np.array(self.seconds[name]).sum()) for name in ACTIVITIES}

    def _counters(self) -> dict[str, Int64s]:
        """Each counter, by layer from 0, and rank."""
        work = self.work
        found = {name: np.zeros((work.layers + 1, work.workers), np.int64) for name in COUNTERS}
        for batch in work.batches:
            for name, counts in batch.sent.items():
                found[name][1:] += counts
        for name in _COUNTED:
            found[name] += np.array(self.counts[name], np.int64)
        found["gets"][0] += work.reads
        found["puts"][0] += 1
        found["puts"][-1] += work.holds * len(work.batches)
        if work.channel == "object":
            found["puts"] += found["publishes"]
        first = np.arange(work.workers) * work.branching + 1
        found["invocations"][0] = np.clip(work.workers - first, 0, work.branching)
        return found

    def _workers(self, counted: dict[str, Int64s], spent: dict[str, Float64s]) -> list[WorkerRecord]:
        by_rank = {name: table.T.tolist() for name, table in counted.items()}
        seconds = {name: np.round(table, 6).T.tolist() for name, table in spent.items()}
        sent, waited = self._traffic()
        memory = np.ceil(self.work.memory_bytes).astype(np.int64).tolist()
        return [
            WorkerRecord(
                rank=rank,
                started=round(self.started[rank], 6),
                ended=round(self.ended[rank], 6),
                peak_memory_bytes=memory[rank],
                counters={name: by_rank[name][rank] for name in COUNTERS},
                seconds={name: seconds[name][rank] for name in ACTIVITIES},
                bytes_to=sent[rank],
                waits_for=waited[rank],
                spans=self.logs[rank].spans() if self.traced else [],
                spans_dropped=self.logs[rank].dropped if self.traced else 0,
            )
            for rank in range(self.work.workers)
        ]

    def _traffic(self) -> tuple[list[list[int]], list[list[float]]]:
        """Bytes to each peer and seconds of waiting for it, by rank; empty lists where there are too many workers."""
        ranks = range(self.work.workers)
        if self.work.workers > _MOST_WITH_PEERS:
            return [[]] * len(ranks), [[]] * len(ranks)
        waited = [[round(waits.get(peer, 0.0), 6) for peer in ranks] for waits in self.waits]
        return _bytes_to(self.work).tolist(), waited


def _bytes_to(work: Work) -> Int64s:
    """Bytes of messages, without the headers of their frames, by source and target."""
    workers = work.workers
    found = np.zeros(workers * workers)
    often = Counter(id(each) for batch in work.batches for each in batch.traffic)
    known = {id(each): each for batch in work.batches for each in batch.traffic if each is not None}
    for key, traffic in known.items():
        pair = np.repeat(np.arange(workers), np.diff(traffic.first)) * workers + traffic.target
        found += often[key] * np.bincount(pair, traffic.body, workers * workers)
    return np.rint(found).astype(np.int64).reshape(workers, workers)


def _by_layer(counted: dict[str, Int64s], spent: dict[str, Float64s], layers: int) -> list[dict[str, dict[str, float]]]:
    counts = {name: counted[name].sum(axis=1).tolist() for name in COUNTERS}
    seconds = {name: np.round(spent[name].sum(axis=1), 6).tolist() for name in ACTIVITIES}
    return [
        {
            "counters": {name: counts[name][k] for name in COUNTERS},
            "seconds": {name: seconds[name][k] for name in ACTIVITIES},
        }
        for k in range(layers + 1)
    ]


def worker_seconds(ledger: Ledger) -> Sequence[float]:
    """What each worker is billed for, without its start, as a record of the run has it: to a microsecond."""
    return [round(end, 6) - round(start, 6) for start, end in zip(ledger.started, ledger.ended, strict=True)]
