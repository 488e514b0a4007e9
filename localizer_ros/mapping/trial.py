"""A new scene tried on frames that it was not made from."""

from __future__ import annotations

import numpy as np

from localizer_ros.core.progress import Progress
from localizer_ros.core.se3 import SE3, symmetrized
from localizer_ros.core.types import Array
from localizer_ros.datasets.source import FrameSource
from localizer_ros.localization.front_end import GlobalLocalizer


def validate(
    localizer: GlobalLocalizer,
    depth_m: float,
    source: FrameSource,
    posed: list[int],
    held_out: list[int],
    T_given: Array,
    most: int,
    progress: Progress,
) -> tuple[dict[str, float], Array]:
    """Localise recorded frames that the map was not made from.

    Args:
        localizer: of the new scene.
        depth_m: median depth of the scene.
        source: the recording.
        posed: its frames with poses.
        held_out: those of them to try, as numbers into ``posed``.
        T_given: (N, 4, 4) their poses.
        most: at most so many, evenly spaced.
        progress: told as it goes.

    Returns:
        Figures, and the (6, 6) covariance of answers beyond what keypoint noise explains.
    """
    least = np.diag([np.radians(0.05) ** 2] * 3 + [(5e-4 * depth_m) ** 2] * 3)
    spread = np.unique(np.linspace(0, len(held_out) - 1, most).astype(int)) if held_out else []
    picked = [held_out[k] for k in spread]
    errors, noises = [], []
    for n, k in enumerate(picked):
        answer = localizer.localize(source.read(posed[k]), None)
        progress("validation", n + 1, len(picked))
        if answer is not None and answer.covariance is not None:
            given = SE3(T_given[k, :3, :3], T_given[k, :3, 3])
            errors.append((given.inverse() @ answer.T_map_cam).log())
            noises.append(answer.covariance)
    figures: dict[str, float] = {"frames": len(picked), "answered": len(errors)}
    if len(errors) < 8:
        return figures, least + np.diag([np.radians(0.2) ** 2] * 3 + [(3e-3 * depth_m) ** 2] * 3)
    e = np.array(errors)
    figures["median_t_m"] = round(float(np.median(np.linalg.norm(e[:, 3:], axis=1))), 4)
    figures["median_r_deg"] = round(float(np.degrees(np.median(np.linalg.norm(e[:, :3], axis=1)))), 3)
    # A robust second moment of each component: the 68th percentile of a Gaussian's size is one sigma.
    sigma = np.percentile(np.abs(e), 68.3, axis=0)
    return figures, symmetrized(np.diag(sigma**2) - np.median(noises, axis=0), 0.0) + least
