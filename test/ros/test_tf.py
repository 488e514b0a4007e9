"""The one TF edge that the node owns."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from fake_robot import (
    MS,
    SECOND,
    T_BASE_CAM,
    Robot,
    knows_transform,
    parameters,
    static_tf,
    true_pose,
)
from geometry_msgs.msg import PoseStamped, TransformStamped
from tf2_msgs.msg import TFMessage

from localizer_ros.core.config.runtime import RunConfig
from localizer_ros.core.config.schema import config_from_dict
from localizer_ros.core.se3 import SE3
from localizer_ros.ros import conversions as convert
from localizer_ros.ros.tf import MapBroadcaster
from localizer_ros.ros.transform_listener import TransformListener


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


@pytest.mark.ros
def test_by_default_a_mounted_camera_keeps_its_parent_and_a_rival_is_in_the_diagnostics(robot: Robot) -> None:
    robot.start().ready()
    static_tf(robot)
    robot.until(lambda: knows_transform(robot, "base_link", "camera"), "no static transform")
    tf = robot.listen(TFMessage, "/tf")
    robot.image(SECOND)
    robot.until(lambda: tf, "no transform")
    assert [(t.header.frame_id, t.child_frame_id) for t in tf[0].transforms] == [("map", "base_link")]
    rival = convert.transform_msg(SE3.identity(), SECOND, "map", "base_link")
    robot.publisher(TFMessage, "/tf").publish(TFMessage(transforms=[rival]))
    robot.until(lambda: robot.node._transforms.rival("base_link", "camera"), "not heard")
    robot.image(2 * SECOND)
    robot.answered(2)
    diagnostics = robot.listen(DiagnosticArray, "/diagnostics")
    robot.until(lambda: diagnostics, "no diagnostics")
    values = {value.key: value.value for value in diagnostics[-1].status[0].values}
    assert values["TF"] == "map -> base_link" and "/robot" in values["TF waits for"]


# --- without a node ---


class Ros:
    """A node without ROS: who publishes TF, and what was sent and said."""

    def __init__(self) -> None:
        self.sent: list[TransformStamped] = []
        self.said: list[str] = []
        self.tf_publishers = ["/localizer"]
        self.now_s = 100.0

        def say(text: str, **throttled: float) -> None:
            self.said.append(text)

        config = SimpleNamespace(info=say, warning=say, error=say)
        self.get_logger = lambda: config

    def create_publisher(self, *_: Any) -> Any:
        return SimpleNamespace(publish=lambda message: self.sent.extend(message.transforms))

    def count_publishers(self, topic: str) -> int:
        return 0

    def get_fully_qualified_name(self) -> str:
        return "/localizer"

    def get_publishers_info_by_topic(self, topic: str) -> list[Any]:
        names = self.tf_publishers if topic == "/tf" else []
        return [SimpleNamespace(node_namespace="/", node_name=name.strip("/")) for name in names]


class Tf:
    """A broadcaster beside others that publish TF."""

    def __init__(self, **settings: Any) -> None:
        self.ros = Ros()
        self.changes = 0
        self.contradictions: list[str] = []
        self.listener = TransformListener(
            self.ros,  # type: ignore[arg-type]
            "map",
            self._changed,
            self.contradictions.append,
            lambda: self.ros.now_s,
        )
        config = config_from_dict(RunConfig, {"base_frame": "base_link", **settings})
        self.broadcaster = MapBroadcaster(self.ros, self.listener, "map", config, lambda: self.ros.now_s)  # type: ignore[arg-type]

    def _changed(self) -> None:
        self.changes += 1

    def hear(self, parent: str, child: str, T: SE3 = T_BASE_CAM, stamp: int | None = None) -> None:
        message = TFMessage(transforms=[convert.transform_msg(T, stamp or 0, parent, child)])
        self.listener._remember(message, static=stamp is None)

    def send(self, stamp: int = SECOND, T_map_base: SE3 = T_BASE_CAM, base: str = "base_link") -> str:
        """The edge that was published, or what it waits for."""
        count = len(self.ros.sent)
        self.broadcaster.send(stamp, T_map_base, base)
        return self.newest() if len(self.ros.sent) > count else self.broadcaster.waiting_for

    def newest(self) -> str:
        return f"{self.ros.sent[-1].header.frame_id} -> {self.ros.sent[-1].child_frame_id}"


def matrix(transform: TransformStamped) -> Any:
    return convert.transform_from_msg(transform).matrix()


def test_a_robot_that_is_in_no_tree_is_given_its_place_at_once() -> None:
    tf = Tf()
    assert tf.send() == "map -> base_link"
    np.testing.assert_allclose(matrix(tf.ros.sent[0]), T_BASE_CAM.matrix(), atol=1e-12)


def test_the_newest_pose_waits_for_odometry_and_says_so_until_it_is_out_or_forgotten() -> None:
    tf = Tf(odom_frame="odom")
    for stamp in (SECOND, 2 * SECOND):
        assert "'odom' and 'base_link'" in tf.send(stamp, SE3.identity())
    tf.hear("odom", "base_link", stamp=2 * SECOND)
    tf.broadcaster.retry()
    tf.broadcaster.retry()
    (transform,) = tf.ros.sent
    assert convert.stamp_ns(transform.header.stamp) == 2 * SECOND and tf.broadcaster.waiting_for == ""
    np.testing.assert_allclose(matrix(transform), T_BASE_CAM.inverse().matrix(), atol=1e-12)
    assert "not known as late" in tf.send(3 * SECOND)
    tf.broadcaster.forget()
    assert tf.broadcaster.waiting_for == ""
    tf.hear("odom", "base_link", stamp=3 * SECOND)
    tf.broadcaster.retry()
    assert len(tf.ros.sent) == 1


def test_a_camera_that_is_mounted_keeps_its_one_parent() -> None:
    tf = Tf(base_frame="")
    tf.hear("mast", "camera")
    tf.hear("base_link", "mast")
    T_map_cam = SE3.exp([0.1, 0.2, 0.3, 1.0, 2.0, 3.0])
    assert tf.send(T_map_base=T_map_cam, base="camera") == "map -> base_link"
    expected = T_map_cam @ (T_BASE_CAM @ T_BASE_CAM).inverse()
    np.testing.assert_allclose(matrix(tf.ros.sent[0]), expected.matrix(), atol=1e-12)


def test_odometry_that_nobody_named_is_found_in_the_tree() -> None:
    tf = Tf(base_frame="", transform_tolerance=0.1)
    tf.hear("base_link", "camera")
    assert tf.send(SECOND, base="camera") == "map -> base_link"
    for stamp in (SECOND, 2 * SECOND):
        tf.hear("odom", "base_link", SE3.identity(), stamp)
    assert tf.send(2 * SECOND, T_BASE_CAM, "camera") == "map -> odom"
    assert [convert.stamp_ns(sent.header.stamp) for sent in tf.ros.sent] == [SECOND, 2 * SECOND + 100 * MS]
    assert "not known as late" in tf.send(3 * SECOND, base="camera")
    # Time went back: whose child the robot is, is known all the same.
    tf.listener.clear_moving()
    assert "not known as early" in tf.send(SECOND // 2, base="camera")


def test_static_transforms_on_their_way_are_waited_for_but_not_for_long() -> None:
    tf = Tf(base_frame="")
    tf.ros.count_publishers = lambda topic: 1  # type: ignore[method-assign]
    assert "on their way" in tf.send(base="camera")
    tf.ros.now_s += 1.1
    assert tf.send(base="camera") == "map -> camera"


RIVALS = {
    "the same edge": ("map", "odom"),
    "another parent": ("world", "odom"),
    "the robot's own frame": ("map", "base_link"),
}


@pytest.mark.parametrize("rival", RIVALS.values(), ids=list(RIVALS))
def test_an_edge_that_another_node_publishes_is_left_to_it_and_named(rival: tuple[str, str]) -> None:
    tf = Tf(odom_frame="odom")
    tf.ros.tf_publishers.append("/amcl")
    tf.hear("odom", "base_link", SE3.identity(), SECOND)
    assert tf.send() == "map -> odom"
    # What comes back from the network is the localizer's own, whoever else there is.
    tf.listener._remember(TFMessage(transforms=[tf.ros.sent[-1]]), static=False)
    assert tf.changes == 1 and tf.send() == "map -> odom"
    tf.hear(*rival, SE3.exp(np.full(6, 0.1)), SECOND)
    problem = tf.send()
    assert f"{rival[0]} -> {rival[1]} is published by another node" in problem
    assert "/amcl" in problem and "/localizer" not in problem and "publish_tf" in problem
    tf.ros.now_s += 5.1
    assert tf.send() == "map -> odom"


def test_a_static_rival_stays_one() -> None:
    tf = Tf()
    tf.hear("map", "base_link")
    tf.ros.now_s += 1000.0
    assert "map -> base_link is published by another node" in tf.send()


def test_a_camera_in_the_frame_of_the_map_has_no_place_in_it() -> None:
    assert "map is the frame of the map and of the robot" in Tf(base_frame="").send(base="map")


def test_other_children_of_the_map_are_nobodys_business() -> None:
    tf = Tf()
    tf.hear("map", "dock")
    assert tf.send() == "map -> base_link"


def test_a_frame_to_which_others_give_two_parents_is_named_and_the_first_holds() -> None:
    tf = Tf(odom_frame="odom")
    tf.hear("odom", "base_link", SE3.identity(), SECOND)
    assert tf.send() == "map -> odom" and tf.broadcaster.edge == "map -> odom"
    tf.hear("visual_odom", "base_link", T_BASE_CAM, SECOND)
    assert tf.send() == "map -> odom"
    assert "base_link has two parents in TF, odom and visual_odom" in tf.broadcaster.edge
    tf.ros.now_s += 5.1
    tf.hear("visual_odom", "base_link", T_BASE_CAM, SECOND)
    assert "'odom' and 'base_link'" in tf.send() and tf.listener.disputed("base_link") == ""


@pytest.mark.parametrize("late_ms", [50, 120, 700])
def test_with_late_odometry_the_newest_possible_transform_goes_out(late_ms: int) -> None:
    """Poses at 30 Hz, odometry at 50 Hz that is late: each sample lets the newest pose before it out."""
    tf = Tf(odom_frame="odom")
    times = sorted([(k * 33, "pose") for k in range(150)] + [(k * 20 + late_ms, "odom") for k in range(300)])
    start_s, began = tf.ros.now_s, SECOND
    for at_ms, kind in times:
        tf.ros.now_s = start_s + 1e-3 * at_ms
        if kind == "pose":
            tf.broadcaster.send(began + at_ms * MS, SE3.identity(), "base_link")
        else:
            tf.hear("odom", "base_link", SE3.identity(), began + (at_ms - late_ms) * MS)
            tf.broadcaster.retry()
        if at_ms > late_ms + 100:
            assert tf.broadcaster.silent_s() < 0.05
    # Odometry every 20 ms lets none of them be overtaken by the next.
    assert len(tf.ros.sent) == 150
    lateness = tf.broadcaster.details()["TF lateness"]
    assert late_ms <= float(lateness.split()[1]) <= late_ms + 20


def test_silence_is_counted_from_the_first_pose_that_waits() -> None:
    tf = Tf(odom_frame="odom")
    assert tf.broadcaster.silent_s() == 0.0
    for _ in range(200):
        tf.send(SECOND + round(1e9 * tf.ros.now_s))
        tf.ros.now_s += 0.1
    assert tf.broadcaster.silent_s() == pytest.approx(20.0)
    tf.hear("odom", "base_link", SE3.identity(), SECOND + round(1e9 * (tf.ros.now_s - 0.1)))
    tf.broadcaster.retry()
    assert tf.broadcaster.silent_s() == 0.0 and len(tf.ros.sent) == 1


def test_a_correction_goes_out_in_small_steps_and_a_large_one_is_told_as_a_jump() -> None:
    tf = Tf(odom_frame="odom")
    for index, x_m in enumerate([0.0] * 3 + [0.2] * 3 + [3.0]):
        stamp = SECOND + index * 33 * MS
        tf.hear("odom", "base_link", SE3.identity(), stamp)
        tf.send(stamp, SE3(np.eye(3), np.array([x_m, 0.0, 0.0])))
    found = [sent.transform.translation.x for sent in tf.ros.sent]
    np.testing.assert_allclose(found, [0.0] * 3 + [0.0099, 0.0198, 0.0297, 3.0], atol=1e-9)
    assert tf.broadcaster.details()["TF jumps"].startswith("1; the last: 2.97 m")
    assert any("jumps by 2.97 m" in line for line in tf.ros.said)


def test_beside_contradicted_odometry_every_pose_has_its_own_transform() -> None:
    tf = Tf(odom_frame="odom")
    for index, x_m in enumerate([0.0, 0.05, 0.1, 0.4]):
        stamp = SECOND + index * 33 * MS
        tf.hear("odom", "base_link", SE3.identity(), stamp)
        tf.broadcaster.send(stamp, SE3(np.eye(3), np.array([x_m, 0.0, 0.0])), "base_link", True)
    found = [sent.transform.translation.x for sent in tf.ros.sent]
    np.testing.assert_allclose(found, [0.0, 0.05, 0.1, 0.4], atol=1e-9)
    assert (
        "1; the last: 0.30 m, 0.0 deg: odometry contradicts the images"
        in tf.broadcaster.details()["TF jumps"]
    )


def test_a_static_transform_that_changes_is_told_with_how_far_and_one_that_is_repeated_is_not() -> None:
    tf = Tf()
    tf.hear("base_link", "camera")
    tf.hear("base_link", "camera", T_BASE_CAM @ SE3(np.eye(3), np.array([0.0, 1e-5, 0.0])))
    assert not tf.contradictions
    tf.hear("base_link", "camera", T_BASE_CAM @ SE3.exp([0.0, np.radians(2.0), 0.0, 0.3, 0.0, 0.0]))
    (said,) = tf.contradictions
    assert said.startswith("static transform base_link -> camera has changed by 0.300 m and 2.00 deg")
    # What moves by its stamps may.
    tf.hear("odom", "base_link", stamp=SECOND)
    tf.hear("odom", "base_link", T_BASE_CAM @ T_BASE_CAM, stamp=2 * SECOND)
    assert len(tf.contradictions) == 1
