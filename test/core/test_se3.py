"""Rigid transforms: algebra as properties, and covariances against Monte Carlo and against GTSAM."""

import gtsam
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.linalg import expm

from localizer_ros.core.se3 import (
    SE3,
    compose_covariance,
    covariance_from_ros,
    covariance_to_ros,
    interpolate,
    inverse_covariance,
    skew,
    symmetrized,
    weighted_mean,
)
from localizer_ros.core.types import Array

# Products of a few rotations and translations of up to 200 m: some hundred roundings of 1e-16 relative.
TIGHT = 1e-10


# The same examples in every run, and no deadline: a loaded machine is slow, not wrong.
PROPERTY = settings(max_examples=50, derandomize=True, deadline=None)


def unit_vectors() -> st.SearchStrategy[Array]:
    return (
        arrays(np.float64, 3, elements=st.floats(-1.0, 1.0))
        .filter(lambda v: np.linalg.norm(v) > 1e-3)
        .map(lambda v: v / np.linalg.norm(v))
    )


@pytest.mark.parametrize("t", [(1e10, 0.0, 0.0), (0.0, -1e308, 0.0)])
def test_a_position_that_nothing_has_is_refused(t: tuple[float, float, float]) -> None:
    matrix = np.eye(4)
    matrix[:3, 3] = t
    with pytest.raises(ValueError, match="a position beyond"):
        SE3.from_matrix(matrix)
    with pytest.raises(ValueError, match="a position beyond"):
        SE3.from_unit_quaternion(t, (0.0, 0.0, 0.0, 1.0))


TINY = (0.0, 1e-12, 1e-9, 1e-7, 1e-4, 1e-3)


@st.composite
def twists(draw: st.DrawFn, max_angle: float = np.pi) -> Array:
    """[w, v]; angles of zero, tiny and exactly at the limit come up as often as any others."""
    angle = draw(
        st.one_of(
            st.floats(0.0, max_angle),
            st.sampled_from(
                [a for a in (*TINY, *(max_angle - e for e in (1e-7, 1e-12, 0.0))) if 0 <= a <= max_angle]
            ),
        )
    )
    w = angle * draw(unit_vectors())
    v = draw(arrays(np.float64, 3, elements=st.floats(-200.0, 200.0)))
    return np.concatenate([w, v])


def poses() -> st.SearchStrategy[SE3]:
    return twists().map(SE3.exp)


def assert_same(T: SE3, other: SE3, atol: float = TIGHT) -> None:
    np.testing.assert_allclose(T.R, other.R, rtol=0.0, atol=atol)
    np.testing.assert_allclose(T.t, other.t, rtol=0.0, atol=atol * 200.0)


# --- algebra ---


@PROPERTY
@given(poses())
def test_inverse_undoes_from_both_sides(T_a_b: SE3) -> None:
    assert_same(T_a_b @ T_a_b.inverse(), SE3.identity())
    assert_same(T_a_b.inverse() @ T_a_b, SE3.identity())
    assert_same(T_a_b.inverse().inverse(), T_a_b)


@PROPERTY
@given(poses(), poses(), poses())
def test_composition_is_associative_and_maps_points(T_a_b: SE3, T_b_c: SE3, T_c_d: SE3) -> None:
    assert_same((T_a_b @ T_b_c) @ T_c_d, T_a_b @ (T_b_c @ T_c_d))
    points_c = np.array([[0.0, 0.0, 0.0], [1.0, -2.0, 3.0]])
    np.testing.assert_allclose((T_a_b @ T_b_c) @ points_c, T_a_b @ (T_b_c @ points_c), atol=1e-9)
    np.testing.assert_allclose(T_a_b @ points_c[1], (T_a_b @ points_c)[1], atol=1e-12)
    np.testing.assert_allclose((T_a_b @ T_b_c).matrix(), T_a_b.matrix() @ T_b_c.matrix(), atol=1e-9)


@PROPERTY
@given(twists())
def test_exp_gives_a_rotation_and_is_the_matrix_exponential(xi: Array) -> None:
    T = SE3.exp(xi)
    np.testing.assert_allclose(T.R @ T.R.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(T.R) == pytest.approx(1.0)
    hat = np.zeros((4, 4))
    hat[:3, :3], hat[:3, 3] = skew(xi[:3]), xi[3:]
    # expm squares a scaled Taylor polynomial: about 1e-12 of the largest entry, 200.
    np.testing.assert_allclose(T.matrix(), expm(hat), atol=1e-9)


@PROPERTY
@given(twists())
def test_exp_undoes_log_everywhere(xi: Array) -> None:
    T = SE3.exp(xi)
    log = T.log()
    assert np.linalg.norm(log[:3]) <= np.pi + 1e-9
    # At an angle of pi the axis comes from a square root: half of the digits are left.
    assert_same(SE3.exp(log), T, atol=1e-7)


@PROPERTY
@given(twists(max_angle=3.0))
def test_log_undoes_exp_below_pi(xi: Array) -> None:
    np.testing.assert_allclose(SE3.exp(xi).log(), xi, rtol=1e-9, atol=1e-9)


@PROPERTY
@given(twists(max_angle=1e-6))
def test_log_and_exp_are_linear_near_zero(xi: Array) -> None:
    T = SE3.exp(xi)
    np.testing.assert_allclose(T.log()[:3], xi[:3], rtol=1e-6, atol=1e-15)
    # V = I + skew(w)/2: with |w| <= 1e-6 and |v| <= 350 the rest is below 2e-4.
    np.testing.assert_allclose(T.t, xi[3:], atol=2e-4)


@PROPERTY
@given(twists())
def test_exp_log_and_adjoint_agree_with_gtsam(xi: Array) -> None:
    T, theirs = SE3.exp(xi), gtsam.Pose3.Expmap(xi)
    np.testing.assert_allclose(T.matrix(), theirs.matrix(), atol=1e-7)
    np.testing.assert_allclose(T.adjoint(), gtsam.Pose3(gtsam.Rot3(T.R), T.t).AdjointMap(), atol=1e-9)
    if np.linalg.norm(xi[:3]) < 3.0:
        np.testing.assert_allclose(T.log(), gtsam.Pose3.Logmap(theirs), rtol=1e-6, atol=1e-6)


@PROPERTY
@given(poses(), twists(max_angle=1.0))
def test_adjoint_moves_a_twist_to_the_other_side(T: SE3, xi: Array) -> None:
    xi = np.concatenate([xi[:3], xi[3:] / 200.0])
    assert_same(T @ SE3.exp(xi), SE3.exp(T.adjoint() @ xi) @ T, atol=1e-8)


@PROPERTY
@given(poses())
def test_quaternion_round_trip(T: SE3) -> None:
    q = T.quaternion_xyzw()
    assert np.linalg.norm(q) == pytest.approx(1.0)
    assert q[3] >= 0.0
    assert_same(SE3.from_quaternion(T.t, q), T)
    assert_same(SE3.from_quaternion(T.t, -3.0 * q), T)
    # The other sign is the same rotation, and so is what rounding left of it.
    assert_same(SE3.from_unit_quaternion(T.t, -1.0007 * q), T)
    assert_same(SE3.from_matrix(T.matrix()), T)


@PROPERTY
@given(poses(), unit_vectors(), st.floats(0.0, np.pi))
def test_angle_and_distance(T: SE3, axis: Array, angle: float) -> None:
    turned = T @ SE3.exp(np.concatenate([angle * axis, np.zeros(3)]))
    assert T.angle_to(turned) == pytest.approx(angle, abs=1e-7)
    assert turned.angle_to(T) == pytest.approx(angle, abs=1e-7)
    assert T.distance_to(turned) == pytest.approx(0.0, abs=1e-9)
    assert T.distance_to(SE3(T.R, T.t + 2.0 * axis)) == pytest.approx(2.0)


@pytest.mark.parametrize("angle", [1e-9, 1e-7, 1e-5, np.pi - 1e-7, np.pi])
def test_angle_is_accurate_at_its_ends(angle: float) -> None:
    T = SE3.exp([0.0, angle, 0.0, 0.0, 0.0, 0.0])
    assert SE3.identity().angle_to(T) == pytest.approx(angle, rel=1e-6)


# --- bad input ---


def test_from_matrix_projects_nearly_a_rotation() -> None:
    T = SE3.exp([0.3, -0.2, 0.9, 1.0, 2.0, 3.0])
    blurred = T.matrix()
    blurred[:3, :3] += 1e-3 * np.array([[1.0, -1.0, 0.5], [0.0, 1.0, 0.2], [-1.0, 0.3, 0.1]])
    projected = SE3.from_matrix(blurred)
    np.testing.assert_allclose(projected.R @ projected.R.T, np.eye(3), atol=1e-12)
    assert np.degrees(projected.angle_to(T)) < 0.2


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (np.eye(3), "4x4 or 3x4"),
        (np.full((4, 4), np.nan), "not finite"),
        (np.diag([1.0, 1.0, 1.0, 2.0]), "bottom row"),
        (np.diag([1.0, 1.0, -1.0, 1.0]), "away from a rotation"),
        (np.diag([2.0, 2.0, 2.0, 1.0]), "away from a rotation"),
        (np.zeros((3, 4)), "away from a rotation"),
    ],
)
def test_from_matrix_refuses(matrix: Array, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SE3.from_matrix(matrix)


def test_from_quaternion_refuses() -> None:
    with pytest.raises(ValueError, match="zero"):
        SE3.from_quaternion([0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0])
    with pytest.raises(ValueError, match=r"norm 1\.414"):
        SE3.from_unit_quaternion([0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0])
    with pytest.raises(ValueError, match="finite"):
        SE3.from_quaternion([0.0, np.inf, 0.0], [0.0, 0.0, 0.0, 1.0])
    with pytest.raises(ValueError, match="finite"):
        SE3.from_quaternion([0.0, 0.0], [0.0, 0.0, 0.0, 1.0])


# --- interpolation and mean ---


@PROPERTY
@given(poses(), twists(max_angle=3.0), st.floats(0.0, 1.0))
def test_interpolation_divides_angle_and_distance(T_a_b0: SE3, xi: Array, fraction: float) -> None:
    T_a_b1 = T_a_b0 @ SE3.exp(xi)
    T = interpolate(T_a_b0, T_a_b1, fraction)
    assert T_a_b0.angle_to(T) == pytest.approx(fraction * T_a_b0.angle_to(T_a_b1), abs=1e-7)
    assert T_a_b0.distance_to(T) == pytest.approx(fraction * T_a_b0.distance_to(T_a_b1), abs=1e-7)
    assert_same(T, interpolate(T_a_b1, T_a_b0, 1.0 - fraction), atol=1e-7)


@PROPERTY
@given(poses(), twists())
def test_interpolation_ends_at_its_ends(T_a_b0: SE3, xi: Array) -> None:
    T_a_b1 = T_a_b0 @ SE3.exp(xi)
    assert_same(interpolate(T_a_b0, T_a_b1, 0.0), T_a_b0)
    assert_same(interpolate(T_a_b0, T_a_b1, 1.0), T_a_b1, atol=1e-7)


@PROPERTY
@given(poses(), twists(max_angle=1.0))
def test_mean_of_two_is_the_middle_and_follows_the_frame(T: SE3, xi: Array) -> None:
    other = T @ SE3.exp(xi)
    assert_same(weighted_mean([T, other]), interpolate(T, other, 0.5), atol=1e-8)
    T_m_a = SE3.exp([0.5, -1.0, 2.0, 3.0, 4.0, 5.0])
    assert_same(weighted_mean([T_m_a @ T, T_m_a @ other]), T_m_a @ weighted_mean([T, other]), atol=1e-8)


def test_weighted_mean_weighs(rng: np.random.Generator) -> None:
    centre = SE3.exp([0.4, 1.0, -2.0, 10.0, -20.0, 5.0])
    noise = rng.normal(0.0, 0.1, (4000, 6))
    mean = weighted_mean([centre @ SE3.exp(xi) for xi in noise])
    # The mean of 4000 samples of sigma 0.1 is good to 0.1/63 an axis: 5 sigma.
    assert centre.angle_to(mean) < 0.01 and centre.distance_to(mean) < 0.01

    a, b = SE3.identity(), SE3.exp([0.0, 0.0, 0.4, 1.0, 0.0, 0.0])
    assert_same(weighted_mean([a, b], [1.0, 0.0]), a)
    assert_same(weighted_mean([a, b], [2.0, 2.0]), interpolate(a, b, 0.5))
    assert weighted_mean([a, b], [3.0, 1.0]).t[0] == pytest.approx(0.25 * b.t[0])


@pytest.mark.parametrize(
    ("count", "weights"), [(0, None), (2, [1.0]), (2, [0.0, 0.0]), (2, [np.nan, 1.0]), (2, [1.0, -1.0])]
)
def test_weighted_mean_refuses(count: int, weights: list[float] | None) -> None:
    with pytest.raises(ValueError, match="weighted_mean"):
        weighted_mean([SE3.identity()] * count, weights)


# --- covariance ---

# Small enough that second-order terms (5e-3 squared) do not show beside the sampling error.
SIGMAS = np.array([2e-3, 5e-3, 3e-3, 0.02, 0.05, 0.01])
SAMPLES = 200_000


def random_covariance(rng: np.random.Generator, sigmas: Array) -> Array:
    """Correlated, with the given standard deviations."""
    A = rng.normal(size=(6, 12))
    S = A @ A.T
    d = np.sqrt(np.diag(S))
    return S / np.outer(d, d) * np.outer(sigmas, sigmas)


def sample(rng: np.random.Generator, S: Array) -> Array:
    return rng.normal(size=(SAMPLES, 6)) @ np.linalg.cholesky(S).T


def exp_many(xi: Array) -> tuple[Array, Array]:
    """(N, 3, 3) and (N, 3) of N small twists: Taylor series, independent of the code under test."""
    w, v = xi[:, :3], xi[:, 3:]
    W = np.zeros((len(xi), 3, 3))
    W[:, 0, 1], W[:, 0, 2], W[:, 1, 2] = -w[:, 2], w[:, 1], -w[:, 0]
    W -= W.transpose(0, 2, 1)
    eye = np.eye(3)
    R = eye + W + W @ W / 2 + W @ W @ W / 6
    V = eye + W / 2 + W @ W / 6
    return R, np.einsum("nij,nj->ni", V, v)


def log_many(R: Array, t: Array) -> Array:
    """Inverse of ``exp_many``, to third order in the angle."""
    skews = (R - R.transpose(0, 2, 1)) / 2
    sines = np.stack([skews[:, 2, 1], skews[:, 0, 2], skews[:, 1, 0]], axis=1)
    w = sines * (1.0 + np.sum(sines**2, axis=1, keepdims=True) / 6)
    half = np.cross(w, t) / 2
    return np.concatenate([w, t - half + np.cross(w, np.cross(w, t)) / 12], axis=1)


def relative_error(S: Array, S_true: Array) -> float:
    """Largest deviation in units of the true sigmas: 0.01 is one percent of a variance."""
    d = np.sqrt(np.diag(S_true))
    return float(np.max(np.abs(S - S_true) / np.outer(d, d)))


def test_covariance_to_ros_by_monte_carlo_far_from_the_origin(rng: np.random.Generator) -> None:
    T = SE3(SE3.exp([0.7, -1.1, 0.5, 0.0, 0.0, 0.0]).R, np.array([100.0, -80.0, 5.0]))
    assert np.linalg.norm(T.t) == pytest.approx(128.2, abs=0.1)
    S = random_covariance(rng, SIGMAS)
    R_noise, t_noise = exp_many(sample(rng, S))
    # What a subscriber means: position, and the small rotation about the fixed axes, R_true = R_fixed @ R.
    position = t_noise @ T.R.T
    R_fixed = T.R @ R_noise @ T.R.T
    about_fixed = np.stack([R_fixed[:, 2, 1], R_fixed[:, 0, 2], R_fixed[:, 1, 0]], axis=1)
    S_sampled = np.cov(np.concatenate([position, about_fixed], axis=1).T)

    S_ros = covariance_to_ros(T, S)
    # The standard error of a variance of 200 000 samples is 0.3 %; 1.5 % leaves room for 21 of them and for
    # the second order of the exponential.
    assert relative_error(S_ros, S_sampled) < 0.015
    # What is commonly done instead, and must not pass for it.
    swap = np.roll(np.eye(6), 3, axis=1)
    adjoint = T.adjoint()
    assert relative_error(swap @ S @ swap.T, S_sampled) > 0.3
    assert relative_error(S, S_sampled) > 0.9
    assert relative_error(swap @ adjoint @ S @ adjoint.T @ swap.T, S_sampled) > 100.0
    np.testing.assert_allclose(covariance_from_ros(T, S_ros), S, rtol=0.0, atol=1e-15)


def test_compose_covariance_by_monte_carlo(rng: np.random.Generator) -> None:
    T_b_c = SE3.exp([-0.9, 0.2, 0.4, 0.5, -1.5, 2.0])
    S_a_b, S_b_c = random_covariance(rng, SIGMAS), random_covariance(rng, 0.7 * SIGMAS)
    R1, t1 = exp_many(sample(rng, S_a_b))
    R2, t2 = exp_many(sample(rng, S_b_c))
    # log(T_a_c^-1 (T_a_b Exp1) (T_b_c Exp2)) = log(T_b_c^-1 Exp1 T_b_c Exp2): T_a_b drops out.
    R_left = T_b_c.R.T @ R1 @ T_b_c.R
    t_left = (t1 + R1 @ T_b_c.t - T_b_c.t) @ T_b_c.R
    R, t = R_left @ R2, np.einsum("nij,nj->ni", R_left, t2) + t_left
    S_sampled = np.cov(log_many(R, t).T)
    assert relative_error(compose_covariance(S_a_b, T_b_c, S_b_c), S_sampled) < 0.015
    assert relative_error(S_a_b + S_b_c, S_sampled) > 0.2

    # A calibration is known: only the first factor counts.
    S_known = np.cov(log_many(R_left, t_left).T)
    assert relative_error(compose_covariance(S_a_b, T_b_c), S_known) < 0.015


def test_inverse_covariance_by_monte_carlo(rng: np.random.Generator) -> None:
    T = SE3.exp([0.3, 0.8, -1.2, 4.0, -3.0, 2.0])
    # The lever arm of 5 m turns rotation into translation; the second order is 5 m * (5e-3)^2 = 0.1 mm.
    S = random_covariance(rng, SIGMAS)
    R_noise, t_noise = exp_many(sample(rng, S))
    # log(T (T Exp)^-1) = log(T Exp^-1 T^-1)
    R_inv = R_noise.transpose(0, 2, 1)
    t_inv = -np.einsum("nij,nj->ni", R_inv, t_noise)
    R = T.R @ R_inv @ T.R.T
    t = t_inv @ T.R.T + T.t - R @ T.t
    S_sampled = np.cov(log_many(R, t).T)
    assert relative_error(inverse_covariance(T, S), S_sampled) < 0.015
    assert relative_error(S, S_sampled) > 0.2
    np.testing.assert_allclose(
        inverse_covariance(T.inverse(), inverse_covariance(T, S)), S, rtol=0.0, atol=1e-15
    )


@PROPERTY
@given(poses(), st.integers(0, 2**31))
def test_transported_covariances_stay_symmetric_and_positive(T: SE3, seed: int) -> None:
    S = random_covariance(np.random.default_rng(seed), SIGMAS)
    for moved in (covariance_to_ros(T, S), compose_covariance(S, T, S), inverse_covariance(T, S)):
        np.testing.assert_allclose(moved, moved.T, atol=1e-9 * np.abs(moved).max())
        assert np.linalg.eigvalsh(symmetrized(moved))[0] > -1e-9 * np.abs(moved).max()


def test_symmetrized_floors_the_eigenvalues() -> None:
    S = np.diag([1.0, -1.0, 1e-12, 2.0, 3.0, 4.0])
    S[0, 3] = 0.2
    fixed = symmetrized(S, floor=1e-8)
    np.testing.assert_allclose(fixed, fixed.T, rtol=0.0, atol=1e-15)
    assert np.linalg.eigvalsh(fixed)[0] == pytest.approx(1e-8, rel=1e-6)
    good = np.diag([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    np.testing.assert_allclose(symmetrized(good, 1e-8), good, atol=1e-14)


def test_a_quaternion_of_any_length_gives_the_rotation_of_the_unit_one(rng: np.random.Generator) -> None:
    for length in (1e-3, 0.1297, 1.0, 50.0):
        q = rng.normal(size=4)
        unit = SE3.from_quaternion(np.zeros(3), q / np.linalg.norm(q))
        assert np.allclose(SE3.from_quaternion(np.zeros(3), length * q).R, unit.R)
    for bad in (np.zeros(4), np.full(4, np.nan), np.full(4, np.inf)):
        with pytest.raises(ValueError, match=r"zero|finite"):
            SE3.from_quaternion(np.zeros(3), bad)
