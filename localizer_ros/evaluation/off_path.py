"""Accuracy by how far the view of a frame is off what was mapped."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from localizer_ros.core.se3 import SE3
from localizer_ros.evaluation.answers import Answer
from localizer_ros.evaluation.metrics import compute_metrics

VIEW_DEG_PER_M = 40.0
"""Change of angle that makes a view as unlike as one metre does; for finding the mapping pose most alike.

Metres, not shares of the depth as in ``geometry.view_distance``: the scene of a network knows no depth, and the table
is to be read in metres.
"""

OFF_PATH_M = (0.0, 0.1, 0.25, 0.5, 1.0, 2.0)
OFF_PATH_DEG = (0.0, 5.0, 10.0, 20.0, 30.0, 45.0)
"""Edges of the bins by distance and angle to the mapping pose most alike; the last is open."""


def view_change(T_map_cam: SE3, mapping: Sequence[SE3]) -> tuple[int, float, float]:
    """How far a view is off what was mapped: index of the mapping pose most alike, metres and degrees to it.

    Alike is the sum of distance and angle with ``VIEW_DEG_PER_M`` degrees counting as one metre.

    Raises:
        ValueError: no mapping poses.
    """
    if not mapping:
        raise ValueError("view_change: no mapping poses")
    metres = np.linalg.norm(np.stack([T.t for T in mapping]) - T_map_cam.t, axis=1)
    # The trace is good enough to rank by; the angle that is returned is the accurate one.
    cosines = (np.einsum("nij,ij->n", np.stack([T.R for T in mapping]), T_map_cam.R) - 1.0) / 2.0
    degrees = np.degrees(np.arccos(np.clip(cosines, -1.0, 1.0)))
    best = int(np.argmin(metres + degrees / VIEW_DEG_PER_M))
    return best, float(metres[best]), float(np.degrees(mapping[best].angle_to(T_map_cam)))


def off_path_table(answers: Sequence[Answer], mapping: Sequence[SE3]) -> list[dict[str, Any]]:
    """Accuracy by how far the true view is off the nearest mapping pose.

    Returns:
        One row a bin that has frames: ``by`` (``distance_m`` or ``angle_deg``), ``from``, ``to`` (None = no
        limit), ``frames``, ``answered``, ``median_t_m``, ``median_r_deg``, ``recall_50cm_5deg``.
    """
    judged = [a for a in answers if a.T_map_true is not None]
    if not judged or not mapping:
        return []
    changes = np.array([view_change(a.T_map_true, mapping)[1:] for a in judged if a.T_map_true is not None])
    rows: list[dict[str, Any]] = []
    for column, (by, edges) in enumerate((("distance_m", OFF_PATH_M), ("angle_deg", OFF_PATH_DEG))):
        for low, high in zip(edges, (*edges[1:], None), strict=True):
            inside = (changes[:, column] >= low) & (changes[:, column] < (np.inf if high is None else high))
            chosen = [a for a, take in zip(judged, inside, strict=True) if take]
            if not chosen:
                continue
            metrics = compute_metrics(chosen)
            rows.append(
                {
                    "by": by,
                    "from": low,
                    "to": high,
                    "frames": metrics.frames,
                    "answered": metrics.answered,
                    "median_t_m": metrics.median_t_m,
                    "median_r_deg": metrics.median_r_deg,
                    "recall_50cm_5deg": metrics.recall["50cm_5deg"],
                }
            )
    return rows
