"""The GCP backend: Cloud Functions, Pub/Sub, Cloud Storage."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from fsd_gcp.calls.clients import Clients, Endpoints
from fsd_gcp.calls.errors import project_checked, translated
from fsd_gcp.deployment import VARIABLE, Deployment, function_name
from fsd_gcp.settings import GcpSettings
from fsdcore.clock import SYSTEM_CLOCK
from fsdcore.contracts.backend import Backend
from fsdcore.contracts.channel import Address, Channel
from fsdcore.contracts.compute import Compute, Invocation
from fsdcore.contracts.limits import ChannelCapabilities, ComputeCapabilities
from fsdcore.contracts.store import Store
from fsdcore.errors import ConfigError, DeploymentMissingError, StoreError, WorkerFailedError
from fsdcore.messages.object_channel import ObjectChannel, object_channel_capabilities
from fsdcore.worker.handoff import failure_of, write_failure

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fsd_gcp.calls.identity import IdentityTokens
    from fsd_gcp.compute import GcpCompute
    from fsd_gcp.store import GcsStore
    from fsdcore.contracts.backend import Check, Provisioner

_MEBI = 1 << 20
# How long a start that is denied is repeated, since roles that were just given take minutes. Less by a client: the
# deploy has seen its roles to work, unless it is somebody else's.
_WORKER_SECONDS, _CALLER_SECONDS = 120.0, 20.0
_LEAST_LOOK_SECONDS = 1.0


class GcpBackend(Backend):
    """Workers are instances of the function of a deployment, looked up when first needed, or given: a worker knows its
    own."""

    name = "gcp"
    summary = "Google Cloud: Cloud Functions, Pub/Sub, Cloud Storage"
    settings_type = GcpSettings
    channels = ("queue", "stream", "object")

    def __init__(self, settings: Any = None, deployment: Deployment | None = None) -> None:
        super().__init__(deployment.settings(GcpSettings) if deployment else settings)
        given: GcpSettings = self.settings
        endpoints = Endpoints(given.storage_endpoint, given.pubsub_endpoint, given.functions_endpoint)
        self.clients = Clients(endpoints, given.project)
        self._known, self._in_worker = deployment, deployment is not None

    @property
    def deployment(self) -> Deployment:
        """What `fsd deploy gcp` made, as its function says.

        `DeploymentMissingError` if there is none, `ConfigError` for a project or region that cannot be.
        """
        if self._known is None:
            self._known = self._found()
        return self._known

    def _found(self) -> Deployment:
        given: GcpSettings = self.settings
        if not given.region:
            raise ConfigError("no region: set FSD_GCP_REGION or region in the table [gcp] of the configuration")
        name = function_name(given.name, self.clients.project, given.region)
        remedy = f"run: fsd deploy gcp --name {given.name}"
        from google.api_core.exceptions import NotFound

        with project_checked(f"looking for deployment {given.name!r}", self.clients.project):
            try:
                function = self.clients.functions.get_function(name=name, timeout=30.0)
            except NotFound as error:
                place = f"in {given.region} of project {self.clients.project}"
                raise DeploymentMissingError(f"there is no deployment {given.name!r} {place}; {remedy}") from error
        if function.state.name != "ACTIVE":
            raise DeploymentMissingError(f"deployment {given.name!r} is {function.state.name.lower()}; {remedy}")
        return Deployment.from_json(function.service_config.environment_variables.get(VARIABLE, ""))

    @property
    def store(self) -> Store:
        """The bucket of the deployment; Google's storage library is imported when it is first used."""
        return self._objects

    @cached_property
    def _objects(self) -> GcsStore:
        from fsd_gcp.store import GcsStore

        bucket = self.deployment.bucket
        with translated("opening the bucket"):
            return GcsStore(self.clients.storage, bucket)

    @cached_property
    def compute(self) -> Compute:
        """HTTP requests to the function, made with identity tokens for its URL."""
        return self._compute

    @cached_property
    def tokens(self) -> IdentityTokens:
        """What starts are made with."""
        from fsd_gcp.calls.identity import IdentityTokens

        deployment = self.deployment
        account, in_worker = deployment.service_account, self._in_worker
        return IdentityTokens(deployment.url, account, lambda: self.clients.credentials, in_worker)

    @cached_property
    def _compute(self) -> GcpCompute:
        from fsd_gcp.compute import GcpCompute

        deployment, tokens = self.deployment, self.tokens
        limits = ComputeCapabilities(
            max_seconds=float(deployment.timeout_seconds),
            max_workers=deployment.workers,
            memory_bytes=deployment.memory_mb * _MEBI,
            reports_exit=True,
            reports_starts=True,
        )
        if not self._in_worker:
            return GcpCompute(deployment.url, tokens, limits, self._claimed, settling_seconds=_CALLER_SECONDS)
        return GcpCompute(deployment.url, tokens, limits, self._claimed, self._tell_lost, _WORKER_SECONDS)

    def _claimed(self, invocation: Invocation) -> bool:
        """Asked of the store for no longer than what is left of the run."""
        seconds = max(_LEAST_LOOK_SECONDS, invocation.run_seconds)
        return self._objects.exists(f"runs/{invocation.run}/claims/{invocation.rank}", seconds)

    def _tell_lost(self, invocation: Invocation, error: str) -> None:
        """Say for a worker that cannot that it has failed, unless the run has ended meanwhile."""
        try:
            how = "ended without a word" if self._claimed(invocation) else "could not be started"
            lost = WorkerFailedError(f"the worker {how}: {error}")
            # What rank 0 left in the store goes with the run.
            if self._claimed(invocation.for_rank(0)):
                write_failure(self.store, invocation.run, failure_of(lost, invocation.rank, SYSTEM_CLOCK.wall()))
        except StoreError:
            # Then the deadlines of those that wait for it tell.
            return

    def join(self, seconds: float) -> None:
        """Wait up to `seconds` for the workers that were started from here."""
        from fsdcore.clock import Deadline

        if "_compute" in self.__dict__:
            self._compute.join(Deadline.after(seconds, SYSTEM_CLOCK))

    def open_channel(self, kind: str, address: Address) -> Channel:
        """``queue`` pulls and ``stream`` holds a streaming pull, over the same topics; ``object`` uses the store."""
        if self.check_channel(kind) == "object":
            return ObjectChannel(self.store, address)
        with translated("connecting to Pub/Sub"):
            clients = self.clients.publisher, self.clients.subscriber
            if kind == "stream":
                from fsd_gcp.queue import StreamingChannel

                return StreamingChannel(*clients, self.deployment, address)
            from fsd_gcp.queue import PubsubChannel

            return PubsubChannel(*clients, self.deployment, address)

    def channel_capabilities(self, kind: str) -> ChannelCapabilities:
        """Those of the deployment if it is known, else those that the settings would give one."""
        if self.check_channel(kind) == "object":
            from fsd_gcp.store import CAPABILITIES

            return object_channel_capabilities(CAPABILITIES)
        from fsd_gcp.queue import queue_capabilities

        of = self._known or self.settings
        return queue_capabilities(of.publishes_in_flight, of.lanes)

    def provisioner(self) -> Provisioner:
        """Made with the REST and functions APIs; imported here, since runs do not need it."""
        from fsd_gcp.deploy.provisioner import GcpProvisioner

        return GcpProvisioner(self.clients, self.settings, self.observer)

    def checks(self, workers: int) -> Iterable[Check]:
        """Credentials, project and its APIs, quotas, the account that builds, and the deployment."""
        from fsd_gcp.deploy.checks import checks

        return checks(self.clients, self.settings, workers, self.observer)

    def credentials(self) -> str:
        """Whose the credentials are, and the project; with local endpoints none are needed."""
        return self.clients.described()

    def close(self) -> None:
        """Closes the connections of the clients that were made."""
        self.clients.close()
