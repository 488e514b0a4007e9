"""An evaluation in about ten lines, for a terminal."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from localizer_ros.core.limits import WRONG_DEG, WRONG_M
from localizer_ros.evaluation.evaluate import Evaluation
from localizer_ros.evaluation.metrics import NEES_EXPECTED_MEDIAN, NEES_EXPECTED_P90, RECALLS, Metrics
from localizer_ros.evaluation.run_localizer import FrameResult
from localizer_ros.evaluation.verdict import RAW_IS_BETTER

UNKNOWN = "-"
_REASONS = 3


def summary_lines(evaluation: Evaluation) -> list[str]:
    """What a reader must know of a run in ten lines, the verdict first; all its figures are in the JSON object."""
    e, raw = evaluation.metrics, evaluation.raw
    verdict = evaluation.verdict
    latency = evaluation.latency_ms()
    lines = [
        f"verdict: {verdict.word or 'unknown'}" + "".join(f"\n  {reason}" for reason in reasons(evaluation)),
        f"run: {evaluation.scene.method} on {evaluation.recording.path.resolve().name}, split {evaluation.split}, "
        f"ground truth {evaluation.source.ground_truth}" + time_note(evaluation),
        f"answered: {e.answered} of {e.frames} frames; {UNKNOWN if e.wrong is None else e.wrong} wrong "
        f"(over {WRONG_M:g} m or {WRONG_DEG:g} deg)",
        f"error: {_errors(e)}; {_recalls(e)}",
        f"raw: {raw.answered} answered, {_errors(raw)}; {_recalls(raw)}",
    ]
    if evaluation.nearest_neighbour is not None:
        neighbour = evaluation.nearest_neighbour
        lines.append(f"nearest mapping image: {_error(neighbour.median_t_m, neighbour.median_r_deg)}")
    lines += [
        f"motion: error over 1 s {_error(e.rpe_t_m, e.rpe_r_deg)}, jitter {_error(e.jitter_t_m, e.jitter_r_deg)}, "
        f"{_number(e.jumps_per_min)} jumps a minute",
        f"trust: NEES median {_number(e.nees_median)}, 90 % {_number(e.nees_p90)} (honest is "
        f"{NEES_EXPECTED_MEDIAN:.1f} and {NEES_EXPECTED_P90:.1f}); confidence AUROC {_number(e.confidence_auroc, 3)}",
        f"latency: median {_number(latency['p50'])} ms, 99 % {_number(latency['p99'])} ms; "
        f"memory {evaluation.peak_rss_mb:.0f} MiB",
    ]
    unanswered = failures(evaluation.frames)
    if unanswered:
        lines.append("without an answer: " + _counted(unanswered))
    return [part for line in lines for part in line.split("\n")]


def reasons(evaluation: Evaluation) -> tuple[str, ...]:
    """Those of the verdict; where raw answers are better than smoothed ones, also what smoothing did to them."""
    found = evaluation.verdict.reasons
    return tuple(
        f"{reason}; {_what_smoothing_did(evaluation.frames)}" if reason.startswith(RAW_IS_BETTER) else reason
        for reason in found
    )


def _what_smoothing_did(frames: Sequence[FrameResult]) -> str:
    withheld = [f for f in frames if f.output is not None and f.output.absolute and not f.output.estimate]
    moved = [
        f.output.absolute.T_map_cam.distance_to(f.output.estimate.T_map_cam)
        for f in frames
        if f.output is not None and f.output.absolute and f.output.estimate
    ]
    parts = []
    if withheld:
        parts.append(f"{len(withheld)} raw answers were withheld ({_counted(failures(withheld))})")
    if moved:
        parts.append(f"the others were moved by {np.median(moved):.3f} m (median)")
    return " and ".join(parts) or "no raw answer was published"


def _counted(found: Sequence[tuple[str, int]]) -> str:
    return "; ".join(f"{count} x {reason}" for reason, count in found[:_REASONS])


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
