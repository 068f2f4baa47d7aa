"""fsd-inference: serverless distributed inference of sparse neural networks.

    import fsdcore as fsd

    network = fsd.load_network("net.safetensors")
    with fsd.connect("local", channel="queue", workers=8) as session:
        result = session.load(network).run(x)

Names are loaded on first use: a worker that needs few of them pays for few.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fsdcore.api import connect
    from fsdcore.client.session import Model, Result, Session
    from fsdcore.errors import FsdError
    from fsdcore.network.activations import (
        IDENTITY,
        RELU,
        SIGMOID,
        SOFTMAX,
        TANH,
        Activation,
        clipped_relu,
        leaky_relu,
    )
    from fsdcore.network.formats import load_graph_challenge, load_inputs, load_network, save_network
    from fsdcore.network.generate import radixnet
    from fsdcore.network.network import Layer, Network
    from fsdcore.partition import Partition, make_partition
    from fsdcore.partition.quality import quality

_HOMES = {
    "fsdcore.network.activations": (
        "IDENTITY",
        "RELU",
        "SIGMOID",
        "SOFTMAX",
        "TANH",
        "Activation",
        "clipped_relu",
        "leaky_relu",
    ),
    "fsdcore.api": ("connect",),
    "fsdcore.errors": ("FsdError",),
    "fsdcore.network.formats": ("load_graph_challenge", "load_inputs", "load_network", "save_network"),
    "fsdcore.network.network": ("Layer", "Network"),
    "fsdcore.partition": ("Partition", "make_partition", "quality"),
    "fsdcore.network.generate": ("radixnet",),
    "fsdcore.client.session": ("Model", "Result", "Session"),
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


# What a notebook shows as a card.
_SHOWN = {
    "fsdcore.estimate.advice": "Advice",
    "fsdcore.estimate.bill": "Bill",
    "fsdcore.estimate.forecast": "Forecast",
    "fsdcore.record.record": "Record",
    "fsdcore.client.session": "Result",
}


def _card(shown: Any) -> str:
    from fsdcore.report.notebook import card

    return card(shown)


def _show_in_notebooks() -> None:
    """Tell IPython, where it runs, what shows itself as a card. Nothing is imported before one is shown."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    if shell is not None:
        html = shell.display_formatter.formatters["text/html"]
        for home, name in _SHOWN.items():
            html.for_type_by_name(home, name, _card)


_show_in_notebooks()
