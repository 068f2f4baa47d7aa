"""Make many damaged inputs for every decoder, and say what each did that it should not."""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path

from tests.fuzz.trial import DECODERS, share, try_input
from tests.fuzz.world import World

# What a decoder may take for one small input, and the whole process.
_MOST_GROWTH, _MOST_MEMORY = 100 << 20, 8 << 30


def main() -> int:
    parser = argparse.ArgumentParser("python -m tests.fuzz", description=__doc__)
    parser.add_argument("inputs", type=int, help="how many inputs, all decoders together")
    parser.add_argument("seed", type=int)
    parser.add_argument("decoders", nargs="*", metavar="decoder", help=f"all by default: {', '.join(DECODERS)}")
    given = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (_MOST_MEMORY, _MOST_MEMORY))
    warnings.simplefilter("ignore")
    found: Counter[str] = Counter()
    chosen = given.decoders or list(DECODERS)
    shares = sum(map(share, chosen))
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder))
        for decoder in chosen:
            found += _tried(world, decoder, given.seed, -(-given.inputs * share(decoder) // shares))
    for surprise, times in sorted(found.items()):
        _say(f"{times:8,} x {surprise}")
    _say(f"{found.total():,} surprises of {len(found)} kinds; the process took {_peak() >> 20:,} MiB")
    return 1 if found else 0


def _tried(world: World, decoder: str, seed: int, inputs: int) -> Counter[str]:
    """The surprises of that many inputs, each with the number of the first."""
    found: dict[str, list[int]] = {}
    begin = time.perf_counter()
    for number in range(inputs):
        before = _peak()
        surprise = try_input(world, decoder, seed, number)
        if number > 10 and _peak() - before > _MOST_GROWTH:
            surprise = surprise or f"it took {(_peak() - before) >> 20} MiB"
        if surprise is not None:
            found.setdefault(f"{decoder}: {surprise}", []).append(number)
    _say(f"{decoder:20} {inputs:10,} inputs in {time.perf_counter() - begin:6.1f} s")
    return Counter({f"{surprise} (first: {numbers[0]})": len(numbers) for surprise, numbers in found.items()})


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
