"""Runs on Google Cloud: workers are Cloud Functions, queues are Pub/Sub, objects lie in Cloud Storage."""

from fsd_gcp.backend import GcpBackend
from fsd_gcp.settings import GcpSettings

__all__ = ["GcpBackend", "GcpSettings"]
