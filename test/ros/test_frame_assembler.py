"""Images, calibration and extrinsics that come in any order."""

from __future__ import annotations

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from fake_robot import CAMERA, MS, SECOND, T_BASE_CAM, Robot
from sensor_msgs.msg import CameraInfo, Image

from localizer_ros.core.se3 import SE3
from localizer_ros.core.transform_tree import TransformTree
from localizer_ros.core.types import Camera, ConfigError, FrameRejected
from localizer_ros.ros import conversions as convert
from localizer_ros.ros.frame_assembler import Assembled, FrameAssembler

STAMP = 9 * SECOND


def image(frame: str = "camera", stamp_ns: int = STAMP) -> Image:
    return convert.image_msg(np.zeros((24, 32, 3), np.uint8), stamp_ns, frame)


def assembler(base_frame: str = "", tree: TransformTree | None = None) -> FrameAssembler:
    return FrameAssembler(base_frame, False, "/camera_info", (tree or TransformTree()).lookup)


def tree_with_camera() -> TransformTree:
    tree = TransformTree()
    tree.set("base_link", "camera", T_BASE_CAM, None)
    return tree


def info(camera: Camera = CAMERA, frame: str = "camera") -> CameraInfo:
    return convert.info_msg(camera, SECOND, frame)


def kinds(assembled: Assembled) -> list[str]:
    return [error.kind for error in assembled.dropped]


# --- without a node ---


def test_a_complete_image_becomes_a_job() -> None:
    frames = assembler("base_link", tree_with_camera())
    assert frames.add_camera_info(info())
    message = image("/camera")
    job = frames.add_image(message, 5.0).job
    assert job is not None and job.message is message and job.arrived_s == 5.0
    assert (job.camera_frame, job.base_frame) == ("camera", "base_link")
    assert job.camera.same_as(CAMERA)
    np.testing.assert_array_equal(job.T_base_cam.matrix(), T_BASE_CAM.matrix())
    assert job.T_odometry_cam is None and job.odometry_problem == ""


@pytest.mark.parametrize("base_frame", ["", "base_link"])
def test_a_frame_that_looks_along_x_is_turned(base_frame: str) -> None:
    tree = tree_with_camera()
    frames = FrameAssembler(base_frame, False, "/camera_info", tree.lookup, "forward")
    frames.add_camera_info(info())
    job = frames.add_image(image(), 5.0).job
    assert job is not None
    given = T_BASE_CAM if base_frame else SE3.identity()
    # Forward of the optical frame is x of the one that images name.
    np.testing.assert_allclose(job.T_base_cam.R[:, 2], given.R[:, 0], atol=1e-12)
    np.testing.assert_allclose(job.T_base_cam.t, given.t, atol=1e-12)


def test_the_newest_image_waits_and_those_before_it_are_dropped_with_the_reason() -> None:
    tree = TransformTree()
    frames = assembler("base_link", tree)
    assert frames.add_image(image(stamp_ns=1), 1.0) == Assembled(None)
    assert kinds(frames.add_image(image(stamp_ns=2), 2.0)) == ["no_camera_info"]
    frames.add_camera_info(info())
    assert frames.retry() == Assembled(None)
    assert kinds(frames.add_image(image(stamp_ns=3), 3.0)) == ["no_extrinsics"]
    tree.set("base_link", "camera", T_BASE_CAM, None)
    completed = frames.retry()
    assert completed.job is not None and completed.job.arrived_s == 3.0 and not completed.dropped
    assert frames.retry() == Assembled(None)


def test_an_image_that_waits_is_superseded_by_one_that_is_complete() -> None:
    frames = assembler()
    frames.add_image(image(stamp_ns=1), 1.0)
    frames.add_camera_info(info())
    newer = frames.add_image(image(stamp_ns=2), 2.0)
    assert newer.job is not None and newer.job.arrived_s == 2.0
    assert kinds(newer) == ["superseded"]


def test_an_image_that_waits_can_be_given_up() -> None:
    frames = assembler()
    assert not frames.clear_waiting()
    frames.add_image(image(), 1.0)
    assert frames.clear_waiting()
    frames.add_camera_info(info())
    assert frames.retry() == Assembled(None)


def test_an_image_without_frame_id_takes_that_of_camera_info_and_without_both_has_no_extrinsics() -> None:
    frames = assembler("base_link", tree_with_camera())
    frames.add_camera_info(info(frame="camera"))
    job = frames.add_image(image(frame=""), 1.0).job
    assert job is not None and job.camera_frame == "camera"
    frames.add_camera_info(info(frame=""))
    frames.add_image(image(frame=""), 2.0)
    assert kinds(frames.add_image(image(frame=""), 3.0)) == ["no_frame_id"]


def test_the_cameras_own_pose_needs_no_transform_and_no_frame_id() -> None:
    frames = assembler()
    frames.add_camera_info(info(frame=""))
    job = frames.add_image(image(frame=""), 1.0).job
    assert job is not None and (job.camera_frame, job.base_frame) == ("", "")
    np.testing.assert_array_equal(job.T_base_cam.matrix(), np.eye(4))


def test_camera_info_says_whether_it_changed_and_an_unusable_one_stops_images() -> None:
    frames = assembler()
    assert frames.add_camera_info(info())
    assert not frames.add_camera_info(info())
    assert frames.add_camera_info(info(Camera.pinhole(32, 24, 50.0, 50.0, 15.5, 11.5)))
    with pytest.raises(ConfigError, match="not calibrated"):
        frames.add_camera_info(CameraInfo(width=32, height=24))
    frames.add_image(image(), 1.0)
    (error,) = frames.add_image(image(), 2.0).dropped
    assert error.kind == "camera_info" and "not calibrated" in str(error)


def odometry(base_frame: str) -> convert.OdometrySample:
    return convert.OdometrySample(SECOND, "odom", base_frame, SE3.identity(), None)


def test_odometry_of_another_frame_than_the_base_has_its_own_extrinsics() -> None:
    tree = tree_with_camera()
    frames = assembler("", tree)
    frames.add_camera_info(info())
    with pytest.raises(ValueError, match="child_frame_id"):
        frames.add_odometry(odometry(""))
    frames.add_odometry(odometry("wheels"))
    job = frames.add_image(image(), 1.0).job
    assert job is not None and job.T_odometry_cam is None and "'wheels'" in job.odometry_problem
    frames.add_odometry(odometry("/base_link"))
    job = frames.add_image(image(), 2.0).job
    assert job is not None and job.T_odometry_cam is not None and job.odometry_problem == ""
    np.testing.assert_array_equal(job.T_odometry_cam.matrix(), T_BASE_CAM.matrix())


def test_odometry_without_a_frame_is_that_of_the_base() -> None:
    frames = assembler("base_link", tree_with_camera())
    frames.add_camera_info(info())
    frames.add_odometry(odometry(""))
    job = frames.add_image(image(), 1.0).job
    assert job is not None and job.T_odometry_cam is not None


def test_extrinsics_are_of_the_newest_image_or_of_the_calibration_before_there_is_one() -> None:
    tree = tree_with_camera()
    frames = assembler("base_link", tree)
    with pytest.raises(FrameRejected):
        frames.extrinsics()
    frames.add_camera_info(info())
    np.testing.assert_array_equal(frames.extrinsics().matrix(), T_BASE_CAM.matrix())
    tree.set("base_link", "rear", SE3.identity(), None)
    frames.add_image(image("rear"), 1.0)
    np.testing.assert_array_equal(frames.extrinsics().matrix(), np.eye(4))
    np.testing.assert_array_equal(assembler().extrinsics().matrix(), np.eye(4))


# --- a camera that moves on the robot ---


def pan(stamp_ns: int) -> SE3:
    """``T_base_mast``: ten degrees a second."""
    return SE3.exp([0.0, 0.0, np.radians(10.0) * stamp_ns * 1e-9, 0.0, 0.0, 0.0])


def panning() -> tuple[FrameAssembler, TransformTree]:
    """A camera on a mast that turns; nobody has said yet how far."""
    tree = TransformTree()
    tree.set("mast", "camera", T_BASE_CAM, None)
    frames = assembler("base_link", tree)
    frames.add_camera_info(info())
    return frames, tree


def test_a_camera_that_turns_is_where_it_was_at_the_stamp_of_the_image() -> None:
    frames, tree = panning()
    for stamp in (0, 40 * MS, 80 * MS):
        tree.set("base_link", "mast", pan(stamp), stamp)
    frames.add_odometry(odometry("base_link"))
    job = frames.add_image(image(stamp_ns=55 * MS), 1.0).job
    assert job is not None and job.T_odometry_cam is not None
    expected = (pan(55 * MS) @ T_BASE_CAM).matrix()
    np.testing.assert_allclose(job.T_base_cam.matrix(), expected, atol=1e-12)
    np.testing.assert_allclose(job.T_odometry_cam.matrix(), expected, atol=1e-12)
    np.testing.assert_allclose(frames.extrinsics().matrix(), expected, atol=1e-12)


def test_a_camera_whose_place_is_always_known_late_loses_no_image() -> None:
    frames, tree = panning()
    tree.set("base_link", "mast", pan(0), 0)
    answered = []
    for index in range(1, 31):
        stamp = index * 33 * MS
        assembled = frames.add_image(image(stamp_ns=stamp), 1.0)
        assert assembled == Assembled(None)
        # Three images behind.
        known = (index - 3) * 33 * MS
        if known > 0:
            tree.set("base_link", "mast", pan(known), known)
        retried = frames.retry()
        assert not retried.dropped
        if retried.job is not None:
            answered.append(convert.stamp_ns(retried.job.message.header.stamp))
    assert answered == [index * 33 * MS for index in range(1, 28)]


def test_a_camera_that_nobody_speaks_of_any_more_drops_images_one_by_one() -> None:
    frames, tree = panning()
    tree.set("base_link", "mast", pan(0), 0)
    dropped = [kind for index in range(1, 12) for kind in kinds(frames.add_image(image(stamp_ns=index), 1.0))]
    assert dropped == ["no_extrinsics"] * 3
    assert frames.clear_waiting() == 8


# --- with the node ---


def focal_length_px(robot: Robot) -> float | None:
    camera = robot.node._intake._frames[""].camera
    return None if camera is None else float(camera.K[0, 0])


@pytest.mark.ros
def test_missing_camera_info_is_reported_and_nothing_is_guessed(robot: Robot) -> None:
    robot.start()
    diagnostics = robot.listen(DiagnosticArray, "/diagnostics")
    for index in range(1, 4):
        robot.image(index * SECOND)
        robot.until(lambda index=index: robot.node.health.received == index, "image did not arrive")
    robot.dropped("no_camera_info", 2)
    robot.until(lambda: any("no_camera_info" in m.status[0].message for m in diagnostics), "not reported")
    assert not robot.fake.frames
    robot.info()
    robot.answered(1)
    # The newest waited for its calibration.
    assert robot.fake.frames[0].stamp_ns == 3 * SECOND


@pytest.mark.ros
def test_a_changed_camera_info_is_taken_and_an_unusable_one_drops_images(robot: Robot) -> None:
    robot.start().ready()
    robot.image(SECOND)
    robot.answered(1)
    robot.info(Camera.pinhole(32, 24, 50.0, 50.0, 15.5, 11.5))
    robot.until(lambda: focal_length_px(robot) == 50.0, "not taken")
    robot.image(2 * SECOND)
    robot.answered(2)
    assert [frame.camera.K[0, 0] for frame in robot.fake.frames] == [30.0, 50.0]
    robot.publisher(CameraInfo, "/camera_info").publish(CameraInfo(width=32, height=24))
    robot.until(lambda: robot.node._intake._frames[""].camera is None, "uncalibrated camera was taken")
    robot.image(3 * SECOND)
    robot.image(4 * SECOND)
    robot.dropped("camera_info")
    assert "not calibrated" in robot.node.health.diagnose().message
