"""The pose graph: what it converges to, what it survives, and that it forgets."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest

from localizer_ros.core.config.runtime import SmootherConfig
from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import ConfigError, PoseEstimate, RelativePose
from localizer_ros.smoothing import open_smoother
from localizer_ros.smoothing.gtsam_smoother import GtsamSmoother
from localizer_ros.smoothing.smoother import PassThroughSmoother

PERIOD_NS = 33_333_333
STEP = SE3.exp([0.01, 0.002, -0.005, 0.01, 0.0, 0.03])


def drive(count: int) -> list[SE3]:
    poses = [SE3.exp([0.3, -0.2, 0.5, 4.0, -2.0, 1.0])]
    for _ in range(count - 1):
        poses.append(poses[-1] @ STEP)
    return poses


def diagonal(rotation: float, translation: float) -> np.ndarray:
    return np.diag(np.repeat([rotation**2, translation**2], 3))


def absolute(index: int, T: SE3, sigma: float = 0.1) -> PoseEstimate:
    return PoseEstimate(index * PERIOD_NS, T, diagonal(sigma, sigma), "test")


def relative(index: int, T_prev_cur: SE3, sigma: float = 0.002) -> RelativePose:
    return RelativePose(
        (index - 1) * PERIOD_NS, index * PERIOD_NS, T_prev_cur, diagonal(sigma, sigma), "test"
    )


def run(smoother: GtsamSmoother, truth: list[SE3], rng: np.random.Generator) -> list[PoseEstimate]:
    answers = []
    for index, T in enumerate(truth):
        if index:
            smoother.add_relative(relative(index, STEP @ SE3.exp(rng.normal(0.0, 0.002, 6))))
        smoother.add_absolute(absolute(index, T @ SE3.exp(rng.normal(0.0, 0.1, 6))))
        answer = smoother.estimate()
        assert answer is not None and answer.stamp_ns == index * PERIOD_NS
        answers.append(answer)
    return answers


def test_fusing_beats_the_absolute_poses_and_the_covariance_says_by_how_much(
    rng: np.random.Generator,
) -> None:
    config = SmootherConfig(correlation_s=0.0, robust_kernel="none")
    truth = drive(150)
    answers = run(GtsamSmoother(config), truth, rng)
    errors = np.array([(a.T_map_cam.inverse() @ T).log() for a, T in zip(answers, truth, strict=True)])
    late = errors[60:]
    # 0.1 per axis and absolute pose; 60 and more of them joined by motions of 0.002 leave about a sixth.
    assert np.sqrt(np.mean(late**2)) < 0.03
    nees = [e @ np.linalg.solve(a.covariance, e) for e, a in zip(late, answers[60:], strict=True)]
    assert (
        1.0 < np.mean(nees) < 15.0
    )  # 6 expected; errors of successive frames are one error, so the mean is rough


def test_repeated_absolute_errors_are_not_counted_as_independent(rng: np.random.Generator) -> None:
    def sigma(correlation_s: float) -> float:
        smoother = GtsamSmoother(SmootherConfig(correlation_s=correlation_s, robust_kernel="none"))
        return float(np.trace(run(smoother, drive(40), np.random.default_rng(0))[-1].covariance))

    assert sigma(1.0) > 3.0 * sigma(0.0)


def test_poses_weigh_by_their_own_spacing_not_by_that_of_frames() -> None:
    def sigma(frames: int, every: int, correlation_s: float) -> float:
        config = SmootherConfig(correlation_s=correlation_s, robust_kernel="none")
        smoother = GtsamSmoother(config)
        for index, T in enumerate(drive(frames)):
            if index:
                smoother.add_relative(replace(relative(index, STEP, 1e-4), correlation_s=0.0))
            if index % every == 0:
                smoother.add_absolute(absolute(index, T))
            answer = smoother.estimate()
            assert answer is not None
        return float(np.sqrt(answer.covariance[3, 3]))

    # One pose a second, each new: as many measurements as poses, however many frames lie between them.
    assert sigma(61, 30, 1.0) == pytest.approx(sigma(61, 30, 0.0), rel=0.01)
    # Thirty a second are one: twice as many of them tell nothing new.
    assert sigma(61, 1, 1.0) == pytest.approx(sigma(61, 2, 1.0), rel=0.05)


def test_what_measures_says_how_long_its_errors_last() -> None:
    def fused(poses_s: float | None, motions_s: float | None) -> PoseEstimate:
        noise = np.random.default_rng(0)
        smoother = GtsamSmoother(SmootherConfig(correlation_s=1.0, robust_kernel="none"))
        for index, T in enumerate(drive(40)):
            if index:
                motion = STEP @ SE3.exp(noise.normal(0.0, 0.02, 6))
                smoother.add_relative(replace(relative(index, motion, 0.02), correlation_s=motions_s))
            pose = absolute(index, T @ SE3.exp(noise.normal(0.0, 0.1, 6)))
            smoother.add_absolute(replace(pose, correlation_s=poses_s))
            answer = smoother.estimate()
        assert answer is not None and answer.covariance is not None
        return answer

    def sigma(answer: PoseEstimate) -> float:
        assert answer.covariance is not None
        return float(np.sqrt(np.trace(answer.covariance)))

    unknown, both = fused(None, None), fused(0.25, 0.25)
    assert sigma(unknown) == pytest.approx(sigma(fused(1.0, 1.0)))
    # A quarter of the time for both: the same answer, twice as certain.
    assert both.T_map_cam.distance_to(unknown.T_map_cam) < 0.01
    assert sigma(both) == pytest.approx(0.5 * sigma(unknown), rel=0.1)
    assert sigma(fused(0.25, None)) < 0.8 * sigma(unknown)
    assert sigma(fused(None, 0.25)) < 0.8 * sigma(unknown)


def test_an_outlier_hardly_moves_the_estimate() -> None:
    truth = drive(40)
    smoother = GtsamSmoother(SmootherConfig(correlation_s=0.0))
    for index, T in enumerate(truth):
        if index:
            smoother.add_relative(relative(index, STEP))
        outlier = index == 30
        smoother.add_absolute(absolute(index, SE3.exp([0, 0, 0, 5.0, 0, 0]) @ T if outlier else T))
        answer = smoother.estimate()
    assert answer is not None
    assert answer.T_map_cam.distance_to(truth[-1]) < 0.1


def test_a_late_absolute_pose_lands_on_its_own_frame() -> None:
    truth = drive(40)
    smoother = GtsamSmoother(SmootherConfig())
    biased = SE3.exp([0, 0, 0, 0.5, 0, 0])
    smoother.add_absolute(absolute(0, biased @ truth[0], sigma=0.5))
    for index in range(1, 40):
        smoother.add_relative(relative(index, STEP))
        smoother.estimate()
    assert smoother.add_absolute(absolute(20, truth[20], sigma=0.001))
    answer = smoother.estimate()
    assert answer is not None
    # Its stamp is the newest frame's, its place what frame 20 implies for frame 39.
    assert answer.stamp_ns == 39 * PERIOD_NS
    assert answer.T_map_cam.distance_to(truth[39]) < 0.05


def test_a_pose_older_than_the_lag_is_refused() -> None:
    smoother = GtsamSmoother(SmootherConfig(lag_s=0.5))
    run(smoother, drive(60), np.random.default_rng(0))
    assert not smoother.add_absolute(absolute(5, SE3.identity()))
    assert smoother.estimate() is not None


def test_motion_from_an_unknown_frame_is_an_error() -> None:
    smoother = GtsamSmoother(SmootherConfig())
    smoother.add_absolute(absolute(0, SE3.identity()))
    with pytest.raises(ValueError, match="no frame"):
        smoother.add_relative(relative(3, STEP))


def test_two_motions_of_one_interval_are_both_used() -> None:
    smoother = GtsamSmoother(SmootherConfig())
    smoother.add_absolute(absolute(0, SE3.identity(), sigma=1e-3))
    smoother.add_relative(relative(1, SE3.exp([0, 0, 0, 0.1, 0, 0])))
    smoother.add_relative(relative(1, SE3.exp([0, 0, 0, 0.3, 0, 0])))
    answer = smoother.estimate()
    assert answer is not None
    assert answer.T_map_cam.t[0] == pytest.approx(0.2, abs=1e-3)


@pytest.mark.parametrize("bad", [np.full((6, 6), np.nan), np.zeros((6, 6)), np.diag([1e30] * 6)])
def test_a_broken_covariance_never_raises_and_never_gives_nan(bad: np.ndarray) -> None:
    truth = drive(20)
    smoother = GtsamSmoother(SmootherConfig())
    for index, T in enumerate(truth):
        if index:
            smoother.add_relative(relative(index, STEP))
        covariance = bad if index == 10 else diagonal(0.1, 0.1)
        try:
            smoother.add_absolute(PoseEstimate(index * PERIOD_NS, T, covariance, "test"))
        except (ValueError, np.linalg.LinAlgError) as error:
            pytest.fail(f"raised {error}")
        answer = smoother.estimate()
        assert answer is not None and np.all(np.isfinite(answer.T_map_cam.matrix()))
        assert np.all(np.isfinite(answer.covariance))


def test_a_graph_starts_from_any_covariance(rng: np.random.Generator) -> None:
    for _ in range(30):
        axes, _ = np.linalg.qr(rng.normal(size=(6, 6)))
        S = axes @ np.diag(10.0 ** rng.uniform(-8.0, 4.0, 6)) @ axes.T
        smoother = GtsamSmoother(SmootherConfig())
        T = SE3.exp(rng.normal(size=6))
        assert smoother.add_absolute(PoseEstimate(0, T, 0.5 * (S + S.T), "test"))
        answer = smoother.estimate()
        assert answer is not None and answer.T_map_cam.distance_to(T) < 1e-6
        assert smoother.rebuilds == 0


def test_after_a_failed_start_the_next_pose_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing:
        def __getattr__(self, name: str) -> object:
            raise RuntimeError("IndeterminantLinearSystemException")

    smoother = GtsamSmoother(SmootherConfig())
    smoother.add_absolute(absolute(0, SE3.identity()))
    monkeypatch.setattr(smoother, "_smoother", Failing())
    assert smoother.estimate() is None
    smoother.add_relative(relative(1, STEP))
    assert smoother.add_absolute(absolute(1, STEP))
    answer = smoother.estimate()
    assert answer is not None and answer.T_map_cam.distance_to(STEP) < 1e-6


def test_a_numerical_failure_rebuilds_from_the_last_estimate(monkeypatch: pytest.MonkeyPatch) -> None:
    truth = drive(20)
    smoother = GtsamSmoother(SmootherConfig())
    for index, T in enumerate(truth):
        if index:
            smoother.add_relative(relative(index, STEP))
        if index == 10:
            # What gtsam does on an indeterminate system.
            class Failing:
                def __getattr__(self, name: str) -> object:
                    raise RuntimeError("IndeterminantLinearSystemException")

            monkeypatch.setattr(smoother, "_smoother", Failing())
        smoother.add_absolute(absolute(index, T))
        answer = smoother.estimate()
        assert answer is not None, f"no answer at frame {index}"
        assert answer.T_map_cam.distance_to(T) < 0.05
    assert smoother.rebuilds == 1


def test_the_window_stays_bounded() -> None:
    smoother = GtsamSmoother(SmootherConfig(lag_s=1.0))
    run(smoother, drive(300), np.random.default_rng(0))
    assert len(smoother._keys) <= 32
    assert len(smoother._smoother.timestamps()) <= 32
    assert smoother._smoother.getFactors().size() < 200


def test_reset_forgets() -> None:
    smoother = open_smoother(SmootherConfig())
    smoother.add_absolute(absolute(0, STEP))
    assert smoother.estimate() is not None
    smoother.reset()
    assert smoother.estimate() is None


def test_pass_through_refuses_what_is_not_finite() -> None:
    smoother = PassThroughSmoother()
    broken = replace(absolute(0, SE3.identity()), covariance=np.full((6, 6), np.nan))
    assert not smoother.add_absolute(broken)
    assert smoother.estimate() is None


def test_pass_through_answers_only_with_this_frames_own_pose() -> None:
    smoother = open_smoother(SmootherConfig(kind="none"))
    assert isinstance(smoother, PassThroughSmoother)
    assert smoother.estimate() is None
    smoother.add_absolute(absolute(0, STEP))
    answer = smoother.estimate()
    assert answer is not None and answer.T_map_cam is STEP
    smoother.add_relative(relative(1, STEP))
    assert smoother.estimate() is None
    assert not smoother.add_absolute(absolute(0, STEP))


def test_a_gtsam_that_cannot_be_imported_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gtsam", None)
    monkeypatch.delitem(sys.modules, "localizer_ros.smoothing.gtsam_smoother")
    with pytest.raises(ConfigError, match=r"gtsam cannot be imported.*set smoother\.kind to none"):
        open_smoother(SmootherConfig())


def test_an_error_that_all_poses_share_is_published_and_weighs_nothing(rng: np.random.Generator) -> None:
    truth, common = drive(60), np.diag([0.0, 0.0, 0.0, 0.0, 0.0, 0.3**2])
    errors = {True: 0.0, False: 0.0}
    for told in (False, True):
        smoother = GtsamSmoother(SmootherConfig(correlation_s=0.0, robust_kernel="none"))
        for index, T in enumerate(truth):
            if index:
                # Motions are all a little long.
                smoother.add_relative(relative(index, STEP @ SE3.exp([0.0, 0.0, 0.0, 0.0, 0.0, 0.004])))
            pose = absolute(index, T @ SE3.exp(rng.normal(0.0, 0.01, 6)), 0.01)
            assert pose.covariance is not None
            pose = replace(pose, covariance=pose.covariance + common, common=common if told else None)
            smoother.add_absolute(pose)
            answer = smoother.estimate()
            assert answer is not None and answer.covariance is not None
        errors[told] = answer.T_map_cam.distance_to(truth[-1])
        if told:
            assert answer.covariance[5, 5] > 0.3**2
    assert errors[True] < 0.5 * errors[False]
