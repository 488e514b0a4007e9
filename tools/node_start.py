"""From the start of the node's process to its first pose, and the memory of that process some seconds later.

python tools/node_start.py scenes/kitchen recordings/redkitchen --split test
"""

from __future__ import annotations

import argparse
import contextlib
import json
import threading
import time
from pathlib import Path
from typing import Any

import rclpy
from geometry_msgs.msg import PoseStamped
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor

from localizer_ros.core.types import ConfigError
from localizer_ros.datasets.source import FrameSource, open_source
from localizer_ros.ros.dds_profile import use_shared_memory_profile
from localizer_ros.ros.latency import node_process
from localizer_ros.ros.play import PlayOptions, play

LARGEST = 12
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
    listening = threading.Thread(target=_spin, args=(executor,))
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
            resident_mb = resident(process.pid)
        largest = sorted(resident_mb, key=lambda name: -resident_mb[name])[:LARGEST]
        return {
            "first_pose_s": round(first_pose_s, 2),
            "rss_mb": round(sum(resident_mb.values()), 1),
            "largest_mb": {name: round(resident_mb[name], 1) for name in largest},
            "heavy": [name for name in HEAVY if any(name in mapped for mapped in resident_mb)],
        }
    finally:
        stop.set()
        playing.join()
        rclpy.try_shutdown(context=context)
        # A thread that still waits for messages at the end of the interpreter would be torn down in the middle of it.
        listening.join()


def resident(process: int) -> dict[str, float]:
    """Resident megabytes of a process by what is mapped: the names of files, ``heap``, and ``arrays`` for the rest."""
    found: dict[str, float] = {}
    name = ""
    for line in Path(f"/proc/{process}/smaps").read_text().splitlines():
        words = line.split()
        if "-" in words[0]:
            mapped = words[5] if len(words) > 5 else "arrays"
            name = Path(mapped).name if mapped.startswith("/") else mapped.strip("[]")
        elif words[0] == "Rss:":
            found[name] = found.get(name, 0.0) + int(words[1]) / 1e3
    return found


def _spin(executor: SingleThreadedExecutor) -> None:
    with contextlib.suppress(ExternalShutdownException):
        executor.spin()


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
