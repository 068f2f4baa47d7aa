"""Which call goes wrong: drawn from a seed, so that a test can be repeated."""

from __future__ import annotations

import random
import threading
from collections.abc import Sequence


class Lots:
    """Draws, one for each call; `struck` is how many calls went wrong. May be used from several threads."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        self.struck = 0

    def draw(self, faults: object, names: Sequence[str]) -> str:
        """The name of one of the attributes of `faults`, each by the share it holds; empty for the rest of them."""
        with self._lock:
            lot = self._random.random()
        for name in names:
            lot -= getattr(faults, name)
            if lot < 0:
                self.strike()
                return name
        return ""

    def strike(self) -> None:
        """Count a call that goes wrong for another reason than its lot."""
        with self._lock:
            self.struck += 1
