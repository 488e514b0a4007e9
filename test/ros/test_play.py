"""The player's sense of time, and the names it gives to frames."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import rclpy
from nav_msgs.msg import Odometry
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CameraInfo, Image
from tf2_msgs.msg import TFMessage

from localizer_ros.core.trajectory import Trajectory
from localizer_ros.core.types import Frame
from localizer_ros.datasets.derived import FirstFrames
from localizer_ros.datasets.source import FrameNames, FrameRecord, FrameSource
from localizer_ros.ros.play import PlayOptions, play
from localizer_ros.ros.transform_listener import TF_QOS, TF_STATIC_QOS

pytestmark = [pytest.mark.ros, pytest.mark.slow]

LATER_NS = 3_600_000_000_000


class TwoSequences:
    """A recording whose second half was driven an hour later; a ``FrameSource``."""

    def __init__(self, source: FrameSource) -> None:
        self._source = source
        self.path, self.format, self.camera = source.path, source.format, source.camera
        self.ground_truth, self.T_base_cam, self.stamps = (
            source.ground_truth,
            source.T_base_cam,
            source.stamps,
        )
        self.odometry: Trajectory | None = None
        self.splits: Sequence[str] = ()
        self.records: Sequence[FrameRecord] = [
            replace(r, stamp_ns=r.stamp_ns + self._later(i)) for i, r in enumerate(source.records)
        ]

    def _later(self, index: int) -> int:
        return LATER_NS if index >= len(self._source.records) // 2 else 0

    def read(self, index: int) -> Frame:
        return replace(self._source.read(index), stamp_ns=self.records[index].stamp_ns)

    def split(self, name: str) -> FrameSource:
        return self


def test_player_shortens_the_pause_between_two_sequences(tiny_source: FrameSource) -> None:
    stamps: list[int] = []
    report = play(TwoSequences(tiny_source), PlayOptions(rate=4.0), on_image=stamps.append)
    assert report.frames == len(tiny_source.records)
    assert stamps[-1] - stamps[0] > LATER_NS  # stamps stay the recording's
    assert report.wall_s < 60.0


def listened(source: FrameSource) -> dict[str, list[Any]]:
    """All messages of a recording that is played, by topic."""
    context = rclpy.Context()
    rclpy.init(context=context)
    found: dict[str, list[Any]] = {}
    node = Node("listener", context=context)
    for kind, topic, qos in (
        (Image, "image", QoSProfile(depth=50)),
        (CameraInfo, "camera_info", QoSProfile(depth=50)),
        (Odometry, "odom", QoSProfile(depth=500)),
        (TFMessage, "/tf", TF_QOS),
        (TFMessage, "/tf_static", TF_STATIC_QOS),
    ):
        found[topic] = []
        node.create_subscription(kind, topic, found[topic].append, qos)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    thread = threading.Thread(target=executor.spin, daemon=True)
    thread.start()
    try:
        play(source, PlayOptions(rate=4.0, wait_for_subscribers=1))
        deadline = threading.Event()
        for _ in range(100):
            if len(found["image"]) == len(source.records) and found["/tf_static"]:
                break
            deadline.wait(0.05)
    finally:
        executor.shutdown()
        thread.join(10.0)
        node.destroy_node()
        rclpy.try_shutdown(context=context)
    return found


def test_player_names_frames_as_the_recording_does(tiny_source: FrameSource) -> None:
    source = FirstFrames(tiny_source, 6)
    source.frames = FrameNames(camera="left_optical", base="wheels", odom="start")
    found = listened(source)
    assert {m.header.frame_id for m in (*found["image"], *found["camera_info"])} == {"left_optical"}
    (extrinsics,) = found["/tf_static"][-1].transforms
    assert (extrinsics.header.frame_id, extrinsics.child_frame_id) == ("wheels", "left_optical")
    assert {(m.header.frame_id, m.child_frame_id) for m in found["odom"]} == {("start", "wheels")}
    moving = {(t.header.frame_id, t.child_frame_id) for m in found["/tf"] for t in m.transforms}
    assert moving == {("start", "wheels")}
