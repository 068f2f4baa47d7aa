"""A backend for fsd-inference: processes of one machine that share a directory."""

from fsd_backend_filesystem.backend import FilesystemBackend
from fsd_backend_filesystem.settings import FilesystemSettings

__all__ = ["FilesystemBackend", "FilesystemSettings"]
