"""The sites: a fixture each, so that the tests name no provider."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.local import LocalSite
from tests.end_to_end.sites import Site


@pytest.fixture(scope="session")
def local_site() -> Site:
    return LocalSite()


@pytest.fixture(scope="session")
def aws_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    from tests.end_to_end.aws import deployed

    with deployed(tmp_path_factory.mktemp("aws")) as site:
        yield site


@pytest.fixture(scope="session")
def aws_text_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    from tests.end_to_end.aws import deployed

    with deployed(tmp_path_factory.mktemp("aws"), workers=8, payload="text") as site:
        yield site


@pytest.fixture(scope="session")
def gcp_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    from tests.end_to_end.gcp import deployed

    with deployed(tmp_path_factory.mktemp("gcp")) as site:
        yield site


@pytest.fixture
def worldly_site(gcp_site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """Google Cloud for who has an identity there; what is wrong with it is mended after the test."""
    from tests.end_to_end.gcp import GcpSite

    assert isinstance(gcp_site, GcpSite)
    with gcp_site.on_a_machine(tmp_path, monkeypatch):
        yield from _entered(gcp_site, monkeypatch)


@pytest.fixture
def sites(local_site: Site, aws_site: Site, gcp_site: Site, monkeypatch: pytest.MonkeyPatch) -> list[Site]:
    """All sites at once."""
    found = [local_site, aws_site, gcp_site]
    for one in found:
        for name, value in one.environ.items():
            monkeypatch.setenv(name, value)
    return found


@pytest.fixture(params=["local", "aws", "gcp"])
def site(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """Each site in turn; what is wrong with it is mended after the test."""
    yield from _entered(request.getfixturevalue(f"{request.param}_site"), monkeypatch)


@pytest.fixture(params=["aws"])
def text_site(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """Each site that can send frames as text instead of bytes, told to."""
    yield from _entered(request.getfixturevalue(f"{request.param}_text_site"), monkeypatch)


def _entered(found: Site, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    for name, value in found.environ.items():
        monkeypatch.setenv(name, value)
    yield found
    found.heal()
