"""Visual odometry by itself: metres from points of known depth or from odometry, and no metres from nothing."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from localizer_ros.core.config.schema import config_from_dict
from localizer_ros.core.se3 import SE3, compose_covariance
from localizer_ros.core.types import Camera, Frame, RelativePose
from localizer_ros.datasets.simulated import SimulatedSource, WorldConfig
from localizer_ros.geometry.rays import RayCamera
from localizer_ros.localization.visual_odometry.corners import View, new_corners
from localizer_ros.localization.visual_odometry.odometry import Seed, VisualOdometry

FPS, FRAMES = 12.0, 60
CAMERA = Camera.pinhole(320, 240, 250.0, 250.0, 159.5, 119.5)
PERIOD_NS = 50_000_000


class DriveData:
    """Frames of a simulated room, their true poses and the depth of the first."""

    def __init__(self) -> None:
        world = {
            "duration_s": FRAMES / FPS,
            "fps": FPS,
            "width_px": 320,
            "height_px": 240,
            "moving_objects": 0,
        }
        source = SimulatedSource(config_from_dict(WorldConfig, world))
        self.camera = source.camera
        self.frames = [source.read(i) for i in range(FRAMES)]
        self.poses = [source.T_map_cam(i / FPS) for i in range(FRAMES)]
        self.inverse_depth = source.render(0)[1]

    def seed(self) -> Seed:
        """Corners of the first frame with their depths."""
        xy_px = new_corners(View.of(self.frames[0]), np.zeros((0, 2), np.float32), 150)
        column, row = np.rint(xy_px).astype(int).T
        depth_m = 1.0 / np.asarray(self.inverse_depth, np.float64)[row, column]
        return Seed(self.frames[0], xy_px, RayCamera(self.camera).rays(self.camera, xy_px), depth_m)

    def true_motion(self, index: int) -> SE3:
        """Of the camera to a frame from the one before."""
        return self.poses[index - 1].inverse() @ self.poses[index]

    def wheels(self, index: int, scale: float = 1.0) -> RelativePose:
        """The same as odometry tells it, with all lengths wrong by a factor."""
        T, stamps = self.true_motion(index), [self.frames[i].stamp_ns for i in (index - 1, index)]
        covariance = np.diag([0.01**2] * 3 + [0.003**2] * 3)
        return RelativePose(stamps[0], stamps[1], SE3(T.R, scale * T.t), covariance, "odom")


@pytest.fixture(scope="module")
def drive() -> DriveData:
    return DriveData()


def travelled(motions: list[RelativePose]) -> tuple[SE3, np.ndarray]:
    """The sum of motions and its covariance."""
    T, S = SE3.identity(), np.zeros((6, 6))
    for motion in motions:
        T, S = (
            T @ motion.T_prev_cur,
            compose_covariance(S, motion.T_prev_cur, motion.covariance),
        )
    return T, S


def path_m(drive: DriveData) -> float:
    return sum(float(np.linalg.norm(drive.true_motion(i).t)) for i in range(1, FRAMES))


def test_points_of_known_depth_carry_the_pose_for_seconds(drive: DriveData) -> None:
    vo = VisualOdometry(RayCamera(drive.camera))
    vo.seed(drive.seed())
    motions = [vo.observe(frame) for frame in drive.frames[1:]]
    known = [motion for motion in motions if motion is not None]
    assert len(known) == FRAMES - 1
    for before, motion, frame in zip(drive.frames, known, drive.frames[1:], strict=False):
        assert (motion.stamp_prev_ns, motion.stamp_cur_ns) == (before.stamp_ns, frame.stamp_ns)
    T, S = travelled(known)
    error = (T.inverse() @ drive.poses[0].inverse() @ drive.poses[-1]).log()
    # The seed is long out of sight: the camera has gone twice its own distance from what it saw first.
    assert np.linalg.norm(error[3:]) < 0.04 * path_m(drive)
    assert float(error @ np.linalg.solve(S, error)) < 22.5  # 0.999 of chi-squared with 6 degrees of freedom
    assert np.all(np.linalg.eigvalsh(S) > 0.0)


def test_uncertainty_grows_with_the_way(drive: DriveData) -> None:
    vo = VisualOdometry(RayCamera(drive.camera))
    vo.seed(drive.seed())
    motions = [m for m in (vo.observe(frame) for frame in drive.frames[1:]) if m is not None]
    sigma_m = [float(np.sqrt(np.trace(travelled(motions[:n])[1][3:, 3:]))) for n in (10, 30, 59)]
    assert sigma_m[0] < sigma_m[1] < sigma_m[2]


def test_without_depths_and_without_odometry_there_is_no_motion(drive: DriveData) -> None:
    vo = VisualOdometry(RayCamera(drive.camera))
    assert [vo.observe(frame) for frame in drive.frames[:20]] == [None] * 20


def test_a_handful_of_points_of_known_depth_gives_no_metres(drive: DriveData) -> None:
    seed, vo = drive.seed(), VisualOdometry(RayCamera(drive.camera))
    vo.seed(Seed(seed.frame, seed.xy_px[:20], seed.rays[:20], seed.depth_m[:20]))
    assert [vo.observe(frame) for frame in drive.frames[1:10]] == [None] * 9


@pytest.mark.parametrize("scale", [1.0, 1.2])
def test_metres_are_those_of_odometry(drive: DriveData, scale: float) -> None:
    vo = VisualOdometry(RayCamera(drive.camera))
    motions = [vo.observe(drive.frames[0])]
    motions += [vo.observe(drive.frames[i], drive.wheels(i, scale)) for i in range(1, FRAMES)]
    begun = next(i for i, motion in enumerate(motions) if motion is not None)
    known = [motion for motion in motions if motion is not None]
    assert begun < FRAMES // 2 and len(known) == FRAMES - begun
    T, _ = travelled(known)
    true = drive.poses[begun - 1].inverse() @ drive.poses[-1]
    assert float(np.linalg.norm(T.t)) == pytest.approx(scale * float(np.linalg.norm(true.t)), rel=0.05)
    assert T.angle_to(true) < np.radians(1.5)


def turned_views(rng: np.random.Generator, rotations: list[np.ndarray]) -> list[Frame]:
    """What a camera sees that only turns: views of a far, textured surface."""
    texture = sum(
        cv2.resize(
            rng.normal(0, 1, (480 // s, 1920 // s)).astype(np.float32),
            (1920, 480),
            interpolation=cv2.INTER_CUBIC,
        )
        for s in (2, 4, 8, 16)
    )
    image = np.clip(128 + 30 * np.asarray(texture), 0, 255).astype(np.uint8)
    # Longitude and latitude on a cylinder, so that any turn stays in sight.
    v, u = np.mgrid[0:240, 0:320].astype(np.float64)
    rays = np.stack([(u - 159.5) / 250.0, (v - 119.5) / 250.0, np.ones_like(u)], axis=-1)
    frames = []
    for index, R in enumerate(rotations):
        x, y, z = np.moveaxis(rays @ R.T, -1, 0)
        column = 300.0 + 300.0 * np.arctan2(x, z)
        row = 240.0 + 300.0 * y / np.hypot(x, z)
        view = cv2.remap(image, column.astype(np.float32), row.astype(np.float32), cv2.INTER_LINEAR)
        frames.append(Frame((index + 1) * PERIOD_NS, view, CAMERA))
    return frames


def test_a_camera_that_only_turns_knows_its_turn_and_does_not_claim_a_place(
    rng: np.random.Generator,
) -> None:
    rotations = [SE3.exp([0.0, np.radians(2.0 * i), 0.0, 0.0, 0.0, 0.0]).R for i in range(50)]
    frames = turned_views(rng, rotations)
    vo = VisualOdometry(RayCamera(CAMERA))
    xy_px = new_corners(View.of(frames[0]), np.zeros((0, 2), np.float32), 100)
    rays = RayCamera(CAMERA).rays(CAMERA, xy_px)
    vo.seed(Seed(frames[0], xy_px, rays, np.full(len(xy_px), 3.0)))
    known = [m for m in (vo.observe(frame) for frame in frames[1:]) if m is not None]
    # Turned by 98 degrees: nothing of the first view, whose depths are known, is in the last.
    assert len(known) == 49
    T, S = travelled(known)
    assert T.angle_to(SE3(rotations[-1], np.zeros(3))) < np.radians(1.0)
    error = (T.inverse() @ SE3(rotations[-1], np.zeros(3))).log()
    assert float(error @ np.linalg.solve(S, error)) < 22.5
    assert np.linalg.norm(T.t) < 0.1


def test_what_cannot_be_followed_has_no_motion_and_gives_no_metres_after(drive: DriveData) -> None:
    vo = VisualOdometry(RayCamera(drive.camera))
    vo.seed(drive.seed())
    assert vo.observe(drive.frames[1]) is not None
    dark = Frame(drive.frames[2].stamp_ns, np.zeros((240, 320), np.uint8), drive.camera)
    assert vo.observe(dark) is None
    assert [vo.observe(frame) for frame in drive.frames[3:8]] == [None] * 5


def test_another_camera_ends_it(drive: DriveData) -> None:
    vo = VisualOdometry(RayCamera(drive.camera))
    vo.seed(drive.seed())
    other = Camera.pinhole(320, 240, 300.0, 300.0, 159.5, 119.5)
    assert vo.observe(Frame(drive.frames[1].stamp_ns, drive.frames[1].image, other)) is None
