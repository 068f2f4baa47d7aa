"""``fsd calibrate``: measure a deployment for its forecasts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fsdcore.cli.output import check_output, say
from fsdcore.cli.progress import watching
from fsdcore.cli.signals import running_workers
from fsdcore.config import load_config
from fsdcore.files import write_text

__all__ = ["calibrate"]


def calibrate(
    output: Annotated[Path, typer.Option("--output", "-o", help="Where to write the model (.toml).")],
    backend: Annotated[str | None, typer.Option(help="What to measure; see `fsd backends`.")] = None,
    config: Annotated[Path | None, typer.Option(help="A configuration file (TOML).")] = None,
) -> None:
    """Measure how fast workers compute and services answer, for `fsd forecast --model`.

    Makes short runs and a few requests, which a cloud bills.
    """
    check_output(output, (".toml",), one_format=True)
    from fsdcore.forecast.calibrate import calibrate as measured
    from fsdcore.forecast.model import model_text
    from fsdcore.session import connect_config

    settings = load_config(config, backend=backend)
    with watching() as observer, connect_config(settings, observer) as session, running_workers():
        model = measured(session.backend, settings.run, observer)
    write_text(output, model_text(model))
    compute = model.compute
    say(f"{output}: {compute.multiply_rate:.3g} multiply-adds/s, {compute.codec_rate:.3g} values/s encoded")
    delays = {
        kind: one.send_seconds + one.delivery_seconds + one.receive_seconds for kind, one in model.channels.items()
    }
    for kind, channel in model.channels.items():
        quickest = " (the quickest for small messages)" if delays[kind] == min(delays.values()) else ""
        say(f"{kind}: {1000 * delays[kind]:.3g} ms from end to end, {channel.bytes_per_second:.3g} bytes/s{quickest}")
