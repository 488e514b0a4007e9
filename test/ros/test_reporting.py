"""Warnings and diagnostics of the node."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from fake_robot import CAMERA, SECOND, T_BASE_CAM, Robot, parameters
from rclpy.qos import QoSPolicyKind, QoSProfile, QoSReliabilityPolicy
from sensor_msgs.msg import Image

from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import (
    ConfigError,
    FrameRejected,
    LocalizerOutput,
    NumericalError,
    PoseEstimate,
    RelativePose,
    Status,
)
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
        self.statuses: list[DiagnosticStatus] = []
        self.now_ns = SECOND

    def get_logger(self) -> Log:
        return self.log

    def get_fully_qualified_name(self) -> str:
        return "/robot1/localizer"

    def get_clock(self) -> SimpleNamespace:
        return SimpleNamespace(now=lambda: SimpleNamespace(nanoseconds=self.now_ns))

    def create_publisher(self, kind: type, topic: str, depth: Any) -> SimpleNamespace:
        return SimpleNamespace(publish=(self.published if topic == "/diagnostics" else self.statuses).append)

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


def moved(source: str, stamp_ns: int) -> LocalizerOutput:
    """An answer to a frame whose motion was measured by ``source``."""
    motion = RelativePose(stamp_ns - 1, stamp_ns, SE3.identity(), np.eye(6), source)
    return replace(answer(Status.TRACKING, stamp_ns), relative=motion, motions=(motion,))


def test_the_diagnostics_say_that_odometry_is_used_only_while_it_is() -> None:
    report, _, health = reporter()
    health.active, health.image_publishers = True, 1
    health.frame_received()
    report.frame_answered(job(), moved("vo", 1), None, 0.0)
    assert "odometry" not in health.notes
    report.frame_assembled(job(problem="no transform"))
    assert health.notes["odometry"] == "not used: no transform"
    report.frame_answered(job(T_BASE_CAM), moved("odom", 2), None, 0.0)
    assert health.notes["odometry"] == "used" and health.judge().level == "OK"
    report.frame_answered(job(T_BASE_CAM), moved("vo", 3), None, 0.0)
    assert "has ended" in health.notes["odometry"]
    verdict = health.judge()
    assert verdict.level == "WARN" and "odom is not used any more" in verdict.message
    report.odometry_refused(ValueError("zero quaternion"))
    assert health.notes["odometry"] == "not used: zero quaternion"
    assert "odom is ignored: zero quaternion" in health.judge().message


@pytest.mark.parametrize(
    ("ahead_s", "usable", "said"), [(0.3, True, ""), (1000.0, False, "ahead"), (-100.0, True, "past")]
)
def test_stamps_are_held_against_the_clock(ahead_s: float, usable: bool, said: str) -> None:
    report, log, health = reporter()
    health.active, health.image_publishers = True, 1
    report._node.now_ns = 5000 * SECOND
    health.frame_received()
    assert report.stamp_is_usable(report._node.now_ns + round(ahead_s * SECOND)) is usable
    report.frame_answered(job(), answer(Status.TRACKING, 1), None, 0.0)
    verdict = health.judge()
    assert said in verdict.message and (verdict.level == "OK") is (said == "")
    assert bool(health.dropped["stamp_future"]) is not usable
    assert any(f"{abs(ahead_s):.1f} s" in text for _, text in log.lines) is (said != "")


def test_without_a_simulated_clock_no_stamp_is_in_the_future() -> None:
    report, _, _ = reporter()
    report._node.now_ns = 0
    assert report.stamp_is_usable(100 * SECOND)


def test_the_status_is_a_message_of_its_own_with_what_a_program_acts_on() -> None:
    speaker, health = Speaker(), Health()
    report = Reporter(speaker, health, "room")
    health.active, health.image_publishers = True, 1
    health.frame_received()
    S = np.diag([0.01**2, 0.02**2, 0.01**2, 0.1**2, 0.2**2, 0.1**2])
    estimate = PoseEstimate(1, SE3.identity(), S, "smoother")
    absolute = PoseEstimate(1, SE3.identity(), S, "posenet", inliers=120, confidence=0.9871)
    output = replace(
        answer(Status.TRACKING, 1), estimate=estimate, absolute=absolute, out_of_distribution=0.31
    )
    report.frame_answered(job(), output, None, 0.0)
    (status,) = speaker.statuses
    assert (status.level, status.message, status.hardware_id) == (DiagnosticStatus.OK, "TRACKING", "room")
    values = {value.key: value.value for value in status.values}
    assert float(values.pop("last answer s ago")) < 1.0
    assert values == {
        "status": "TRACKING",
        "reason": "",
        "confidence": "0.987",
        "inliers": "120",
        "sigma m": "0.200",
        "sigma deg": "1.15",
        "out-of-distribution score": "0.31",
        "image rate Hz": "",
        "answer rate Hz": "",
        "what would help": "",
    }
    report.frame_answered(job(), answer(Status.LOST, 2), None, 0.0)
    last = {value.key: value.value for value in speaker.statuses[-1].values}
    assert speaker.statuses[-1].level == DiagnosticStatus.ERROR
    assert (last["status"], last["confidence"], last["sigma m"]) == ("LOST", "", "")
    assert "map the place again" in last["what would help"]


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
    report.qos.input_differs(topic, ours, event)
    ((level, text),) = log.lines
    assert level == "warning" and text.endswith(advice)
    assert "/robot/driver offers best_effort" in text and "asks for reliable" in text


def test_a_note_of_qos_learns_the_name_and_goes_when_the_publisher_does() -> None:
    report, _, health = reporter()
    publishers = report._node.get_publishers_info_by_topic("/robot/image")
    report._node.get_publishers_info_by_topic = lambda topic: publishers
    known = publishers[0].node_name
    publishers[0].node_name = "_NODE_NAME_UNKNOWN_"
    event = SimpleNamespace(last_policy_kind=QoSPolicyKind.RELIABILITY)
    report.qos.input_differs("/robot/image", QoSProfile(depth=5), event)
    assert health.notes["QoS /robot/image"].startswith("does not fit: a node offers best_effort")
    publishers[0].node_name = known
    report.publish_diagnostics()
    assert "/robot/driver offers best_effort" in health.notes["QoS /robot/image"]
    publishers[0].qos_profile = QoSProfile(depth=5)
    report.publish_diagnostics()
    assert "QoS /robot/image" not in health.notes


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
