"""Whether external odometry moves as the images do. Where it does not, what the map verifies is believed.

Two witnesses say how the camera moved: the points that were followed from frame to frame, and the poses that the map
verified at both ends. Only what contradicts both is called wrong: a pose may be an outlier, and a robot may be carried
away, but then no point was followed. They begin at a pose that was believed: images that somebody turned upside down
agree with each other as well.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace

import numpy as np

from localizer_ros.core.se3 import SE3, compose_covariance
from localizer_ros.core.statistics import chi2_quantile
from localizer_ros.core.types import Array, Frame, PoseEstimate, RelativePose
from localizer_ros.localization.external_odometry import ODOMETRY, ExternalOdometry
from localizer_ros.localization.front_end import TRACKING
from localizer_ros.localization.visual_odometry import VISUAL_ODOMETRY

# Motions are compared over this time, or between two frames that are further apart.
_OVER_NS = 250_000_000
_DEGREES_OF_FREEDOM = 6
# Each witness by itself, so that both together are wrong in one frame of a million, which is ten hours of 30 Hz. With
# honest odometry of 5 % the lesser of the two squared distances stays below 7 in 740 windows of 0.2 and 0.3 s of Red
# Kitchen (30 and 10 Hz), where the limit is 22.5; odometry that stands still is above it in 63 % of those of 0.3 s, and
# in nearly all windows of a simulated robot that drives. At a simulated place that had no part in this, where
# things move, none of 900 frames was called wrong with honest odometry, and 59 of 60 with odometry that stood still.
_LIMIT = chi2_quantile(0.999, _DEGREES_OF_FREEDOM)


@dataclass(frozen=True, slots=True, eq=False)
class _Seen:
    """A frame, where its camera was on the robot, its verified pose, how points moved since the frame before, and
    whether the pose was believed."""

    stamp_ns: int
    T_base_cam: SE3
    pose: PoseEstimate | None
    followed: RelativePose | None
    believed: bool = False


class OdometryCheck:
    """Compares odometry with what the images show of the last moments.

    Args:
        odometry: to compare.
    """

    def __init__(self, odometry: ExternalOdometry) -> None:
        self._odometry = odometry
        self.reset()

    def reset(self) -> None:
        """Odometry is believed until it is contradicted."""
        self._seen: deque[_Seen] = deque()
        self.problem = ""
        """What is wrong with the odometry, until the images confirm it again; empty where nothing is."""
        # (6,) by how much it errs in a second, in the tangent of the motion.
        self._error_rate = np.zeros(_DEGREES_OF_FREEDOM)
        # Where the camera is if odometry is right and the images, which show no motion, are not.
        self._elsewhere: SE3 | None = None

    def believed(self, seen: RelativePose | None, odometry: RelativePose | None) -> list[RelativePose]:
        """What is believed of one motion: both, but for visual odometry beside the external one. Wheels know their
        lengths, which corners may lose unnoticed; it stands in where those fail or are contradicted.

        Args:
            seen: by the images.
            odometry: by external odometry.
        """
        if odometry is None:
            return [] if seen is None else [seen]
        if seen is None or (seen.source == VISUAL_ODOMETRY and not self.problem):
            return [odometry]
        return [seen, odometry]

    def compare(
        self, frame: Frame, pose: PoseEstimate | None, measured: tuple[RelativePose, ...]
    ) -> tuple[RelativePose, ...]:
        """The motions to a frame, the one that is wrong as uncertain as it is contradicted.

        Args:
            frame: the newest one.
            pose: of it, verified by the map and sure; None where there is none.
            measured: its motion since the frame before, by every source that has measured it.
        """
        followed, odometry = (
            next((motion for motion in measured if motion.source == source), None)
            for source in (TRACKING, ODOMETRY)
        )
        if frame.T_base_cam is None:
            return measured
        if not self._seen or followed is None or followed.stamp_prev_ns != self._seen[-1].stamp_ns:
            self._seen.clear()
        self._seen.append(_Seen(frame.stamp_ns, frame.T_base_cam, pose, followed))
        while len(self._seen) > 2 and frame.stamp_ns - self._seen[0].stamp_ns > _OVER_NS:
            self._seen.popleft()
        if self._elsewhere is not None and odometry is not None:
            self._elsewhere = self._elsewhere @ odometry.T_prev_cur
        self._judge()
        wrong, error = self._wrong(followed, odometry)
        return tuple(_widened(motion, error) if motion is wrong else motion for motion in measured)

    def believe(self) -> None:
        """The pose of the newest frame is in the graph."""
        if self._seen:
            self._seen.append(replace(self._seen.pop(), believed=True))

    def doubted(self, estimate: PoseEstimate) -> PoseEstimate:
        """The estimate with a covariance that reaches to where odometry says the camera is, while that moves and the
        images do not: they may be old ones, or the wheels may slip, and nobody knows which."""
        if self._elsewhere is None or estimate.covariance is None:
            return estimate
        error = (estimate.T_map_cam.inverse() @ self._elsewhere).log()
        return replace(estimate, covariance=estimate.covariance + np.outer(error, error))

    def _wrong(
        self, followed: RelativePose | None, odometry: RelativePose | None
    ) -> tuple[RelativePose | None, Array]:
        """Which of the two motions to the newest frame is not to be trusted, and its (6,) error."""
        if odometry is None:
            return None, self._error_rate
        if followed is None:
            elapsed_s = (odometry.stamp_cur_ns - odometry.stamp_prev_ns) * 1e-9
            return odometry if self.problem else None, self._error_rate * elapsed_s
        error = (followed.T_prev_cur.inverse() @ odometry.T_prev_cur).log()
        if self.problem:
            return odometry, error
        # Points take their depth from the pose at which they were matched.
        believed = len(self._seen) > 1 and self._seen[-2].believed
        return None if believed or _squared_distance(followed, odometry) <= _LIMIT else followed, error

    def _judge(self) -> None:
        """Compare; what cannot be compared leaves everything as it was."""
        last = self._seen[-1]
        first = next((seen for seen in self._seen if seen.pose is not None and seen.believed), last)
        moved = self._odometry.motion(first.stamp_ns, last.stamp_ns, first.T_base_cam, last.T_base_cam)
        if first is last or first.pose is None or last.pose is None or moved is None:
            return
        distance = _squared_distance(_between(first.pose, last.pose), moved)
        if distance <= _DEGREES_OF_FREEDOM:
            # As near as two that are right.
            self.problem, self._elsewhere = "", None
            return
        seen = self._followed_since(first)
        if distance <= _LIMIT or _squared_distance(seen, moved) <= _LIMIT:
            return
        elapsed_s = (last.stamp_ns - first.stamp_ns) * 1e-9
        self._error_rate = (seen.T_prev_cur.inverse() @ moved.T_prev_cur).log() / elapsed_s
        self.problem = (
            f"odometry contradicts the images: {_in_words(moved)} by odometry, {_in_words(seen)} by the images "
            f"in {elapsed_s:.1f} s"
        )
        if _squared_distance(seen, None) > _LIMIT:
            self._elsewhere = None
        elif self._elsewhere is None:
            self._elsewhere = first.pose.T_map_cam @ moved.T_prev_cur

    def _followed_since(self, first: _Seen) -> RelativePose:
        """Motion of the camera by the points that were followed from frame to frame."""
        last = self._seen[-1]
        T, S = SE3.identity(), np.zeros((_DEGREES_OF_FREEDOM, _DEGREES_OF_FREEDOM))
        for seen in self._seen:
            if seen.stamp_ns > first.stamp_ns and seen.followed is not None:
                S = compose_covariance(S, seen.followed.T_prev_cur, seen.followed.covariance)
                T = T @ seen.followed.T_prev_cur
        return RelativePose(first.stamp_ns, last.stamp_ns, T, S, TRACKING)


def _widened(motion: RelativePose, error: Array) -> RelativePose:
    return replace(motion, covariance=motion.covariance + np.outer(error, error))


def _between(first: PoseEstimate, last: PoseEstimate) -> RelativePose:
    """Motion of the camera between two poses, as certain as if they erred independently: the least that is known."""
    assert first.covariance is not None and last.covariance is not None
    T = first.T_map_cam.inverse() @ last.T_map_cam
    S = compose_covariance(first.covariance, T, last.covariance)
    return RelativePose(first.stamp_ns, last.stamp_ns, T, S, last.source)


def _squared_distance(a: RelativePose, b: RelativePose | None) -> float:
    """Squared Mahalanobis distance of two motions that err independently; of the first from rest without a second."""
    residual = (a.T_prev_cur.inverse() @ (SE3.identity() if b is None else b.T_prev_cur)).log()
    covariance: Array = a.covariance if b is None else a.covariance + b.covariance
    return float(residual @ np.linalg.solve(covariance, residual))


def _in_words(motion: RelativePose) -> str:
    angle_deg = np.degrees(motion.T_prev_cur.angle_to(SE3.identity()))
    return f"{np.linalg.norm(motion.T_prev_cur.t):.2f} m and {angle_deg:.1f} deg"
