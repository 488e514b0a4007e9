"""A new map validated on frames that it was not made from."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from localizer_ros.core.progress import Progress
from localizer_ros.core.se3 import SE3, symmetrized
from localizer_ros.core.types import Array
from localizer_ros.datasets.source import FrameSource
from localizer_ros.localization.map_based.search import GlobalLocalizer
from localizer_ros.mapping.examination import Sample, judged
from localizer_ros.mapping.keyframes import FEWEST_VALIDATED, Keyframes

# What no answer is taken to be better than: degrees, and a share of the median depth; and what is added where too few
# frames could be tried.
_LEAST_DEG, _LEAST_OF_DEPTH = 0.05, 5e-4
_UNTRIED_DEG, _UNTRIED_OF_DEPTH = 0.2, 3e-3
# One sigma of a Gaussian is this percentile of its size.
_ONE_SIGMA_PERCENT = 68.3


@dataclass(frozen=True, slots=True, eq=False)
class Validation:
    """What frames say of a map that it was not made from.

    Attributes:
        figures: ``frames`` and ``answered``, and of those, where enough are, ``median_t_m`` and ``median_r_deg``;
            ``alike``, where there are any, are frames without an answer because two places explain them.
        systematic: (6, 6) covariance of answers beyond what keypoint noise explains.
        samples: the answers that came with evidence, with that covariance in theirs.
    """

    figures: dict[str, float]
    systematic: Array
    samples: list[Sample]


def validate(
    localizer: GlobalLocalizer,
    source: FrameSource,
    keyframes: Keyframes,
    depth_m: float,
    most: int,
    progress: Progress,
) -> Validation:
    """The answers of a new map to frames that it was not made from.

    Args:
        localizer: of the new scene.
        source: the recording.
        keyframes: what the map was made of; all other frames with poses are there to be tried.
        depth_m: median depth of the scene.
        most: at most so many, evenly spaced.
        progress: told as it goes.
    """
    held_out = keyframes.held_out
    picked: list[int] = []
    if held_out:
        picked = [held_out[k] for k in np.unique(np.linspace(0, len(held_out) - 1, most).astype(int))]
    errors, noises, alike = [], [], 0
    samples: list[Sample] = []
    for n, k in enumerate(picked):
        result = localizer.localize(source.read(keyframes.posed[k]), None)
        answer = result.answer
        alike += result.unsure is not None and result.unsure.evidence.rival > 0
        progress("validation", n + 1, len(picked))
        if answer is not None and answer.covariance is not None:
            T_map_cam = keyframes.T_map_cam[k]
            given = SE3(T_map_cam[:3, :3], T_map_cam[:3, 3])
            errors.append((given.inverse() @ answer.T_map_cam).log())
            noises.append(answer.covariance)
            if result.verified is not None:
                evidence = result.verified.evidence
                found = judged(evidence, answer.T_map_cam, answer.covariance, given, depth_m, "validation")
                samples.append(found)
    figures: dict[str, float] = {"frames": len(picked), "answered": len(errors)}
    if alike:
        figures["alike"] = alike
    systematic = _diagonal(np.radians(_LEAST_DEG), _LEAST_OF_DEPTH * depth_m)
    if len(errors) < FEWEST_VALIDATED:
        systematic = systematic + _diagonal(np.radians(_UNTRIED_DEG), _UNTRIED_OF_DEPTH * depth_m)
    else:
        e = np.array(errors)
        figures["median_t_m"] = round(float(np.median(np.linalg.norm(e[:, 3:], axis=1))), 4)
        figures["median_r_deg"] = round(float(np.degrees(np.median(np.linalg.norm(e[:, :3], axis=1)))), 3)
        # A robust second moment of each component.
        sigma = np.percentile(np.abs(e), _ONE_SIGMA_PERCENT, axis=0)
        systematic = systematic + symmetrized(np.diag(sigma**2) - np.median(noises, axis=0), 0.0)
    samples = [replace(s, covariance=s.covariance + systematic) for s in samples]
    return Validation(figures, systematic, samples)


def _diagonal(sigma_rad: float, sigma_m: float) -> Array:
    return np.diag([sigma_rad**2] * 3 + [sigma_m**2] * 3)
