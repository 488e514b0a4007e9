"""What the node publishes for RViz."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fake_robot import (
    CAMERA,
    SECOND,
    TIMEOUT_S,
    Robot,
)
from nav_msgs.msg import Path as PathMsg
from sensor_msgs.msg import Image
from visualization_msgs.msg import MarkerArray

from localizer_ros.core.robot_pose import base_pose
from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import LocalizerOutput, PoseEstimate, Status
from localizer_ros.ros import conversions as convert
from localizer_ros.ros.display import Display
from localizer_ros.ros.frame_assembler import Job

pytestmark = pytest.mark.ros


class Screen:
    """Publishers of a display, who looks at them, and in which thread they were painted."""

    def __init__(self) -> None:
        self.looking = 0
        self.errors: list[Exception] = []
        self.threads: list[str] = []
        self.painted = threading.Event()
        self.display = Display(self.create, "map", 10, self.errors.append)

    def create(self, kind: type, name: str, depth: int = 10) -> Any:
        return SimpleNamespace(get_subscription_count=lambda: self.looking, publish=self.publish)

    def publish(self, message: Any) -> None:
        self.threads.append(threading.current_thread().name)
        if len(self.threads) % 3 == 0:
            self.painted.set()

    def show(self) -> None:
        self.painted.clear()
        self.display.publish()
        assert self.painted.wait(TIMEOUT_S)


@pytest.fixture
def screen() -> Iterator[Screen]:
    made = Screen()
    yield made
    made.display.close()
    assert not made.errors


def test_nothing_is_painted_while_nobody_looks_and_then_in_a_thread_of_its_own(screen: Screen) -> None:
    estimate = PoseEstimate(SECOND, SE3.identity(), None, "test")
    message = convert.image_msg(np.zeros((24, 32), np.uint8), SECOND, "camera")
    job = Job(message, CAMERA, "camera", "camera", SE3.identity(), None, "", 0.0)
    output = LocalizerOutput(SECOND, Status.TRACKING, estimate, None, None, "", {}, reset=False)
    screen.display.add(job, output, base_pose(estimate, job.T_base_cam))
    screen.display.publish()
    assert screen.display._drawn == (None, [])
    screen.looking = 1
    screen.show()
    # What was seen is not painted again, but for those who come later.
    screen.display.publish()
    screen.looking = 2
    screen.show()
    assert screen.threads == ["display"] * 6


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
    assert (image.width, image.height) == (480, 360)
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
