"""Clients of the services: made once each, when first needed, from the settings."""

from __future__ import annotations

import threading
from typing import Any

import boto3
from botocore.config import Config

from backends.aws.errors import translated
from fsdcore.errors import ConfigError

__all__ = ["Clients"]

# A long poll lasts up to 20 s.
_CONNECT_SECONDS, _READ_SECONDS = 5, 30
_ATTEMPTS = 5
_CONNECTIONS = 32


class Clients:
    """A session of the SDK and its clients, which may be used from several threads.

    An empty `region` or `profile` is what the AWS configuration of the machine says. Nothing is asked of AWS, nor are
    credentials looked for, before a client is used.
    """

    def __init__(self, region: str = "", profile: str = "") -> None:
        self._region, self._profile = region, profile
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

    def client(self, service: str) -> Any:
        """The client of a service, such as ``sqs``."""
        region = self.region
        with self._lock:
            if service not in self._clients:
                with translated(f"the client of {service}", ConfigError):
                    self._clients[service] = self.session.client(service, region_name=region, config=_config())
            return self._clients[service]

    def close(self) -> None:
        """Close the connections. May be called twice."""
        with self._lock:
            for client in self._clients.values():
                client.close()
            self._clients.clear()


def _config() -> Config:
    return Config(
        connect_timeout=_CONNECT_SECONDS,
        read_timeout=_READ_SECONDS,
        retries={"mode": "standard", "total_max_attempts": _ATTEMPTS},
        max_pool_connections=_CONNECTIONS,
        tcp_keepalive=True,
    )
