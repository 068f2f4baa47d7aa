"""Clients of the services, made when first asked for: with Google's endpoints, or those of local servers.

Imports are inside the methods: a worker on the object channel pays nothing for Pub/Sub at its cold start.
"""

from __future__ import annotations

import os
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

from google.auth.credentials import AnonymousCredentials, Credentials

from fsd_gcp.calls.connections import channel_options, check_environment, go_direct, secured
from fsd_gcp.calls.credentials_file import check, place
from fsd_gcp.calls.errors import sound_answers, translated
from fsd_gcp.settings import checked_project
from fsdcore.clock import SYSTEM_CLOCK
from fsdcore.errors import ConfigError
from fsdcore.loopback import is_endpoint

if TYPE_CHECKING:
    import grpc
    from google.cloud import storage
    from google.cloud.functions_v2 import FunctionServiceClient
    from google.pubsub_v1.services.publisher import PublisherClient
    from google.pubsub_v1.services.subscriber import SubscriberClient

    from fsd_gcp.calls.rest import Rest

# Where Google's own library looks for Cloud Storage if it is told of no other place.
_EMULATOR = "STORAGE_EMULATOR_HOST"
# Where Google's own library looks for a machine's identity if it is told of no other place: a local one has it too.
_METADATA = "GCE_METADATA_HOST"
_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
_IDLE_SECONDS = 60.0
# A channel made by hand has gRPC's limit of 4 MB on what it receives; Pub/Sub sends up to 10 MB a message.
_ANY_SIZE = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


def _is_person(credentials: Any) -> bool:
    """Whether these are of somebody who has logged in, by gcloud or by workforce identity, and not of an account."""
    return bool(getattr(credentials, "refresh_token", None) or getattr(credentials, "is_user", False))


def _counted(credentials: Any, project: str) -> Credentials:
    """With a project that a person's calls are counted for: most services do not serve a person without one."""
    if project and _is_person(credentials) and not credentials.quota_project_id:
        return cast("Credentials", credentials.with_quota_project(project))
    return cast("Credentials", credentials)


def _guarded(credentials: Credentials) -> Credentials:
    """With a `refresh` that ends in the library's own errors."""
    refresh = credentials.refresh

    def guarded(request: Any) -> None:
        with sound_answers():
            refresh(request)  # type: ignore[no-untyped-call]

    # Where they are looked at for what they are, they must stay of their own class.
    credentials.refresh = guarded  # type: ignore[method-assign]
    return credentials


class Endpoints:
    """Where the services are: empty for Google's own."""

    def __init__(self, storage: str = "", pubsub: str = "", functions: str = "") -> None:
        self.storage, self.pubsub, self.functions = storage, pubsub, functions

    def __bool__(self) -> bool:
        return bool(self.storage or self.pubsub or self.functions)


class Clients:
    """One client of each service. With local endpoints credentials are anonymous."""

    def __init__(self, endpoints: Endpoints, project: str = "") -> None:
        self.endpoints, self._project = endpoints, project
        self._idle_since: float | None = None

    @cached_property
    def _found(self) -> tuple[Credentials, str]:
        """Credentials, and the project that they are of, if they say."""
        if self.endpoints and not os.environ.get(_METADATA):
            return AnonymousCredentials(), ""
        check_environment()
        if (file := place()) is not None:
            check(file)
        import google.auth

        with translated("looking for credentials"), sound_answers():
            credentials, project = google.auth.default(scopes=[_SCOPE])
        return _guarded(_counted(credentials, self._project or project or "")), project or ""

    @property
    def credentials(self) -> Credentials:
        """`CredentialsError` if there are none, `ConfigError` for a proxy or certificates that cannot be used."""
        return self._found[0]

    @property
    def project(self) -> str:
        """`ConfigError` if neither settings nor credentials name one, or none can be named so."""
        project = self._project or self._found[1]
        if not project:
            raise ConfigError("no project: set FSD_GCP_PROJECT or project in the table [gcp] of the configuration")
        return checked_project(project)

    def described(self) -> str:
        """Whose the credentials are, as far as they say so, and the project."""
        if self.endpoints:
            return "none needed: local servers stand in for Google's"
        who = getattr(self.credentials, "service_account_email", "") or type(self.credentials).__name__
        return f"{who}, project {self.project}"

    @cached_property
    def storage(self) -> storage.Client:
        """Cloud Storage. `ConfigError` if ``STORAGE_EMULATOR_HOST`` is no endpoint."""
        from google.cloud import storage

        options = {"api_endpoint": self.endpoints.storage} if self.endpoints.storage else None
        place = os.environ.get(_EMULATOR, "")
        if place and not self.endpoints.storage and not is_endpoint(place):
            raise ConfigError(f"{_EMULATOR} must be such as http://127.0.0.1:4443, not {place!r}")
        client = storage.Client(project=self.project, credentials=self.credentials, client_options=options)
        go_direct(client._http, self.endpoints.storage or place)
        return client

    def _channel(self) -> grpc.Channel:
        import grpc

        target = self.endpoints.pubsub
        return grpc.insecure_channel(target, options=[*_ANY_SIZE, *channel_options(target)])

    @cached_property
    def publisher(self) -> PublisherClient:
        """Publishes to Pub/Sub over gRPC, without TLS where a local endpoint is given."""
        from google.pubsub_v1.services.publisher import PublisherClient
        from google.pubsub_v1.services.publisher.transports import PublisherGrpcTransport

        if self.endpoints.pubsub:
            return PublisherClient(transport=PublisherGrpcTransport(channel=self._channel()))
        return PublisherClient(credentials=self.credentials, transport=secured(PublisherGrpcTransport))

    @cached_property
    def subscriber(self) -> SubscriberClient:
        """Pulls from Pub/Sub over gRPC, without TLS where a local endpoint is given."""
        from google.pubsub_v1.services.subscriber import SubscriberClient
        from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcTransport

        if self.endpoints.pubsub:
            return SubscriberClient(transport=SubscriberGrpcTransport(channel=self._channel()))
        return SubscriberClient(credentials=self.credentials, transport=secured(SubscriberGrpcTransport))

    @cached_property
    def functions(self) -> FunctionServiceClient:
        """Cloud Functions: over gRPC at Google, over REST at a local endpoint."""
        from google.cloud.functions_v2 import FunctionServiceClient

        if not self.endpoints.functions:
            from google.cloud.functions_v2.services.function_service.transports import FunctionServiceGrpcTransport

            return FunctionServiceClient(credentials=self.credentials, transport=secured(FunctionServiceGrpcTransport))
        options = {"api_endpoint": self.endpoints.functions}
        client = FunctionServiceClient(transport="rest", credentials=self.credentials, client_options=options)
        transport: Any = client.transport
        # Operations, which end later, are asked for over a session of their own.
        for each in (transport, transport.operations_client.transport):
            go_direct(each._session, self.endpoints.functions)
        return client

    @cached_property
    def rest(self) -> Rest:
        """For deployments alone: workers do not have it."""
        from fsd_gcp.calls.rest import Rest

        return Rest(self.credentials, self.endpoints.functions)

    def lie_idle(self) -> None:
        """Nothing is asked until `wake`: the instance may be frozen meanwhile."""
        self._idle_since = SYSTEM_CLOCK.now()

    def wake(self) -> None:
        """Have no connection that lay idle for long, which may be dead without saying so."""
        since, self._idle_since = self._idle_since, None
        if since is None or SYSTEM_CLOCK.now() < since + _IDLE_SECONDS:
            return
        for name in ("publisher", "subscriber"):
            if name in self.__dict__:
                self.__dict__.pop(name).transport.close()
        if "storage" in self.__dict__:
            # Its session makes new connections when it is used again.
            self.storage._http.close()

    def close(self) -> None:
        """Close what was made."""
        made = self.__dict__
        for name in ("storage", "rest"):
            if name in made:
                made[name].close()
        for name in ("publisher", "subscriber", "functions"):
            if name in made:
                made[name].transport.close()
