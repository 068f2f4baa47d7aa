"""``fsd demo``: the whole system on a generated network, with no cloud, no network and no data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fsdcore.cli.output import say
from fsdcore.cli.progress import watching
from fsdcore.cli.report import check_outputs, show_variants
from fsdcore.config import Config, load_config

if TYPE_CHECKING:
    from fsdcore.events import Observer
    from fsdcore.network import Network
    from fsdcore.record import Record

__all__ = ["demo"]

_NEURONS, _LAYERS, _SAMPLES = 1024, 120, 1000


def demo(
    workers: Annotated[int, typer.Option(help="How many workers share the network.", min=2)] = 8,
    channel: Annotated[str | None, typer.Option(help="Only this channel; all that there are if left out.")] = None,
) -> None:
    """Run a generated network alone and split over workers, on this machine; check all against plain scipy."""
