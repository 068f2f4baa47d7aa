"""Networks, inputs, outputs and categories as files: what can be read, what can be written."""

from __future__ import annotations

from fsdcore.network.formats.graph_challenge import load_graph_challenge, official_bias
from fsdcore.network.formats.inputs import load_categories, load_inputs, save_categories, save_outputs
from fsdcore.network.formats.networks import load_network, save_network

__all__ = [
    "load_categories",
    "load_graph_challenge",
    "load_inputs",
    "load_network",
    "official_bias",
    "save_categories",
    "save_network",
    "save_outputs",
]
