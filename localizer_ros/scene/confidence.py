"""What a scene has learned of its own answers: how probably one is right, and how far it is off where nobody has been.

The model is logistic and monotone: more of what speaks for a pose never makes it less probable. Covariances grow with
the distance of a view from the nearest one that was mapped. Both are fitted when the scene is made, by
:mod:`localizer_ros.mapping.examination`, and start from what other places have shown (:data:`PRIOR`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from localizer_ros.core.types import Array, SceneError
from localizer_ros.scene.arrays import load_arrays, save_arrays

FILE = "confidence.npz"

FEATURES = ("inliers", "share", "coverage", "error", "excess", "nearness", "prior", "coarse")
"""What speaks for a pose, each the more the better; see :meth:`Evidence.features`."""

# Of 2010 right answers none was further from all mapped views than 116 deg. Images that somebody turned upside down
# are: they fit as well as others, and no robot stands on its head.
_NEVER_SEEN_RAD, _UNEARNED = np.radians(120.0), 0.5
# A model is not surer than this, in logits: it has not seen so many answers that it could be.
_LARGEST_LOGIT = 14.0
SURE_LOGIT = 10.0
"""Logit of a pose whose covariance is not inflated for doubt."""

# No answer is accepted that is more than so many times as doubtful as accepted ones may be on average.
_MOST_DOUBT = 20.0


@dataclass(frozen=True, slots=True)
class Evidence:
    """What speaks for a pose, and against it.

    Attributes:
        inliers: points of the map that are where the pose puts them.
        visible: points that should have been seen.
        coverage: share of the image's cells with an inlier.
        error: median error of inliers, over that of the map's own observations.
        excess: by how many standard deviations there are more inliers than chance makes.
        beyond_rad: distance of the view from the nearest mapped one.
        rival: inliers of the second-best place; 0 where there is none.
        rival_explains: probability that it explains the image, by itself.
        agrees: whether the prior allows the pose; None where there was none.
        fine: keypoints of the finest octave were matched, too: there are some three times as many, right and wrong.
    """

    inliers: int
    visible: int
    coverage: float
    error: float
    excess: float
    beyond_rad: float
    rival: int = 0
    rival_explains: float = 0.0
    agrees: bool | None = None
    fine: bool = False

    def features(self) -> Array:
        """(F,) in the order of ``FEATURES``: logarithms over what is usual, so that none is far from zero."""
        agrees = 0.0 if self.agrees is None else (1.0 if self.agrees else -1.0)
        share = max(self.inliers, 1) / max(self.visible, self.inliers, 1)
        return np.array(
            [
                np.log(max(self.inliers, 1) / 30.0),
                np.log(share / 0.1),
                np.log((self.coverage + 0.02) / 0.2),
                -np.log(max(self.error, 1.0) / 2.5),
                np.log(max(self.excess, 1.0) / 10.0),
                -self.beyond_rad / 0.35,
                agrees,
                -float(self.fine),
            ]
        )


def logistic(logit: Array | float) -> Array:
    """1 / (1 + exp(-logit)), never quite 0 or 1."""
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(logit, -_LARGEST_LOGIT, _LARGEST_LOGIT))))


@dataclass(frozen=True, eq=False)
class ConfidenceModel:
    """The probability that a pose is right, and the inflation of its covariance.

    A pose is right where it explains the image (a logistic function of the features) and where the camera is at this
    place and not at the second-best one (a logistic function of the ratio of their inliers; equal ones leave one half).

    Attributes:
        bias: logit of a pose with all features zero.
        weights: (F,) of the features, none negative.
        rival_weight: of the logarithm of that ratio.
        examined: (N,) ascending probabilities of the answers of the examination.
        beyond_rad: (K,) ascending distances of a view from the nearest mapped one.
        inflation: (K,) there, by how much covariances are multiplied; never falling.
        doubt_slope: and by how much more, as a logarithm, for each logit that a pose is less sure than ``SURE_LOGIT``.
    """

    bias: float
    weights: Array
    rival_weight: float
    examined: Array
    beyond_rad: Array
    inflation: Array
    doubt_slope: float

    def probability(self, evidence: Evidence) -> float:
        """That a pose is right, 0..1."""
        explained = float(self.explained(evidence.features()))
        if evidence.beyond_rad > _NEVER_SEEN_RAD:
            explained = min(explained, _UNEARNED)
        if evidence.rival == 0:
            return explained
        better = logistic(self.rival_weight * np.log(max(evidence.inliers, 1) / evidence.rival))
        return explained * (1.0 - evidence.rival_explains * (1.0 - float(better)))

    def explained(self, features: Array) -> Array:
        """(...) probabilities that poses explain their images, of (..., F) features."""
        return logistic(self.bias + features @ self.weights)

    def least_accepted(self, max_wrong: float) -> float:
        """The probability from which on answers are accepted, such that of answers like those of the examination this
        share is wrong."""
        falling = self.examined[::-1]
        risk = np.cumsum(1.0 - falling) / np.arange(1, len(falling) + 1)
        allowed = int(np.searchsorted(risk, max_wrong, side="right"))
        least = float(falling[allowed - 1]) if allowed else 1.0
        # Where the examination was too easy to tell, an answer answers for itself.
        return float(np.clip(least, 1.0 - _MOST_DOUBT * max_wrong, 1.0 - max_wrong))

    def inflation_at(self, beyond_rad: float, probability: float) -> float:
        """Factor of the covariance of a pose, by its view's distance from the nearest mapped one and by doubt."""
        logit = np.log(probability / (1.0 - probability))
        by_distance = np.interp(beyond_rad, self.beyond_rad, np.log(self.inflation))
        return float(np.exp(by_distance - self.doubt_slope * (logit - SURE_LOGIT)))

    def save(self, folder: Path) -> int:
        """Bytes written to a folder."""
        return save_arrays(
            folder / FILE,
            features=np.array(FEATURES, dtype=np.str_),
            bias=np.array([self.bias]),
            weights=self.weights,
            rival_weight=np.array([self.rival_weight]),
            examined=self.examined,
            beyond_rad=self.beyond_rad,
            inflation=self.inflation,
            doubt_slope=np.array([self.doubt_slope]),
        )

    @staticmethod
    def load(folder: Path) -> ConfidenceModel:
        """What :meth:`save` has written, ``PRIOR`` for a map that was never examined. Raises SceneError when it is
        damaged."""
        path = folder / FILE
        if not path.is_file():
            return PRIOR
        scalars = ("bias", "rival_weight", "doubt_slope")
        names = ("features", "weights", "examined", "beyond_rad", "inflation", *scalars)
        arrays = load_arrays(path, names)
        if tuple(str(name) for name in arrays["features"]) != FEATURES:
            raise SceneError(f"{path}: made of other features than this version's: map the recording again")
        values = {name: arrays[name] for name in names[1:]}
        if any(value.ndim != 1 or not np.all(np.isfinite(value)) for value in values.values()):
            raise SceneError(f"{path}: array shapes or values are not as they were written")
        beyond, inflation = values["beyond_rad"], values["inflation"]
        shapes = tuple(len(values[name]) for name in (*scalars, "weights", "inflation"))
        if shapes != (1, 1, 1, len(FEATURES), len(beyond)) or len(beyond) == 0:
            raise SceneError(f"{path}: array shapes do not fit together")
        if np.any(values["weights"] < 0.0) or np.any(np.diff(beyond) <= 0.0) or np.any(inflation <= 0.0):
            raise SceneError(f"{path}: weights or distances are not as they were written")
        bias, rival_weight, slope = (float(values[name][0]) for name in scalars)
        examined = np.sort(values["examined"])
        return ConfidenceModel(bias, values["weights"], rival_weight, examined, beyond, inflation, slope)


PRIOR = ConfidenceModel(
    bias=2.051,
    weights=np.array([1.131, 2.587, 3.029, 2.693, 1.979, 0.0, 1.935, 3.278]),
    rival_weight=2.0,
    examined=np.array([0.406, 0.9846, 0.9985, 0.9997, 0.99994, 0.99999, 1.0, 1.0, 1.0, 1.0]),
    beyond_rad=np.radians([0.0, 8.0, 16.0, 24.0, 34.0, 46.0, 60.0, 90.0]),
    inflation=np.array([0.815, 1.095, 1.681, 3.131, 4.186, 4.186, 4.186, 4.186]),
    doubt_slope=0.4,
)
"""What places have shown that were examined before, for a scene that has too few answers of its own.

Made by ``tools/confidence_prior.py`` of 2247 answers in maps of 7-Scenes Red Kitchen, TUM fr1_rpy, KITTI 00 and nine
simulated rooms, halls and corridors, mapped in part: to frames with the keyframes within 3, 20 and 45 degrees of view
hidden, and to frames of where the maps have never been, where tiled floors and ceilings look like mapped ones. 2010
were right, 140 inaccurate, and 97 named another place. With each of the twelve left out in turn, the model of the
others told right ones from those with an AUROC of 0.99 to 1.00; at ``search.max_wrong`` 0.001 it accepted 93 % of the
right ones and none of the 97, of which the surest had 0.964.

In a map of two rooms that are furnished alike (simulated), wrong places had up to 2.7 times the inliers of right ones:
the weight of rivals is such that this does not decide.
"""

PLAIN = replace(PRIOR, inflation=np.ones_like(PRIOR.inflation), doubt_slope=0.0)
"""Covariances as they come from keypoints and the map's own error, with nothing learned of them yet."""
