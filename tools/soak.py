"""The node for many frames, as fast as they go, in this process: memory, threads, descriptors, wrong poses, steps.

    python tools/soak.py SCENE SOURCE [--frames 100000] [--json FILE]

The recording is driven to and fro in simulated time. Exit code 1 when a pose was wrong, something unexpected happened,
memory grew by more than 5 MB after the first fifth, or threads or descriptors are not what they were then.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from localizer_ros.datasets.source import open_source
from localizer_ros.ros.scenario.soak import soak

MOST_MB = 5.0


def main() -> int:
    """Entry point; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("scene", type=Path)
    parser.add_argument("source", type=Path)
    parser.add_argument("--split", default="all", help="part to drive")
    parser.add_argument("--frames", type=int, default=100_000, help="at least this many")
    parser.add_argument("--json", type=Path, default=None, help="also write the result to this file")
    arguments = parser.parse_args()
    told_s = time.monotonic()

    def tell(stage: str, done: int, total: int) -> None:
        nonlocal told_s
        if time.monotonic() - told_s > 30.0:
            told_s = time.monotonic()
            print(f"{done}/{total}", file=sys.stderr, flush=True)

    found = soak(
        arguments.scene, open_source(arguments.source).split(arguments.split), arguments.frames, tell
    )
    print("\n".join(found.lines()))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(found.to_dict(), indent=1) + "\n", encoding="utf-8")
    warm = len(found.threads) // 5
    steady = found.threads[-1] == found.threads[warm] and found.descriptors[-1] == found.descriptors[warm]
    good = not found.wrong and not found.crashes and found.growth_mb <= MOST_MB and steady
    return 0 if good and found.state == "active" else 1


if __name__ == "__main__":
    sys.exit(main())
