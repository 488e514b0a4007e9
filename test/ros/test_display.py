"""What the node publishes for RViz."""

from __future__ import annotations

import pytest
from fake_robot import (
    SECOND,
    Robot,
)
from nav_msgs.msg import Path as PathMsg
from sensor_msgs.msg import Image
from visualization_msgs.msg import MarkerArray

from localizer_ros.ros import conversions as convert

pytestmark = pytest.mark.ros


def test_path_markers_and_debug_image_are_published_while_subscribed(robot: Robot) -> None:
    robot.start().ready()
    for count in (1, 2, 3):
        robot.image(count * SECOND)
        robot.answered(count)
    for kind, name in ((PathMsg, "path"), (MarkerArray, "markers"), (Image, "debug_image")):
        messages = robot.listen(kind, f"/localizer/{name}")
        robot.until(lambda m=messages: m, f"no {name}")
    assert [convert.stamp_ns(q.header.stamp) for q in robot.received["/localizer/path"][0].poses] == [
        SECOND,
        2 * SECOND,
        3 * SECOND,
    ]
    image = robot.received["/localizer/debug_image"][0]
    assert (image.width, image.height) == (32, 24)
    kinds = {marker.ns for marker in robot.received["/localizer/markers"][0].markers}
    assert kinds == {"camera", "position_3_sigma"}


def test_path_begins_again_when_time_jumps_back(robot: Robot) -> None:
    robot.start().ready()
    paths = robot.listen(PathMsg, "/localizer/path")
    for count, stamp in enumerate((100, 101, 102, 5, 6), start=1):
        robot.image(stamp * SECOND)
        robot.answered(count)
    robot.until(lambda: paths and len(paths[-1].poses) == 2, "the path still has poses of the first round")
    assert robot.node.health.jumps_back == 1
    values = robot.node.health.diagnose().values
    assert values["time jumps back"] == "1"
