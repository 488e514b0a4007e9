"""Image to PoseStamped over ROS 2, with player and node in processes of their own.

python tools/live_latency.py scenes/kitchen recordings/redkitchen --split test --limit 200
"""

from __future__ import annotations

import argparse
from pathlib import Path

from localizer_ros.datasets.source import open_source
from localizer_ros.ros.latency import measure
from localizer_ros.ros.play import PlayOptions


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("scene", type=Path)
    parser.add_argument("source", type=Path)
    parser.add_argument("--split", default="all", help="part to play")
    parser.add_argument("--limit", type=int, default=None, help="at most this many frames")
    arguments = parser.parse_args()
    part = open_source(arguments.source).split(arguments.split)
    run = measure(arguments.scene, part, PlayOptions(limit=arguments.limit))
    print("\n".join(run.latency.lines()))


if __name__ == "__main__":
    main()
