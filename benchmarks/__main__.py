"""``python -m benchmarks``: all measurements, or those named; each prints its tables and writes them as JSON."""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path

_ALL = ("runs", "encoding", "inflight", "coldstart", "memory", "growth", "serial", "pull")


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"some of: {', '.join(_ALL)}; all if none is named")
    parser.add_argument("--quick", action="store_true", help="smaller, to see that they work")
    parser.add_argument("--out", type=Path, default=Path("bench-results"), help="where the JSON goes")
    parser.add_argument("--cold-start-worker", nargs=3, metavar=("ROOT", "WORKERS", "SAMPLES"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.cold_start_worker:
        from benchmarks.coldstart import worker

        root, workers, samples = given.cold_start_worker
        worker(root, int(workers), int(samples))
        return
    unknown = set(given.names) - set(_ALL)
    if unknown:
        parser.error(f"there is no measurement {', '.join(sorted(unknown))}; there are: {', '.join(_ALL)}")
    for name in given.names or _ALL:
        _measure(name, given.quick, given.out)


def _measure(name: str, quick: bool, out: Path) -> None:
    from benchmarks.tables import save, show

    tables = importlib.import_module(f"benchmarks.{name}").measure(quick)
    for table in tables:
        print(show(table), flush=True)
    print(f"written to {save(name, tables, out)}\n", flush=True)


if __name__ == "__main__":
    main()
