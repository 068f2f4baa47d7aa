"""Invocations: they come back as they were, and are refused when they cannot be."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from fsdcore.contracts.compute import Invocation
from fsdcore.contracts.settings import RunSettings
from fsdcore.errors import WireError

INVOCATION = Invocation(
    run="0" * 16,
    rank=1,
    lane=0,
    plan="name/digest",
    batches=(10, 3),
    settings=RunSettings(workers=3, branching=2, deadline_seconds=5.0),
    run_seconds=30.0,
)
PLAIN: dict[str, Any] = json.loads(INVOCATION.to_json())


def test_an_invocation_comes_back_as_text_and_as_an_event() -> None:
    assert Invocation.from_json(INVOCATION.to_json()) == INVOCATION
    assert Invocation.from_event(PLAIN) == INVOCATION


@pytest.mark.parametrize(
    "change",
    [
        {"run": "5f"},
        {"rank": -1},
        {"lane": None},
        {"plan": 3},
        {"batches": [-1]},
        {"batches": [1 << 40]},
        {"run_seconds": 1e300},
        {"settings": None},
        {"unheard of": 1},
    ],
)
def test_an_invocation_that_cannot_be_is_refused(change: dict[str, Any]) -> None:
    _refused(PLAIN | change)


@pytest.mark.parametrize(
    "change",
    [
        {"workers": 0},
        {"workers": 1 << 16},
        {"branching": 0},
        {"channel": " "},
        {"kernel": "abacus"},
        {"deadline_seconds": 0},
        {"deadline_seconds": math.nan},
        {"deadline_seconds": 10**400},
        {"run_seconds": -1.0},
        {"in_flight": 0},
        {"trace": 1},
        {"unheard of": 1},
    ],
)
def test_an_invocation_with_settings_that_cannot_be_is_refused(change: dict[str, Any]) -> None:
    _refused(PLAIN | {"settings": PLAIN["settings"] | change})


def _refused(event: dict[str, Any]) -> None:
    for read in (Invocation.from_event, lambda event: Invocation.from_json(json.dumps(event))):
        with pytest.raises(WireError, match=r"^not an invocation: "):
            read(event)


@pytest.mark.parametrize("event", [None, [], "text", {}, b"\xff"])
def test_what_is_no_invocation_is_refused(event: Any) -> None:
    with pytest.raises(WireError, match=r"^not an invocation: "):
        Invocation.from_event(event)
