"""From what a user has, a network, inputs and a backend, to forecasts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from fsdcore.contracts.backend import Backend
from fsdcore.contracts.settings import RunSettings
from fsdcore.contracts.store import Store
from fsdcore.errors import InputError
from fsdcore.estimate.activity import Activity, activity_of, structure_of
from fsdcore.estimate.bill import load_prices, price_names
from fsdcore.estimate.forecast import Forecaster, Setting, Target
from fsdcore.estimate.profile import profile_of
from fsdcore.estimate.rehearsal import rehearse
from fsdcore.estimate.speeds import load_model, model_names
from fsdcore.network.network import Network
from fsdcore.partition import Partition, make_partition
from fsdcore.plan.files import find_kept, find_plan, keep, plan_name, read_partition
from fsdcore.record.observer import SILENT, Observer

# The memory of a worker where none is said.
_MEMORY_BYTES = 2048 << 20


class Sources(NamedTuple):
    """Names or files of model and prices, None for those of the backend; options such as the architecture."""

    model: str | None = None
    prices: str | None = None
    options: Mapping[str, str] = {}


def target_for(backend: Backend, name: str, sources: Sources) -> Target:
    """What runs on `backend` would meet; `InputError` if no model or price list is known for it."""
    if not sources.model and name not in model_names():
        raise InputError(f"there is no model of backend {name!r}: make one with fsd calibrate, and give it as --model")
    model = load_model(sources.model or name)
    prices = load_prices(sources.prices or _prices_of(backend, name))
    limits = {kind: backend.channel_capabilities(kind) for kind in backend.channels}
    return Target(limits, model, prices, prices.options(dict(sources.options)), backend.store.capabilities)


def _prices_of(backend: Backend, name: str) -> str:
    own = load_model(name) if name in model_names() else None
    if own is not None and own.prices:
        return own.prices
    region = str(getattr(backend.settings, "region", "") or "")
    if region:
        return f"{name}/{region}"
    known = ", ".join(price_names())
    raise InputError(f"backend {name!r} does not say its region: give --prices, a file or one of {known}")


def partition_for(
    store: Store, network: Network, settings: RunSettings, workers: int, observer: Observer = SILENT
) -> Partition:
    """The partition of the plan in `store`, or one that was made before without its plan, or a new one.

    A new one is kept in the store, under ``partitions/``, as making it takes longest.
    """
    plan = plan_name(network.fingerprint, workers, settings.method, settings.seed)
    manifest = find_plan(store, plan)
    if manifest is not None:
        return read_partition(store, manifest)
    kept = find_kept(store, plan, network, workers, settings.method, settings.seed)
    if kept is not None:
        return kept
    made = make_partition(network, workers, settings.method, settings.seed, observer)
    keep(store, plan, made)
    return made


def forecaster_for(network: Network, partition: Partition, activity: Activity, target: Target) -> Forecaster:
    """Forecasts of runs with `partition`, of samples like those of `activity`."""
    profile = profile_of(structure_of(network, partition), activity)
    return Forecaster(profile, activity.population, target)


def rehearsed(
    store: Store,
    network: Network,
    partition: Partition,
    activity: Activity,
    inputs: object,
    settings: RunSettings,
    target: Target,
    observer: Observer = SILENT,
) -> Forecaster:
    """The same with every message as it will be: all `inputs` are run, in threads of this process."""
    profile = profile_of(structure_of(network, partition), activity)
    plain = Forecaster(profile, activity.population, target)
    if partition.workers == 1:
        return plain
    noted = rehearse(store, network, partition, inputs, settings, observer)
    sizes = plain.batches(setting_for(plain, settings))
    exact = [noted.exact(profile.scaled(size), number) for number, size in enumerate(sizes)]
    return Forecaster(profile, activity.population, target, exact, noted)


def cheapest_channel(
    backend: Backend, network: Network, partition: Partition, inputs: object, settings: RunSettings
) -> str:
    """The channel that a run with `settings` is forecast to be cheapest on; of equals the fastest."""
    target = target_for(backend, settings.backend, Sources())
    plan = forecaster_for(network, partition, activity_of(network, inputs), target)
    setting = setting_for(plan, settings, memory_of(backend))
    known = [kind for kind in backend.channels if kind in target.model.channels]
    forecasts = [plan.forecast(setting._replace(channel=kind)) for kind in known]
    if not forecasts:
        raise InputError(f"model {target.model.name} knows no channel of backend {settings.backend!r}: name one")
    return min(forecasts, key=lambda each: (each.dollars, each.wall_seconds)).channel


def memory_of(backend: Backend, given: int | None = None) -> int:
    """Bytes that a worker has: `given` MiB, else the limit of the backend, or 2048 MiB where it has none."""
    return (given << 20) if given else backend.compute.capabilities.memory_bytes or _MEMORY_BYTES


def setting_for(plan: Forecaster, settings: RunSettings, memory_bytes: int = 0) -> Setting:
    """The setting that a run with `settings` has."""
    return Setting(
        channel=settings.channel if plan.workers > 1 else "serial",
        workers=plan.workers,
        memory_bytes=memory_bytes or _MEMORY_BYTES,
        branching=settings.branching,
        batch_size=settings.batch_size or plan.default_batch_size,
        in_flight=settings.in_flight,
    )
