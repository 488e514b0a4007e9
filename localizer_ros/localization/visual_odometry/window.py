"""The last keyframes and the points that they see."""

from __future__ import annotations

import numpy as np

from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import Array, Index, Mask
from localizer_ros.localization.visual_odometry.adjustment import Sightings, adjusted
from localizer_ros.localization.visual_odometry.points import Points

# Keyframes of a window: as many again make no motion better, and cost the square.
KEYFRAMES = 8
# Inverse depths that nobody knows are the usual one give or take all of it.
_ASSUMED_SHARE = 1.0
# In the adjustment an assumed depth has no say.
_NO_SAY = 100.0
# An error in the adjustment beyond which a point is not what it was, px.
_WRONG_PX = 3.0
# Inverse depths known better than to this share are measured.
_MEASURED = 0.3


class Window:
    """Keyframes, points, and the sightings of these by those.

    Args:
        T: first keyframe.
        focal_px: pixels per unit on the plane z = 1.
    """

    def __init__(self, T: SE3, focal_px: float) -> None:
        self.poses = [T]
        self.fixed = 1
        self._focal_px = focal_px
        self._rays = np.full((1, 0, 2), np.nan)
        self.anchor = np.zeros(0, dtype=np.intp)
        self.inverse_m = np.zeros(0)
        self.sigma = np.zeros(0)
        self._prior = np.zeros(0)
        self._prior_sigma = np.zeros(0)
        self.covariance: Array | None = None
        """(6 F, 6 F) of the free keyframes as adjusted last."""

    @property
    def count(self) -> int:
        """Number of points."""
        return len(self.anchor)

    def points(self, some: Index) -> Points:
        """Points of the window."""
        R, t = np.stack([T.R for T in self.poses]), np.stack([T.t for T in self.poses])
        anchor = self.anchor[some]
        rays = np.pad(self._rays[anchor, some], ((0, 0), (0, 1)), constant_values=1.0)
        inverse_m, sigma = self.inverse_m[some], self.sigma[some]
        ray = np.einsum("nij,nj->ni", R[anchor], rays)
        return Points(t[anchor], ray, inverse_m, sigma, sigma > _MEASURED * inverse_m)

    def rays_in(self, keyframe: int, some: Index) -> Array:
        """(M, 2) where a keyframe saw points; NaN where it did not."""
        return np.asarray(self._rays[keyframe, some])

    def add_points(self, rays: Array, inverse_m: Array, sigma: Array) -> Index:
        """(M,) numbers of new points, anchored in the newest keyframe.

        Args:
            rays: (M, 2) on the plane z = 1.
            inverse_m: (M,) inverse depths, 1/m.
            sigma: (M,) of those; infinite where they are assumed.
        """
        first, assumed = self.count, np.isinf(sigma)
        seen = np.full((len(self.poses), len(rays), 2), np.nan)
        seen[-1] = rays
        self._rays = np.concatenate([self._rays, seen], axis=1)
        self.anchor = np.append(self.anchor, np.full(len(rays), len(self.poses) - 1))
        self.inverse_m = np.append(self.inverse_m, inverse_m)
        self.sigma = np.append(self.sigma, np.where(assumed, _ASSUMED_SHARE * inverse_m, sigma))
        self._prior = np.append(self._prior, inverse_m)
        self._prior_sigma = np.append(self._prior_sigma, np.where(assumed, _NO_SAY * inverse_m, sigma))
        return np.arange(first, self.count)

    def add_keyframe(self, T: SE3, some: Index, rays: Array) -> None:
        """A new keyframe, which sees ``some`` points (M,) on ``rays`` (M, 2)."""
        self.poses.append(T)
        seen = np.full((1, self.count, 2), np.nan)
        seen[0, some] = rays
        self._rays = np.concatenate([self._rays, seen])

    def triangulate(self) -> None:
        """Inverse depths of all points, where the newest keyframe sees them."""
        some = np.arange(self.count)
        T, points = self.poses[-1], self.points(some)
        a, b, seen = points.ray @ T.R, (points.origin - T.t) @ T.R, self._rays[-1]
        A, B = a[:, :2] - seen * a[:, 2:], b[:, :2] - seen * b[:, 2:]
        found = -(A * B).sum(axis=1) / np.maximum((B * B).sum(axis=1), 1e-12)
        usual = float(np.median(found[found > 0.0])) if np.any(found > 0.0) else 1.0
        self.inverse_m = np.maximum(found, 0.01 * usual)
        self.sigma = _ASSUMED_SHARE * self.inverse_m
        self._prior = np.full(self.count, usual)
        self._prior_sigma = _NO_SAY * self._prior

    def adjust(self) -> tuple[Mask, bool]:
        """Adjust the window; (N,) which points fit, and whether it could be adjusted."""
        sees = np.isfinite(self._rays[:, :, 0])
        sees[self.anchor, np.arange(self.count)] = False
        point, keyframe = np.nonzero(sees.T)
        sightings = Sightings(
            keyframe,
            point,
            self._rays[keyframe, point],
            self.anchor,
            self._rays[self.anchor, np.arange(self.count)],
            self._prior,
            self._prior_sigma,
        )
        found = adjusted(self.poses, self.fixed, self.inverse_m, sightings, self._focal_px)
        if found is None:
            return np.ones(self.count, dtype=bool), False
        self.poses, self.inverse_m, self.covariance = found.poses, found.inverse_m, found.covariance
        self.sigma = np.where(
            sees.any(axis=0), np.minimum(found.sigma, _ASSUMED_SHARE * self.inverse_m), self.sigma
        )
        worst = np.zeros(self.count)
        np.maximum.at(worst, point, found.error_px)
        return worst < _WRONG_PX, True

    def length_sigma(self) -> float:
        """Relative error of the length of the window, by the last adjustment; at most 1."""
        assert self.covariance is not None
        T = self.poses[0].inverse() @ self.poses[-1]
        metres = float(np.linalg.norm(T.t))
        along = T.R.T @ T.t / max(metres, 1e-12)
        variance = float(along @ self.covariance[-3:, -3:] @ along)
        return min(float(np.sqrt(variance)) / max(metres, 1e-12), 1.0)

    def keep(self, keep: Mask) -> Index:
        """Drop points; (N,) the new number of each, -1 for what is gone."""
        self._rays = self._rays[:, keep]
        for name in ("anchor", "inverse_m", "sigma", "_prior", "_prior_sigma"):
            setattr(self, name, getattr(self, name)[keep])
        return np.where(keep, np.cumsum(keep) - 1, -1)

    def drop_oldest(self) -> Mask:
        """Forget the oldest keyframe; points that it anchored are anchored in the next one that sees them. (N,) which
        points are still seen by any."""
        rays = self._rays[1:]
        sees = np.isfinite(rays[:, :, 0])
        some = np.nonzero((self.anchor == 0) & sees.any(axis=0))[0]
        points = self.points(some)
        anchor = np.argmax(sees[:, some], axis=0) + 1
        R, t = np.stack([T.R for T in self.poses]), np.stack([T.t for T in self.poses])
        offset = points.ray + points.inverse_m[:, None] * (points.origin - t[anchor])
        share = 1.0 / np.maximum(np.einsum("ni,ni->n", offset, R[anchor][:, :, 2]), 0.1)
        for values in (self.inverse_m, self.sigma, self._prior, self._prior_sigma):
            values[some] *= share
        self.anchor[some] = anchor
        self.anchor = self.anchor - 1
        self._rays, self.poses = rays, self.poses[1:]
        self.fixed = min(2, len(self.poses))
        return np.asarray(sees.any(axis=0) & (self.anchor >= 0), dtype=bool)

    def scale(self, factor: float) -> None:
        """Make every length so many times as long, about the first keyframe."""
        origin = self.poses[0].t
        self.poses = [SE3(T.R, origin + factor * (T.t - origin)) for T in self.poses]
        for values in (self.inverse_m, self.sigma, self._prior, self._prior_sigma):
            values /= factor
