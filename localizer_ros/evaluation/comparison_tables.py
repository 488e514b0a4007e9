"""A comparison of scenes as tables of text: poses, and motions over one second."""

from __future__ import annotations

from typing import NamedTuple

from localizer_ros.evaluation.compare import Comparison, SceneResult
from localizer_ros.evaluation.evaluate import Evaluation
from localizer_ros.evaluation.measured_motions import GEOMETRIC
from localizer_ros.evaluation.metrics import NEES_EXPECTED_MEDIAN, Metrics
from localizer_ros.evaluation.odometry_metrics import OdometryMetrics

RECALLS = {"5cm_5deg": "5 cm, 5°", "10cm_5deg": "10 cm, 5°", "25cm_2deg": "25 cm, 2°"}
_POSE_COLUMNS = (
    *("method", "answered", "median"),
    *RECALLS.values(),
    *("jitter", "NEES", "ms", "MB", "minutes (training)"),
)
_COMMON = {"odom": "external odometry", GEOMETRIC: "geometric VO"}
_MOTION_COLUMNS = (
    "method",
    "motions by",
    "alone",
    "drift, % of path",
    "NEES",
    "raw poses",
    "fused",
    "whole path",
)
NOTES = (
    "Medians of the answers; recalls of all frames with ground truth, in percent. Where two figures are given they are "
    "raw -> smoothed (causal). Jitter: RMS step of the error from frame to frame. NEES: median, "
    f"{NEES_EXPECTED_MEDIAN:.2f} when covariances are honest. ms: frame to answer, p50 / p99. MB: without engines.",
    "Motions: RMS error over one second of what the motions alone add up to, of the raw poses, and of the smoothed "
    "ones; NEES of motions over one second. Whole path: RMS error of raw poses / of the first of each segment carried "
    "on by the motions alone / of what is fused, nothing aligned.",
)


class Table(NamedTuple):
    """Title, names of the columns, and cells as text."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]


def comparison_tables(comparison: Comparison) -> list[Table]:
    """Poses, and motions where there are any."""
    poses = Table("Poses", _POSE_COLUMNS, [])
    motions = Table("Motions over one second", _MOTION_COLUMNS, [])
    # The same whatever the scene.
    common: dict[str, OdometryMetrics] = {}
    for label, scene in zip(comparison.labels, comparison.scenes, strict=True):
        if scene.evaluation is None:
            poses.rows.append((label, f"error: {scene.error}", *[""] * (len(_POSE_COLUMNS) - 2)))
            continue
        poses.rows.append(_pose_row(label, scene, scene.evaluation))
        for source, odometry in scene.evaluation.odometry.items():
            if source in _COMMON:
                common.setdefault(source, odometry)
            else:
                motions.rows.append(_motion_row(label, source, odometry, scene.evaluation))
    neighbour = comparison.nearest_neighbour()
    if neighbour is not None:
        poses.rows.append(_neighbour_row(*neighbour))
    for source, odometry in common.items():
        label = _COMMON[source] + ("" if odometry.lengths == "own" else f", lengths: {odometry.lengths}")
        motions.rows.append(_motion_row(label, source, odometry, None))
    return [table for table in (poses, motions) if table.rows]


def comparison_markdown(comparison: Comparison, command: str) -> str:
    """The tables as Markdown, with the command that made them."""
    source = comparison.source
    lines = [
        f"`{source.path.resolve().name}`, split `{comparison.split}`, ground truth: {source.ground_truth}.",
        "",
        "```",
        command,
        "```",
    ]
    for table in comparison_tables(comparison):
        lines += ["", f"**{table.title}**", "", f"| {' | '.join(table.columns)} |"]
        lines += ["|" + "---|" * len(table.columns)]
        lines += [f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in table.rows]
    for note in NOTES:
        lines += ["", note]
    return "\n".join(lines) + "\n"


# --- cells ---


def _pose_row(label: str, scene: SceneResult, evaluation: Evaluation) -> tuple[str, ...]:
    raw, smoothed = evaluation.raw, evaluation.metrics
    latency = evaluation.latency_ms()
    training = "" if scene.training_minutes is None else f" ({scene.training_minutes:.1f})"
    return (
        label,
        f"{raw.answered} -> {smoothed.answered} of {smoothed.frames}",
        f"{_error(raw.median_t_m, raw.median_r_deg)} -> {_error(smoothed.median_t_m, smoothed.median_r_deg)}",
        *(f"{_percent(raw.recall[k])} -> {_percent(smoothed.recall[k])}" for k in RECALLS),
        f"{_error(raw.jitter_t_m, raw.jitter_r_deg)} -> {_error(smoothed.jitter_t_m, smoothed.jitter_r_deg)}",
        f"{_number(raw.nees_median)} -> {_number(smoothed.nees_median)}",
        f"{_number(latency['p50'])} / {_number(latency['p99'])}",
        _number(scene.megabytes),
        "–" if scene.minutes is None else f"{scene.minutes:.1f}{training}",
    )


def _neighbour_row(scene: SceneResult, m: Metrics) -> tuple[str, ...]:
    label = f"nearest neighbour ({scene.path.resolve().name})"
    cells = (label, f"{m.answered} of {m.frames}", _error(m.median_t_m, m.median_r_deg))
    recalls = tuple(_percent(m.recall[k]) for k in RECALLS)
    return (*cells, *recalls, *[""] * (len(_POSE_COLUMNS) - len(cells) - len(recalls)))


def _motion_row(
    label: str, source: str, odometry: OdometryMetrics, evaluation: Evaluation | None
) -> tuple[str, ...]:
    fused = ("", "", "")
    if evaluation is not None:
        paths = (evaluation.raw.ate_rmse_m, odometry.ate_rmse_m, evaluation.metrics.ate_rmse_m)
        fused = (
            _error(evaluation.raw.rpe_t_m, evaluation.raw.rpe_r_deg),
            _error(evaluation.metrics.rpe_t_m, evaluation.metrics.rpe_r_deg),
            " / ".join("–" if path is None else f"{path:.3f}" for path in paths) + " m",
        )
    return (
        label,
        source,
        _error(odometry.rpe_t_m, odometry.rpe_r_deg),
        _number(odometry.drift_percent),
        _number(odometry.nees_1s_median),
        *fused,
    )


def _error(metres: float | None, degrees: float | None) -> str:
    if metres is None or degrees is None:
        return "–"
    length = f"{100 * metres:.1f} cm" if metres < 1.0 else f"{metres:.2f} m"
    return f"{length}, {degrees:.2f}°"


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.0f}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"
