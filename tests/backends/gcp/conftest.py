"""Google Cloud on this machine, started once for a test process; each test finds it without faults and calls."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from fsd_emulators.gcp.environment import REGION, environment
from fsd_emulators.gcp.functions import FunctionsServer
from fsd_emulators.gcp.pubsub import PubsubServer
from fsd_emulators.gcp.storage import StorageServer
from fsd_gcp.calls.clients import Clients, Endpoints
from fsd_gcp.deploy.resources import make_queues
from fsd_gcp.deployment import Deployment
from fsd_gcp.settings import GcpSettings

ABANDONS_SOCKETS = pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning"
)


@pytest.fixture(scope="session")
def _storage_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StorageServer]:
    with StorageServer(tmp_path_factory.mktemp("storage")) as server:
        yield server


@pytest.fixture
def cloud_storage(_storage_server: StorageServer) -> StorageServer:
    """Cloud Storage. Buckets of other tests may be there: use names of your own."""
    _storage_server.faults.set()
    _storage_server.log.clear()
    return _storage_server


@pytest.fixture
def abandoned_sockets() -> Iterator[None]:
    """For tests in which downloads fail: Google's client leaves the sockets of refused answers to the collector.

    Such a test is also marked `ABANDONS_SOCKETS`; here they are collected while that holds.
    """
    yield
    gc.collect()


@pytest.fixture(scope="session")
def _pubsub_server() -> Iterator[PubsubServer]:
    with PubsubServer() as server:
        yield server


@pytest.fixture
def pubsub(_pubsub_server: PubsubServer) -> PubsubServer:
    """Pub/Sub, empty."""
    _pubsub_server.reset()
    return _pubsub_server


@pytest.fixture(scope="session")
def _functions_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FunctionsServer]:
    with FunctionsServer(tmp_path_factory.mktemp("functions")) as server:
        yield server


@pytest.fixture
def functions(_functions_server: FunctionsServer) -> Iterator[FunctionsServer]:
    """Cloud Functions, with none there; those of the test are deleted after it."""
    _functions_server.log.clear()
    yield _functions_server
    _functions_server.reset()


@pytest.fixture
def gcp_environment(cloud_storage: StorageServer, pubsub: PubsubServer, functions: FunctionsServer) -> dict[str, str]:
    """The variables that lead the backend to the three servers."""
    return environment(cloud_storage, pubsub, functions)


@pytest.fixture
def queue_clients(pubsub: PubsubServer) -> Iterator[Clients]:
    """Clients of Pub/Sub alone."""
    made = Clients(Endpoints(pubsub=pubsub.target), "local")
    yield made
    made.close()


@pytest.fixture
def queues(queue_clients: Clients) -> Deployment:
    """A deployment that has its topics and subscriptions, and nothing else."""
    settings = GcpSettings(name="queues", region=REGION, lanes=2, ack_deadline=10)
    made = Deployment.of(settings, project="local", workers=3)
    make_queues(queue_clients, made)
    return made
