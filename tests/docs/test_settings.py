"""The tables of settings say what the code says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from fsdcore.contracts.settings import RunSettings, choices, kinds, parts
from fsdcore.partition import METHODS

PAGE = Path(__file__).resolve().parents[2] / "docs" / "configuration.md"


def table() -> Iterator[str]:
    """The table of the settings of a run, as the page must have it."""
    yield "| key | default | range | what it is |"
    yield "|---|---|---|---|"
    for key, kind in kinds(RunSettings).items():
        _, about = parts(kind)
        default = msgspec.json.encode(getattr(RunSettings(), key)).decode()
        yield f"| `{key}` | `{default}` | {allowed(kind)} | {about.description} |"


def allowed(kind: Any) -> str:
    bare, about = parts(kind)
    if about.le is not None:
        return f"above {about.gt}, to {about.le}" if about.gt is not None else f"{about.ge} to {about.le}"
    listed = ("true", "false") if bare is bool else choices(bare)
    return ", ".join(f"`{each}`" for each in listed) or "any that is there"


def test_the_page_has_the_table_of_the_settings_of_a_run() -> None:
    assert "\n".join(table()) in PAGE.read_text(), "\n".join(["the table must be:", *table()])


def test_every_setting_of_a_run_says_what_it_is() -> None:
    assert all(parts(kind)[1].description for kind in kinds(RunSettings).values())


def test_the_methods_that_can_be_set_are_those_that_there_are() -> None:
    assert set(choices(parts(kinds(RunSettings)["method"])[0])) == set(METHODS)
