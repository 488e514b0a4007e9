"""Metrics: each number against a case whose answer is known beforehand."""

import numpy as np
import pytest

from localizer_ros.core.se3 import SE3
from localizer_ros.evaluation.metrics import (
    NEES_EXPECTED_MEDIAN,
    Answer,
    Motion,
    chained,
    compute_metrics,
    compute_odometry,
    motion_errors,
    nees,
    off_path_table,
    percentiles,
    view_change,
)

PERIOD_NS = 100_000_000


def turn(degrees: float) -> SE3:
    return SE3.exp([0.0, np.radians(degrees), 0.0, 0.0, 0.0, 0.0])


def truth(i: int) -> SE3:
    """Drives 0.1 m and turns 1 degree a frame."""
    return SE3(turn(float(i)).R, np.array([0.1 * i, 0.0, 0.0]))


def drive(errors: list[SE3 | None], sequence: str = "a", start: int = 0) -> list[Answer]:
    """One answer a frame: the truth moved by an error in the map frame; None is no answer."""
    return [
        Answer(
            sequence,
            (start + i) * PERIOD_NS,
            truth(i),
            None if error is None else SE3(truth(i).R @ error.R, truth(i).t + error.t),
        )
        for i, error in enumerate(errors)
    ]


def shift(metres: float) -> SE3:
    return SE3(np.eye(3), np.array([0.0, metres, 0.0]))


def test_a_perfect_run() -> None:
    m = compute_metrics(drive([SE3.identity()] * 30))
    assert (m.frames, m.frames_with_truth, m.answered) == (30, 30, 30)
    for value in (m.median_t_m, m.mean_t_m, m.p90_t_m, m.ate_rmse_m, m.rpe_t_m, m.jitter_t_m):
        assert value == pytest.approx(0.0, abs=1e-12)
    for value in (m.median_r_deg, m.mean_r_deg, m.p90_r_deg, m.rpe_r_deg, m.jitter_r_deg):
        assert value == pytest.approx(0.0, abs=1e-9)
    assert m.recall == {"5cm_5deg": 1.0, "10cm_5deg": 1.0, "25cm_2deg": 1.0, "50cm_5deg": 1.0}
    assert (m.jumps_per_min, m.wrong_fraction, m.nees_median) == (0.0, 0.0, None)


def test_a_constant_offset_is_an_error_but_no_motion() -> None:
    m = compute_metrics(drive([SE3(turn(3.0).R, np.array([0.2, 0.0, 0.0]))] * 30))
    assert m.median_t_m == pytest.approx(0.2)
    assert m.p90_t_m == pytest.approx(0.2)
    assert m.ate_rmse_m == pytest.approx(0.2)  # nothing is aligned away
    assert m.median_r_deg == pytest.approx(3.0)
    assert m.jitter_t_m == pytest.approx(0.0, abs=1e-12)
    assert m.jitter_r_deg == pytest.approx(0.0, abs=1e-6)
    assert m.jumps_per_min == 0.0
    assert m.recall["25cm_2deg"] == 0.0 and m.recall["50cm_5deg"] == 1.0


def test_unanswered_frames_fail_in_recalls_and_are_left_out_of_medians() -> None:
    m = compute_metrics(drive([shift(0.01), None, shift(0.03), None]))
    assert (m.frames, m.answered) == (4, 2)
    assert m.median_t_m == pytest.approx(0.02)
    assert m.mean_t_m == pytest.approx(0.02)
    assert m.recall["5cm_5deg"] == 0.5
    assert m.wrong_fraction == 0.0


def test_no_answers_at_all() -> None:
    m = compute_metrics(drive([None] * 5))
    assert (m.frames, m.answered, m.median_t_m, m.ate_rmse_m, m.jumps_per_min) == (5, 0, None, None, None)
    assert m.recall["50cm_5deg"] == 0.0
    assert compute_metrics([]).recall["50cm_5deg"] is None


def test_frames_without_truth_are_counted_but_not_judged() -> None:
    known = drive([shift(0.04)] * 4)
    unknown = [Answer("a", (10 + i) * PERIOD_NS, None, SE3.identity()) for i in range(6)]
    m = compute_metrics(known + unknown)
    assert (m.frames, m.frames_with_truth, m.answered) == (10, 4, 10)
    assert m.recall["5cm_5deg"] == 1.0
    nothing = compute_metrics(unknown)
    assert nothing.answered == 6
    assert nothing.median_t_m is None and nothing.recall == dict.fromkeys(m.recall)


def test_percentiles_and_wrong_answers() -> None:
    m = compute_metrics(drive([shift(0.1 * i) for i in range(11)]))
    assert m.median_t_m == pytest.approx(0.5)
    assert m.p90_t_m == pytest.approx(0.9)
    assert m.wrong_fraction == pytest.approx(5 / 11)
    assert compute_metrics(drive([turn(11.0), SE3.identity()])).wrong_fraction == 0.5
    assert percentiles([1.0, 2.0, 3.0, float("nan")], 50, 99.9)["p50"] == 2.0
    assert percentiles([], 50) == {"p50": None}


def test_rpe_is_the_error_of_the_motion_over_one_second() -> None:
    # Drifts 1 cm a frame along y, ten frames a second: 10 cm a second.
    metres, degrees = motion_errors(drive([shift(0.01 * i) for i in range(25)]))
    assert len(metres) == 15  # the frames that have one a second later
    np.testing.assert_allclose(metres, 0.1, atol=1e-9)
    np.testing.assert_allclose(degrees, 0.0, atol=1e-6)
    # Drifts 0.2 degrees a frame.
    _, degrees = motion_errors(drive([turn(0.2 * i) for i in range(25)]))
    np.testing.assert_allclose(degrees, 2.0, atol=1e-6)


def test_sequences_are_never_bridged() -> None:
    first = drive([SE3.identity()] * 8, "a")
    second = drive([shift(3.0)] * 8, "b", start=8)
    m = compute_metrics(first + second)
    assert m.jumps_per_min == 0.0
    assert m.jitter_t_m == pytest.approx(0.0, abs=1e-12)
    assert m.rpe_t_m is None  # neither is a second long
    joined = [Answer("a", a.stamp_ns, a.T_map_true, a.T_map_cam) for a in first + second]
    together = compute_metrics(joined)
    assert together.jumps_per_min is not None and together.jumps_per_min > 0.0
    assert together.rpe_t_m is not None and together.rpe_t_m > 1.0


def test_jumps_count_over_gaps_and_jitter_does_not() -> None:
    errors: list[SE3 | None] = [SE3.identity()] * 5 + [None, None] + [shift(0.5)] * 5
    m = compute_metrics(drive(errors))
    # One jump in the 1.1 s between the first and the last answer.
    assert m.jumps_per_min == pytest.approx(60.0 / 1.1)
    assert m.jitter_t_m == pytest.approx(0.0, abs=1e-12)
    # A step in rotation alone, and one that is too small.
    assert compute_metrics(drive([SE3.identity(), turn(6.0)])).jumps_per_min == pytest.approx(600.0)
    assert compute_metrics(drive([SE3.identity(), shift(0.19)])).jumps_per_min == 0.0


def test_jitter_is_the_rms_of_the_steps() -> None:
    m = compute_metrics(drive([shift(0.01 * (-1) ** i) for i in range(20)]))
    assert m.jitter_t_m == pytest.approx(0.02)
    m = compute_metrics(drive([turn(1.0 * (-1) ** i) for i in range(20)]))
    assert m.jitter_r_deg == pytest.approx(2.0)


def test_nees_of_an_honest_covariance_has_the_chi_square_median(rng: np.random.Generator) -> None:
    A = rng.normal(size=(6, 6))
    S = 1e-4 * (A @ A.T + np.eye(6))
    T_true = SE3.exp([0.5, -1.0, 0.3, 50.0, 20.0, -5.0])
    L = np.linalg.cholesky(S)

    def answers(claimed: float) -> list[Answer]:
        # T_true = T_est Exp(xi)
        return [
            Answer("a", i, T_true, T_true @ SE3.exp(L @ rng.normal(size=6)).inverse(), claimed * S)
            for i in range(1500)
        ]

    # The median of 1500 samples of a chi-square of 6 degrees has a standard error of 0.1.
    assert compute_metrics(answers(1.0)).nees_median == pytest.approx(NEES_EXPECTED_MEDIAN, abs=0.4)
    # Sigmas a third of what they should be.
    assert compute_metrics(answers(1 / 9)).nees_median == pytest.approx(9 * NEES_EXPECTED_MEDIAN, rel=0.08)


def test_nees_of_a_covariance_that_is_none() -> None:
    T = SE3.identity()
    assert nees(Answer("a", 0, T, T, None)) is None
    assert nees(Answer("a", 0, None, T, np.eye(6))) is None
    assert nees(Answer("a", 0, T, T, np.zeros((6, 6)))) == float("inf")
    # Not a number that JSON has.
    assert compute_metrics([Answer("a", 0, T, T, np.zeros((6, 6)))]).nees_median is None


def test_view_change_finds_the_pose_most_alike() -> None:
    mapping = [SE3.identity(), SE3(turn(90.0).R, np.array([0.1, 0.0, 0.0])), shift(0.5)]
    assert view_change(shift(0.1), mapping)[0] == 0
    # Nearer in space, but looking elsewhere.
    index, metres, degrees = view_change(SE3(turn(10.0).R, np.array([0.1, 0.0, 0.0])), mapping)
    assert (index, metres, degrees) == (0, pytest.approx(0.1), pytest.approx(10.0))
    with pytest.raises(ValueError, match="mapping"):
        view_change(SE3.identity(), [])


def test_off_path_table_bins_by_distance_and_angle() -> None:
    answers = [
        Answer("a", 0, shift(0.05), shift(0.05)),
        Answer("a", 1, shift(0.3), shift(0.7)),
        Answer("a", 2, shift(9.0), None),
    ]
    rows = off_path_table(answers, [SE3.identity()])
    distance = [r for r in rows if r["by"] == "distance_m"]
    assert [(r["from"], r["to"], r["frames"], r["answered"]) for r in distance] == [
        (0.0, 0.1, 1, 1),
        (0.25, 0.5, 1, 1),
        (2.0, None, 1, 0),
    ]
    assert distance[1]["median_t_m"] == pytest.approx(0.4)
    assert [r["recall_50cm_5deg"] for r in distance] == [1.0, 1.0, 0.0]
    assert sum(r["frames"] for r in rows if r["by"] == "angle_deg") == 3
    assert off_path_table(answers, []) == []


def moves(errors: list[SE3 | None], covariance: np.ndarray | None = None) -> list[Motion | None]:
    """Motions of ``drive``: the true ones, each followed by an error; the first frame has none, None is unknown."""
    motions: list[Motion | None] = [None]
    for i, error in enumerate(errors, start=1):
        T = truth(i - 1).inverse() @ truth(i)
        stamps = ((i - 1) * PERIOD_NS, i * PERIOD_NS)
        motions.append(None if error is None else Motion(*stamps, T @ error, covariance))
    return motions


def test_true_motions_add_up_to_the_path() -> None:
    o = compute_odometry(drive([None] * 31), moves([SE3.identity()] * 30))
    assert (o.frames, o.motions, o.lengths) == (30, 30, "own")
    for value in (o.rpe_t_m, o.rpe_r_deg, o.rpe_median_t_m, o.rpe_median_r_deg, o.drift_percent):
        assert value == pytest.approx(0.0, abs=1e-9)
    assert (o.nees_median, o.nees_1s_median) == (None, None)


def test_a_bias_of_motions_adds_up() -> None:
    # 0.1 degrees a frame about the axis the drive turns about: one degree in ten frames, which are a second.
    o = compute_odometry(drive([None] * 31), moves([turn(0.1)] * 30))
    assert o.rpe_r_deg == pytest.approx(1.0) == o.rpe_median_r_deg
    straight = [
        Answer("a", i * PERIOD_NS, SE3(np.eye(3), np.array([0.0, 0.0, 0.2 * i])), None) for i in range(31)
    ]
    forward = SE3(np.eye(3), np.array([0.0, 0.0, 0.2 * 1.05]))
    scaled = [None, *(Motion((i - 1) * PERIOD_NS, i * PERIOD_NS, forward) for i in range(1, 31))]
    o = compute_odometry(straight, scaled, "odometry")
    assert o.drift_percent == pytest.approx(5.0)
    assert o.rpe_t_m == pytest.approx(0.05 * 2.0)
    assert o.lengths == "odometry"


def test_motions_are_carried_on_from_the_first_answer_of_each_drive() -> None:
    away = shift(0.3)
    # No answer in the first three frames; what is answered after the fourth does not matter.
    frames = drive([None] * 3 + [away] + [shift(9.0)] * 7) + drive([away] + [None] * 10, "b", 100)
    motions = moves([SE3.identity()] * 10) + [None] * 11
    o = compute_odometry(frames, motions)
    assert o.ate_rmse_m == pytest.approx(0.3)
    assert compute_odometry(drive([None] * 11), moves([SE3.identity()] * 10)).ate_rmse_m is None


def test_an_unknown_motion_and_a_new_sequence_are_not_bridged() -> None:
    away = shift(5.0)
    frames = drive([None] * 31) + drive([None] * 21, "b", 100)
    motions = moves([SE3.identity()] * 14 + [None] + [SE3.identity()] * 15)
    # A motion into the first frame of the other sequence, from a frame of the first one.
    motions += [Motion(30 * PERIOD_NS, 100 * PERIOD_NS, away)] + [None] * 20
    o = compute_odometry(frames, motions)
    assert (o.frames, o.motions) == (50, 29)
    assert o.rpe_t_m == pytest.approx(0.0, abs=1e-9)
    names = {a.sequence for a in chained(frames, motions)}
    assert len(names) == 2


def test_motions_since_key_frames_add_up() -> None:
    frames = drive([None] * 31)
    motions: list[Motion | None] = [None]
    for i in range(1, 31):
        key = (i - 1) // 4 * 4
        motions.append(Motion(key * PERIOD_NS, i * PERIOD_NS, truth(key).inverse() @ truth(i)))
    o = compute_odometry(frames, motions)
    assert o.motions == 30
    assert o.drift_percent == pytest.approx(0.0, abs=1e-9)


def test_honest_motions_have_an_honest_nees_alone_and_added_up(rng: np.random.Generator) -> None:
    covariance = np.diag([1e-4, 2e-4, 1e-4, 4e-4, 1e-4, 9e-4])
    covariance[0, 4] = covariance[4, 0] = 5e-5
    noise = rng.multivariate_normal(np.zeros(6), covariance, 800)
    frames = drive([None] * 801)
    o = compute_odometry(frames, moves([SE3.exp(xi) for xi in noise], covariance))
    # The median of 800 draws is within 8 % of the true one (2 sigma); of seconds there are 80 apart.
    assert o.nees_median == pytest.approx(NEES_EXPECTED_MEDIAN, rel=0.1)
    assert o.nees_1s_median == pytest.approx(NEES_EXPECTED_MEDIAN, rel=0.3)
    bias = SE3.exp([0.01, 0.0, 0.0, 0.0, 0.0, 0.0])
    o = compute_odometry(frames, moves([SE3.exp(xi) @ bias for xi in noise], covariance))
    assert o.nees_1s_median is not None and o.nees_1s_median > 2 * NEES_EXPECTED_MEDIAN
