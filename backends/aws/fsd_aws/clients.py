"""Clients of the services: made once each, when first needed, from the settings."""

from __future__ import annotations

import os
import threading
from typing import Any

import boto3
import botocore.exceptions as sdk
from botocore.config import Config

from fsd_aws.errors import DENIED, translated
from fsdcore.clock import SYSTEM_CLOCK
from fsdcore.errors import ConfigError, CredentialsError
from fsdcore.loopback import is_endpoint, is_loopback, is_refused

# A long poll lasts up to 20 s.
_CONNECT_SECONDS, _READ_SECONDS = 5, 30
# Many workers that poll one prefix are told to slow down, for some seconds.
_ATTEMPTS, _STORE_ATTEMPTS = 5, 10
_CONNECTIONS = 32
_SETTLE_PAUSE = 1.0
_ENDPOINT = "AWS_ENDPOINT_URL"


class Clients:
    """A session of the SDK and its clients, which may be used from several threads.

    An empty `region` or `profile` is what the AWS configuration of the machine says. Nothing is asked of AWS, nor are
    credentials looked for, before a client is used. What is refused within `settle_seconds` is asked again: the rights
    of a role that was just made are not in force everywhere.
    """

    def __init__(self, region: str = "", profile: str = "", settle_seconds: float = 0.0) -> None:
        self._region, self._profile, self._settle_seconds = region, profile, settle_seconds
        self._made_at = SYSTEM_CLOCK.now()
        self._lock = threading.RLock()
        self._session: Any = None
        self._clients: dict[str, Any] = {}

    @property
    def session(self) -> Any:
        """The `boto3.Session`; `ConfigError` if there is no such profile."""
        with self._lock:
            if self._session is None:
                with translated("the AWS configuration", ConfigError):
                    self._session = boto3.Session(profile_name=self._profile or None, region_name=self._region or None)
            return self._session

    @property
    def region(self) -> str:
        """The region; `ConfigError` if none is configured."""
        region = self.session.region_name
        if not region:
            raise ConfigError("no AWS region: set region in [aws], or AWS_DEFAULT_REGION")
        return str(region)

    @property
    def partition(self) -> str:
        """The partition of AWS that the region is in, by what the SDK knows of regions; ``aws`` for one it does not."""
        try:
            return str(self.session.get_partition_for_region(self.session.region_name or ""))
        except sdk.UnknownRegionError:
            return "aws"

    def credentials(self) -> str:
        """Where credentials were found, and the region; whether AWS accepts them is not asked.

        `CredentialsError` if there are none.
        """
        with translated("looking for credentials", CredentialsError):
            found = self.session.get_credentials()
        if found is None:
            raise CredentialsError("no AWS credentials; run: aws configure, or set AWS_PROFILE")
        return f"found ({found.method}), region {self.region}"

    def client(self, service: str) -> Any:
        """The client of a service, such as ``sqs``."""
        region = self.region
        with self._lock:
            if service not in self._clients:
                with translated(f"the client of {service}", ConfigError):
                    self._clients[service] = self._made(service, region)
            return self._clients[service]

    def _made(self, service: str, region: str) -> Any:
        config = _config(service)
        try:
            client = self.session.client(service, region_name=region, config=config)
        except ValueError as error:
            raise ConfigError(f"{_source()} must be such as http://127.0.0.1:4566: {error}") from error
        endpoint = client.meta.endpoint_url
        if not is_endpoint(endpoint):
            raise ConfigError(f"{_source()} must be such as http://127.0.0.1:4566, not {endpoint!r}")
        if is_loopback(endpoint):
            client.close()
            client = self.session.client(service, region_name=region, config=config.merge(Config(proxies={})))
            client.meta.events.register_first("needs-retry", _give_up)
        client.meta.events.register_first("needs-retry", self._try_again)
        return client

    def _try_again(self, response: Any = None, **_: Any) -> float | None:
        """The pause before a request that was refused is made again, while rights may not have taken effect."""
        code = response[1].get("Error", {}).get("Code") if response is not None else None
        settling = SYSTEM_CLOCK.now() - self._made_at < self._settle_seconds
        return _SETTLE_PAUSE if code in DENIED and settling else None

    def close(self) -> None:
        """Close the connections. May be called twice."""
        with self._lock:
            for client in self._clients.values():
                client.close()
            self._clients.clear()


def _source() -> str:
    """What names an endpoint that is none."""
    given = {name: url for name, url in os.environ.items() if name.startswith(_ENDPOINT)}
    return next((name for name, url in given.items() if not is_endpoint(url)), "endpoint_url in the AWS configuration")


def _give_up(caught_exception: Exception | None = None, **_: Any) -> None:
    """Do not try again where nobody listens: of this machine that is known at once."""
    if caught_exception is not None and is_refused(caught_exception):
        raise caught_exception


def _config(service: str) -> Config:
    attempts = _STORE_ATTEMPTS if service == "s3" else _ATTEMPTS
    return Config(
        connect_timeout=_CONNECT_SECONDS,
        read_timeout=_READ_SECONDS,
        retries={"mode": "standard", "total_max_attempts": attempts},
        max_pool_connections=_CONNECTIONS,
        tcp_keepalive=True,
    )
