"""The program ``fsd``: its commands, and how errors end it.

Exit codes: 0 done, 1 a wrong result or a failed run, 2 bad input or usage, 128 + n ended by signal n (130: Ctrl-C).
"""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from fsdcore.cli import (
    advise,
    calibrate,
    demo,
    deploy,
    emulate,
    forecast,
    generate,
    networks,
    report_page,
    run,
    simulate,
    system,
    trace,
)
from fsdcore.cli.output import version
from fsdcore.cli.signals import exit_code
from fsdcore.errors import FsdError

__all__ = ["app"]


class _Commands(TyperGroup):
    """All commands; turns what they raise into one line on stderr and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            typer.echo("fsd: stopped; all workers were told to stop", err=True)
            raise typer.Exit(exit_code(error)) from error
        except FsdError as error:
            raise _failed(str(error), error.exit_code) from error
        except BrokenPipeError as error:
            raise typer.Exit(1) from error
        except OSError as error:
            raise _failed(_of_system(error), 2) from error
        except MemoryError as error:
            raise _failed(f"not enough memory: {error}".rstrip(": "), 1) from error


def _failed(message: str, code: int) -> typer.Exit:
    typer.echo(f"fsd: error: {' '.join(message.split())}", err=True)
    return typer.Exit(code)


def _of_system(error: OSError) -> str:
    reason = error.strerror or str(error) or type(error).__name__
    return f"{error.filename}: {reason}" if error.filename is not None else reason


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"fsd {version('fsd-inference') or '(not installed)'}")
        raise typer.Exit


app = typer.Typer(
    cls=_Commands,
    name="fsd",
    help="Serverless distributed inference of sparse neural networks.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


@app.callback()
def _fsd(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    del version


app.command("demo")(demo.demo)
app.add_typer(generate.app, name="generate")
app.add_typer(networks.imports, name="import")
app.command("info")(networks.info)
app.command("partition")(networks.partition)
app.command("run")(run.run)
app.command("deploy")(deploy.deploy)
app.command("status")(deploy.status)
app.command("destroy")(deploy.destroy)
app.command("forecast")(forecast.forecast)
app.command("simulate")(simulate.simulate)
app.command("advise")(advise.advise)
app.command("bill")(forecast.bill)
app.command("trace")(trace.trace)
app.command("report")(report_page.report)
app.command("calibrate")(calibrate.calibrate)
app.command("emulate")(emulate.emulate)
app.command("backends")(system.backends)
app.add_typer(system.config_app, name="config")
app.command("doctor")(system.doctor)
