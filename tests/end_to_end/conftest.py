"""The sites: a fixture each, so that the tests name no provider."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.end_to_end.local import LocalSite
from tests.end_to_end.sites import Site


@pytest.fixture(scope="session")
def local_site() -> Site:
    return LocalSite()


@pytest.fixture(params=["local"])
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    """Each site in turn; what is wrong with it is mended after the test."""
    found: Site = request.getfixturevalue(f"{request.param}_site")
    yield found
    found.heal()
