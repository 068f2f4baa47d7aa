"""The settings: what the table ``[filesystem]`` of a configuration may hold."""

from __future__ import annotations

import math
from dataclasses import dataclass

from fsdcore.errors import ConfigError


@dataclass(frozen=True)
class FilesystemSettings:
    """Settings of the backend.

    - `root`: the directory for everything; below the home by default, where nobody else can put something in its place
    - `visibility_timeout`: seconds until a frame that was not acknowledged comes again
    """

    root: str = "~/.cache/fsd-filesystem"
    visibility_timeout: float = 30.0

    def __post_init__(self) -> None:
        if not self.root.strip():
            raise ConfigError("root must name a directory, not be empty")
        if not 0 < self.visibility_timeout < math.inf:
            raise ConfigError(f"visibility_timeout must be above 0 seconds and finite, not {self.visibility_timeout}")
