"""Image to PoseStamped over real ROS 2: the node in its own process, this one plays and listens.

The time runs from the call that publishes an image to the callback that receives its pose, on one clock: transport
there and back, decoding, the localizer, and Python in between.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile

from localizer_ros.core.progress import Progress, no_progress
from localizer_ros.core.types import ConfigError
from localizer_ros.datasets.source import FrameSource
from localizer_ros.ros import conversions as convert
from localizer_ros.ros.dds_profile import use_shared_memory_profile
from localizer_ros.ros.play import PlayOptions, PlayReport, play

_LAST_POSE_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class LatencyReport:
    """What was measured.

    Attributes:
        frames: published.
        poses: received.
        latency_ms: p50, p99 and max of image to PoseStamped; empty without poses.
        stages_ms: p50 and p99 of the localizer's own stages, ``network`` being the bare network call.
        dropped: frames that the node counted as dropped, by reason.
        received: frames that reached the node; fewer than ``frames`` were lost on the way.
        play_late_ms: how far the player itself fell behind, at most.
    """

    frames: int
    poses: int
    latency_ms: dict[str, float]
    stages_ms: dict[str, dict[str, float]]
    dropped: dict[str, int]
    received: int
    play_late_ms: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    def lines(self) -> list[str]:
        """For people."""
        lost = self.frames - self.received
        lines = [
            f"{self.frames} images, {self.poses} poses, {lost} lost on the way, "
            f"dropped: {', '.join(f'{n} {kind}' for kind, n in self.dropped.items()) or 'none'}"
        ]
        if self.latency_ms:
            lines.append(
                f"image to PoseStamped: p50 {self.latency_ms['p50']:.1f} ms, p99 {self.latency_ms['p99']:.1f} ms"
            )
        for stage in ("network", "total"):
            if stage in self.stages_ms:
                name = "bare network call" if stage == "network" else "Localizer.process"
                values = self.stages_ms[stage]
                lines.append(f"{name}: p50 {values['p50']:.1f} ms, p99 {values['p99']:.1f} ms")
        return lines


@dataclass(frozen=True, slots=True, eq=False)
class LiveRun:
    """A recording that went through the live node.

    Attributes:
        latency: see there.
        poses: received messages in order.
    """

    latency: LatencyReport
    poses: list[PoseStamped]


@contextlib.contextmanager
def node_process(scene: Path, ros_arguments: Sequence[str] = ()) -> Iterator[subprocess.Popen[bytes]]:
    """The node in a process of its own, told to stop at the end."""
    command = [sys.executable, "-m", "localizer_ros.ros.main", "--ros-args", *ros_arguments]
    # Quoted as YAML, which is how ROS reads parameters.
    quoted = str(Path(scene).resolve()).replace("'", "''")
    process = subprocess.Popen([*command, "-p", f"scene:='{quoted}'"])
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(15.0)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def measure(
    scene: Path,
    source: FrameSource,
    options: PlayOptions = PlayOptions(),  # noqa: B008 (frozen)
    ros_arguments: Sequence[str] = (),
    progress: Progress = no_progress,
) -> LiveRun:
    """Play a recording to a node started for it, and take the time of every answer.

    Args:
        scene: folder of the scene.
        source: the recording.
        options: how to play it; waiting for the node is seen to.
        ros_arguments: of the node.
        progress: told of every frame.

    Raises:
        ConfigError: the node did not start; it has said why.
    """
    with node_process(scene, ros_arguments) as process:
        return measure_running(source, options, progress, process)


def measure_running(
    source: FrameSource,
    options: PlayOptions = PlayOptions(),  # noqa: B008 (frozen)
    progress: Progress = no_progress,
    process: subprocess.Popen[bytes] | None = None,
) -> LiveRun:
    """As :func:`measure`, with a node that somebody else runs.

    Args:
        source: the recording.
        options: how to play it; waiting for the node is seen to.
        progress: told of every frame.
        process: the node's, so that its early end is noticed; None when unknown.
    """
    use_shared_memory_profile()
    context = rclpy.Context()
    rclpy.init(args=[], context=context)
    listener = _Listener(Node("latency", context=context))
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(listener.node)
    thread = threading.Thread(target=_spin, args=(executor,), name="listener", daemon=True)
    thread.start()
    stop = threading.Event()
    died = threading.Event()
    if process is not None:
        threading.Thread(target=_watch, args=(process, stop, died), daemon=True).start()
    try:
        listener.wait_until_matched(options.wait_timeout_s, stop)
        playing = replace(options, wait_for_subscribers=max(1, options.wait_for_subscribers))
        report = play(source, playing, progress, listener.image_leaves, stop)
        if died.is_set():
            raise ConfigError("the node ended before the recording did; see its message above")
        return listener.result(report)
    finally:
        stop.set()
        executor.shutdown()
        rclpy.try_shutdown(context=context)
        thread.join(5.0)


def _spin(executor: SingleThreadedExecutor) -> None:
    with contextlib.suppress(ExternalShutdownException):
        executor.spin()


def _watch(process: subprocess.Popen[bytes], stop: threading.Event, died: threading.Event) -> None:
    while not stop.wait(0.05):
        if process.poll() is not None:
            died.set()
            stop.set()


class _Listener:
    def __init__(self, node: Node) -> None:
        self.node = node
        self._left_s: dict[int, float] = {}
        self._latencies_ms: list[float] = []
        self._poses: list[PoseStamped] = []
        self._values: dict[str, str] = {}
        self._changed = threading.Condition()
        self._subscription = node.create_subscription(
            PoseStamped, "/localizer/pose", self._on_pose, QoSProfile(depth=1000)
        )
        node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, QoSProfile(depth=10))

    def wait_until_matched(self, timeout_s: float, stop: threading.Event) -> None:
        deadline_s = time.monotonic() + timeout_s
        while self._subscription.get_publisher_count() == 0:
            if stop.wait(0.01):
                raise ConfigError("the node ended before it was ready; see its message above")
            if time.monotonic() > deadline_s:
                raise ConfigError(f"/localizer/pose: no node publishes it after {timeout_s:g} s")

    def image_leaves(self, stamp_ns: int) -> None:
        with self._changed:
            self._left_s[stamp_ns] = time.monotonic()

    def result(self, report: PlayReport) -> LiveRun:
        def complete() -> bool:
            done = int(self._values.get("frames processed", 0)) + int(self._values.get("frames dropped", 0))
            answered = int(self._values.get("frames answered", -1))
            return done >= report.frames and len(self._poses) >= answered

        with self._changed:
            self._changed.wait_for(complete, _LAST_POSE_TIMEOUT_S)
            latency = {}
            if self._latencies_ms:
                p50, p99 = np.percentile(self._latencies_ms, (50, 99))
                latency = {"p50": float(p50), "p99": float(p99), "max": max(self._latencies_ms)}
            stages: dict[str, dict[str, float]] = {}
            for key, value in self._values.items():
                words = key.split()
                if words[0] == "stage" and words[-1] == "ms":
                    stages.setdefault(" ".join(words[1:-2]), {})[words[-2]] = float(value)
            dropped = {
                key.removeprefix("dropped "): int(value)
                for key, value in self._values.items()
                if key.startswith("dropped ")
            }
            summary = LatencyReport(
                report.frames,
                len(self._poses),
                latency,
                stages,
                dropped,
                int(self._values.get("frames received", 0)),
                report.latest_s * 1e3,
            )
            return LiveRun(summary, list(self._poses))

    def _on_pose(self, message: PoseStamped) -> None:
        now_s = time.monotonic()
        with self._changed:
            left_s = self._left_s.pop(convert.stamp_ns(message.header.stamp), None)
            if left_s is not None:
                self._latencies_ms.append((now_s - left_s) * 1e3)
            self._poses.append(message)
            self._changed.notify_all()

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        with self._changed:
            for status in message.status:
                if status.name.startswith("localizer:"):
                    self._values = {value.key: value.value for value in status.values}
            self._changed.notify_all()
