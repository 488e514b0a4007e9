"""Replay: the answers of the localizer as a bag, under the node's topics and with the images' stamps."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rosbags.highlevel import AnyReader
from rosbags.typesys import Stores, get_typestore

from localizer_ros.core.camera_frames import optical_in
from localizer_ros.core.config.runtime import RunConfig
from localizer_ros.core.robot_pose import base_pose
from localizer_ros.core.se3 import SE3, covariance_from_ros, inverse_covariance
from localizer_ros.core.trajectory import Trajectory
from localizer_ros.core.transform_tree import TransformTree
from localizer_ros.core.types import (
    Array,
    Camera,
    ConfigError,
    Frame,
    FrameRejected,
    LocalizerError,
    LocalizerOutput,
    PoseEstimate,
    SourceError,
    Status,
)
from localizer_ros.datasets.convert import write_bag
from localizer_ros.datasets.derived import turned
from localizer_ros.datasets.source import FrameRecord, FrameSource, open_source
from localizer_ros.evaluation.replay import replay
from localizer_ros.scene.bundle import Scene

CAMERA = Camera.pinhole(32, 24, 30.0, 30.0, 15.5, 11.5)
START_NS, PERIOD_NS, COUNT = 1_700_000_000_000_000_000, 100_000_000, 30
T_BASE_CAM = SE3.exp([1.2, -1.2, 1.2, 0.3, 0.05, 0.6])
SCENE = Scene(Path("room"), {"method": "posenet", "map_frame": "map", "training": {}})
S_CAM = np.diag([1e-4, 2e-4, 3e-4, 0.01, 0.02, 0.03])


def truth(i: int) -> SE3:
    return SE3.exp([0.0, 0.0, 0.03 * i, 100.0 + 0.1 * i, -80.0, 1.0])


class Drive:
    """Frames in memory; the first pixel is the number of the frame."""

    def __init__(self, odometry: bool = True) -> None:
        self.path, self.format, self.ground_truth = Path("drive"), "fake", "made up"
        self.camera, self.splits, self.stamps = CAMERA, (), "recorded"
        self.records = [
            FrameRecord(str(i), "drive", START_NS + i * PERIOD_NS, truth(i)) for i in range(COUNT)
        ]
        self.T_base_cam: SE3 | None = T_BASE_CAM
        self.odometry = None
        self.transforms: TransformTree | None = None
        if odometry:
            self.odometry = Trajectory.from_items(
                (START_NS + i * PERIOD_NS // 2, truth(i // 2) @ T_BASE_CAM.inverse())
                for i in range(2 * COUNT)
            )

    def read(self, index: int) -> Frame:
        return Frame(self.records[index].stamp_ns, np.full((24, 32, 3), index, np.uint8), CAMERA, str(index))

    def split(self, name: str) -> "Drive":
        return self


class Truthful:
    """Answers with the truth; frame 5 is rejected, frames 10 to 19 are LOST, frame 25 is not finite."""

    def __init__(self) -> None:
        self.resets = 0
        self.odometry: list[int] = []

    def process(self, frame: Frame) -> LocalizerOutput:
        i = round((frame.stamp_ns - START_NS) / PERIOD_NS)
        if i == 5:
            raise FrameRejected("image_type", "not an image")
        lost = 10 <= i < 20
        T = SE3(np.full((3, 3), np.nan), np.zeros(3)) if i == 25 else truth(i)
        estimate = None if lost else PoseEstimate(frame.stamp_ns, T, S_CAM, "smoother")
        return LocalizerOutput(
            frame.stamp_ns,
            Status.LOST if lost else Status.TRACKING,
            estimate,
            PoseEstimate(frame.stamp_ns, truth(i), S_CAM, "posenet"),
            None,
            "in the dark" if lost else "",
            {"network": 5.0, "total": 6.0},
        )

    def add_odometry(self, stamp_ns: int, T_odom_base: SE3, covariance: Array | None = None) -> None:
        self.odometry.append(stamp_ns)

    def reset(self) -> None:
        self.resets += 1


def messages(bag: Path) -> dict[str, list[tuple[int, Any]]]:
    found: dict[str, list[tuple[int, Any]]] = {}
    with AnyReader([bag], default_typestore=get_typestore(Stores.ROS2_JAZZY)) as reader:
        for connection in reader.connections:
            found[connection.topic] = []
        for connection, log_ns, raw in reader.messages():
            found[connection.topic].append((log_ns, reader.deserialize(raw, connection.msgtype)))
    return found


def stamp_ns(message: Any) -> int:
    return int(message.header.stamp.sec) * 1_000_000_000 + int(message.header.stamp.nanosec)


def pose(message: Any) -> SE3:
    p, q = message.position, message.orientation
    return SE3.from_quaternion((p.x, p.y, p.z), (q.x, q.y, q.z, q.w))


def run(
    out: Path, source: FrameSource | None = None, **node: Any
) -> tuple[dict[str, Any], Truthful, dict[str, list[tuple[int, Any]]]]:
    localizer = Truthful()
    summary = replay(localizer, SCENE, source or Drive(), out, RunConfig(**node))
    return summary, localizer, messages(out)


ANSWERED = [i for i in range(COUNT) if i not in (5, 25) and not 10 <= i < 20]


def test_camera_poses_with_image_stamps(tmp_path: Path) -> None:
    summary, localizer, found = run(tmp_path / "answers")
    assert summary["frames"] == COUNT and summary["answered"] == len(ANSWERED)
    assert summary["dropped"] == {"image_type": 1}
    assert summary["latency_ms"]["p50"] == 6.0
    for topic in ("/localizer/pose", "/localizer/pose_with_covariance", "/tf"):
        assert [log for log, _ in found[topic]] == [START_NS + i * PERIOD_NS for i in ANSWERED]
    for i, (_, message) in zip(ANSWERED, found["/localizer/pose"], strict=True):
        assert stamp_ns(message) == START_NS + i * PERIOD_NS
        assert message.header.frame_id == "map"
        assert pose(message.pose).distance_to(truth(i)) < 1e-9
        assert pose(message.pose).angle_to(truth(i)) < 1e-9
    _, tf = found["/tf"][0]
    assert (tf.transforms[0].header.frame_id, tf.transforms[0].child_frame_id) == ("map", "camera")
    assert stamp_ns(tf.transforms[0]) == START_NS
    # The raw answer is published while lost, too; the node does the same.
    assert len(found["/localizer/global_pose"]) == COUNT - 1
    assert "/tf_static" not in found
    assert localizer.resets == 0


def test_robot_poses_and_their_covariance(tmp_path: Path) -> None:
    _, _, found = run(tmp_path / "answers", base_frame="base_link", map_frame="world")
    for i, (_, message) in zip(ANSWERED, found["/localizer/pose_with_covariance"], strict=True):
        assert message.header.frame_id == "world"
        T_map_base = pose(message.pose.pose)
        T_map_cam = T_map_base @ T_BASE_CAM
        assert T_map_cam.distance_to(truth(i)) < 1e-9 and T_map_cam.angle_to(truth(i)) < 1e-9
        # Back from the message to the camera: the same covariance.
        S_base = covariance_from_ros(T_map_base, np.asarray(message.pose.covariance).reshape(6, 6))
        S_cam = inverse_covariance(T_BASE_CAM.inverse(), S_base)
        np.testing.assert_allclose(S_cam, S_CAM, atol=1e-12)
    _, tf = found["/tf"][0]
    assert (tf.transforms[0].header.frame_id, tf.transforms[0].child_frame_id) == ("world", "base_link")
    _, static = found["/tf_static"][0]
    assert (static.transforms[0].header.frame_id, static.transforms[0].child_frame_id) == (
        "base_link",
        "camera",
    )


def test_messages_equal_those_of_the_node(tmp_path: Path) -> None:
    """The node converts with its own code: both must give the same numbers."""
    from localizer_ros.ros import conversions

    _, _, found = run(tmp_path / "answers", base_frame="base_link")
    for i, (_, message) in zip(ANSWERED, found["/localizer/pose_with_covariance"], strict=True):
        estimate = PoseEstimate(START_NS + i * PERIOD_NS, truth(i), S_CAM, "smoother")
        theirs = conversions.pose_with_covariance_msg(base_pose(estimate, T_BASE_CAM), "map")
        for part in ("position", "orientation"):
            ours, other = getattr(message.pose.pose, part), getattr(theirs.pose.pose, part)
            for axis in "xyzw" if part == "orientation" else "xyz":
                assert getattr(ours, axis) == pytest.approx(getattr(other, axis), abs=1e-12)
        np.testing.assert_allclose(message.pose.covariance, theirs.pose.covariance, atol=1e-15)


def test_map_to_odom_uses_the_odometry_of_the_image(tmp_path: Path) -> None:
    _, localizer, found = run(
        tmp_path / "answers", base_frame="base_link", odom_frame="odom", transform_tolerance=0.1
    )
    assert len(found["/tf"]) == len(ANSWERED)
    for i, (_, message) in zip(ANSWERED, found["/tf"], strict=True):
        (transform,) = message.transforms
        assert (transform.header.frame_id, transform.child_frame_id) == ("map", "odom")
        assert stamp_ns(transform) == START_NS + i * PERIOD_NS + 100_000_000
        # This odometry does not drift, and starts in the map: map and odom are one.
        assert abs(transform.transform.translation.x) < 1e-9
        assert transform.transform.rotation.w == pytest.approx(1.0)
    assert localizer.odometry == sorted(set(localizer.odometry))


def test_lost_gives_diagnostics_and_no_pose(tmp_path: Path) -> None:
    _, _, found = run(tmp_path / "answers")
    statuses = [(log, message.status[0]) for log, message in found["/diagnostics"]]
    at = dict(statuses)
    lost = at[START_NS + 10 * PERIOD_NS]
    assert (lost.level, lost.message) == (2, "LOST: in the dark")
    assert at[START_NS + 20 * PERIOD_NS].level == 0
    values = {v.key: v.value for v in statuses[-1][1].values}
    assert values["dropped image_type"] == "1"
    # Once a second; both changes happen to fall on a full one.
    assert list(at) == [START_NS + i * PERIOD_NS for i in (0, 10, 20)]


def test_path_grows_and_is_bounded(tmp_path: Path) -> None:
    _, _, found = run(tmp_path / "answers", path_length=8)
    lengths = [len(message.poses) for _, message in found["/localizer/path"]]
    assert lengths[0] == 1 and max(lengths) == lengths[-1] == 8


def test_from_a_bag_with_its_own_frames(tmp_path: Path) -> None:
    write_bag(Drive(), tmp_path / "drive")
    source = open_source(tmp_path / "drive")
    _, localizer, found = run(tmp_path / "answers", source, base_frame="base_link")
    assert len(found["/localizer/pose"]) == len(ANSWERED)
    _, message = found["/localizer/pose"][0]
    assert (pose(message.pose) @ T_BASE_CAM).distance_to(truth(0)) < 1e-9
    assert localizer.odometry
    with pytest.raises(ConfigError, match="gripper"):
        run(tmp_path / "other", source, base_frame="gripper")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("base_frame", ["", "base_link"])
def test_the_map_is_given_to_the_root_of_the_robots_tree(tmp_path: Path, base_frame: str) -> None:
    source = Drive(odometry=False)
    source.transforms = TransformTree(history_s=None)
    source.transforms.set("base_link", "camera", T_BASE_CAM, None)
    for i in range(COUNT):
        T_odom_base = truth(i) @ T_BASE_CAM.inverse()
        source.transforms.set("odom", "base_link", T_odom_base, START_NS + i * PERIOD_NS)
        # A recording may have the transform that is asked for; the robot's tree ends below it.
        source.transforms.set("map", "odom", SE3.identity(), START_NS + i * PERIOD_NS)
    _, _, found = run(tmp_path / "answers", source, base_frame=base_frame, transform_tolerance=0.0)
    assert len(found["/tf"]) == len(ANSWERED)
    for i, (_, message) in zip(ANSWERED, found["/tf"], strict=True):
        (transform,) = message.transforms
        # This odometry starts in the map: map and odom are one.
        assert (transform.header.frame_id, transform.child_frame_id) == ("map", "odom")
        assert stamp_ns(transform) == START_NS + i * PERIOD_NS
        assert abs(transform.transform.translation.x) < 1e-6


def test_a_turned_camera_is_published_as_the_node_does(tmp_path: Path) -> None:
    T_given_cam = optical_in("forward")
    _, _, found = run(tmp_path / "answers", turned(Drive(odometry=False), "forward"))
    # The localizer answers with poses of the optical frame; TF has the one that images name.
    _, message = found["/localizer/pose"][0]
    assert pose(message.pose).angle_to(truth(0) @ T_given_cam.inverse()) < 1e-9
    write_bag(Drive(), tmp_path / "drive")
    source = turned(open_source(tmp_path / "drive"), "forward")
    _, _, found = run(tmp_path / "robot", source, base_frame="base_link")
    _, message = found["/localizer/pose"][0]
    assert (pose(message.pose) @ T_BASE_CAM @ T_given_cam).angle_to(truth(0)) < 1e-9
    _, static = found["/tf_static"][0]
    (transform,) = static.transforms
    rotation = transform.transform.rotation
    T_base_camera = SE3.from_quaternion((0, 0, 0), (rotation.x, rotation.y, rotation.z, rotation.w))
    assert T_base_camera.angle_to(T_BASE_CAM) < 1e-9
    with pytest.raises(ConfigError, match="base_footprint"):
        run(tmp_path / "other", source, base_frame="base_footprint")


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({"odom_frame": "odom"}, "base_frame"),
        ({"odom_frame": "odom", "base_frame": "base_link"}, "no odometry"),
        ({"base_frame": "base_link"}, "no static transform"),
        (
            {"base_frame": "base_link", "odom_frame": "map"},
            "map_frame and odom_frame: expected two frames, got map",
        ),
    ],
)
def test_unknown_tf_frames_are_errors(tmp_path: Path, node: dict[str, str], message: str) -> None:
    source = Drive(odometry=False)
    source.T_base_cam = None
    with pytest.raises(ConfigError, match=message):
        run(tmp_path / "answers", source, **node)
    assert list(tmp_path.iterdir()) == []


def test_a_failure_leaves_nothing_and_nothing_is_overwritten(tmp_path: Path) -> None:
    class Failing(Truthful):
        def process(self, frame: Frame) -> LocalizerOutput:
            if frame.stamp_ns > START_NS + 3 * PERIOD_NS:
                raise LocalizerError("the engine is gone")
            return super().process(frame)

    with pytest.raises(LocalizerError, match="engine"):
        replay(Failing(), SCENE, Drive(), tmp_path / "answers")
    assert list(tmp_path.iterdir()) == []
    run(tmp_path / "answers")
    with pytest.raises(SourceError, match="exists"):
        run(tmp_path / "answers")
