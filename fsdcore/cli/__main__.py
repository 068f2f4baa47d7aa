"""``python -m fsdcore.cli``, the same as ``fsd``."""

from __future__ import annotations

import sys

from fsdcore.cli import main

if __name__ == "__main__":
    sys.exit(main())
