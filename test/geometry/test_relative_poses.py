"""A pose from relative poses to known cameras."""

import numpy as np

from localizer_ros.core.se3 import SE3
from localizer_ros.geometry.relative_poses import KnownView, meeting_pose, refine_on_epipolar_lines

FOCAL_PX = 500.0
QUERY = SE3.exp([0.05, -0.1, 0.02, 0.1, 0.05, 0.2])
CAMERAS = [
    SE3.exp([0, 0.1, 0, -0.5, 0, 0]),
    SE3.exp([0, -0.1, 0, 0.6, 0.1, 0]),
    SE3.exp([0.1, 0, 0, 0, 0.5, 0.1]),
]


def seen_from(T: SE3, points: np.ndarray) -> np.ndarray:
    p = T.inverse() @ points
    return np.asarray(p[:, :2] / p[:, 2:])


def known_views(rng: np.random.Generator, noise_px: float = 0.0) -> list[KnownView]:
    """Views of one scene, whose relative poses have a baseline of length 1."""
    points = rng.uniform(-1, 1, (60, 3)) + np.array([0.0, 0.0, 4.0])
    views = []
    for T in CAMERAS:
        relative = T.inverse() @ QUERY
        unit = SE3(relative.R, relative.t / np.linalg.norm(relative.t))
        a, b = (seen_from(S, points) + rng.normal(0, noise_px / FOCAL_PX, (60, 2)) for S in (T, QUERY))
        views.append(KnownView(T, unit, a, b))
    return views


def test_exact_directions_meet_in_the_pose(rng: np.random.Generator) -> None:
    met = meeting_pose(known_views(rng), 4.0)
    assert met is not None
    T, agreeing = met
    assert agreeing == [0, 1, 2]
    # The weak pull to the middle of the cameras leaves a millimetre or two.
    assert T.distance_to(QUERY) < 0.01 and T.angle_to(QUERY) < 1e-6


def test_a_camera_that_disagrees_is_left_out_and_two_that_do_are_none(rng: np.random.Generator) -> None:
    views = known_views(rng)
    wrong = KnownView(
        views[2].T_map_db,
        views[2].T_db_query @ SE3.exp([0, 0.5, 0, 0, 0, 0]),
        views[2].rays_db,
        views[2].rays_query,
    )
    met = meeting_pose([*views[:2], wrong], 4.0)
    assert met is not None and met[1] == [0, 1]
    assert meeting_pose([views[0], wrong], 4.0) is None


def test_refinement_finds_the_pose_and_tells_its_error(rng: np.random.Generator) -> None:
    nees = []
    for _ in range(20):
        start = QUERY @ SE3.exp(rng.normal(0, [0.01] * 3 + [0.04] * 3))
        refined = refine_on_epipolar_lines(start, known_views(rng, 0.5), FOCAL_PX, 4.0, 20)
        assert refined is not None and refined.inliers > 150
        error = (refined.T_map_query.inverse() @ QUERY).log()
        assert np.linalg.norm(error[:3]) < 0.01 and np.linalg.norm(error[3:]) < 0.05
        nees.append(error @ np.linalg.solve(refined.covariance, error))
    # 6 for a perfect covariance; below, because keypoints on one image are taken to share its pose's error.
    assert 1.0 < np.mean(nees) < 7.0


def test_too_few_matches_are_no_pose(rng: np.random.Generator) -> None:
    assert refine_on_epipolar_lines(QUERY, known_views(rng), FOCAL_PX, 4.0, 500) is None
