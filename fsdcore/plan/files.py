"""Plans in a store: one object per rank, and a manifest that is written last, so that no plan is visible in part.

Keys: ``plans/{id}/{rank}``, ``plans/{id}/owners``, ``plans/{id}/manifest``. An id is ``{name}/{digest}``. The name
identifies network, workers, method and seed, so a plan is made once. The digest is that of the partition, so parts of
two partitions never mix, even if another release of a partitioner divides the same network differently. Every object
says the id of its plan. An object per rank has one segment per layer; reading it needs no other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import TYPE_CHECKING, Generic, TypeVar

import msgspec
import numpy as np

from fsdcore.arrays import Int32s
from fsdcore.clock import Clock
from fsdcore.contracts.store import Store
from fsdcore.decoding import Refusal, converted, from_json
from fsdcore.errors import InputError, KeyMissingError, PlanError, WireError
from fsdcore.messages.segments import Arrays, SegmentReader, compress_segment, pack_arrays, pack_segments, unpack_arrays
from fsdcore.network.activations import Activation
from fsdcore.plan.plan import LayerPart, RankPart, from_arrays, layer_arrays
from fsdcore.plan.readahead import ReadAhead
from fsdcore.record.observer import SILENT, Observer

if TYPE_CHECKING:
    from fsdcore.network.network import Network
    from fsdcore.partition.base import Owners, Partition

_Layer = TypeVar("_Layer")

_VERSION = 3
_MANIFEST = "/manifest"


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What the stored plan `plan` was made from. `memory_bytes` has each rank's weights, indices included."""

    version: int
    plan: str
    fingerprint: str
    workers: int
    method: str
    seed: int
    widths: tuple[int, ...]
    memory_bytes: tuple[int, ...]
    largest_rows: int


class _About(msgspec.Struct, frozen=True):
    """What each object of a plan says of itself."""

    plan: str


class _AboutRank(_About, frozen=True):
    rank: int
    workers: int
    activations: list[tuple[str, float]]


def plan_name(fingerprint: str, workers: int, method: str, seed: int) -> str:
    """The first part of a plan's id, by which it is looked up."""
    return f"{fingerprint[:32]}-p{workers}-{method}-s{seed}-v{_VERSION}"


def plan_id(name: str, partition: Partition) -> str:
    """The id of the plan of that name that is made of `partition`."""
    return f"{name}/{partition.digest}"


def custom_method(partition: Partition) -> str:
    """A method name for a partition that the user brought; it contains a digest of the owners."""
    return f"custom{partition.digest}"


def find_plan(store: Store, name: str) -> Manifest | None:
    """The manifest of the plan of that name, None if the store has none of this version; of several, any one."""
    keys = store.list(f"plans/{name}/")
    plans = (key.removeprefix("plans/").removesuffix(_MANIFEST) for key in keys if key.endswith(_MANIFEST))
    manifests = (_read_manifest(store, plan) for plan in plans)
    return next((manifest for manifest in manifests if manifest.version == _VERSION), None)


def stored_plans(store: Store) -> dict[str, Manifest | None]:
    """All plans by name, sorted; None for one that is incomplete or cannot be read."""
    names = sorted({key.split("/")[1] for key in store.list("plans/")})
    return {name: _readable(store, name) for name in names}


def _readable(store: Store, name: str) -> Manifest | None:
    try:
        return find_plan(store, name)
    except WireError:
        return None


def remove_plan(store: Store, name: str) -> None:
    """Remove the plan of that name, with its partition. The manifest goes first, so nobody finds a plan in part."""
    keys = store.list(f"plans/{name}/")
    store.delete([key for key in keys if key.endswith(_MANIFEST)])
    store.delete([key for key in keys if not key.endswith(_MANIFEST)])


def _read_manifest(store: Store, plan: str) -> Manifest:
    def refusal(reason: str) -> WireError:
        return WireError(f"the manifest of plan {plan} is damaged: {reason}; delete plans/{plan}/")

    manifest = from_json(store.get(f"plans/{plan}{_MANIFEST}"), Manifest, refusal)
    _check_plan("manifest", manifest.plan, plan)
    return manifest


def _check_plan(part: str, found: str, plan: str) -> None:
    """`PlanError` unless an object of `plan` is one of it."""
    if found != plan:
        raise PlanError(
            f"object plans/{plan}/{part} is of plan {found!r}: delete plans/{plan}/ and load the network again"
        )


def write_plan(
    store: Store, plan: str, network: Network, partition: Partition, observer: Observer = SILENT
) -> Manifest:
    """Make the plan of `partition` and write it under the id `plan`. `PlanError` if it does not fit the network."""
    ranks: list[list[tuple[bytes, int]]] = [[] for _ in range(partition.workers)]
    memory = np.zeros(partition.workers, np.int64)
    for number, parts in enumerate(layer_arrays(network, partition), start=1):
        for rank, arrays in enumerate(parts):
            memory[rank] += sum(array.nbytes for name, array in arrays.items() if not name.startswith("send."))
            ranks[rank].append(compress_segment(pack_arrays(arrays)))
        observer.progress("plan", number, len(network))
    activations = [(layer.activation.name, layer.activation.parameter) for layer in network.layers]
    for rank, segments in enumerate(ranks):
        about = _AboutRank(plan, rank, partition.workers, activations)
        store.put(f"plans/{plan}/{rank}", pack_segments(segments, msgspec.structs.asdict(about)))
    _write_owners(store, plan, partition)
    manifest = _manifest(plan, network, partition, memory.tolist())
    store.put(f"plans/{plan}{_MANIFEST}", msgspec.json.encode(manifest))
    return manifest


def _write_owners(store: Store, plan: str, partition: Partition) -> None:
    """One segment per boundary, so that the last can be read alone."""
    segments = [compress_segment(pack_arrays({"owners": owners})) for owners in partition.owners]
    store.put(f"plans/{plan}/owners", pack_segments(segments, {"plan": plan}))


def _manifest(plan: str, network: Network, partition: Partition, memory: list[int]) -> Manifest:
    largest = max(int(np.bincount(o, minlength=1).max(initial=0)) for o in partition.owners[1:])
    return Manifest(
        version=_VERSION,
        plan=plan,
        fingerprint=network.fingerprint,
        workers=partition.workers,
        method=partition.method,
        seed=partition.seed,
        widths=network.widths,
        memory_bytes=tuple(memory),
        largest_rows=largest,
    )


def read_owners(store: Store, plan: str, boundaries: list[int] | None = None) -> list[Owners]:
    """The owners at the given boundaries, or at all, from a stored plan; `PlanError` if they are of another."""
    reader = SegmentReader(store, f"plans/{plan}/owners")
    _check_plan("owners", converted(reader.about, _About, _damaged(plan)).plan, plan)
    numbers = range(len(reader)) if boundaries is None else boundaries
    try:
        return [unpack_arrays(segment)["owners"].astype(np.int32) for segment in reader.read(numbers)]
    except KeyError as error:
        raise WireError(f"the owners of plan {plan} are damaged: there is no array {error}") from error


def read_partition(store: Store, manifest: Manifest) -> Partition:
    """The partition that a stored plan was made of."""
    # Here, because it brings scipy, which a worker can do without.
    from fsdcore.partition.base import Partition

    owners = tuple(read_owners(store, manifest.plan))
    return Partition(manifest.workers, owners, manifest.method, manifest.seed, manifest.fingerprint)


def _damaged(plan: str) -> Refusal:
    return lambda reason: WireError(f"an object of plan {plan} is damaged: {reason}; delete plans/{plan}/")


def _activations(about: _AboutRank, layers: int) -> list[Activation]:
    if len(about.activations) != layers:
        raise WireError(f"a plan of {layers} layers with {len(about.activations)} activations")
    try:
        return [Activation(name, parameter) for name, parameter in about.activations]
    except InputError as error:
        raise WireError(f"a plan whose activations are damaged: {error.message}") from error


class RankPlan(Generic[_Layer]):
    """One rank's part of a plan, read ahead of its use: `layers[k]` blocks until layer k + 1 has been read.

    Close it when done.
    """

    def __init__(self, input_rows: Int32s, layers: ReadAhead[_Layer]) -> None:
        self.input_rows, self.layers = input_rows, layers

    def __len__(self) -> int:
        return len(self.layers)

    def close(self) -> None:
        """Stop reading."""
        self.layers.close()


def open_rank(
    store: Store, plan: str, rank: int, workers: int, prepare: Callable[[LayerPart], _Layer], clock: Clock
) -> RankPlan[_Layer]:
    """Begin to read one rank's part, in a thread by `clock`; each layer is what `prepare` makes of it.

    Returns when layer 1 is there. `PlanError` if the plan is for other workers, or the part is of another plan.
    """
    reader = SegmentReader(store, f"plans/{plan}/{rank}")
    about = converted(reader.about, _AboutRank, _damaged(plan))
    if (about.rank, about.workers) != (rank, workers):
        raise PlanError(f"plan {plan} is not a plan for rank {rank} of {workers}")
    _check_plan(str(rank), about.plan, plan)
    if len(reader) == 0:
        raise WireError(f"plan {plan} has no layers")
    activations = _activations(about, len(reader))
    segments = reader.read(range(len(reader)))
    arrays = unpack_arrays(next(segments))
    input_rows = _input_rows(plan, arrays)
    first = _layer(plan, rank, 1, arrays, activations[0], input_rows.size)

    def layers() -> Iterator[_Layer]:
        yield prepare(first)
        before = first.rows
        for number, segment in enumerate(segments, start=2):
            part = _layer(plan, rank, number, unpack_arrays(segment), activations[number - 1], before)
            before = part.rows
            yield prepare(part)

    return RankPlan(input_rows, ReadAhead(layers(), len(reader), clock))


def _input_rows(plan: str, arrays: Arrays) -> Int32s:
    """The input neurons that layer 1 reads, taken out of its arrays."""
    rows = arrays.pop("input_rows", np.empty(0, np.int32))
    if rows.dtype != np.int32 or rows.ndim != 1 or (rows.size and (rows[0] < 0 or (np.diff(rows) <= 0).any())):
        raise _damaged(plan)("its input rows are not neurons in ascending order")
    return rows


def _layer(plan: str, rank: int, number: int, arrays: Arrays, activation: Activation, width: int) -> LayerPart:
    part = from_arrays(arrays, activation)
    if part.local.shape[1] != width:
        raise WireError(f"layer {number} of plan {plan} does not read what rank {rank} has")
    return part


def read_rank(store: Store, plan: str, rank: int, workers: int, clock: Clock) -> RankPart:
    """One rank's part as a whole, which is all that is read; `PlanError` if the plan is for other workers."""
    with closing(open_rank(store, plan, rank, workers, lambda part: part, clock)) as opened:
        layers = tuple(opened.layers[number] for number in range(len(opened)))
        return RankPart(rank, workers, opened.input_rows, layers)


def keep(store: Store, plan: str, partition: Partition) -> None:
    """Keep the partition that the plan of this name is made of, or would be."""
    segments = [compress_segment(pack_arrays({"owners": owners})) for owners in partition.owners]
    about = {"workers": partition.workers, "method": partition.method, "seed": partition.seed}
    store.put(f"plans/{plan}/partition", pack_segments(segments, about))


def find_kept(store: Store, plan: str, network: Network, workers: int, method: str, seed: int) -> Partition | None:
    """The partition that was kept for the plan, None if none was; `PlanError` or `WireError` if it is damaged."""
    from fsdcore.partition.base import Partition

    try:
        reader = SegmentReader(store, f"plans/{plan}/partition")
    except KeyMissingError:
        return None
    try:
        owners = tuple(unpack_arrays(part)["owners"].astype(np.int32) for part in reader.read(range(len(reader))))
    except KeyError as error:
        raise WireError(f"the object plans/{plan}/partition is damaged: there is no array {error}") from error
    partition = Partition(workers, owners, method, seed, network.fingerprint)
    partition.check(network)
    return partition
