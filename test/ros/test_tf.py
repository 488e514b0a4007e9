"""The one TF edge that the node owns."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fake_robot import (
    MS,
    SECOND,
    T_BASE_CAM,
    Robot,
    parameters,
    static_tf,
    true_pose,
)
from geometry_msgs.msg import PoseStamped
from tf2_msgs.msg import TFMessage

from localizer_ros.core.config.runtime import RunConfig
from localizer_ros.core.config.schema import config_from_dict
from localizer_ros.core.se3 import SE3
from localizer_ros.core.transform_tree import TransformTree
from localizer_ros.ros import conversions as convert
from localizer_ros.ros.tf import MapBroadcaster


@pytest.mark.ros
@pytest.mark.parametrize(
    "robot",
    [
        parameters(
            "base_frame:=base_link", "odom_frame:=odom", "map_frame:=world", "transform_tolerance:=0.05"
        )
    ],
    indirect=True,
)
def test_map_to_odom_waits_for_the_odometry_of_the_same_time(robot: Robot) -> None:
    robot.start().ready()
    static_tf(robot)
    poses = robot.listen(PoseStamped, "/localizer/pose")
    tf = robot.listen(TFMessage, "/tf")

    def odom_base(stamp: int) -> SE3:
        return SE3(np.eye(3), np.array([stamp * 1e-9, 0.0, 0.0]))

    def send_odometry(stamp: int) -> None:
        transform = convert.transform_msg(odom_base(stamp), stamp, "odom", "base_link")
        robot.publisher(TFMessage, "/tf").publish(TFMessage(transforms=[transform]))

    def of_the_localizer() -> list[Any]:
        return [t for m in tf for t in m.transforms if t.header.frame_id == "world"]

    send_odometry(4 * SECOND)
    stamp = 4 * SECOND + 50 * MS
    robot.image(stamp)
    robot.until(lambda: poses, "no pose")
    assert not of_the_localizer(), "combined with odometry of another time"
    send_odometry(4 * SECOND + 100 * MS)
    robot.until(of_the_localizer, "no map -> odom")
    transform = of_the_localizer()[0]
    assert transform.child_frame_id == "odom"
    assert convert.stamp_ns(transform.header.stamp) == stamp + 50 * MS
    T_map_base = true_pose(stamp) @ T_BASE_CAM.inverse()
    expected = T_map_base @ odom_base(stamp).inverse()
    # The odometry is interpolated between two samples.
    np.testing.assert_allclose(convert.transform_from_msg(transform).matrix(), expected.matrix(), atol=1e-9)


# --- without a node ---


class Heard:
    """In place of a ``TransformListener``: a tree that tests fill."""

    def __init__(self) -> None:
        self.tree = TransformTree()
        self.lookup = self.tree.lookup


def broadcaster_with(heard: Heard, **settings: Any) -> tuple[MapBroadcaster, list[Any]]:
    """A broadcaster and the transforms that it publishes."""
    sent: list[Any] = []
    node = SimpleNamespace(
        create_publisher=lambda *_: SimpleNamespace(publish=lambda message: sent.extend(message.transforms))
    )
    config = config_from_dict(RunConfig, {"base_frame": "base_link", **settings})
    return MapBroadcaster(node, heard, "map", config), sent  # type: ignore[arg-type]


def test_without_odom_frame_the_base_is_published_at_once() -> None:
    broadcaster, sent = broadcaster_with(Heard())
    broadcaster.send(SECOND, T_BASE_CAM, "base_link")
    (transform,) = sent
    assert (transform.header.frame_id, transform.child_frame_id) == ("map", "base_link")
    np.testing.assert_allclose(
        convert.transform_from_msg(transform).matrix(), T_BASE_CAM.matrix(), atol=1e-12
    )


def test_the_newest_pose_waits_for_odometry_and_says_so_until_it_is_out_or_forgotten() -> None:
    heard = Heard()
    broadcaster, sent = broadcaster_with(heard, odom_frame="odom")
    for stamp in (SECOND, 2 * SECOND):
        broadcaster.send(stamp, SE3.identity(), "base_link")
    assert not sent and "'odom' and 'base_link'" in broadcaster.waiting_for
    heard.tree.set("odom", "base_link", T_BASE_CAM, 2 * SECOND)
    broadcaster.retry()
    broadcaster.retry()
    (transform,) = sent
    assert convert.stamp_ns(transform.header.stamp) == 2 * SECOND and broadcaster.waiting_for == ""
    expected = T_BASE_CAM.inverse().matrix()
    np.testing.assert_allclose(convert.transform_from_msg(transform).matrix(), expected, atol=1e-12)
    broadcaster.send(3 * SECOND, SE3.identity(), "base_link")
    assert "not known as late" in broadcaster.waiting_for
    broadcaster.forget()
    assert broadcaster.waiting_for == ""
    heard.tree.set("odom", "base_link", T_BASE_CAM, 3 * SECOND)
    broadcaster.retry()
    assert len(sent) == 1
