"""Runs in this process: workers are threads, queues are in memory, objects in memory or in a directory."""

from fsd_local.backend import LocalBackend, LocalSettings

__all__ = ["LocalBackend", "LocalSettings"]
