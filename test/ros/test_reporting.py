"""Warnings and diagnostics of the node."""

from __future__ import annotations

import pytest
from diagnostic_msgs.msg import DiagnosticArray
from fake_robot import (
    Robot,
    parameters,
)
from rclpy.qos import QoSProfile, QoSReliabilityPolicy
from sensor_msgs.msg import Image

from localizer_ros.ros import conversions as convert

pytestmark = pytest.mark.ros


@pytest.mark.slow
@pytest.mark.parametrize("robot", [parameters("use_sim_time:=true")], indirect=True)
def test_diagnostics_go_on_while_simulated_time_stands_still(robot: Robot) -> None:
    robot.start()
    diagnostics = robot.listen(DiagnosticArray, "/diagnostics")
    robot.until(lambda: len(diagnostics) >= 2, "no diagnostics")
    assert convert.stamp_ns(diagnostics[-1].header.stamp) == 0


@pytest.mark.parametrize("robot", [parameters("image_reliability:=reliable")], indirect=True)
def test_qos_that_does_not_fit_names_both_sides(robot: Robot) -> None:
    robot.start()
    qos = QoSProfile(depth=5, reliability=QoSReliabilityPolicy.BEST_EFFORT)
    robot.robot.create_publisher(Image, "/image", qos)
    robot.until(lambda: "QoS /image" in robot.node.health.notes, "no warning")
    note = robot.node.health.notes["QoS /image"]
    assert "/robot offers best_effort" in note and "asked for reliable" in note


@pytest.mark.parametrize(
    "robot", [parameters("qos_overrides./image.subscription.reliability:=reliable")], indirect=True
)
def test_qos_can_be_overridden(robot: Robot) -> None:
    robot.start()
    infos = robot.node.get_subscriptions_info_by_topic("/image")
    assert [info.qos_profile.reliability for info in infos] == [QoSReliabilityPolicy.RELIABLE]
