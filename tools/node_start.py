"""From the start of the node's process to its first pose, and the memory of that process some seconds later.

python tools/node_start.py scenes/kitchen recordings/redkitchen --split test
"""

from __future__ import annotations

import argparse
import json
import threading
import time
from pathlib import Path
from typing import Any

import rclpy
from geometry_msgs.msg import PoseStamped
from rclpy.executors import SingleThreadedExecutor

from localizer_ros.core.types import ConfigError
from localizer_ros.datasets.source import FrameSource, open_source
from localizer_ros.ros.dds_profile import use_shared_memory_profile
from localizer_ros.ros.latency import node_process
from localizer_ros.ros.play import PlayOptions, play

# What takes long to import, and no robot needs.
HEAVY = ("libtorch", "lightning", "matplotlib", "pycolmap")


def measure(scene: Path, source: FrameSource, seconds: float, arguments: list[str]) -> dict[str, Any]:
    """Seconds to the first pose, and memory after so many more; the images are on their way before the node is."""
    use_shared_memory_profile()
    context, stop, first = rclpy.Context(), threading.Event(), threading.Event()
    rclpy.init(args=[], context=context)
    node = rclpy.create_node("start_watch", context=context)
    node.create_subscription(PoseStamped, "/localizer/pose", lambda message: first.set(), 10)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    listening = threading.Thread(target=executor.spin, daemon=True)
    playing = threading.Thread(target=play, args=(source, PlayOptions(loop=True)), kwargs={"stop": stop})
    listening.start()
    playing.start()
    try:
        time.sleep(1.0)
        started_s = time.monotonic()
        with node_process(scene, arguments) as process:
            if not first.wait(60.0):
                raise ConfigError("no pose within a minute")
            first_pose_s = time.monotonic() - started_s
            time.sleep(seconds)
            status = Path(f"/proc/{process.pid}/status").read_text()
            maps = Path(f"/proc/{process.pid}/maps").read_text()
        kilobytes = int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1])
        return {
            "first_pose_s": round(first_pose_s, 2),
            "rss_mb": round(kilobytes / 1e3, 1),
            "heavy": [name for name in HEAVY if name in maps],
        }
    finally:
        stop.set()
        playing.join()
        executor.shutdown()
        rclpy.try_shutdown(context=context)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("scene", type=Path)
    parser.add_argument("source", type=Path)
    parser.add_argument("--split", default="all", help="part to play")
    parser.add_argument(
        "--seconds", type=float, default=10.0, help="from the first pose to the look at memory"
    )
    arguments, to_ros = parser.parse_known_args()
    part = open_source(arguments.source).split(arguments.split)
    print(json.dumps(measure(arguments.scene, part, arguments.seconds, to_ros)))


if __name__ == "__main__":
    main()
