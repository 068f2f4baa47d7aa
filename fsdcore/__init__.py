"""fsd-inference: serverless distributed inference of sparse neural networks.

    import fsdcore as fsd

    network = fsd.load_network("net.safetensors")
    with fsd.connect("local", channel="queue", workers=8) as session:
        result = session.load(network).run(x)

Names are loaded on first use: a worker that needs few of them pays for few.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fsdcore.activations import (
        IDENTITY,
        RELU,
        SIGMOID,
        SOFTMAX,
        TANH,
        Activation,
        clipped_relu,
        leaky_relu,
    )
    from fsdcore.errors import FsdError
    from fsdcore.formats import load_graph_challenge, load_inputs, load_network, save_network
    from fsdcore.network import Layer, Network
    from fsdcore.partition import Partition, make_partition
    from fsdcore.partition.quality import quality
    from fsdcore.radixnet import radixnet
    from fsdcore.session import Model, Result, Session, connect

_HOMES = {
    "fsdcore.activations": (
        "IDENTITY",
        "RELU",
        "SIGMOID",
        "SOFTMAX",
        "TANH",
        "Activation",
        "clipped_relu",
        "leaky_relu",
    ),
    "fsdcore.errors": ("FsdError",),
    "fsdcore.formats": ("load_graph_challenge", "load_inputs", "load_network", "save_network"),
    "fsdcore.network": ("Layer", "Network"),
    "fsdcore.partition": ("Partition", "make_partition", "quality"),
    "fsdcore.radixnet": ("radixnet",),
    "fsdcore.session": ("Model", "Result", "Session", "connect"),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "IDENTITY",
    "RELU",
    "SIGMOID",
    "SOFTMAX",
    "TANH",
    "Activation",
    "FsdError",
    "Layer",
    "Model",
    "Network",
    "Partition",
    "Result",
    "Session",
    "clipped_relu",
    "connect",
    "leaky_relu",
    "load_graph_challenge",
    "load_inputs",
    "load_network",
    "make_partition",
    "quality",
    "radixnet",
    "save_network",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'fsdcore' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
