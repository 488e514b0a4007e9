"""Fixed-lag pose graph on GTSAM's IncrementalFixedLagSmoother."""

from __future__ import annotations

import logging
from collections import OrderedDict
from typing import SupportsFloat, SupportsIndex, SupportsInt

import numpy as np

from localizer_ros.core.config.runtime import SmootherConfig
from localizer_ros.core.se3 import SE3, compose_covariance
from localizer_ros.core.types import Array, ConfigError, PoseEstimate, RelativePose

try:
    import gtsam
except ImportError as error:  # pragma: no cover - depends on the machine
    raise ConfigError(f"smoother: gtsam cannot be imported ({error}); set smoother.kind to none") from error
if not hasattr(
    gtsam, "IncrementalFixedLagSmoother"
):  # pragma: no cover - old wheels, which also crash with numpy 2
    raise ConfigError("smoother: gtsam 4.3 or newer is needed (gtsam.IncrementalFixedLagSmoother is missing)")

logger = logging.getLogger(__name__)

# Sigmas outside these bounds make the information matrix singular in double precision.
MIN_SIGMA, MAX_SIGMA = 1e-4, 1e3
# Largest over smallest sigma of one measurement: with 1e4 every sixth graph of a single pose of random axes and sigmas
# up to 1e3 cannot be solved, with 1e3 none. The direction known best is then taken as known less well.
MAX_RATIO = 1e3


class GtsamSmoother:
    """Sliding window of camera poses: absolute factors under a robust kernel, relative factors between frames.

    Poses older than the lag are marginalised, so that memory and time per frame stay flat. A numerical failure
    rebuilds the graph from the last good estimate; it is counted in ``rebuilds`` and never raised.

    Args:
        config: lag, kernel and correlation time.
    """

    def __init__(self, config: SmootherConfig) -> None:
        self.rebuilds = 0
        self._config = config
        self._kernel = {
            "huber": gtsam.noiseModel.mEstimator.Huber,
            "cauchy": gtsam.noiseModel.mEstimator.Cauchy,
            "none": None,
        }[config.robust_kernel]
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        parameters = gtsam.ISAM2Params()
        parameters.relinearizeSkip = 1
        # Radians and metres. Relinearising moves the whole window, which is what makes the slowest updates slow.
        parameters.setRelinearizeThreshold(0.03)
        # Without it the list of factors grows for ever, with empty slots for the marginalised ones.
        parameters.findUnusedFactorSlots = True
        self._smoother = gtsam.IncrementalFixedLagSmoother(self._config.lag_s, parameters)
        self._factors = gtsam.NonlinearFactorGraph()
        self._values = gtsam.Values()
        self._times: dict[SupportsInt | SupportsIndex, SupportsFloat | SupportsIndex] = {}
        # Frames of the window: stamp -> key. Times are counted from the first, as GTSAM keeps them as doubles.
        self._keys: OrderedDict[int, int] = OrderedDict()
        self._next_key = 0
        self._start_ns: int | None = None
        self._newest: PoseEstimate | None = None
        self._guess: dict[int, SE3] = {}
        # Stamps of the window's absolute poses, and the error that the newest of them shares with the others.
        self._absolute_ns: set[int] = set()
        self._common = np.zeros((6, 6))

    def add_relative(self, relative: RelativePose) -> None:
        """See :class:`Smoother`. No robust kernel here: what measures motion has rejected its outliers itself."""
        if not self._keys:
            # The first pose could not be solved: the graph starts with the next one.
            return
        if relative.stamp_prev_ns not in self._keys:
            raise ValueError(f"add_relative: no frame at {relative.stamp_prev_ns} ns")
        prev = self._keys[relative.stamp_prev_ns]
        if relative.stamp_cur_ns not in self._keys:
            newest_ns = next(reversed(self._keys))
            if relative.stamp_cur_ns <= newest_ns:
                raise ValueError(f"add_relative: {relative.stamp_cur_ns} ns is older than the newest frame")
            self._add_frame(relative.stamp_cur_ns, self._pose_guess(prev) @ relative.T_prev_cur)
        cur = self._keys[relative.stamp_cur_ns]
        elapsed_s = (relative.stamp_cur_ns - relative.stamp_prev_ns) * 1e-9
        noise = _gaussian(relative.covariance * self._repeats(elapsed_s, relative.correlation_s))
        self._factors.add(gtsam.BetweenFactorPose3(prev, cur, _pose3(relative.T_prev_cur), noise))

    def add_absolute(self, absolute: PoseEstimate) -> bool:
        """See :class:`Smoother`. What cannot be weighed, for want of a finite covariance, is refused."""
        if absolute.covariance is None or not (
            np.all(np.isfinite(absolute.covariance)) and np.all(np.isfinite(absolute.T_map_cam.matrix()))
        ):
            return False
        first = not self._keys
        if first:
            self._add_frame(absolute.stamp_ns, absolute.T_map_cam)
        key = self._keys.get(absolute.stamp_ns)
        if key is None:
            return False
        # What poses have in common says nothing of which of them to follow: motions would be believed instead.
        own = absolute.covariance if absolute.common is None else absolute.covariance - absolute.common
        noise: gtsam.noiseModel.Base = _gaussian(
            own * self._repeats(self._spacing_s(absolute.stamp_ns), absolute.correlation_s)
        )
        # The first pose anchors the graph: a robust kernel there would leave it loose.
        if self._kernel is not None and not first:
            noise = gtsam.noiseModel.Robust.Create(self._kernel.Create(self._config.robust_width), noise)
        self._factors.add(gtsam.PriorFactorPose3(key, _pose3(absolute.T_map_cam), noise))
        self._absolute_ns.add(absolute.stamp_ns)
        self._common = np.zeros((6, 6)) if absolute.common is None else absolute.common
        return True

    def estimate(self) -> PoseEstimate | None:
        """See :class:`Smoother`. Updates the graph with what was added since the last call."""
        if not self._keys:
            return None
        if self._factors.size() == 0:
            return self._newest
        stamp_ns, key = next(reversed(self._keys.items()))
        guess = self._guess[key] if key in self._guess else self._pose_guess(key)
        try:
            self._smoother.update(self._factors, self._values, self._times)
            pose = self._smoother.calculateEstimatePose3(key)
            T_map_cam = SE3(np.asarray(pose.rotation().matrix()), np.asarray(pose.translation()))
            covariance = np.asarray(self._smoother.marginalCovariance(key))
            if not (np.all(np.isfinite(T_map_cam.matrix())) and np.all(np.isfinite(covariance))):
                raise RuntimeError("the solution is not finite")
        except (RuntimeError, ValueError, IndexError) as error:
            return self._rebuild(stamp_ns, guess, str(error))
        self._factors = gtsam.NonlinearFactorGraph()
        self._values = gtsam.Values()
        self._times = {}
        self._guess = {}
        # Twice the lag is never reached; the margin keeps late factors off keys about to be marginalised.
        oldest_ns = stamp_ns - int((self._config.lag_s - 1e-3) * 1e9)
        while next(iter(self._keys)) < oldest_ns:
            self._absolute_ns.discard(self._keys.popitem(last=False)[0])
        covariance = 0.5 * (covariance + covariance.T) + self._common
        self._newest = PoseEstimate(stamp_ns, T_map_cam, covariance, "smoother")
        return self._newest

    def _spacing_s(self, stamp_ns: int) -> float | None:
        """Time to the nearest other absolute pose, which has the same error for a while; None for the first."""
        others = (abs(stamp_ns - other_ns) for other_ns in self._absolute_ns if other_ns != stamp_ns)
        nearest_ns = min(others, default=None)
        return None if nearest_ns is None else nearest_ns * 1e-9

    def _repeats(self, period_s: float | None, correlation_s: float | None = None) -> float:
        """How many measurements fall within the correlation time: together they weigh as one."""
        lasts_s = self._config.correlation_s if correlation_s is None else correlation_s
        return max(1.0, lasts_s / period_s) if period_s else 1.0

    def _rebuild(self, stamp_ns: int, guess: SE3, error: str) -> PoseEstimate | None:
        """Start over from the last good estimate, moved to the newest frame by its motion."""
        logger.warning(
            "smoother: rebuilt after a numerical failure (%s)", error.splitlines()[0] if error else ""
        )
        last, rebuilds = self._newest, self.rebuilds + 1
        self.reset()
        self.rebuilds = rebuilds
        if last is None or last.covariance is None or not np.all(np.isfinite(guess.matrix())):
            return None
        elapsed_s = max(0.0, (stamp_ns - last.stamp_ns) * 1e-9)
        step = np.radians(self._config.walk_rotation_deg_s), self._config.walk_translation_m_s
        walk = np.diag(np.repeat(np.square(np.array(step) * elapsed_s), 3))
        motion = last.T_map_cam.inverse() @ guess
        anchor = PoseEstimate(stamp_ns, guess, compose_covariance(last.covariance, motion, walk), "smoother")
        self.add_absolute(anchor)
        self._smoother.update(self._factors, self._values, self._times)
        self._factors, self._values, self._times, self._guess = (
            gtsam.NonlinearFactorGraph(),
            gtsam.Values(),
            {},
            {},
        )
        self._newest = anchor
        return anchor

    def _add_frame(self, stamp_ns: int, guess: SE3) -> None:
        if self._start_ns is None:
            self._start_ns = stamp_ns
        key, self._next_key = self._next_key, self._next_key + 1
        self._keys[stamp_ns] = key
        self._values.insert(key, _pose3(guess))
        self._times[key] = (stamp_ns - self._start_ns) * 1e-9
        self._guess[key] = guess

    def _pose_guess(self, key: int) -> SE3:
        if key in self._guess:
            return self._guess[key]
        if self._newest is not None and self._keys.get(self._newest.stamp_ns) == key:
            return self._newest.T_map_cam
        pose = self._smoother.calculateEstimatePose3(key)
        return SE3(np.asarray(pose.rotation().matrix()), np.asarray(pose.translation()))


def _pose3(T: SE3) -> gtsam.Pose3:
    return gtsam.Pose3(gtsam.Rot3(T.R), T.t)


def _gaussian(covariance: Array) -> gtsam.noiseModel.Gaussian:
    variances = np.diagonal(covariance)
    if np.count_nonzero(covariance) == np.count_nonzero(variances):
        return gtsam.noiseModel.Diagonal.Variances(np.clip(variances, MIN_SIGMA**2, MAX_SIGMA**2))
    values, vectors = np.linalg.eigh(0.5 * (covariance + covariance.T))
    top = float(np.clip(values[-1], MIN_SIGMA**2, MAX_SIGMA**2))
    bounded = np.clip(values, max(MIN_SIGMA**2, top / MAX_RATIO**2), MAX_SIGMA**2)
    return gtsam.noiseModel.Gaussian.Covariance((vectors * bounded) @ vectors.T)
