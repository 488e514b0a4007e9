"""Cells and cards of the report's page: figures as text."""

from __future__ import annotations

from dataclasses import dataclass

from localizer_ros.core.limits import WRONG_DEG, WRONG_M
from localizer_ros.core.se3 import SE3
from localizer_ros.evaluation.evaluate import Evaluation
from localizer_ros.evaluation.measured_motions import GEOMETRIC
from localizer_ros.evaluation.metrics import (
    JUMP_DEG,
    JUMP_M,
    NEES_EXPECTED_MEDIAN,
    NEES_EXPECTED_P90,
    RECALLS,
)
from localizer_ros.evaluation.off_path import VIEW_DEG_PER_M
from localizer_ros.evaluation.verdict import (
    ANSWERED_BAD,
    ANSWERED_GOOD,
    NEAR_BAD,
    NEAR_GOOD,
    NEES_GOOD,
    beaten_by,
    graded,
)

UNKNOWN = "–"

SUMMARY_COLUMNS = (
    "answered",
    "median",
    "p90",
    *(f"≤ {t:g} m\n{r:g}°" for t, r in RECALLS.values()),
    "wrong",
    "ATE",
    "RPE\n1 s",
    "jitter",
    "jumps\na minute",
    "NEES\np90",
    "AUROC",
)
ODOMETRY_COLUMNS = ("motions", "RPE\n1 s", "median\nof these", "drift\n% of path", "NEES", "NEES\n1 s")
_ODOMETRY = {
    "vo": "motion head",
    "tracking": "tracking",
    "odom": "external odometry",
    GEOMETRIC: "geometric VO",
}

NOTES = (
    "A frame without an answer counts as a failure in every recall and is left out of medians and "
    "percentiles.",
    "Recalls are shares of the frames that have ground truth.",
    f"Wrong: answers off by more than {WRONG_M:g} m or {WRONG_DEG:g}°, as a share of the answers.",
    "ATE: root mean square position error. Nothing is aligned, as the map frame is that of the ground truth.",
    "RPE: root mean square error of the motion over one second. Jitter: root mean square of the step of the error "
    "from one frame to the next. Neither bridges sequences.",
    f"Jumps: steps of the error between two answers beyond {JUMP_M:g} m or {JUMP_DEG:g}°, per minute.",
    f"NEES: squared error in units of the covariance, six degrees of freedom; its median is "
    f"{NEES_EXPECTED_MEDIAN:.2f} and its 90th percentile {NEES_EXPECTED_P90:.2f} when the covariance is honest, and "
    "larger when it is too small.",
    "AUROC: how often a right answer is more confident than a wrong one; 0.5 is chance. Unknown when all answers are "
    "right. Coverage: share of the frames that keep their answer when only answers of at least some confidence count.",
    "Odometry: each source's motions alone, added up from the beginning of a sequence, or from where one was "
    "unknown. Drift is how far they miss the ends, in percent of the path. NEES of single motions, and of motions over "
    "one second with their errors taken as independent. Geometric VO knows directions only; lengths that come from the "
    "ground truth flatter it.",
    "Nearest neighbour: the pose of the mapping image that looks most alike, without any estimation.",
    "The band in the error plot is three standard deviations in the most uncertain direction.",
    f"The mapping pose most alike is the one with the least distance plus angle, {VIEW_DEG_PER_M:g}° "
    "counting as 1 m.",
    "Latency is the time of the whole pipeline for a frame, without reading the image.",
)


@dataclass(frozen=True)
class Card:
    """One figure at the head of the page: what it is, its value, what to compare it with, and how good it is."""

    label: str
    value: str
    note: str
    word: str = "good"


def cards(evaluation: Evaluation) -> list[Card]:
    """The figures at the head of the page."""
    e, neighbour, latency = evaluation.metrics, evaluation.nearest_neighbour, evaluation.latency_ms()
    against = (
        f"nearest neighbour {length(neighbour.median_t_m)}, {angle(neighbour.median_r_deg)}"
        if neighbour is not None
        else "no nearest-neighbour baseline in this scene"
    )
    return [
        Card(
            "median error",
            f"{length(e.median_t_m)} · {angle(e.median_r_deg)}",
            against,
            "bad" if neighbour is not None and beaten_by(e, neighbour) else "good",
        ),
        Card(
            "answered",
            f"{e.answered} / {e.frames}",
            "frames; the rest count as failures",
            graded(e.answered / max(e.frames, 1), ANSWERED_GOOD, ANSWERED_BAD),
        ),
        Card(
            "within 0.5 m, 5°",
            percent(e.recall["50cm_5deg"]),
            f"{percent(e.recall['25cm_2deg'])} within 0.25 m, 2°",
            graded(e.recall["50cm_5deg"], NEAR_GOOD, NEAR_BAD),
        ),
        Card("latency", f"{number(latency['p50'])} ms", f"median; p99 {number(latency['p99'])} ms"),
        Card(
            "covariance",
            number(e.nees_median),
            f"median NEES; honest is {NEES_EXPECTED_MEDIAN:.1f}, more is too sure",
            "doubtful" if (e.nees_median or 0.0) > NEES_GOOD else "good",
        ),
    ]


def summary_rows(evaluation: Evaluation) -> list[tuple[str, str, list[str]]]:
    """Label, name of the colour and cells of each row, see ``SUMMARY_COLUMNS``."""
    rows = [("localizer", "smoothed", evaluation.metrics), ("raw answers", "raw", evaluation.raw)]
    if evaluation.nearest_neighbour is not None:
        rows.append(("nearest neighbour", "neighbour", evaluation.nearest_neighbour))
    return [
        (
            label,
            colour,
            [
                str(e.answered),
                f"{length(e.median_t_m)}\n{angle(e.median_r_deg)}",
                f"{length(e.p90_t_m)}\n{angle(e.p90_r_deg)}",
                *(percent(value) for value in e.recall.values()),
                percent(e.wrong_fraction),
                length(e.ate_rmse_m),
                f"{length(e.rpe_t_m)}\n{angle(e.rpe_r_deg)}",
                f"{length(e.jitter_t_m)}\n{angle(e.jitter_r_deg)}",
                number(e.jumps_per_min),
                f"{number(e.nees_median)}\n{number(e.nees_p90)}",
                number(e.confidence_auroc),
            ],
        )
        for label, colour, e in rows
    ]


def odometry_rows(evaluation: Evaluation) -> list[list[str]]:
    """What measured the motions, and how well these alone add up to the path; fused, there are absolute poses too."""
    rows = []
    for source, o in evaluation.odometry.items():
        name = _ODOMETRY.get(source, source)
        rows.append(
            [
                name if o.lengths == "own" else f"{name}, lengths from {o.lengths}",
                f"{o.motions} / {o.frames}",
                f"{length(o.rpe_t_m)}\n{angle(o.rpe_r_deg)}",
                f"{length(o.rpe_median_t_m)}\n{angle(o.rpe_median_r_deg)}",
                number(o.drift_percent),
                number(o.nees_median),
                number(o.nees_1s_median),
            ]
        )
    for name, e in (("raw answers", evaluation.raw), ("localizer (fused)", evaluation.metrics)):
        rows.append([name, "", f"{length(e.rpe_t_m)}\n{angle(e.rpe_r_deg)}", *[""] * 4])
    return rows


# --- figures as text ---


def length(value: float | None) -> str:
    """Metres."""
    return UNKNOWN if value is None else f"{value:.3f} m" if value < 10 else f"{value:.1f} m"


def angle(value: float | None) -> str:
    """Degrees."""
    return UNKNOWN if value is None else f"{value:.2f}°" if value < 10 else f"{value:.1f}°"


def percent(value: float | None) -> str:
    """A share of one, in percent."""
    return UNKNOWN if value is None else f"{100 * value:.1f} %"


def number(value: float | None) -> str:
    """Anything without a unit, with about three digits."""
    if value is None:
        return UNKNOWN
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 1000 else f"{value:.0f}"


def position(T_map_cam: SE3) -> str:
    """Where a camera stands, metres."""
    return f"at ({', '.join(f'{v:.2f}' for v in T_map_cam.t)})"
