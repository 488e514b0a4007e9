"""The simulated world: its pixels are where geometry says, its odometry drifts as it says, its bytes never
change.
"""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from localizer_ros.core.preprocess import to_gray
from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import Camera, ConfigError, SourceError
from localizer_ros.datasets.simulated import SimulatedSource, WorldConfig, write_world
from localizer_ros.datasets.simulation.drive import Course, Drive
from localizer_ros.datasets.simulation.optics import motion_blur
from localizer_ros.datasets.simulation.place import PLACES, Quad, make_place, paint
from localizer_ros.datasets.simulation.render import Renderer
from localizer_ros.datasets.source import open_source

SMALL = WorldConfig(width_px=160, height_px=120, duration_s=3.0, fps=10.0)


@pytest.fixture(scope="module")
def small():
    return SimulatedSource(SMALL)


def rays(camera):
    y, x = np.mgrid[0 : camera.height_px, 0 : camera.width_px].astype(np.float64)
    return np.stack([x, y, np.ones_like(x)], axis=-1) @ np.linalg.inv(camera.K).T


def random_view(rng, place):
    """A camera anywhere on the way around, looking anywhere near the horizon."""
    drive = Drive(rng, Course(place.route_m, place.wander_m, rng.uniform(), 5.0, 0.6))
    x, y, yaw = drive.planar(rng.uniform(0, 5))
    yaw, pitch, roll = yaw + rng.uniform(-3, 3), rng.uniform(-0.3, 0.3), rng.uniform(-0.2, 0.2)
    forward = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
    turn = SE3.exp([0, 0, yaw, 0, 0, 0]).R @ forward @ SE3.exp([pitch, 0, roll, 0, 0, 0]).R
    return SE3(turn, np.array([x, y, rng.uniform(0.3, 1.2)]))


@pytest.mark.parametrize("name", list(PLACES))
def test_depth_agrees_with_casting_every_ray_at_every_surface(rng, name):
    place = make_place(name, 5)
    quads = paint(place, 5, 0.2)
    camera = Camera.pinhole(120, 90, 70.0, 75.0, 58.3, 46.1)
    renderer = Renderer(camera, quads)
    for _ in range(3):
        T_map_cam = random_view(rng, place)
        _, inv_z = renderer.render(T_map_cam)
        directions = rays(camera) @ T_map_cam.R.T
        nearest = np.zeros(inv_z.shape)
        for quad in quads:
            facing = directions @ quad.normal
            with np.errstate(divide="ignore", invalid="ignore"):
                z = ((quad.corner - T_map_cam.t) @ quad.normal) / facing
                points = T_map_cam.t + z[..., None] * directions - quad.corner
                u, v = points @ quad.axis_u, points @ quad.axis_v
                width, height = quad.size_m
                hit = (facing < 0) & (z > 0) & (u >= 0) & (u <= width) & (v >= 0) & (v <= height)
                nearest = np.where(hit, np.maximum(nearest, 1.0 / z), nearest)
        # Everything is closed: every pixel sees something. At silhouettes rounding may decide for the other
        # side.
        assert inv_z.min() > 0
        wrong = np.abs(inv_z - nearest) > 1e-4 * nearest
        assert wrong.mean() < 1e-3


@pytest.mark.parametrize(("distance", "slant_deg"), [(0.8, 0.0), (2.0, 40.0), (3.5, -25.0), (2.5, 60.0)])
def test_texture_corners_are_where_they_project(distance, slant_deg):
    """A chessboard: its corners in the image against the projected corners of the board."""
    cells, cell_px = (9, 7), 40
    board = np.kron(np.indices((cells[1], cells[0])).sum(axis=0) % 2, np.ones((cell_px, cell_px)))
    texture = np.repeat((60 + 140 * board).astype(np.uint8)[..., None], 3, axis=2)
    size = (0.9, 0.7)
    a = np.deg2rad(slant_deg)
    right, down = np.array([np.cos(a), 0.0, np.sin(a)]), np.array([0.0, 1.0, 0.0])
    corner = np.array([0.03, -0.02, distance]) - 0.5 * size[0] * right - 0.5 * size[1] * down
    camera = Camera.pinhole(640, 480, 430.0, 435.0, 321.3, 237.8)
    image, _ = Renderer(camera, [Quad(corner, right, down, size, texture)]).render(SE3.identity())
    steps = 0.1 * np.stack(np.meshgrid(np.arange(1, cells[0]), np.arange(1, cells[1])), axis=-1).reshape(
        -1, 2
    )
    points = corner + steps[:, :1] * right + steps[:, 1:] * down
    expected = points @ camera.K.T
    expected = expected[:, :2] / expected[:, 2:]
    criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 50, 1e-4)
    # A window that stays inside the neighbouring cells.
    half = max(2, int(0.35 * 0.1 * np.cos(a) * 430.0 / (distance + 0.45 * abs(np.sin(a)))))
    start = expected.astype(np.float32)[:, None].copy()
    found = cv2.cornerSubPix(to_gray(image), start, (half, half), (-1, -1), criteria)[:, 0]
    # Cells shrink to 11 pixels far away, and the window with them: sampling leaves a tenth of a pixel. A
    # shift by half a texel, or half a pixel, would be 0.2 to 0.6 in the median.
    assert np.abs(np.median(found - expected, axis=0)).max() < 0.04
    assert np.percentile(np.linalg.norm(found - expected, axis=1), 90) < 0.2


def test_two_views_agree_through_depth():
    """Frame B warped into A by depth and poses: optical flow between them is a fraction of a pixel."""
    source = SimulatedSource(
        WorldConfig(
            width_px=480, height_px=360, duration_s=8.0, fps=5.0, moving_objects=0, noise=0.0, exposure_ms=0.0
        )
    )
    a, b = 20, 22
    image_a, inv_z_a = source.render(a)
    image_b, inv_z_b = source.render(b)
    T_a, T_b = source.records[a].T_map_cam, source.records[b].T_map_cam
    assert T_a.distance_to(T_b) > 0.1
    points_b = (T_b.inverse() @ T_a) @ (rays(source.camera) / inv_z_a[..., None]).reshape(-1, 3)
    pixels = points_b @ source.camera.K.T
    map_xy = (pixels[:, :2] / pixels[:, 2:]).reshape(*inv_z_a.shape, 2).astype(np.float32)
    warped = cv2.remap(image_b, map_xy[..., 0], map_xy[..., 1], cv2.INTER_LINEAR)
    seen = cv2.remap(inv_z_b, map_xy[..., 0], map_xy[..., 1], cv2.INTER_LINEAR)
    visible = (np.abs(seen * points_b[:, 2].reshape(seen.shape) - 1.0) < 0.01).astype(np.uint8)
    assert visible.mean() > 0.5
    inner = cv2.erode(visible, np.ones((15, 15)))
    corners = cv2.goodFeaturesToTrack(to_gray(image_a), 300, 0.02, 7, mask=inner)
    moved, ok, _ = cv2.calcOpticalFlowPyrLK(
        to_gray(image_a), to_gray(warped), corners, None, winSize=(11, 11)
    )
    flow = (moved - corners)[ok[:, 0] == 1][:, 0]
    assert len(flow) > 100
    assert np.abs(np.median(flow, axis=0)).max() < 0.02
    assert np.median(np.linalg.norm(flow, axis=1)) < 0.1


def test_smaller_textures_do_not_alias():
    """A fine pattern far away turns grey, as it does in a camera, instead of into noise."""
    rng = np.random.default_rng(0)
    texture = np.repeat(rng.integers(0, 2, (1024, 1024, 1)).astype(np.uint8) * 255, 3, axis=2)
    quad = Quad(
        np.array([-2.0, -2.0, 0.0]), np.array([1.0, 0, 0]), np.array([0.0, 1, 0]), (4.0, 4.0), texture
    )
    camera = Camera.pinhole(200, 200, 200.0, 200.0, 99.5, 99.5)
    image, inv_z = Renderer(camera, [quad]).render(SE3(np.eye(3), np.array([0.0, 0.0, -8.0])))
    inside = image[inv_z > 0][:, 0].astype(float)
    # Each pixel covers 10x10 texels of standard deviation 127: an ideal one would have 13, an aliased one 70
    # to 127.
    assert inside.std() < 25
    assert abs(inside.mean() - 127.5) < 5


def test_same_settings_same_bytes(small):
    again = SimulatedSource(SMALL)
    for index in (7, 29, 0):
        np.testing.assert_array_equal(again.read(index).image, small.read(index).image)
    np.testing.assert_array_equal(again.odometry.positions, small.odometry.positions)
    other = SimulatedSource(WorldConfig(**{**as_dict(SMALL), "drive": 1}))
    assert np.any(other.read(0).image != small.read(0).image)
    assert other.records[0].stamp_ns > small.records[-1].stamp_ns


def as_dict(config, **changes):
    values = {name: getattr(config, name) for name in config.__struct_fields__}
    return {**values, **changes}


def test_drives_share_the_place_but_not_the_path(small):
    other = SimulatedSource(WorldConfig(**as_dict(SMALL, drive=1, light="night")))
    assert other.place.boxes[0].centre_m == small.place.boxes[0].centre_m
    assert other.records[5].T_map_cam.distance_to(small.records[5].T_map_cam) > 0.1
    assert other.read(5).image.mean() < small.read(5).image.mean()


def test_camera_is_on_the_robot(small):
    for record in small.records:
        assert abs(record.T_map_cam.t[2] - 0.6) < 0.02
        # Optical frame: y is down, and z (forward) is 3 degrees above the horizon but for the wobble.
        assert record.T_map_cam.R[2, 1] < -0.98
        assert np.rad2deg(np.arcsin(record.T_map_cam.R[2, 2])) == pytest.approx(3.0, abs=1.0)


def test_perfect_odometry_is_the_ground_truth():
    source = SimulatedSource(WorldConfig(**as_dict(SMALL, odometry_noise=0.0, duration_s=20.0)))
    first, last = source.records[0], source.records[-1]

    def base(record):
        return record.T_map_cam @ source.T_base_cam.inverse()

    true = base(first).inverse() @ base(last)
    measured = source.odometry.at(first.stamp_ns).inverse() @ source.odometry.at(last.stamp_ns)
    # What remains is the wobble, which wheels do not measure: 0.25 degrees, 2 mm, at most twice.
    assert np.rad2deg(true.angle_to(measured)) < 1.0
    assert true.distance_to(measured) < 0.02
    assert source.odometry.length_m > 5.0


def test_odometry_drift_has_the_covariance_it_claims():
    """Normalised error of many drives: that of a Gaussian of three dimensions, mean 3."""
    place = make_place("room", 0)
    nees, errors = [], []
    drive = Drive(np.random.default_rng(1), Course(place.route_m, 0.2, 0.0, 12.0, 0.6))
    for seed in range(60):
        odometry = drive.odometry(np.random.default_rng(seed), 12.0, 2.0, 0)
        x, y, yaw = drive.planar(odometry.stamps_ns[[0, -1]] * 1e-9).T
        start = SE3.exp([0, 0, yaw[0], 0, 0, 0]).R
        true = SE3(
            SE3.exp([0, 0, yaw[1] - yaw[0], 0, 0, 0]).R,
            start.T @ np.array([x[1] - x[0], y[1] - y[0], 0.0]),
        )
        xi = odometry.poses[-1].inverse() @ true
        planar = [2, 3, 4]
        S = odometry.covariances[-1][np.ix_(planar, planar)]
        error = xi.log()[planar]
        nees.append(error @ np.linalg.solve(S, error))
        errors.append(np.linalg.norm(error[1:]))
    # Sixty samples of chi-squared(3): the mean has a standard deviation of sqrt(6 / 60) = 0.32; four of them.
    assert abs(np.mean(nees) - 3.0) < 1.3
    # A few per cent of 6 m driven at twice the usual noise.
    assert 0.02 < np.median(errors) < 0.6
    sigma = np.sqrt(odometry.covariances[:, 3, 3])
    assert sigma[-1] > sigma[len(sigma) // 2] > sigma[50]


@pytest.mark.parametrize("reverse", [False, True])
def test_offset_drives_keep_their_distance_from_the_mapped_path(reverse):
    settings = as_dict(SMALL, duration_s=30.0, reverse=reverse)
    mapped = SimulatedSource(WorldConfig(**settings))
    shifted = SimulatedSource(WorldConfig(**{**settings, "offset_m": 0.4, "offset_deg": 15.0}))
    path = np.stack([r.T_map_cam.t[:2] for r in mapped.records])
    distance, turns = [], []
    for record in shifted.records:
        gaps = np.linalg.norm(path - record.T_map_cam.t[:2], axis=1)
        nearest = int(np.argmin(gaps))
        T_mapped_shifted = mapped.records[nearest].T_map_cam.inverse() @ record.T_map_cam
        distance.append(gaps[nearest])
        # Left positive is a negative turn about the optical y axis, which points down.
        turns.append(np.rad2deg(np.arctan2(-T_mapped_shifted.R[0, 2], T_mapped_shifted.R[2, 2])))
    # The camera is 0.1 m in front of the base, which the turn moves a little.
    assert np.median(distance) == pytest.approx(0.4, abs=0.06)
    assert np.median(turns) == pytest.approx(15.0, abs=3.0)


def test_paths_through_furniture_are_refused():
    with pytest.raises(ConfigError, match="would hit something"):
        SimulatedSource(WorldConfig(**as_dict(SMALL, offset_m=2.0, duration_s=40.0)))


@pytest.mark.parametrize("place", list(PLACES))
@pytest.mark.parametrize("drive", [0, 7])
def test_every_drive_is_free_smooth_and_goes_all_around(place, drive):
    source = SimulatedSource(WorldConfig(**as_dict(SMALL, place=place, drive=drive, duration_s=120.0)))
    times = np.arange(0.0, 120.0, 0.05)
    planar = source._drive.planar(times)
    speed = np.linalg.norm(np.diff(planar[:, :2], axis=0), axis=1) / 0.05
    turn = np.abs(np.diff(planar[:, 2])) / 0.05
    assert speed.max() < 0.75
    assert np.abs(np.diff(speed)).max() / 0.05 < 2.0
    assert turn.max() < 1.2
    # Standing still happens, too.
    assert (speed < 0.01).mean() > 0.01
    headings = np.unique(np.floor(np.mod(planar[:, 2], 2 * np.pi) / (np.pi / 6)))
    assert len(headings) == 12


def test_motion_blur_is_that_of_averaged_exposures():
    source = SimulatedSource(
        WorldConfig(**as_dict(SMALL, noise=0.0, moving_objects=0, width_px=320, height_px=240))
    )
    index = 20
    image, inv_z = source.render(index)
    T_map_mid = source.records[index].T_map_cam
    # 6 degrees of turn and 5 cm of motion.
    T_begin_end = SE3.exp([0.01, 0.1, 0.0, 0.01, 0.0, 0.05])
    half = SE3.exp(0.5 * T_begin_end.log())
    exposures = []
    for fraction in np.linspace(-1.0, 1.0, 33):
        T_mid_now = SE3.exp(fraction * half.log())
        source._renderer.render(T_map_mid @ T_mid_now)
        exposures.append(source._renderer.render(T_map_mid @ T_mid_now)[0].astype(float))
    expected = np.mean(exposures, axis=0)
    blurred = motion_blur(image, inv_z, source.camera, T_begin_end)
    inner = (slice(15, -15), slice(30, -30))
    error = np.abs(blurred.astype(float) - expected)[inner].mean()
    unblurred = np.abs(image.astype(float) - expected)[inner].mean()
    # The rest are depth edges, where a pixel's own motion is not that of what it hides.
    assert error < 0.3 * unblurred
    assert motion_blur(image, inv_z, source.camera, SE3.identity()) is image


def test_moving_things_move_and_keep_clear():
    settings = as_dict(SMALL, moving_objects=4, noise=0.0, exposure_ms=0.0, duration_s=10.0)
    source = SimulatedSource(WorldConfig(**settings))
    empty = SimulatedSource(WorldConfig(**{**settings, "moving_objects": 0}))
    assert len(source._movers) == 4
    times = np.arange(len(source.records)) / SMALL.fps
    robot = np.stack([record.T_map_cam.t[:2] for record in source.records])
    for mover in source._movers:
        at = np.asarray(mover.box.centre_m) + mover.displacement(times)
        assert np.ptp(at, axis=0).max() > 0.1
        assert np.linalg.norm(at - robot, axis=1).min() > 0.8
    differing = [np.mean(source.render(i)[1] != empty.render(i)[1]) for i in range(0, 100, 10)]
    assert max(differing) > 0.005


@pytest.mark.parametrize(("place", "light"), [("room", "day"), ("corridor", "night"), ("hall", "dim")])
def test_images_have_features_depth_and_a_sensible_exposure(place, light):
    source = SimulatedSource(WorldConfig(place=place, light=light, duration_s=24.0, fps=1.0))
    keypoints, brightness, spread = [], [], []
    for index in range(0, 24, 6):
        image = source.read(index).image
        keypoints.append(len(cv2.ORB.create(1000, fastThreshold=12).detect(to_gray(image), None)))
        brightness.append(image.mean())
        depth = 1.0 / source.render(index)[1]
        spread.append(np.percentile(depth, 90) / np.percentile(depth, 10))
    assert np.median(keypoints) > 200
    assert 30 < np.median(brightness) < 200
    assert np.median(spread) > 2


def test_below_the_light_of_night_images_drown_in_noise(small):
    """Contrast over noise: exposure holds it up to night, nothing does below."""

    def seen(light):
        source = SimulatedSource(WorldConfig(**as_dict(SMALL, light=light, noise=0.0)))
        return to_gray(source.read(5).image).astype(np.float64)

    day, night, dark, darker = (seen(light) for light in (1.0, 0.15, 0.05, 0.01))
    assert night.std() > 0.5 * day.std()
    assert dark.std() < 0.5 * night.std() and darker.std() < 0.5 * dark.std()
    assert darker.mean() < 20.0


def test_supersampling_keeps_the_geometry(small):
    fine = SimulatedSource(WorldConfig(**as_dict(SMALL, supersampling=2)))
    image, inv_z = small.render(12)
    smooth, inv_z_fine = fine.render(12)
    assert smooth.shape == image.shape
    assert np.median(np.abs(inv_z_fine - inv_z) / inv_z) < 1e-4
    shift, _ = cv2.phaseCorrelate(to_gray(image).astype(np.float32), to_gray(smooth).astype(np.float32))
    assert np.abs(shift).max() < 0.05


def test_world_files(tmp_path):
    config = WorldConfig(**as_dict(SMALL, light=0.7, place="corridor"))
    file = write_world(tmp_path / "world", config)
    for path in (file, file.parent):
        source = open_source(path)
        assert (source.format, source.config, source.ground_truth) == (
            "simulated",
            config,
            "simulation (exact)",
        )
    with pytest.raises(SourceError, match="only 'all'"):
        source.split("train")
    file.write_text("place: moon\n")
    with pytest.raises(ConfigError, match=r"world\.yaml.*place"):
        open_source(file)
    file.write_text("light: 9.0\n")
    with pytest.raises(ConfigError, match="light: expected 0 to 5"):
        open_source(file)
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match=r"world\.yaml"):
        open_source(tmp_path / "empty", "simulated")
