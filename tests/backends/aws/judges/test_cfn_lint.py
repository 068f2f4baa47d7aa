"""The templates before a linter that knows AWS's own schemas."""

from __future__ import annotations

import json
from typing import Any

import pytest
from cfnlint import ManualArgs
from cfnlint.api import lint

from tests.backends.aws.deploy.test_templates import deployment, templates

SIZES = [
    (1, {}),
    (8, {}),
    (8, {"lanes": 3}),
    (8, {"topic_bytes": 1 << 20}),
    pytest.param(62, {}, marks=pytest.mark.slow),
    pytest.param(200, {}, marks=pytest.mark.slow),
]


@pytest.mark.parametrize("zone", ["", "euw1-az1"], ids=["s3", "express"])
@pytest.mark.parametrize(("workers", "settings"), SIZES)
def test_a_linter_finds_nothing_wrong_with_any_template(workers: int, settings: dict[str, Any], zone: str) -> None:
    found = templates(deployment(workers, express_zone=zone, **settings), express_zone=zone)
    names = [name for name in found if name.endswith(("fsd-demo", "-0"))]
    assert len(names) == 3
    for name in names:
        problems = lint(json.dumps(found[name]), config=ManualArgs(regions=["eu-west-1", "us-east-1"]))
        assert [f"{one.rule.id}: {one.message}" for one in problems] == [], name
