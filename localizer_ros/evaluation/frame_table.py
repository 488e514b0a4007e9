"""One line for each frame of an evaluation, as a CSV file: truth, answers, errors."""

from __future__ import annotations

import csv
import io
import math
from typing import Any

from localizer_ros.evaluation.answers import nees, sigmas
from localizer_ros.evaluation.evaluate import Evaluation

_POSE = ("x", "y", "z", "qx", "qy", "qz", "qw")
FRAME_COLUMNS = (
    *("name", "sequence", "stamp_ns", "status", "dropped", "reason", "latency_ms", "nearest_mapping_image"),
    *("error_m", "error_deg", "raw_error_m", "raw_error_deg", "sigma_m", "sigma_deg", "nees", "confidence"),
    *(f"{prefix}_{c}" for prefix in ("true", "estimate", "raw") for c in _POSE),
)
"""Columns of :func:`frames_csv`."""


def frames_csv(evaluation: Evaluation) -> str:
    """The table, with a heading. Poses are ``T_map_cam``: metres and xyzw quaternions; what is unknown is empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, FRAME_COLUMNS, lineterminator="\n")
    writer.writeheader()
    mapping_names = evaluation.baseline.names if evaluation.baseline is not None else ()
    each = zip(
        evaluation.frames, evaluation.nearest, evaluation.answers(), evaluation.answers("raw"), strict=True
    )
    for frame, nearest, smoothed, raw in each:
        sigma_m, sigma_deg = sigmas(smoothed.covariance)
        row: dict[str, Any] = {
            "name": frame.record.name,
            "sequence": frame.record.sequence,
            "stamp_ns": frame.record.stamp_ns,
            "status": frame.output.status.value if frame.output is not None else "",
            "dropped": frame.dropped,
            "reason": frame.output.reason if frame.output is not None else frame.message,
            "latency_ms": _text(frame.latency_ms),
            "nearest_mapping_image": "" if nearest is None else mapping_names[nearest],
            "error_m": _text(smoothed.error_m),
            "error_deg": _text(smoothed.error_deg),
            "raw_error_m": _text(raw.error_m),
            "raw_error_deg": _text(raw.error_deg),
            "sigma_m": _text(sigma_m),
            "sigma_deg": _text(sigma_deg),
            "nees": _text(nees(smoothed)),
            "confidence": _text(smoothed.confidence),
        }
        for prefix, T in (
            ("true", smoothed.T_map_true),
            ("estimate", smoothed.T_map_cam),
            ("raw", raw.T_map_cam),
        ):
            if T is not None:
                values = (*T.t, *T.quaternion_xyzw())
                row |= {f"{prefix}_{c}": f"{v:.9f}" for c, v in zip(_POSE, values, strict=True)}
        writer.writerow(row)
    return text.getvalue()


def _text(value: float | None) -> str:
    return "" if value is None or math.isnan(value) else f"{value:.6g}"
