"""Drives are free and smooth, and odometry drifts as it says."""

from __future__ import annotations

import numpy as np
import pytest

from localizer_ros.core.se3 import SE3
from localizer_ros.datasets.simulated import SimulatedSource, WorldConfig
from localizer_ros.datasets.simulation.drive import Course, Drive
from localizer_ros.datasets.simulation.place import PLACES, make_place

SMALL = WorldConfig(width_px=160, height_px=120, duration_s=3.0, fps=10.0)


def as_dict(config, **changes):
    values = {name: getattr(config, name) for name in config.__struct_fields__}
    return {**values, **changes}


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
