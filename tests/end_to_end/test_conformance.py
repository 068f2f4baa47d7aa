"""The suites for backends and their compute, on every site."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fsdcore.contracts.backend import Backend
from fsdcore.testing import BackendTests, ComputeTests
from tests.end_to_end.sites import Site


@pytest.fixture
def opened(site: Site) -> Iterator[Backend]:
    """A new backend of the site."""
    backend = site.open()
    yield backend
    backend.close()


class TestBackend(BackendTests):
    @pytest.fixture
    def backend(self, opened: Backend) -> Backend:
        return opened


class TestCompute(ComputeTests):
    @pytest.fixture
    def backend(self, opened: Backend) -> Backend:
        return opened
