"""Warnings and diagnostics of the node."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from fake_robot import CAMERA, SECOND, T_BASE_CAM, Robot, parameters
from rclpy.qos import QoSPolicyKind, QoSProfile, QoSReliabilityPolicy
from sensor_msgs.msg import Image

from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import ConfigError, FrameRejected, LocalizerOutput, NumericalError, Status
from localizer_ros.ros import conversions as convert
from localizer_ros.ros.frame_assembler import Job
from localizer_ros.ros.health import Health
from localizer_ros.ros.reporting import Reporter


class Log:
    """In place of a logger: keeps level and text."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []

    def info(self, text: str, **_: Any) -> None:
        self.lines.append(("info", text))

    def warning(self, text: str, **_: Any) -> None:
        self.lines.append(("warning", text))

    def error(self, text: str, **_: Any) -> None:
        self.lines.append(("error", text))


class Speaker:
    """In place of a node: what a ``Reporter`` needs of one."""

    def __init__(self) -> None:
        self.log = Log()
        self.published: list[DiagnosticArray] = []

    def get_logger(self) -> Log:
        return self.log

    def get_fully_qualified_name(self) -> str:
        return "/robot1/localizer"

    def get_clock(self) -> SimpleNamespace:
        return SimpleNamespace(now=lambda: SimpleNamespace(nanoseconds=SECOND))

    def create_publisher(self, kind: type, topic: str, depth: int) -> SimpleNamespace:
        return SimpleNamespace(publish=self.published.append)

    def resolve_topic_name(self, topic: str) -> str:
        return topic if topic.startswith("/") else f"/robot/{topic}"

    def get_publishers_info_by_topic(self, topic: str) -> list[SimpleNamespace]:
        qos = QoSProfile(depth=5, reliability=QoSReliabilityPolicy.BEST_EFFORT)
        return [SimpleNamespace(node_name="driver", node_namespace="/robot", qos_profile=qos)]


def reporter() -> tuple[Reporter, Log, Health]:
    speaker, health = Speaker(), Health()
    health.image_topic = "/robot/image"
    return Reporter(speaker, health, "room"), speaker.log, health


def answer(status: Status, stamp_ns: int, reset: bool = False) -> LocalizerOutput:
    return LocalizerOutput(stamp_ns, status, None, None, None, "", {}, reset)


def job(T_odometry_cam: SE3 | None = None, problem: str = "") -> Job:
    message = convert.image_msg(np.zeros((24, 32), np.uint8), SECOND, "camera")
    return Job(message, CAMERA, "camera", "base_link", T_BASE_CAM, T_odometry_cam, problem, 0.0)


def test_drops_are_counted_and_told_but_those_of_everyday_only_counted() -> None:
    report, log, health = reporter()
    for kind in ("superseded", "paused", "encoding"):
        report.frame_dropped(FrameRejected(kind, "why"))
    assert log.lines == [("warning", "frame dropped (encoding): why")]
    assert health.dropped == {"superseded": 1, "paused": 1, "encoding": 1}


def test_a_frame_that_fails_is_one_drop_and_only_a_bug_is_told_with_its_traceback() -> None:
    report, log, health = reporter()
    for error in (FrameRejected("size", "too big"), NumericalError("singular"), ZeroDivisionError("a bug")):
        report.frame_failed(error)
    assert health.dropped == {"size": 1, "failed": 2}
    errors = [text for level, text in log.lines if level == "error"]
    assert len(errors) == 1 and "ZeroDivisionError: a bug" in errors[0]


def test_a_change_of_status_is_told_at_once_and_once() -> None:
    speaker, health = Speaker(), Health()
    report = Reporter(speaker, health, "room")
    for index, status in enumerate((Status.TRACKING, Status.TRACKING, Status.LOST)):
        report.frame_answered(job(), answer(status, index), None, 0.0)
    assert speaker.log.lines == [("info", "TRACKING"), ("warning", "LOST")]
    assert len(speaker.published) == 2
    # Two robots of one fleet are told apart.
    assert speaker.published[0].status[0].name == "robot1/localizer: localization"


def test_time_that_jumps_back_is_told_and_counted() -> None:
    report, log, health = reporter()
    report.frame_answered(job(), answer(Status.TRACKING, 100 * SECOND), None, 0.0)
    report.frame_answered(job(), answer(Status.TRACKING, 5 * SECOND, reset=True), None, 0.0)
    assert ("warning", "time jumped back by 95.0 s: started over") in log.lines
    assert health.jumps_back == 1
    # After a deactivation the first frame may have any stamp.
    report.forget_time()
    report.frame_answered(job(), answer(Status.TRACKING, SECOND, reset=True), None, 0.0)
    assert health.jumps_back == 1


def test_a_camera_is_told_when_it_changes_and_a_refused_one_once() -> None:
    report, log, health = reporter()
    report.camera_changed(CAMERA)
    assert log.lines == [] and health.notes["camera"] == "32x24, f 30.0 px, no distortion"
    for _ in range(3):
        report.camera_refused(ConfigError("not calibrated"))
    assert log.lines == [("error", "camera_info is ignored: not calibrated")]
    assert health.notes["camera"] == "not calibrated"
    report.camera_changed(CAMERA)
    assert log.lines[-1][1].startswith("camera_info changed: now 32x24")


def test_whether_odometry_is_used_stands_in_the_diagnostics() -> None:
    report, _, health = reporter()
    report.frame_assembled(job())
    assert "odometry" not in health.notes
    report.frame_assembled(job(problem="no transform"))
    assert health.notes["odometry"] == "not used: no transform"
    report.frame_assembled(job(T_BASE_CAM))
    assert health.notes["odometry"] == "used"
    report.odometry_refused(ValueError("zero quaternion"))
    assert health.notes["odometry"] == "not used: zero quaternion"


@pytest.mark.parametrize(
    ("topic", "advice"),
    [
        ("/robot/image", "Set image_reliability, or qos_overrides./robot/image.subscription.reliability"),
        (
            "camera_info",
            "Set camera_info_reliability, or qos_overrides./robot/camera_info.subscription.reliability",
        ),
        ("odom", "Set qos_overrides./robot/odom.subscription.reliability"),
    ],
)
def test_qos_that_does_not_fit_is_told_with_both_sides_and_the_setting(topic: str, advice: str) -> None:
    report, log, _ = reporter()
    ours = QoSProfile(depth=5, reliability=QoSReliabilityPolicy.RELIABLE)
    event = SimpleNamespace(last_policy_kind=QoSPolicyKind.RELIABILITY)
    report.input_qos_differs(topic, ours, event)
    ((level, text),) = log.lines
    assert level == "warning" and text.endswith(advice)
    assert "/robot/driver offers best_effort" in text and "asks for reliable" in text


# --- with the node ---


@pytest.mark.ros
@pytest.mark.slow
@pytest.mark.parametrize("robot", [parameters("use_sim_time:=true")], indirect=True)
def test_diagnostics_go_on_while_simulated_time_stands_still(robot: Robot) -> None:
    robot.start()
    diagnostics = robot.listen(DiagnosticArray, "/diagnostics")
    robot.until(lambda: len(diagnostics) >= 2, "no diagnostics")
    assert convert.stamp_ns(diagnostics[-1].header.stamp) == 0


@pytest.mark.ros
@pytest.mark.parametrize("robot", [parameters("image_reliability:=reliable")], indirect=True)
def test_qos_that_does_not_fit_names_both_sides(robot: Robot) -> None:
    robot.start()
    qos = QoSProfile(depth=5, reliability=QoSReliabilityPolicy.BEST_EFFORT)
    robot.robot.create_publisher(Image, "/image", qos)
    robot.until(lambda: "QoS /image" in robot.node.health.notes, "no warning")
    note = robot.node.health.notes["QoS /image"]
    assert "/robot offers best_effort" in note and "asked for reliable" in note


@pytest.mark.ros
@pytest.mark.parametrize(
    "robot", [parameters("qos_overrides./image.subscription.reliability:=reliable")], indirect=True
)
def test_qos_can_be_overridden(robot: Robot) -> None:
    robot.start()
    infos = robot.node.get_subscriptions_info_by_topic("/image")
    assert [info.qos_profile.reliability for info in infos] == [QoSReliabilityPolicy.RELIABLE]


def test_diagnostics_go_out_at_once_where_what_is_wrong_changes_and_not_where_a_number_does() -> None:
    node, now = Speaker(), [0.0]
    health = Health(clock=lambda: now[0])
    health.active, health.image_publishers = True, 1
    reporter = Reporter(node, health, "scene")
    reporter.publish_diagnostics()

    def told(after_s: float = 0.1) -> int:
        before = len(node.published)
        now[0] += after_s
        reporter.watch()
        return len(node.published) - before

    health.frame_received()
    assert told() == 0
    reporter.frame_dropped(FrameRejected("encoding", "'nowhere' is no encoding"))
    assert told() == 1 and "encoding" in node.published[-1].status[0].message
    assert told() == 0
    assert told(5.0) == 1 and "no image for" in node.published[-1].status[0].message
    assert told(1.0) == 0  # it is 6.1 s now instead of 5.1
