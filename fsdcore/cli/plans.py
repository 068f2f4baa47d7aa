"""``fsd plans``: the networks that a backend's store holds, cut up for runs, and their removal."""

from __future__ import annotations

from typing import Annotated

import typer

from fsdcore.cli.deploy import Assignments, BackendName, ConfigFile, Name
from fsdcore.cli.output import say, table
from fsdcore.client.config import load_config
from fsdcore.errors import InputError

__all__ = ["plans"]


def plans(
    backend: BackendName,
    remove: Annotated[
        list[str] | None, typer.Option(metavar="PLAN", help="Remove this plan, by its name; may be repeated.")
    ] = None,
    remove_all: Annotated[bool, typer.Option("--remove-all", help="Remove all plans.")] = False,
    name: Name = None,
    assignments: Assignments = None,
    config: ConfigFile = None,
) -> None:
    """Show the plans in the store of BACKEND, which stay until they are removed, or remove some.

    A plan is a network over so many workers, as runs read it. The next load makes one that was removed again.
    """
    from fsdcore.client import registry
    from fsdcore.plan.files import remove_plan, stored_plans

    kind = registry.backend_class(backend)
    given = [*(assignments or ()), *([f"name={name}"] if name is not None else ())]
    made = kind(load_config(config, backend=backend, channel=kind.channels[0], assignments=given).backend_settings)
    try:
        found = stored_plans(made.store)
        wanted = list(found) if remove_all else list(dict.fromkeys(remove or ()))
        for plan in wanted:
            if plan not in found:
                raise InputError(f"there is no plan {plan!r}; see: fsd plans {backend}")
        for plan in wanted:
            remove_plan(made.store, plan)
            say(f"removed: {plan}")
        if wanted:
            return
        if not found:
            say("no plans")
            return
        rows = [
            (plan, str(one.workers), one.method, str(len(one.widths) - 1), f"{max(one.widths):,}")
            if one is not None
            else (plan, "", "unfinished, or of another release", "", "")
            for plan, one in found.items()
        ]
        table(("plan", "workers", "method", "layers", "widest"), rows)
    finally:
        made.close()
