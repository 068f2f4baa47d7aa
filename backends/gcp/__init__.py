"""Runs on Google Cloud: workers are Cloud Functions, queues are Pub/Sub, objects lie in Cloud Storage."""

from backends.gcp.backend import GcpBackend
from backends.gcp.settings import GcpSettings

__all__ = ["GcpBackend", "GcpSettings"]
