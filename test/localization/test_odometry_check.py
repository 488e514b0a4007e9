"""Odometry beside what the images show: told where they contradict, and only there."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from localizer_ros.core.config.runtime import OdometryConfig
from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import Array, Camera, Frame, PoseEstimate, RelativePose
from localizer_ros.localization.external_odometry import ODOMETRY, ExternalOdometry
from localizer_ros.localization.front_end import TRACKING
from localizer_ros.localization.odometry_check import OdometryCheck
from localizer_ros.localization.visual_odometry import VISUAL_ODOMETRY

CAMERA = Camera.pinhole(8, 6, 5.0, 5.0, 3.5, 2.5)
T_BASE_CAM = SE3.exp([0.5, -0.5, 0.5, 0.1, 0.0, 0.3])
START = SE3.exp([0.2, 0.1, 0.0, 1.0, 2.0, 3.0])
# As tracking says of itself in a room: degrees and metres of a verified pose, and of a motion that was followed.
POSE_SIGMAS = np.repeat([np.radians(0.25), 0.015], 3)
MOTION_SIGMAS = np.repeat([np.radians(0.12), 0.008], 3)
# A robot that drives half a metre and turns by 15 degrees in a second.
DRIVING = np.array([0.0, np.radians(15.0), 0.0, 0.0, 0.0, 0.5])
STANDING = np.zeros(6)


@dataclass(eq=False)
class Robot:
    """A robot whose odometry and camera each see their own motion; both with noise, if asked for."""

    rate_hz: float
    noise: float = 0.0
    seed: int = 0
    odometry: ExternalOdometry = field(default_factory=lambda: ExternalOdometry(OdometryConfig()))

    def __post_init__(self) -> None:
        self.check = OdometryCheck(self.odometry)
        self.rng = np.random.default_rng(self.seed)
        self.period_ns = round(1e9 / self.rate_hz)
        self.now_ns = 0
        self.T_odom_cam, self.T_map_cam = START, START
        self.told: list[str] = []
        self.measured: list[dict[str, RelativePose]] = []

    def draw(self, sigmas: Array) -> SE3:
        return SE3.exp(self.noise * sigmas * self.rng.standard_normal(6))

    def go(
        self,
        seconds: float,
        by_odometry: Array,
        by_images: Array,
        *,
        sure: bool = True,
        follows: bool = True,
        outlier: SE3 | None = None,
        believed: bool = True,
    ) -> list[str]:
        """What is told of each frame."""
        before = len(self.told)
        for _ in range(round(seconds * self.rate_hz)):
            elapsed_s = self.period_ns * 1e-9
            step = SE3.exp(by_images * elapsed_s)
            self.now_ns += self.period_ns
            self.T_map_cam = self.T_map_cam @ step
            drift = 1.0 + 0.05 * self.noise * self.rng.standard_normal()
            self.T_odom_cam = self.T_odom_cam @ SE3.exp(by_odometry * elapsed_s * drift)
            self.odometry.add(self.now_ns, self.T_odom_cam @ T_BASE_CAM.inverse())
            prev_ns = self.now_ns - self.period_ns
            seen = self.T_map_cam @ self.draw(POSE_SIGMAS) @ (outlier or SE3.identity())
            pose = PoseEstimate(self.now_ns, seen, np.diag(POSE_SIGMAS**2), "hierarchical")
            moved = step @ self.draw(MOTION_SIGMAS)
            followed = RelativePose(prev_ns, self.now_ns, moved, np.diag(MOTION_SIGMAS**2), TRACKING)
            frame = Frame(self.now_ns, np.zeros((6, 8), np.uint8), CAMERA, T_base_cam=T_BASE_CAM)
            by_wheels = self.odometry.motion(prev_ns, self.now_ns, T_BASE_CAM, T_BASE_CAM)
            given = tuple(m for m in (by_wheels, followed if follows else None) if m is not None)
            checked = self.check.compare(frame, pose if sure else None, given)
            self.measured.append({motion.source: motion for motion in checked})
            if believed and outlier is None:
                self.check.believe()
            self.told.append(self.check.problem)
        return self.told[before:]


@pytest.mark.parametrize("rate_hz", [5.0, 10.0, 30.0])
@pytest.mark.parametrize("odometry, images", [(STANDING, DRIVING), (DRIVING, STANDING)])
def test_odometry_that_stands_while_the_camera_moves_and_the_reverse_is_told_within_0_3_s(
    rate_hz: float, odometry: Array, images: Array
) -> None:
    robot = Robot(rate_hz)
    robot.go(1.0, images, images)
    told = robot.go(0.45, odometry, images)
    assert any(told[: round(0.3 * rate_hz)]), told
    assert "0.00 m and 0.0 deg by" in told[-1]
    # Right again, and silent.
    assert robot.go(1.0, images, images)[-1] == ""


@pytest.mark.parametrize("rate_hz", [10.0, 30.0])
@pytest.mark.parametrize("drift", [-0.05, 0.02, 0.05])
@pytest.mark.parametrize("motion", [DRIVING, 3.0 * DRIVING, STANDING])
def test_honest_odometry_is_never_contradicted(rate_hz: float, drift: float, motion: Array) -> None:
    robot = Robot(rate_hz, noise=1.0, seed=int(rate_hz))
    assert not any(robot.go(20.0, motion * (1.0 + drift), motion))


def test_slip_within_its_own_covariance_is_no_contradiction() -> None:
    robot = Robot(30.0, noise=1.0, odometry=ExternalOdometry(OdometryConfig(translation_share=0.3)))
    slips = DRIVING * [1.0, 1.0, 1.0, 1.4, 1.4, 1.4]
    assert not any(robot.go(20.0, slips, DRIVING))


def test_poses_that_no_map_verifies_and_frames_that_nobody_followed_prove_nothing() -> None:
    for sure, follows in ((False, True), (True, False)):
        robot = Robot(30.0, noise=5.0)
        assert not any(robot.go(5.0, STANDING, DRIVING, sure=sure, follows=follows))


def test_an_outlier_and_a_robot_that_is_carried_away_are_no_contradiction() -> None:
    robot = Robot(10.0)
    robot.go(1.0, DRIVING, DRIVING)
    told = robot.go(0.1, DRIVING, DRIVING, outlier=SE3.exp([0.0, 0.3, 0.0, 0.5, 0.0, 0.2]))
    told += robot.go(1.0, DRIVING, DRIVING)
    robot.T_map_cam = robot.T_map_cam @ SE3.exp([0.0, 1.0, 0.0, 2.0, 0.0, 0.0])
    told += robot.go(0.1, DRIVING, DRIVING, follows=False)
    told += robot.go(1.0, DRIVING, DRIVING)
    assert not any(told)


def test_poses_that_nobody_believes_prove_nothing_however_well_they_agree() -> None:
    robot = Robot(10.0)
    robot.go(1.0, DRIVING, DRIVING)
    # Somebody turns the images upside down: all of them tell another way of driving, and another place.
    turned = DRIVING * [1.0, -1.0, 1.0, 1.0, 1.0, 1.0]
    told = robot.go(0.1, DRIVING, turned, follows=False, believed=False)
    assert not any(told + robot.go(2.0, DRIVING, turned, believed=False))
    # Nor does what was followed from there weigh more than its error.
    error = SE3.exp((turned - DRIVING) * 0.1).log()
    along = error / np.linalg.norm(error)
    motions = robot.measured[-1]
    assert along @ motions[TRACKING].covariance @ along >= 0.99 * (error @ error)
    assert along @ motions[ODOMETRY].covariance @ along < 0.1 * (error @ error)
    assert any(robot.go(0.5, DRIVING, turned))


def test_what_is_contradicted_stays_so_until_the_images_confirm_it() -> None:
    robot = Robot(10.0)
    robot.go(1.0, DRIVING, DRIVING)
    told = robot.go(1.0, STANDING, DRIVING)[-1:]
    assert all(told + robot.go(2.0, DRIVING, DRIVING, sure=False))
    assert not robot.go(0.5, DRIVING, DRIVING)[-1]
    robot.go(1.0, STANDING, DRIVING)
    robot.check.reset()
    assert robot.check.problem == ""


def test_contradicted_odometry_weighs_no_more_than_its_error() -> None:
    robot = Robot(10.0)
    robot.go(1.0, DRIVING, DRIVING)
    honest = robot.measured[-1][ODOMETRY]
    robot.go(1.0, STANDING, DRIVING)
    wide = robot.measured[-1][ODOMETRY]
    error = SE3.exp(-DRIVING * 0.1).log()
    along = error / np.linalg.norm(error)
    assert along @ wide.covariance @ along >= error @ error
    assert along @ honest.covariance @ along < 0.05 * (error @ error)
    # With nothing to follow, it is taken to err on as it did.
    robot.go(0.1, STANDING, DRIVING, follows=False)
    blind = robot.measured[-1][ODOMETRY]
    np.testing.assert_allclose(blind.covariance, wide.covariance, rtol=0.1, atol=1e-5)


def test_while_the_images_stand_and_odometry_moves_the_covariance_reaches_to_both() -> None:
    robot = Robot(10.0)
    robot.go(1.0, STANDING, STANDING)
    T_before, sharp = robot.T_map_cam, PoseEstimate(0, robot.T_map_cam, np.diag(POSE_SIGMAS**2), "smoother")
    assert robot.check.doubted(sharp) is sharp
    robot.go(2.0, DRIVING, STANDING)
    wide = robot.check.doubted(sharp)
    elsewhere = T_before @ SE3.exp(DRIVING * 2.0)
    error = (wide.T_map_cam.inverse() @ elsewhere).log()
    assert wide.covariance is not None
    assert error @ np.linalg.solve(wide.covariance, error) < 1.1**2
    robot.go(1.0, DRIVING, DRIVING)
    assert robot.check.doubted(sharp) is sharp
    # A camera that moves through its map is believed as it is.
    robot.go(2.0, STANDING, DRIVING)
    moving = replace(sharp, T_map_cam=robot.T_map_cam)
    assert robot.check.problem and robot.check.doubted(moving) is moving


def test_visual_odometry_stands_in_where_odometry_fails() -> None:
    def motion(source: str) -> RelativePose:
        return RelativePose(0, 1, SE3.identity(), np.eye(6), source)

    check = OdometryCheck(ExternalOdometry(OdometryConfig()))
    wheels, tracked, corners = motion(ODOMETRY), motion(TRACKING), motion(VISUAL_ODOMETRY)
    assert check.believed(None, None) == []
    assert check.believed(corners, None) == [corners]
    assert check.believed(corners, wheels) == [wheels] == check.believed(None, wheels)
    assert check.believed(tracked, wheels) == [tracked, wheels]
    check.problem = "odometry stands still"
    assert check.believed(corners, wheels) == [corners, wheels]
