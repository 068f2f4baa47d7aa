"""Where a user begins: a session of a backend, by its name or by a configuration."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import scipy.sparse as sp

from fsdcore.client.config import Config, load_config
from fsdcore.client.registry import backend_class
from fsdcore.client.session import Session
from fsdcore.contracts.backend import Backend
from fsdcore.contracts.settings import RunSettings
from fsdcore.network.network import Network
from fsdcore.partition.base import Partition
from fsdcore.record.observer import SILENT, Observer


def connect(
    backend: str | None = None,
    *,
    config: str | os.PathLike[str] | None = None,
    observer: Observer = SILENT,
    settings: Mapping[str, Any] | None = None,
    **run_settings: Any,
) -> Session:
    """Connect to a backend.

    `backend`, and as keywords the other fields of `RunSettings`, win over the environment (``FSD_*``), which wins over
    the file `config`.
    `settings` are those of the backend itself. `ConfigError` for a key or value that does not fit.
    """
    given = {name: value for name, value in {"backend": backend, **run_settings}.items() if value is not None}
    return connect_config(load_config(config, settings=settings, **given), observer)


def connect_config(config: Config, observer: Observer = SILENT) -> Session:
    """Connect as a configuration says."""
    made = backend_class(config.run.backend)(config.backend_settings)
    return Session(made, config.run, observer, _cheapest_channel)


def _cheapest_channel(
    backend: Backend, network: Network, partition: Partition, inputs: sp.csr_array, settings: RunSettings
) -> str:
    # Here, because a run whose channel is given does without it.
    from fsdcore.estimate.prepare import cheapest_channel

    return cheapest_channel(backend, network, partition, inputs, settings)
