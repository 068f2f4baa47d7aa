"""The program ``fsd``: its commands, and how errors end it.

Exit codes: 0 done, 1 a wrong result or a failed run, 2 bad input or usage, 128 + n ended by signal n (130: Ctrl-C).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from fsdcore.cli import deploy, forecast, networks, run, simulate, system
from fsdcore.cli import forecast as advise
from fsdcore.cli import forecast as calibrate
from fsdcore.cli import insight as report_page
from fsdcore.cli import insight as trace
from fsdcore.cli import networks as generate
from fsdcore.cli import networks as plans
from fsdcore.cli import run as demo
from fsdcore.cli import system as emulate
from fsdcore.cli.commands import Group, group, register, usage_error, usage_line
from fsdcore.cli.output import say, tell, version
from fsdcore.cli.signals import exit_code
from fsdcore.errors import FsdError


class _Commands(Group):
    """All commands; turns what they raise into one line on stderr and an exit code."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        try:
            code = super().main(args, prog_name, complete_var, False, windows_expand_args, **extra)
        except usage_error() as error:
            code = _failed(usage_line(error), 2).exit_code
        except typer.Abort:
            code = _failed("no answer", 2).exit_code
        if standalone_mode:
            sys.exit(code)
        return code

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            tell("; ".join(["stopped", *getattr(error, "__notes__", ())]))
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
    tell(f"error: {' '.join(message.split())}")
    return typer.Exit(code)


def _of_system(error: OSError) -> str:
    reason = error.strerror or str(error) or type(error).__name__
    return f"{error.filename}: {reason}" if error.filename is not None else reason


def _show_version(wanted: bool) -> None:
    if wanted:
        say(f"fsd {version('fsd-inference') or '(not installed)'}")
        raise typer.Exit


app = group(
    "Serverless distributed inference of sparse neural networks.",
    _Commands,
    name="fsd",
    pretty_exceptions_enable=False,
)


@app.callback()
def _fsd(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    del version


register(app, "demo")(demo.demo)
app.add_typer(generate.app, name="generate")
app.add_typer(networks.imports, name="import")
register(app, "info")(networks.info)
register(app, "partition")(networks.partition)
register(app, "run")(run.run)
register(app, "deploy")(deploy.deploy)
register(app, "status")(deploy.status)
register(app, "destroy")(deploy.destroy)
register(app, "plans")(plans.plans)
register(app, "forecast")(forecast.forecast)
register(app, "simulate")(simulate.simulate)
register(app, "advise")(advise.advise)
register(app, "bill")(forecast.bill)
register(app, "trace")(trace.trace)
register(app, "report")(report_page.report)
register(app, "calibrate")(calibrate.calibrate)
register(app, "emulate")(emulate.emulate)
register(app, "backends")(system.backends)
app.add_typer(system.config_app, name="config")
register(app, "doctor")(system.doctor)
