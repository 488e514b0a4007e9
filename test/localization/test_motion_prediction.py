"""Motion between frames: measured, assumed, fading; the prediction and late answers that follow from it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from localizer_ros.core.config.runtime import LocalizerConfig, SmootherConfig
from localizer_ros.core.se3 import SE3, compose_covariance
from localizer_ros.core.types import Camera, Frame, PoseEstimate, RelativePose
from localizer_ros.localization.motion_prediction import VELOCITY_FADES_S, MotionPrediction, Motions

PERIOD_NS = 100_000_000
STEP = SE3.exp([0.0, 0.02, 0.0, 0.05, 0.0, 0.1])
START = SE3.exp([0.2, 0.1, 0.0, 1.0, 2.0, 3.0])
SHARP = np.diag(np.repeat([0.01**2, 0.02**2], 3))


def frame(index: float, T_base_cam: SE3 | None = None) -> Frame:
    camera = Camera.pinhole(8, 6, 5.0, 5.0, 3.5, 2.5)
    return Frame(round(index * PERIOD_NS), np.zeros((6, 8), np.uint8), camera, T_base_cam=T_base_cam)


def truth(index: int) -> SE3:
    T = START
    for _ in range(index):
        T = T @ STEP
    return T


def estimate(index: int) -> PoseEstimate:
    return PoseEstimate(index * PERIOD_NS, truth(index), SHARP, "smoother")


def measured(index: int, variance: float = 1e-6) -> RelativePose:
    return RelativePose((index - 1) * PERIOD_NS, index * PERIOD_NS, STEP, np.eye(6) * variance, "vo")


def drive(
    count: int, moves: bool = True, confirmed: bool = True, config: LocalizerConfig | None = None
) -> MotionPrediction:
    """After ``count`` frames, with motions measured or only estimates of the poses."""
    motion = MotionPrediction(config or LocalizerConfig())
    for index in range(count):
        motions = motion.since_last(frame(index), measured(index) if moves and index > 0 else None)
        motion.travel(motions)
        motion.remember(frame(index), estimate(index), motions, confirmed)
    return motion


def test_nothing_is_known_of_the_first_frame() -> None:
    motion = MotionPrediction(LocalizerConfig())
    assert motion.last_ns is None and motion.expected(frame(0)) is None
    motions = motion.since_last(frame(0), None)
    assert motions.all == () and motions.best is None and motion.predict(None) is None


@pytest.mark.parametrize("moves", [True, False])
def test_the_last_velocity_predicts_the_next_frame(moves: bool) -> None:
    motion = drive(3, moves)
    expected = motion.expected(frame(3))
    assert expected is not None and expected.source == "assumed"
    prior = motion.predict(expected)
    assert prior is not None and prior.stamp_ns == 3 * PERIOD_NS and prior.source == "prediction"
    # Straight on where the true path bends: a tenth of the step.
    assert prior.T_map_cam.distance_to(truth(3)) < 5e-3 and prior.T_map_cam.angle_to(truth(3)) < 1e-9


@pytest.mark.parametrize("periods", [1, 5, 30])
def test_a_velocity_that_nothing_confirms_fades(periods: int) -> None:
    moved = []
    for confirmed in (True, False):
        expected = drive(3, confirmed=confirmed).expected(frame(2 + periods))
        assert expected is not None
        moved.append(expected.T_prev_cur.distance_to(SE3.identity()))
    assert moved[1] / moved[0] == pytest.approx(np.exp(-0.1 * periods / VELOCITY_FADES_S))


def test_an_assumed_motion_is_as_uncertain_as_a_walk_of_that_time() -> None:
    config = LocalizerConfig(smoother=SmootherConfig(walk_rotation_deg_s=90.0, walk_translation_m_s=2.0))
    expected = drive(2, config=config).expected(frame(3))
    assert expected is not None
    sigmas = np.repeat([np.radians(90.0), 2.0], 3) * 0.2
    np.testing.assert_allclose(expected.covariance, np.diag(sigmas**2), rtol=1e-12)


def test_an_answer_outvotes_an_assumed_motion_and_leaves_a_measured_one_alone() -> None:
    prediction = drive(5)
    far = replace(estimate(5), T_map_cam=truth(5) @ SE3.exp([0.0, 1.0, 0.0, 3.0, 0.0, 0.0]))
    assumed = prediction.since_last(frame(5), None)
    moved = prediction.predict(prediction.measured_by([far], assumed).best)
    assert moved is not None and moved.covariance is not None
    assert moved.T_map_cam.distance_to(far.T_map_cam) < 1e-9
    # Five hundred sigmas off: what is left of the assumption weighs nothing beside the answer.
    assert np.min(np.diag(moved.covariance)) > 1e4 * np.max(SHARP)
    assert prediction.measured_by([estimate(5)], assumed) is assumed
    measured_motions = prediction.since_last(frame(5), measured(5))
    assert prediction.measured_by([far], measured_motions) is measured_motions


def test_odometry_and_the_front_end_are_both_used_the_more_certain_first() -> None:
    motion = MotionPrediction(LocalizerConfig())
    for index in range(3):
        motion.add_odometry(index * PERIOD_NS, truth(index))
    motion.remember(frame(1, SE3.identity()), estimate(1), motion.since_last(frame(1), None), True)
    for variance, first in ((1e-12, "vo"), (1.0, "odom")):
        motions = motion.since_last(frame(2, SE3.identity()), measured(2, variance))
        assert {m.source for m in motions.measured} == {"vo", "odom"} and motions.assumed is None
        assert motions.best is not None and motions.best.source == first


@pytest.mark.parametrize("known", [(False, True), (True, False)])
def test_odometry_is_not_used_where_the_camera_on_the_robot_is_not_known(known: tuple[bool, bool]) -> None:
    T_base_prev, T_base_cur = (SE3.identity() if each else None for each in known)
    motion = MotionPrediction(LocalizerConfig())
    for index in range(3):
        motion.add_odometry(index * PERIOD_NS, truth(index))
    motion.remember(frame(1, T_base_prev), estimate(1), motion.since_last(frame(1), None), True)
    motions = motion.since_last(frame(2, T_base_cur), None)
    assert motions.measured == () and motions.assumed is not None


def test_the_prediction_adds_the_covariance_of_the_motion() -> None:
    prior = drive(3).predict(measured(3, 1e-4))
    assert prior is not None and prior.covariance is not None
    np.testing.assert_allclose(prior.covariance, compose_covariance(SHARP, STEP, np.eye(6) * 1e-4))


def test_a_late_answer_is_brought_forward_by_the_motions_since() -> None:
    moved = drive(6).bring_forward(estimate(2), 5 * PERIOD_NS)
    assert moved is not None and moved.stamp_ns == 5 * PERIOD_NS
    assert moved.T_map_cam.distance_to(truth(5)) < 1e-12
    assert moved.covariance is not None and np.trace(moved.covariance) > np.trace(SHARP)


@pytest.mark.parametrize("rate_hz", [10, 100])
def test_a_late_answer_is_brought_forward_for_ten_seconds_at_any_rate(rate_hz: int) -> None:
    motion = MotionPrediction(LocalizerConfig())
    period_ns, count = 10**9 // rate_hz, 11 * rate_hz
    for i in range(1, count + 1):
        moved = RelativePose((i - 1) * period_ns, i * period_ns, SE3.identity(), np.eye(6) * 1e-9, "vo")
        motion.travel(Motions((moved,)))
    for ago_s, known in ((9.0, True), (10.9, False)):
        late = replace(estimate(0), stamp_ns=count * period_ns - round(ago_s * 1e9))
        assert (motion.bring_forward(late, count * period_ns) is not None) is known


def test_an_answer_from_before_the_known_motions_cannot_be_brought_forward() -> None:
    motion = drive(6)
    assert motion.bring_forward(PoseEstimate(17, START, SHARP, "x"), 5 * PERIOD_NS) is None
    motion.forget_pose()
    assert motion.bring_forward(estimate(2), 5 * PERIOD_NS) is None
    assert motion.bring_forward(estimate(5), 5 * PERIOD_NS) is not None


def test_time_and_odometry_survive_a_forgotten_pose_and_not_a_reset() -> None:
    motion = drive(3)
    motion.forget_pose()
    assert motion.last_ns == 2 * PERIOD_NS and motion.predict(motion.expected(frame(3))) is None
    motion.reset()
    assert motion.last_ns is None
