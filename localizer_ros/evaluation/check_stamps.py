"""Whether the times of a recording's frames can be trusted: frames that were dropped, jitter, clocks that jump."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from localizer_ros.core.types import Array
from localizer_ros.datasets.source import FrameRecord, FrameSource, by_sequence
from localizer_ros.evaluation.findings import Finding, graded

# Cameras with a clock of their own keep 0.01 to 0.15 of a period; stamps of arrival over a loaded USB or network wander
# by more than that, and by half a period nobody knows which pose belongs to which image.
_JITTER, _JITTER_BAD = 0.2, 0.4
# One frame in twenty is lost on a busy computer; of every second frame lost the other half was not meant to be kept.
_LOST, _LOST_BAD = 0.05, 0.5
# A pause is long enough to be one: many periods, and more than a second.
_PAUSE_STEPS, _PAUSE_S = 10.0, 1.0
_FEWEST, _FEWEST_OF_A_PART = 10, 4


def check_stamps(source: FrameSource) -> tuple[dict[str, Any], list[Finding]]:
    """Rate, jitter and losses, and what is wrong with them; nothing where stamps are invented."""
    if source.stamps == "invented":
        note = Finding(
            "stamps_invented",
            "note",
            "the recording has no times, frames are spaced evenly",
            "speeds, rates and smoothing mean nothing here",
        )
        return {"jitter": None, "dropped_fraction": None}, [note]
    parts = [part for part in by_sequence(source.records).values() if len(part) > 1]
    steps = [np.diff([record.stamp_ns for record in part]) * 1e-9 for part in parts]
    every = np.concatenate(steps) if steps else np.zeros(0)
    if len(every) < _FEWEST:
        return {"jitter": None, "dropped_fraction": None}, []
    # Recordings that are mapped together need not have the same rate.
    periods = [float(np.median(each if len(each) >= _FEWEST_OF_A_PART else every)) for each in steps]
    findings, lost = [], 0
    for part, step_s, period_s in zip(parts, steps, periods, strict=True):
        jumps = _clock_jumps(part, step_s, period_s)
        missing = np.maximum(np.round(step_s / period_s) - 1, 0)
        missing[jumps] = 0
        lost += int(missing.sum())
        findings += [_jumped(part[i + 1].name, float(step_s[i])) for i in jumps]
    shares = np.concatenate([each / period_s for each, period_s in zip(steps, periods, strict=True)])
    jitter = float(np.std(shares[shares < 1.5]))
    dropped = lost / (lost + len(every))
    if severity := graded(jitter, _JITTER, _JITTER_BAD):
        text = f"stamps wander by {100 * jitter:.0f} % of the time between two frames"
        findings.append(
            Finding("jitter", severity, text, "stamp images when they are exposed, not on arrival")
        )
    if severity := graded(dropped, _LOST, _LOST_BAD):
        text = f"{100 * dropped:.0f} % of the frames were dropped"
        where = _first_gap(parts, steps, periods)
        advice = "record to a faster disk, compressed, or at a lower rate"
        findings.append(Finding("dropped", severity, text, advice, where))
    return {"jitter": jitter, "dropped_fraction": dropped}, findings


def _clock_jumps(part: Sequence[FrameRecord], step_s: Array, period_s: float) -> list[int]:
    """Pauses in which a moving camera did not move: the clock jumped, not the camera."""
    moved = np.array(
        [
            np.nan if a.T_map_cam is None or b.T_map_cam is None else a.T_map_cam.distance_to(b.T_map_cam)
            for a, b in pairwise(part)
        ]
    )
    jumps = []
    for i in np.flatnonzero(step_s > max(_PAUSE_S, _PAUSE_STEPS * period_s)):
        around = np.concatenate([moved[max(0, i - 5) : i], moved[i + 1 : i + 6]])
        around = around[np.isfinite(around)]
        # Over a true pause the camera goes on, by ten steps and more; a robot that waits is still before and after.
        if len(around) and np.isfinite(moved[i]) and around.min() > 1e-3 and moved[i] < 3.0 * around.max():
            jumps.append(int(i))
    return jumps


def _jumped(name: str, seconds: float) -> Finding:
    text = f"the clock jumps by {seconds:.1f} s while the camera goes on evenly"
    advice = "synchronise the clock before recording (chrony, PTP), or leave out what is before the jump"
    return Finding("clock_jump", "doubtful", text, advice, name)


def _first_gap(parts: list[list[FrameRecord]], steps: list[Array], periods: list[float]) -> str | None:
    for part, step_s, period_s in zip(parts, steps, periods, strict=True):
        gaps = np.flatnonzero(step_s > 1.5 * period_s)
        if len(gaps):
            return part[int(gaps[0]) + 1].name
    return None
