"""The node with two cameras, in simulated time: topics, transforms, poses and what is said."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
from fake_robot import CAMERA, SECOND, knows_transform, parameters
from fake_robot import Robot as FakeRobot
from geometry_msgs.msg import PoseWithCovarianceStamped
from rclpy.qos import QoSDurabilityPolicy, QoSProfile
from sensor_msgs.msg import CameraInfo, Image
from std_srvs.srv import Trigger
from tf2_msgs.msg import TFMessage
from two_cameras import Change, Robot, as_it_is, covered, map_room

from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import ConfigError, Frame, PoseEstimate
from localizer_ros.localization.rig import Rig
from localizer_ros.ros import conversions as convert
from localizer_ros.ros.parameters import config_from_parameters
from localizer_ros.ros.scenario.in_process import InProcess, Play
from localizer_ros.ros.scenario.packets import recorded
from localizer_ros.ros.scenario.schema import Scenario

pytestmark = pytest.mark.slow
PARAMETERS = {"cameras": "front, rear", "base_frame": "base_link", "odom_frame": "odom"}
ALL = {"front": 99.0, "rear": 99.0}


@pytest.fixture(scope="module")
def robot() -> Robot:
    return Robot.made()


@pytest.fixture(scope="module")
def player(robot: Robot, tmp_path_factory: pytest.TempPathFactory) -> Any:
    scene = tmp_path_factory.mktemp("scenes") / "room"
    map_room(scene)
    made = InProcess(scene, robot.sources["front"])
    yield made
    made.close()


def send(play: Play, robot: Robot, frame: Frame, began_ns: int) -> None:
    """Plan what the driver of the camera that took a frame sends."""
    assert frame.mount is not None
    name, frame_id = frame.mount.camera, f"{frame.mount.camera}_optical"
    # A camera and its driver take a while.
    at_ns = frame.stamp_ns - began_ns + 5_000_000
    info = convert.info_msg(frame.camera, frame.stamp_ns, frame_id)
    image = convert.image_msg(frame.image, frame.stamp_ns, frame_id)
    play.simulation.at(at_ns, partial(play.wire.deliver, f"/{name}/camera_info", info))
    play.simulation.at(at_ns, partial(play.wire.deliver, f"/{name}/image", image))


def driven(
    player: InProcess, robot: Robot, change: Change, asked_s: tuple[float, ...] = (), until_s: Any = ALL
) -> tuple[Play, dict[int, Frame], list[tuple[bool, str]]]:
    """A drive of both cameras in turn, each until its end; the frames by their stamps, and what ~/health said."""
    scenario = Scenario(about="Two cameras.", parameters=PARAMETERS)
    timeline = recorded(robot.sources["front"], scenario)
    frames, said = {}, []
    with player.node(scenario, timeline) as play:
        mounts = [
            convert.transform_msg(mount.T_robot_cam, timeline.begin_ns, "base_link", f"{name}_optical")
            for name, mount in robot.mounts.items()
        ]
        play.wire.deliver("/tf_static", TFMessage(transforms=mounts))
        play.feed(packet for packet in timeline.packets if packet.stream in ("tf", "odom"))
        for frame in robot.frames(False, change):
            name = frame.name.partition("/")[0]
            if frame.stamp_ns - timeline.begin_ns < 1e9 * until_s[name]:
                frames[frame.stamp_ns] = frame
                send(play, robot, frame, timeline.begin_ns)
        for at_s in asked_s:
            play.run(round(at_s * 1e9))
            answer = play.wire.services["/localizer/health"](Trigger.Request(), Trigger.Response())
            said.append((answer.success, answer.message))
        play.run(timeline.end_ns)
    assert not play.record.crashes
    return play, frames, said


def test_frames_of_both_give_poses_of_the_robot_and_the_covered_one_is_named(
    player: InProcess, robot: Robot
) -> None:
    play, frames, said = driven(player, robot, covered(front=(2.0, 3.5)), (1.8, 3.0, 5.5))
    answers = [a for a in play.record.answers if a.topic == "pose"]
    cameras = [frames[a.stamp_ns].name.partition("/")[0] for a in answers]
    assert cameras.count("front") > 30 and cameras.count("rear") > 50
    for answer in answers:
        mount = frames[answer.stamp_ns].mount
        assert mount is not None
        T_map_base = robot.truth(frames[answer.stamp_ns]) @ mount.T_robot_cam.inverse()
        assert answer.T_map_base.distance_to(T_map_base) < 0.03
    # map -> odom goes on all the while, in steps that a controller can bear.
    stamps_s = np.array([stamp for _, stamp, _, _ in play.record.transforms]) * 1e-9
    assert np.diff(stamps_s).max() < 0.16 and {child for _, _, child, _ in play.record.transforms} == {"odom"}
    well, covered_, again = said
    assert well == again == (True, "TRACKING")
    assert covered_[0] and covered_[1].startswith("TRACKING: camera front: ") and "rear" in covered_[1]


def test_a_camera_that_sends_nothing_any_more_is_named(player: InProcess, robot: Robot) -> None:
    _, _, said = driven(player, robot, as_it_is, (3.8,), {"front": 99.0, "rear": 2.0})
    assert said[0][0] and "no image of camera rear for" in said[0][1]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"cameras": "front,rear"}, "cameras: needs base_frame"),
        ({"cameras": "front,front", "base_frame": "base_link"}, "cameras: expected different names"),
        ({"cameras": "front,", "base_frame": "base_link"}, "cameras: expected different names"),
        ({"cameras": "a b,c", "base_frame": "base_link"}, "cameras: expected different names"),
    ],
)
def test_names_that_do_not_do_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config_from_parameters(settings)


def test_an_initial_pose_is_that_of_the_robot(
    player: InProcess, robot: Robot, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[PoseEstimate] = []
    monkeypatch.setattr(Rig, "set_prior", lambda rig, prior: given.append(prior))
    T_map_base = SE3.exp([0.0, 0.0, 0.3, 1.0, 2.0, 0.0])
    message = PoseWithCovarianceStamped(header=convert.header(1_700_000_000_000_000_000, "map"))
    message.pose.pose = convert.pose_msg(T_map_base)
    scenario = Scenario(about="Two cameras.", parameters=PARAMETERS)
    with player.node(scenario, recorded(robot.sources["front"], scenario)) as play:
        play.wire.deliver("/initialpose", message)
        play.run(0)
    np.testing.assert_allclose(given[0].T_map_cam.matrix(), T_map_base.matrix(), atol=1e-12)


@pytest.mark.ros
def test_over_dds_each_camera_has_its_own_topics_and_place_on_the_robot() -> None:
    made = FakeRobot(*parameters("cameras:=front,rear", "base_frame:=base_link")).start()
    try:
        mounts = {
            "front": SE3.exp([0.0, 0.0, 0.0, 0.2, 0.0, 0.0]),
            "rear": SE3.exp([0.0, 0.0, np.pi, -0.2, 0.0, 0.0]),
        }
        qos = QoSProfile(depth=1, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL)
        transforms = [
            convert.transform_msg(T, SECOND, "base_link", f"{n}_optical") for n, T in mounts.items()
        ]
        made.publisher(TFMessage, "/tf_static", qos).publish(TFMessage(transforms=transforms))
        made.until(lambda: knows_transform(made, "base_link", "rear_optical"), "no static transform")
        pixels = np.full((CAMERA.height_px, CAMERA.width_px, 3), 90, np.uint8)
        for count, name in enumerate(mounts, 1):
            info = convert.info_msg(CAMERA, count * SECOND, f"{name}_optical")
            made.publisher(CameraInfo, f"/{name}/camera_info").publish(info)
            made.until(lambda name=name: made.node._intake._frames[name].camera is not None, "no camera")
            image = convert.image_msg(pixels, count * SECOND, f"{name}_optical")
            made.publisher(Image, f"/{name}/image").publish(image)
            made.answered(count)
        assert [frame.mount.camera for frame in made.fake.frames if frame.mount] == ["front", "rear"]
        for frame in made.fake.frames:
            assert frame.mount is not None
            T = mounts[frame.mount.camera]
            np.testing.assert_allclose(frame.mount.T_robot_cam.matrix(), T.matrix(), atol=1e-9)
    finally:
        made.close()
