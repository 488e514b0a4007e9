"""Which frames of a recording a series of poses covers, and why it does not cover the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from localizer_ros.core.se3 import SE3

# Poses further apart are not interpolated: at a walking pace the camera has turned and moved by more than the poses'
# own error in between.
MAX_GAP_NS = 200_000_000


@dataclass(frozen=True, slots=True, eq=False)
class PoseSeries:
    """Poses of the camera from one place in a recording.

    Attributes:
        name: where they come from, in words.
        stamps_ns: when poses are given; of a chain of transforms those of its rarest moving part.
        pose_at: ``T_map_cam`` at a time, None where it is not known.
    """

    name: str
    stamps_ns: NDArray[np.int64]
    pose_at: Callable[[int], SE3 | None]


def describe(series: PoseSeries, frames_ns: Sequence[int]) -> dict[str, Any]:
    """Plain values for ``localizer info``: ``name, poses, rate_hz, from_s, to_s, frames`` covered, ``why`` not all."""
    stamps = series.stamps_ns
    covered = sum(series.pose_at(stamp) is not None for stamp in frames_ns)
    seconds = 1e-9 * float(stamps[-1] - stamps[0]) if len(stamps) else 0.0
    return {
        "name": series.name,
        "poses": len(stamps),
        "rate_hz": (len(stamps) - 1) / seconds if seconds > 0.0 else None,
        "from_s": _seconds(int(stamps[0])) if len(stamps) else None,
        "to_s": _seconds(int(stamps[-1])) if len(stamps) else None,
        "frames": covered,
        "why": why_missing(series.name, stamps, frames_ns, len(frames_ns) - covered),
    }


def why_missing(
    name: str, stamps_ns: NDArray[np.int64], frames_ns: Sequence[int], missing: int
) -> str | None:
    """Why frames have no pose, in one line; None when all have one.

    Args:
        name: of the poses.
        stamps_ns: of the poses, ascending.
        frames_ns: stamps of all frames.
        missing: how many of them have no pose.
    """
    if not missing:
        return None
    if not len(stamps_ns):
        return f"{name} has no poses"
    first, last = int(stamps_ns[0]), int(stamps_ns[-1])
    inside = [stamp for stamp in frames_ns if first <= stamp <= last]
    if not inside:
        return (
            f"{name} does not overlap the images (poses {_seconds(first)} to {_seconds(last)} s, images "
            f"{_seconds(min(frames_ns))} to {_seconds(max(frames_ns))} s): stamps of two clocks?"
        )
    of = f"{missing} of {len(frames_ns)} frames have no pose"
    if missing > len(frames_ns) - len(inside):
        spacing_s = 1e-9 * float(np.median(_gaps(stamps_ns, inside)))
        limit = f"{1e-9 * MAX_GAP_NS:g} s"
        return f"{name} is too sparse ({spacing_s:.2g} s between poses, limit {limit}): {of}"
    return f"{name} covers {_seconds(first)} to {_seconds(last)} s only: {of}"


def _gaps(stamps_ns: NDArray[np.int64], frames_ns: Sequence[int]) -> NDArray[np.int64]:
    """Nanoseconds between the poses on both sides of each frame, where that is more than the limit."""
    after = np.clip(np.searchsorted(stamps_ns, frames_ns), 1, max(1, len(stamps_ns) - 1))
    if len(stamps_ns) < 2:
        return np.zeros(1, np.int64)
    gaps = stamps_ns[after] - stamps_ns[after - 1]
    return gaps[gaps > MAX_GAP_NS] if np.any(gaps > MAX_GAP_NS) else gaps


def _seconds(stamp_ns: int) -> str:
    return f"{stamp_ns // 1_000_000_000}.{stamp_ns % 1_000_000_000 // 1_000_000:03d}"
