"""An evaluation in about ten lines, for a terminal."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

from localizer_ros.evaluation.answers import WRONG_DEG, WRONG_M
from localizer_ros.evaluation.evaluate import Evaluation
from localizer_ros.evaluation.metrics import NEES_EXPECTED_MEDIAN, NEES_EXPECTED_P90, RECALLS, Metrics
from localizer_ros.evaluation.run_localizer import FrameResult

UNKNOWN = "-"
_REASONS = 3


def summary_lines(evaluation: Evaluation) -> list[str]:
    """What a reader must know of a run, the verdict first; every figure of it is in the JSON object, and more."""
    e, raw = evaluation.metrics, evaluation.raw
    verdict = evaluation.verdict
    latency = evaluation.latency_ms()
    lines = [
        f"verdict: {verdict.word or 'unknown'}" + "".join(f"\n  {reason}" for reason in verdict.reasons),
        f"run: {evaluation.scene.method} on {evaluation.recording.path.resolve().name}, split {evaluation.split}, "
        f"ground truth {evaluation.source.ground_truth}" + time_note(evaluation),
        f"answered: {e.answered} of {e.frames} frames; {UNKNOWN if e.wrong is None else e.wrong} wrong "
        f"(over {WRONG_M:g} m or {WRONG_DEG:g} deg)",
        f"error: {_errors(e)}",
        f"within: {_recalls(e)}",
        f"raw: {raw.answered} answered, {_errors(raw)}; {_recalls(raw)}",
    ]
    if evaluation.nearest_neighbour is not None:
        neighbour = evaluation.nearest_neighbour
        lines.append(f"nearest mapping image: {_error(neighbour.median_t_m, neighbour.median_r_deg)}")
    lines += [
        f"motion: error over 1 s {_error(e.rpe_t_m, e.rpe_r_deg)}, jitter {_error(e.jitter_t_m, e.jitter_r_deg)}, "
        f"{_number(e.jumps_per_min)} jumps a minute",
        f"covariance: NEES median {_number(e.nees_median)}, 90 % {_number(e.nees_p90)}; honest is "
        f"{NEES_EXPECTED_MEDIAN:.1f} and {NEES_EXPECTED_P90:.1f}",
        f"confidence: AUROC {_number(e.confidence_auroc, 3)} (right against wrong answers)",
        f"latency: median {_number(latency['p50'])} ms, 99 % {_number(latency['p99'])} ms; "
        f"memory {evaluation.peak_rss_mb:.0f} MiB",
    ]
    reasons = failures(evaluation.frames)
    if reasons:
        lines.append(
            "without an answer: " + "; ".join(f"{count} x {reason}" for reason, count in reasons[:_REASONS])
        )
    return [part for line in lines for part in line.split("\n")]


def time_note(evaluation: Evaluation) -> str:
    """What a reader must know of the times of the frames; empty where all is as usual."""
    invented = evaluation.source.stamps == "invented"
    if evaluation.config.independent:
        return (", stamps invented" if invented else "") + ", each frame for itself"
    return ", stamps invented: figures per second mean nothing" if invented else ""


def failures(frames: Iterable[FrameResult]) -> list[tuple[str, int]]:
    """Why frames have no answer, and how many for that reason; most frequent first.

    Reasons that differ in their numbers only are one; the first of them stands for all.
    """
    texts: dict[str, str] = {}
    counts: Counter[str] = Counter()
    for frame in frames:
        if frame.output is not None and frame.output.estimate is not None:
            continue
        if frame.output is None:
            text = f"dropped: {frame.message or frame.dropped}"
        else:
            text = f"{frame.output.status.value}: {frame.output.reason or 'no estimate'}"
        kind = re.sub(r"\d+(\.\d+)?", "#", text)
        texts.setdefault(kind, text)
        counts[kind] += 1
    return [(texts[kind], count) for kind, count in counts.most_common()]


def _errors(m: Metrics) -> str:
    return f"median {_error(m.median_t_m, m.median_r_deg)}, 90 % {_error(m.p90_t_m, m.p90_r_deg)}"


def _error(metres: float | None, degrees: float | None) -> str:
    if metres is None or degrees is None:
        return UNKNOWN
    return f"{metres:.3f} m {degrees:.2f} deg"


def _recalls(m: Metrics) -> str:
    """Shares of the frames in percent, by the limits of ``RECALLS``."""
    return ", ".join(
        f"{100 * metres:g} cm {degrees:g} deg {UNKNOWN if share is None else f'{100 * share:.0f} %'}"
        for (metres, degrees), share in zip(RECALLS.values(), m.recall.values(), strict=True)
    )


def _number(value: float | None, digits: int = 1) -> str:
    return UNKNOWN if value is None else f"{value:.{digits}f}"
