"""The whole algorithm with a scripted front end: gates, status, time, late answers, odometry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from msgspec.structs import replace as replace_settings

from localizer_ros.core.config.runtime import (
    GateConfig,
    LocalizerConfig,
    OdometryConfig,
    SmootherConfig,
    StatusConfig,
)
from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import (
    Camera,
    Frame,
    FrameRejected,
    LocalizerOutput,
    PoseEstimate,
    RelativePose,
    Status,
)
from localizer_ros.localization.front_end import TRACKING, Observation
from localizer_ros.localization.gate import AnswerOutcome
from localizer_ros.localization.localizer import Localizer
from localizer_ros.smoothing import open_smoother

CAMERA = Camera.pinhole(8, 6, 5.0, 5.0, 3.5, 2.5)
PERIOD_NS = 33_333_333
STEP = SE3.exp([0.0, 0.01, 0.0, 0.0, 0.0, 0.03])
SHARP = np.diag(np.repeat([0.01**2, 0.02**2], 3))


class Scripted:
    """Answers what the test's function says for each stamp; records what it was given."""

    def __init__(self, answer: Callable[[int], Observation]) -> None:
        self.answer = answer
        self.priors: list[PoseEstimate | None] = []
        self.resets = self.losses = 0

    def observe(self, frame: Frame, prior: PoseEstimate | None) -> Observation:
        self.priors.append(prior)
        return self.answer(frame.stamp_ns)

    def reset(self) -> None:
        self.resets += 1

    def lost(self) -> None:
        self.losses += 1

    def close(self) -> None:
        pass


def truth(index: int) -> SE3:
    T = SE3.exp([0.2, 0.1, 0.0, 1.0, 2.0, 3.0])
    for _ in range(index):
        T = T @ STEP
    return T


def at(index: int, T: SE3 | None = None) -> PoseEstimate:
    return PoseEstimate(index * PERIOD_NS, truth(index) if T is None else T, SHARP, "test")


def motion(index: int) -> RelativePose:
    return RelativePose((index - 1) * PERIOD_NS, index * PERIOD_NS, STEP, np.eye(6) * 1e-6, "vo")


def frame(index: int, T_base_cam: SE3 | None = None) -> Frame:
    return Frame(index * PERIOD_NS, np.zeros((6, 8), np.uint8), CAMERA, T_base_cam=T_base_cam)


def make(
    answer: Callable[[int], Observation], config: LocalizerConfig | None = None
) -> tuple[Localizer, Scripted]:
    config = config or LocalizerConfig()
    front_end = Scripted(answer)
    return Localizer(front_end, open_smoother(config.smoother), config), front_end


def run(localizer: Localizer, indices: range) -> list[LocalizerOutput]:
    return [localizer.process(frame(i)) for i in indices]


def test_every_estimate_has_the_stamp_of_its_frame() -> None:
    localizer, _ = make(lambda ns: Observation(absolute=at(round(ns / PERIOD_NS))))
    outputs = run(localizer, range(1, 60))
    assert {o.status for o in outputs} == {Status.TRACKING}
    for index, output in enumerate(outputs, start=1):
        assert output.estimate is not None
        assert output.stamp_ns == output.estimate.stamp_ns == index * PERIOD_NS
    assert outputs[-1].estimate.T_map_cam.distance_to(truth(59)) < 0.05
    assert list(outputs[-1].timings_ms)[-1] == "total"


def test_nothing_is_published_before_the_first_absolute_pose() -> None:
    localizer, _ = make(lambda ns: Observation(reason="no neighbours"))
    outputs = run(localizer, range(1, 10))
    assert all(o.status is Status.INITIALIZING and o.estimate is None for o in outputs)
    assert "no neighbours" in outputs[0].reason


def test_without_absolute_poses_the_covariance_grows_and_the_status_falls_until_they_come_back() -> None:
    def answer(ns: int) -> Observation:
        index = round(ns / PERIOD_NS)
        seen = index <= 30 or index > 130
        return Observation(
            absolute=at(index) if seen else None, relative=motion(index) if index > 1 else None
        )

    localizer, _ = make(answer)
    outputs = run(localizer, range(1, 160))
    statuses = [o.status for o in outputs]
    assert statuses[:30] == [Status.TRACKING] * 30
    assert Status.DEGRADED in statuses[30:100]
    blind = [np.trace(o.estimate.covariance) for o in outputs[30:80] if o.estimate is not None]
    assert np.all(np.diff(blind) > 0.0)
    lost = outputs[120]
    assert lost.status is Status.LOST and lost.estimate is None and "believable" in lost.reason
    assert outputs[-1].status is Status.TRACKING
    assert outputs[-1].estimate.T_map_cam.distance_to(truth(159)) < 0.05


def test_limits_change_from_one_frame_to_the_next() -> None:
    config = LocalizerConfig()
    localizer, _ = make(lambda ns: Observation(absolute=at(round(ns / PERIOD_NS))), config)
    assert run(localizer, range(1, 5))[-1].status is Status.TRACKING
    localizer.reconfigure(replace_settings(config, status=StatusConfig(degraded_sigma_m=0.001)))
    (output,) = run(localizer, range(5, 6))
    assert output.status is Status.DEGRADED and "position known to" in output.reason
    localizer.reconfigure(config)
    assert run(localizer, range(6, 7))[0].status is Status.TRACKING


def test_the_front_end_is_told_once_that_its_poses_were_lost() -> None:
    """It tracks its own error on; the gate rejects that, and it must not be the pose it comes back with."""
    front_end: Scripted

    def answer(ns: int) -> Observation:
        index = round(ns / PERIOD_NS)
        drift = 0.15 * max(0, index - 30) if front_end.losses == 0 else 0.0
        T = SE3.exp([0, 0, 0, drift * (-1) ** index, 0, 0]) @ truth(index)
        return Observation(absolute=at(index, T), relative=motion(index) if index > 1 else None)

    localizer, front_end = make(answer)
    outputs = run(localizer, range(1, 130))
    lost = [i for i, o in enumerate(outputs) if o.status is Status.LOST]
    assert lost and front_end.losses == 1 and front_end.resets == 0
    assert outputs[lost[-1] + 1].status is Status.TRACKING
    errors = [o.estimate.T_map_cam.distance_to(truth(i)) for i, o in enumerate(outputs, 1) if o.estimate]
    assert max(errors) < 0.3


def test_an_absolute_pose_far_from_the_prediction_is_rejected_with_a_reason() -> None:
    far = SE3.exp([0, 0, 0, 3.0, 0, 0])

    def answer(ns: int) -> Observation:
        index = round(ns / PERIOD_NS)
        T = far @ truth(index) if index == 40 else truth(index)
        return Observation(absolute=at(index, T), relative=motion(index) if index > 1 else None)

    localizer, _ = make(answer)
    outputs = run(localizer, range(1, 60))
    assert "rejected" in outputs[39].reason
    assert outputs[39].absolute is not None  # what was rejected is still shown
    assert outputs[39].estimate.T_map_cam.distance_to(truth(40)) < 0.05


def test_rejected_poses_that_agree_relocalize() -> None:
    far = SE3.exp([0, 0, 0, 3.0, 0, 0])

    def answer(ns: int) -> Observation:
        index = round(ns / PERIOD_NS)
        T = far @ truth(index) if index >= 40 else truth(index)
        return Observation(absolute=at(index, T), relative=motion(index) if index > 1 else None)

    config = LocalizerConfig(gate=GateConfig(agreeing_rejections=10))
    localizer, _ = make(answer, config)
    outputs = run(localizer, range(1, 70))
    moved = [i for i, o in enumerate(outputs) if AnswerOutcome.RELOCALIZED.value in o.reason]
    assert moved == [48] and outputs[48].reset
    assert outputs[-1].estimate.T_map_cam.distance_to(far @ truth(69)) < 0.05


def test_an_image_of_another_place_is_doubt_until_a_pose_is_accepted() -> None:
    def answer(ns: int) -> Observation:
        index = round(ns / PERIOD_NS)
        moved = motion(index) if index > 1 else None
        if index in (40, 41, 42):
            return Observation(relative=moved, elsewhere=index == 40)
        return Observation(absolute=at(index), relative=moved)

    localizer, front_end = make(answer)
    outputs = run(localizer, range(1, 45))
    assert {o.status for o in outputs[:39]} == {o.status for o in outputs[42:]} == {Status.TRACKING}
    assert [o.status for o in outputs[39:42]] == [Status.DEGRADED] * 3
    # What is contradicted predicts nothing for the search.
    assert [prior is None for prior in front_end.priors[38:44]] == [False, False, True, True, True, False]


@pytest.mark.parametrize(("confidence", "status"), [(0.9995, Status.DEGRADED), (0.5, Status.TRACKING)])
def test_a_contradiction_by_a_sure_pose_degrades_at_once(confidence: float, status: Status) -> None:
    far = SE3.exp([0, 0, 0, 3.0, 0, 0])

    def answer(ns: int) -> Observation:
        index = round(ns / PERIOD_NS)
        pose = replace(at(index, far @ truth(index)), confidence=confidence) if index == 40 else at(index)
        return Observation(absolute=pose, relative=motion(index) if index > 1 else None)

    localizer, _ = make(answer)
    outputs = run(localizer, range(1, 42))
    assert [o.status for o in outputs[-2:]] == [status, Status.TRACKING]
    assert outputs[-2].reason != "" and outputs[-1].reason == ""


@pytest.mark.parametrize("confidence", [0.9995, 0.5, None])
def test_what_is_published_covers_an_answer_that_contradicts_it_as_far_as_that_is_sure(
    confidence: float | None,
) -> None:
    far = SE3.exp([0, 0, 0, 3.0, 0, 0])

    def answer(ns: int) -> Observation:
        index = round(ns / PERIOD_NS)
        pose = replace(at(index, far @ truth(index)), confidence=confidence) if index == 40 else at(index)
        return Observation(absolute=pose, relative=motion(index) if index > 1 else None)

    localizer, _ = make(answer)
    before, contradicted, after = (output.estimate for output in run(localizer, range(1, 42))[-3:])
    residual = (contradicted.T_map_cam.inverse() @ far @ truth(40)).log()
    widened = contradicted.covariance - before.covariance
    expected = (confidence or 0.0) * np.outer(residual, residual)
    np.testing.assert_allclose(widened, expected, atol=1e-3)
    if confidence is not None:
        along = residual / np.linalg.norm(residual)
        sigma = np.sqrt(along @ contradicted.covariance @ along)
        assert 3.0 * sigma > np.linalg.norm(residual)
    # It is a doubt of this frame, and no part of what is known of the next.
    np.testing.assert_allclose(after.covariance, before.covariance, atol=1e-3)
    assert after.T_map_cam.distance_to(truth(41)) < 0.05


@pytest.mark.parametrize("confidence", [0.9995, None])
def test_a_velocity_that_nobody_measured_makes_no_answer_wrong(
    confidence: float | None, rng: np.random.Generator
) -> None:
    # Stills of a place, stamped as if by a camera at 30 Hz: some metres and half a turn from one to the next.
    poses = [SE3.exp([*rng.uniform(-1.5, 1.5, 3), *rng.uniform(-5.0, 5.0, 3)]) for _ in range(20)]

    def answer(ns: int) -> Observation:
        index = round(ns / PERIOD_NS)
        return Observation(absolute=replace(at(index, poses[index]), confidence=confidence))

    localizer, front_end = make(answer)
    for index, output in enumerate(run(localizer, range(20))):
        assert output.status is Status.TRACKING and output.reason == ""
        assert output.estimate is not None
        assert output.estimate.T_map_cam.distance_to(poses[index]) < 0.02
        assert np.degrees(output.estimate.T_map_cam.angle_to(poses[index])) < 1.0
    assert front_end.losses == 0


def test_poses_with_a_covariance_that_is_not_finite_never_relocalize() -> None:
    def answer(ns: int) -> Observation:
        index = round(ns / PERIOD_NS)
        absolute = at(index) if index < 40 else replace(at(index), covariance=np.full((6, 6), np.nan))
        return Observation(absolute=absolute, relative=motion(index) if index > 1 else None)

    localizer, _ = make(answer, LocalizerConfig(gate=GateConfig(agreeing_rejections=5)))
    outputs = run(localizer, range(1, 60))
    assert not any(o.reset or o.estimate is None for o in outputs)
    assert outputs[-1].status is Status.DEGRADED
    assert outputs[-1].estimate.T_map_cam.distance_to(truth(59)) < 0.05


def unsure(index: int, T: SE3 | None = None) -> PoseEstimate:
    return replace(at(index, T), confidence=0.7)


def test_a_start_of_low_confidence_needs_three_poses_that_agree(rng: np.random.Generator) -> None:
    wild = {i: SE3.exp([0, 0, 0, *rng.uniform(-5, 5, 3)]) for i in range(1, 10)}

    def answer(ns: int) -> Observation:
        index = round(ns / PERIOD_NS)
        T = wild[index] @ truth(index) if index in wild else truth(index)
        return Observation(absolute=unsure(index, T), relative=motion(index) if index > 1 else None)

    localizer, _ = make(answer)
    outputs = run(localizer, range(1, 40))
    # The ninth wild one agrees with none; 10, 11 and 12 agree with each other.
    assert all(o.estimate is None and o.status is Status.INITIALIZING for o in outputs[:11])
    assert all(AnswerOutcome.UNCONFIRMED.value in o.reason for o in outputs[:11])
    for index, output in enumerate(outputs[11:], start=12):
        assert output.status is Status.TRACKING and not output.reset
        assert output.estimate.T_map_cam.distance_to(truth(index)) < 0.05


@pytest.mark.parametrize("confidence", [None, 0.9995])
def test_a_start_of_high_or_unknown_confidence_needs_one_pose(confidence: float | None) -> None:
    localizer, _ = make(
        lambda ns: Observation(absolute=replace(at(round(ns / PERIOD_NS)), confidence=confidence))
    )
    assert run(localizer, range(1, 2))[0].status is Status.TRACKING


def test_rejected_poses_that_disagree_never_relocalize(rng: np.random.Generator) -> None:
    def answer(ns: int) -> Observation:
        index = round(ns / PERIOD_NS)
        wild = SE3.exp([0, 0, 0, *rng.uniform(-5, 5, 3)])
        T = wild @ truth(index) if index >= 40 else truth(index)
        return Observation(absolute=at(index, T), relative=motion(index) if index > 1 else None)

    localizer, _ = make(answer)
    outputs = run(localizer, range(1, 90))
    assert not any(o.reset for o in outputs)
    # With nothing believable for half a second it says so.
    assert outputs[-1].status is Status.DEGRADED
    assert outputs[-1].estimate.T_map_cam.distance_to(truth(89)) < 0.1


def test_frames_whose_stamps_repeat_or_step_back_are_rejected_and_change_nothing() -> None:
    localizer, front_end = make(lambda ns: Observation(absolute=at(round(ns / PERIOD_NS))))
    run(localizer, range(1, 20))
    seen = len(front_end.priors)
    for stamp, kind in ((19 * PERIOD_NS, "stamp_repeats"), (18 * PERIOD_NS, "stamp_goes_back")):
        with pytest.raises(FrameRejected) as caught:
            localizer.process(Frame(stamp, np.zeros((6, 8), np.uint8), CAMERA))
        assert caught.value.kind == kind
    assert len(front_end.priors) == seen
    assert localizer.process(frame(20)).status is Status.TRACKING


def test_a_jump_back_in_time_starts_over() -> None:
    localizer, front_end = make(lambda ns: Observation(absolute=at(round(ns / PERIOD_NS))))
    run(localizer, range(1, 100))
    output = localizer.process(frame(1))
    assert output.reset and "time jumped back" in output.reason
    assert output.estimate.T_map_cam.distance_to(truth(1)) < 0.05
    assert front_end.resets == 1


def test_a_long_time_without_frames_starts_over() -> None:
    localizer, front_end = make(lambda ns: Observation(absolute=at(round(ns / PERIOD_NS))))
    run(localizer, range(1, 20))
    output = localizer.process(frame(400))
    assert front_end.resets == 1 and front_end.priors[-1] is None
    assert output.status is Status.TRACKING
    assert output.reset and "no frame for 12.7 s: started over" in output.reason
    after = localizer.process(frame(401))
    assert not after.reset and not after.reason


@pytest.mark.parametrize(("jump_to", "said"), [(1, "time jumped back"), (400, "no frame for")])
def test_a_start_over_at_a_rejected_frame_is_reported_with_the_next_frame(jump_to: int, said: str) -> None:
    rejecting: list[int] = []

    def answer(ns: int) -> Observation:
        if round(ns / PERIOD_NS) in rejecting:
            raise FrameRejected("image_size", "another camera")
        return Observation(absolute=at(round(ns / PERIOD_NS)))

    localizer, _ = make(answer)
    run(localizer, range(30, 50))
    rejecting.append(jump_to)
    with pytest.raises(FrameRejected, match="another camera"):
        localizer.process(frame(jump_to))
    output = localizer.process(frame(jump_to + 1))
    assert output.reset and said in output.reason
    assert not localizer.process(frame(jump_to + 2)).reset
    # What somebody resets has nothing left to say.
    rejecting.append(jump_to + 300)
    with pytest.raises(FrameRejected, match="another camera"):
        localizer.process(frame(jump_to + 300))
    localizer.reset()
    assert not localizer.process(frame(jump_to + 301)).reset


def test_late_answers_are_fused_at_their_own_frame() -> None:
    def answer(ns: int) -> Observation:
        index = round(ns / PERIOD_NS)
        late = (at(index - 6),) if index % 10 == 0 else ()
        return Observation(late=late, relative=motion(index) if index > 1 else None)

    localizer, _ = make(answer)
    outputs = run(localizer, range(1, 100))
    assert outputs[8].estimate is None
    for index in (10, 50, 99):
        answer_ = outputs[index - 1].estimate
        assert answer_ is not None and answer_.T_map_cam.distance_to(truth(index)) < 0.05


def test_the_front_end_is_given_the_predicted_pose() -> None:
    def answer(ns: int) -> Observation:
        index = round(ns / PERIOD_NS)
        return Observation(absolute=at(index), relative=motion(index) if index > 1 else None)

    localizer, front_end = make(answer)
    run(localizer, range(1, 30))
    assert front_end.priors[0] is None
    prior = front_end.priors[-1]
    assert prior is not None and prior.stamp_ns == 29 * PERIOD_NS
    assert prior.T_map_cam.distance_to(truth(29)) < 0.02


def test_external_odometry_bridges_frames_without_poses() -> None:
    T_base_cam = SE3.exp([0.1, -0.4, 0.2, 0.3, 0.0, 0.5])
    start = SE3.exp([0, 0, 1.0, 7.0, 8.0, 0.0])  # odom is not map

    def T_odom_base(index: int) -> SE3:
        return start @ T_base_cam @ truth(0).inverse() @ truth(index) @ T_base_cam.inverse()

    localizer, _ = make(
        lambda ns: Observation(absolute=at(round(ns / PERIOD_NS)) if ns <= 30 * PERIOD_NS else None),
        LocalizerConfig(odometry=OdometryConfig()),
    )
    for index in range(1, 60):
        localizer.add_odometry(index * PERIOD_NS, T_odom_base(index))
        output = localizer.process(frame(index, T_base_cam))
    assert output.relative is not None and output.relative.source == "odom"
    assert output.estimate is not None
    assert output.estimate.T_map_cam.distance_to(truth(59)) < 0.05


@pytest.mark.parametrize(
    ("source", "sigma_m", "expected"),
    [
        ("tracking", 0.01, Status.LOST),
        ("visual_odometry", 0.01, Status.DEGRADED),
        ("visual_odometry", 1.0, Status.LOST),
    ],
)
def test_visual_odometry_carries_the_pose_until_it_is_too_uncertain(
    source: str, sigma_m: float, expected: Status
) -> None:
    covariance = np.diag([1e-6] * 3 + [sigma_m**2] * 3)

    def answer(ns: int) -> Observation:
        index = round(ns / PERIOD_NS)
        moved = replace(motion(index), source=source, covariance=covariance) if index else None
        return Observation(at(index) if index < 5 else None, relative=moved)

    localizer, _ = make(answer)
    last = run(localizer, range(150))[-1]
    assert last.status is expected
    assert (last.estimate is None) == (expected is Status.LOST)


def test_odometry_carries_the_pose_for_a_minute_and_says_how_well() -> None:
    T_base_cam = SE3.exp([0.1, -0.4, 0.2, 0.3, 0.0, 0.5])
    step = SE3.exp([0.0, 0.01, 0.0, 0.03, 0.0, 0.0])
    drifting = step @ SE3.exp([0.0, 0.0002, 0.0, 0.0006, 0.0, 0.0])  # by 2 %
    T, T_odom = SE3.identity(), SE3.exp([0, 0, 1.0, 7.0, 8.0, 0.0])

    def answer(ns: int) -> Observation:
        seen = ns < 30 * PERIOD_NS
        return Observation(absolute=at(round(ns / PERIOD_NS), T @ T_base_cam) if seen else None)

    localizer, _ = make(answer)
    for index in range(1830):
        localizer.add_odometry(index * PERIOD_NS, T_odom)
        output = localizer.process(frame(index, T_base_cam))
        assert output.estimate is not None and output.estimate.covariance is not None, output.reason
        error = (output.estimate.T_map_cam.inverse() @ T @ T_base_cam).log()
        assert np.all(np.abs(error) < 3.0 * np.sqrt(np.diag(output.estimate.covariance)))
        T, T_odom = T @ step, T_odom @ drifting
    assert output.status is Status.DEGRADED and "no believable absolute pose for 60" in output.reason


def test_a_given_pose_is_the_start_where_the_camera_says_nothing_for_a_while() -> None:
    localizer, front_end = make(lambda ns: Observation(reason="nothing seen"))
    localizer.set_prior(at(5))
    outputs = run(localizer, range(5, 24))
    start = next(o for o in outputs if o.estimate is not None)
    # It says where to look until the frame after the start; what nobody has measured since is a guess.
    first = outputs.index(start)
    assert [prior is not None for prior in front_end.priors] == [n <= first + 1 for n in range(len(outputs))]
    waited_s = (start.stamp_ns - 5 * PERIOD_NS) * 1e-9
    assert 0.0 <= waited_s - LocalizerConfig().status.degraded_after_s < 0.034
    assert start.estimate is not None and start.estimate.T_map_cam.distance_to(truth(5)) < 1e-6


@pytest.mark.parametrize("confidence", [None, 0.5], ids=["sure", "unsure"])
def test_a_given_pose_that_the_camera_confirms_starts_at_once(confidence: float | None) -> None:
    localizer, _ = make(lambda ns: Observation(replace(at(round(ns / PERIOD_NS)), confidence=confidence)))
    beside = at(1).T_map_cam @ SE3.exp([0.0, 0.05, 0.0, 0.1, 0.0, 0.0])
    localizer.set_prior(replace(at(1, beside), covariance=0.1 * np.eye(6)))
    for index, output in enumerate(run(localizer, range(1, 20)), 1):
        assert output.status is Status.TRACKING and output.estimate is not None
        assert output.estimate.T_map_cam.distance_to(truth(index)) < 0.05


@pytest.mark.parametrize("blind", [0, 5])
@pytest.mark.parametrize("confidence", [None, 0.5], ids=["sure", "unsure"])
def test_a_given_pose_that_is_wrong_costs_no_wrong_pose_while_the_camera_sees(
    confidence: float | None, blind: int
) -> None:
    localizer, _ = make(
        lambda ns: (
            Observation()
            if ns <= blind * PERIOD_NS
            else Observation(replace(at(round(ns / PERIOD_NS)), confidence=confidence))
        )
    )
    wrong = SE3.exp([0, 0, 0, 3.0, 0, 0]) @ truth(1)
    localizer.set_prior(replace(at(1, wrong), covariance=np.diag([0.07] * 3 + [0.25] * 3)))
    outputs = run(localizer, range(1, 20))
    assert AnswerOutcome.REFUTED.value in outputs[blind].reason
    poses = [(i, o.estimate) for i, o in enumerate(outputs, 1) if o.estimate is not None]
    assert len(poses) >= 12
    assert all(pose.T_map_cam.distance_to(truth(index)) < 0.05 for index, pose in poses)


def test_without_a_smoother_estimates_are_the_absolute_poses() -> None:
    config = LocalizerConfig(smoother=SmootherConfig(kind="none"))
    localizer, _ = make(lambda ns: Observation(absolute=at(round(ns / PERIOD_NS))), config)
    for output in run(localizer, range(1, 20)):
        assert output.estimate is not None and output.absolute is not None
        assert np.array_equal(output.estimate.T_map_cam.matrix(), output.absolute.T_map_cam.matrix())
        assert output.estimate.source == "test"


# --- frames that stand for themselves ---


@pytest.mark.parametrize("kind", ["gtsam", "none"])
def test_a_still_is_answered_by_itself_whatever_was_before(kind: str, rng: np.random.Generator) -> None:
    config = LocalizerConfig(independent=True, smoother=SmootherConfig(kind=kind))
    poses = [SE3.exp(rng.uniform(-3.0, 3.0, 6)) for _ in range(6)]
    # Stamps of stills mean nothing: they may repeat, jump and go back.
    order = [0, 1, 1, 400, 5, 0]
    confidences = [0.9995, 0.3, None, 0.6, 0.9995, 0.5]
    said = iter(zip(poses, confidences, strict=True))

    def answer(stamp_ns: int) -> Observation:
        T, confidence = next(said)
        return Observation(absolute=PoseEstimate(stamp_ns, T, SHARP, "test", confidence=confidence))

    localizer, front_end = make(answer, config)
    outputs = [localizer.process(frame(index)) for index in order]
    for output, T, confidence in zip(outputs, poses, confidences, strict=True):
        assert output.estimate is not None and output.relative is None
        np.testing.assert_allclose(output.estimate.T_map_cam.matrix(), T.matrix(), atol=1e-9)
        np.testing.assert_allclose(output.estimate.covariance, SHARP, rtol=1e-6, atol=1e-12)
        sure = confidence is None or confidence > 0.98
        assert output.status is (Status.TRACKING if sure else Status.DEGRADED)
        assert ("no other frame" in output.reason) is not sure
    # Nothing is known of a still beforehand.
    assert front_end.priors == [None] * 6


def test_a_still_without_an_answer_has_none(rng: np.random.Generator) -> None:
    localizer, _ = make(
        lambda stamp_ns: Observation(reason="nothing there"), LocalizerConfig(independent=True)
    )
    output = localizer.process(frame(0))
    assert output.estimate is None and "nothing there" in output.reason


def test_a_pose_that_somebody_gives_counts_for_the_next_still() -> None:
    localizer, front_end = make(lambda stamp_ns: Observation(), LocalizerConfig(independent=True))
    localizer.set_prior(at(7))
    localizer.process(frame(0))
    localizer.process(frame(1))
    assert front_end.priors[0] is not None and front_end.priors[1] is None


def followed(index: int, place: Callable[[int], SE3]) -> Observation:
    """A pose that the map verified, and the motion of the points that were followed."""
    sure = replace(at(index, place(index)), confidence=0.9999)
    T_prev_cur = place(index - 1).inverse() @ place(index)
    moved = RelativePose((index - 1) * PERIOD_NS, index * PERIOD_NS, T_prev_cur, 0.02 * SHARP, TRACKING)
    return Observation(absolute=sure, relative=moved if index > 1 else None)


def test_a_camera_that_moves_through_its_map_outvotes_odometry_that_stands_still() -> None:
    localizer, _ = make(lambda ns: followed(round(ns / PERIOD_NS), truth))
    outputs = []
    for index in range(1, 121):
        localizer.add_odometry(index * PERIOD_NS, truth(min(index, 60)))
        outputs.append(localizer.process(frame(index, SE3.identity())))
    assert {output.status for output in outputs[:60]} == {Status.TRACKING}
    named = next(o.stamp_ns for o in outputs if "odometry contradicts the images" in o.reason)
    assert named <= 70 * PERIOD_NS
    for index, output in enumerate(outputs, start=1):
        assert output.estimate is not None and output.estimate.T_map_cam.distance_to(truth(index)) < 0.15
        assert output.odometry_contradicted is (output.stamp_ns >= named)
    assert {output.status for output in outputs[69:]} == {Status.DEGRADED}
    assert outputs[-1].estimate.T_map_cam.distance_to(truth(120)) < 0.03


def test_images_that_stand_while_odometry_moves_are_no_sure_pose_and_are_right_again_at_once() -> None:
    """The driver repeats an image with new noise, so that no image is the same; or the wheels slip."""

    def seen(index: int) -> SE3:
        return truth(60 if 60 < index <= 240 else index)

    localizer, front_end = make(lambda ns: followed(round(ns / PERIOD_NS), seen))
    jumped = front_end.answer
    front_end.answer = lambda ns: replace(
        jumped(ns), relative=None if round(ns / PERIOD_NS) == 241 else jumped(ns).relative
    )
    outputs = []
    for index in range(1, 271):
        localizer.add_odometry(index * PERIOD_NS, truth(index))
        outputs.append(localizer.process(frame(index, SE3.identity())))
    for index, output in enumerate(outputs, start=1):
        if output.estimate is None or output.estimate.covariance is None:
            assert output.status is Status.LOST
            continue
        error = (output.estimate.T_map_cam.inverse() @ truth(index)).log()
        sigma = np.sqrt(np.linalg.eigvalsh(output.estimate.covariance[3:, 3:])[-1])
        assert np.linalg.norm(error[3:]) < max(0.3, 3.0 * sigma)
    assert {o.status for o in outputs[69:240]} == {Status.DEGRADED, Status.LOST}
    assert outputs[239].status is Status.LOST and "odometry contradicts the images" in outputs[239].reason
    assert outputs[-1].status is Status.TRACKING
    assert outputs[-1].estimate is not None and outputs[-1].estimate.T_map_cam.distance_to(truth(270)) < 0.03
