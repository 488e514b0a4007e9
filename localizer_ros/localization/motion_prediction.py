"""How the camera has moved since the last frame, measured or assumed, and where that puts it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from localizer_ros.core.config.runtime import LocalizerConfig
from localizer_ros.core.se3 import SE3, compose_covariance, interpolate
from localizer_ros.core.statistics import chi2_quantile
from localizer_ros.core.types import Array, Frame, FrameRejected, PoseEstimate, RelativePose
from localizer_ros.localization.external_odometry import ODOMETRY, ExternalOdometry
from localizer_ros.localization.gate import squared_mahalanobis
from localizer_ros.localization.odometry_check import OdometryCheck
from localizer_ros.localization.visual_odometry import VISUAL_ODOMETRY

# Time constant of a velocity that nothing has confirmed, seconds. Turn rates of the hand-held camera of Red Kitchen
# correlate by 0.45 after 0.3 s and by 0.20 after 1 s.
VELOCITY_FADES_S = 0.3
DEGREES_OF_FREEDOM = 6
# Motions are kept so long, to bring late answers forward: the longest search.latency_s, whatever the camera's rate.
KEPT_NS = 10_000_000_000


@dataclass(frozen=True, slots=True, eq=False)
class Motions:
    """Motions from the previous frame to this one.

    Attributes:
        measured: by the front end and by external odometry, the most certain first.
        assumed: the last velocity, where none was measured; None for a first frame, too.
        contradicted: the images contradict what external odometry measured.
    """

    measured: tuple[RelativePose, ...] = ()
    assumed: RelativePose | None = None
    contradicted: bool = False

    @property
    def all(self) -> tuple[RelativePose, ...]:
        """The measured ones, or the assumed one."""
        return self.measured if self.assumed is None else (self.assumed,)

    @property
    def by_odometry(self) -> bool:
        """True where odometry measured the motion, visual, or external that nothing contradicts."""
        believed = (VISUAL_ODOMETRY,) if self.contradicted else (VISUAL_ODOMETRY, ODOMETRY)
        return any(motion.source in believed for motion in self.measured)

    @property
    def best(self) -> RelativePose | None:
        """The most certain one; None for a first frame."""
        return self.all[0] if self.all else None


@dataclass(frozen=True, slots=True, eq=False)
class _Last:
    """The last frame: its stamp, where its camera was on the robot, and whether an accepted pose confirms it."""

    stamp_ns: int
    T_base_cam: SE3 | None
    confirmed: bool


@dataclass(frozen=True, slots=True, eq=False)
class Passed:
    """The way from the last frame to a newer one whose image shows nothing new.

    Attributes:
        stamp_ns: of the newer one.
        T_base_cam: where its camera was on the robot.
        odometry: the motion since the last frame by external odometry, as the sum of ``steps`` that err independently;
            None where it has not measured the whole way.
        steps: how many.
        moved: that motion is more than the odometry's noise.
    """

    stamp_ns: int
    T_base_cam: SE3 | None
    odometry: RelativePose | None
    steps: int = 0
    moved: bool = False


class MotionPrediction:
    """Predicts each frame's pose from the estimate of the last one.

    Args:
        config: of the odometry, and of what is assumed where nothing is measured.
    """

    def __init__(self, config: LocalizerConfig) -> None:
        self._odometry = ExternalOdometry(config.odometry)
        self._check = OdometryCheck(self._odometry)
        self.reconfigure(config)
        self._last: _Last | None = None
        self._passed: Passed | None = None
        self._estimate: PoseEstimate | None = None
        self._velocity: RelativePose | None = None
        self._travelled: deque[RelativePose] = deque()

    def reconfigure(self, config: LocalizerConfig) -> None:
        """Other errors of the odometry, and another gate, from now on."""
        self._config = config
        self._still = chi2_quantile(config.gate.probability, DEGREES_OF_FREEDOM)
        self._odometry.reconfigure(config.odometry)

    @property
    def last_ns(self) -> int | None:
        """Stamp of the last frame, None before the first."""
        last = self._passed or self._last
        return None if last is None else last.stamp_ns

    @property
    def last_new_ns(self) -> int | None:
        """Stamp of the last frame that was not passed over, None before the first."""
        return None if self._last is None else self._last.stamp_ns

    @property
    def has_pose(self) -> bool:
        """The last frame had a pose to go on from."""
        return self._estimate is not None

    def gap_s(self, stamp_ns: int) -> float | None:
        """Seconds since the last frame, negative where time jumped back; None for a first frame.

        Raises:
            FrameRejected: the stamp repeats, or is a little older than the last.
        """
        last_ns = self.last_ns
        if last_ns is None:
            return None
        gap_s = (stamp_ns - last_ns) * 1e-9
        if gap_s == 0.0:
            raise FrameRejected("stamp_repeats", f"frame at {stamp_ns} ns: the stamp repeats")
        if -self._config.status.time_jump_s < gap_s < 0.0:
            raise FrameRejected("stamp_goes_back", f"frame at {stamp_ns} ns: {-gap_s:.3f} s before the last")
        return gap_s

    def add_odometry(self, stamp_ns: int, T_odom_base: SE3, covariance: Array | None = None) -> None:
        """Add a sample of external odometry, see ``ExternalOdometry.add``."""
        self._odometry.add(stamp_ns, T_odom_base, covariance)

    def take_odometry_problem(self) -> str:
        """What is wrong with the odometry, by its samples since this was asked last and by the images; else empty."""
        return "; ".join(filter(None, (self._odometry.take_problem(), self._check.problem)))

    def doubted(self, estimate: PoseEstimate) -> PoseEstimate:
        """See ``OdometryCheck.doubted``."""
        return self._check.doubted(estimate)

    def expected(self, frame: Frame) -> RelativePose | None:
        """The motion to ``frame`` before anybody has looked at it: the odometry's, else the last velocity; None for a
        first frame."""
        if self._last is None:
            return None
        return self._external(self._last, frame) or self._assumed(self._last, frame.stamp_ns)

    def pass_over(self, frame: Frame) -> Passed:
        """Note a frame whose image shows nothing new: motions go on from the frame before it."""
        assert self._last is not None
        self._passed = self._way_to(self._last, frame)
        return self._passed

    def passed_motion(self, passed: Passed) -> RelativePose:
        """The motion to a frame that shows nothing new. Odometry's, where there is one: none, where it cannot tell it
        from standing still as the image does. Without odometry the last velocity, which fades."""
        assert self._last is not None
        if passed.odometry is None:
            return self._assumed(self._last, passed.stamp_ns)
        return self._told(passed, passed.odometry)

    def since_last(self, frame: Frame, relative: RelativePose | None) -> Motions:
        """All motions to ``frame``.

        Args:
            frame: the newest frame.
            relative: what the front end measured, None when it did not.
        """
        last = self._last
        if last is None:
            return Motions()
        measured = self._check.believed(relative, self._external(last, frame))
        if not measured:
            return Motions(assumed=self._assumed(last, frame.stamp_ns))
        return _sorted(measured)

    def checked(self, frame: Frame, pose: PoseEstimate | None, motions: Motions) -> Motions:
        """The motions to ``frame``, each as uncertain as it is contradicted.

        Args:
            frame: the newest frame.
            pose: of it, verified by the map and sure; None where there is none.
            motions: all that were measured, or what is assumed.
        """
        checked = self._check.compare(frame, pose, motions.measured)
        unchanged = checked == motions.measured
        return motions if unchanged else replace(_sorted(checked), contradicted=bool(self._check.problem))

    def measured_by(self, answers: Iterable[PoseEstimate], motions: Motions) -> Motions:
        """The motions; an assumed one that an answer of the newest frame contradicts becomes what that answer says, as
        uncertain as the contradiction is large.

        A measurement outvotes an assumption: what nobody measured makes no answer wrong, and its information on the
        next pose vanishes with the square of its error.
        """
        assumed, predicted = motions.assumed, self.predict(motions.assumed)
        if assumed is None or predicted is None or predicted.covariance is None:
            return motions
        for answer in answers:
            distance = (
                squared_mahalanobis(predicted, answer) if answer.stamp_ns == predicted.stamp_ns else None
            )
            if distance is not None and distance > DEGREES_OF_FREEDOM:
                T_prev_cur = assumed.T_prev_cur @ predicted.T_map_cam.inverse() @ answer.T_map_cam
                wide = assumed.covariance * (distance / DEGREES_OF_FREEDOM) ** 2
                return Motions(assumed=replace(assumed, T_prev_cur=T_prev_cur, covariance=wide))
        return motions

    def predict(self, motion: RelativePose | None) -> PoseEstimate | None:
        """The last estimate moved by ``motion``; None where one of the two is not known."""
        if self._estimate is None or motion is None:
            return None
        there = moved(self._estimate, motion)
        return PoseEstimate(motion.stamp_cur_ns, there.T_map_cam, there.covariance, "prediction")

    def travel(self, motions: Motions) -> None:
        """Note the way to the newest frame, along which late answers are brought forward."""
        if motions.best is not None:
            self._travelled.append(motions.best)
            newest_ns = motions.best.stamp_cur_ns
            while self._travelled[0].stamp_cur_ns < newest_ns - KEPT_NS:
                self._travelled.popleft()

    def bring_forward(self, answer: PoseEstimate, stamp_ns: int) -> PoseEstimate | None:
        """An answer for an earlier frame, moved to ``stamp_ns`` by the motions since; None when those are not known."""
        for motion in self._travelled:
            if motion.stamp_prev_ns == answer.stamp_ns and answer.stamp_ns < stamp_ns:
                answer = moved(answer, motion)
        return answer if answer.stamp_ns == stamp_ns else None

    def remember(
        self, frame: Frame, estimate: PoseEstimate | None, motions: Motions, confirmed: bool
    ) -> None:
        """Make ``frame`` the last one.

        Args:
            frame: the newest frame.
            estimate: its pose, None while there is none to be trusted.
            motions: since the frame before it.
            confirmed: an absolute pose of this very frame was accepted.
        """
        if motions.measured:
            self._velocity = motions.measured[0]
        elif estimate is not None and self._estimate is not None:
            before = self._estimate
            T_prev_cur = before.T_map_cam.inverse() @ estimate.T_map_cam
            self._velocity = RelativePose(before.stamp_ns, frame.stamp_ns, T_prev_cur, np.eye(6), "velocity")
        else:
            self._velocity = None
        if confirmed:
            self._check.believe()
        self._estimate = estimate
        self._passed = None
        self._last = _Last(frame.stamp_ns, frame.T_base_cam, confirmed)

    def forget_pose(self) -> None:
        """Forget where the camera is and how it moves; time and odometry go on."""
        self._estimate = self._velocity = None
        self._check.reset()
        self._travelled.clear()

    def reset(self) -> None:
        """Forget everything."""
        self.forget_pose()
        self._odometry.reset()
        self._last = self._passed = None

    def _external(self, last: _Last, frame: Frame) -> RelativePose | None:
        if self._passed is None:
            return self._measured(last, frame)
        way = self._way_to(last, frame)
        return None if way.odometry is None else self._told(way, way.odometry)

    def _measured(self, last: _Last | Passed, frame: Frame) -> RelativePose | None:
        if not self._config.odometry.use or last.T_base_cam is None or frame.T_base_cam is None:
            return None
        return self._odometry.motion(last.stamp_ns, frame.stamp_ns, last.T_base_cam, frame.T_base_cam)

    def _way_to(self, last: _Last, frame: Frame) -> Passed:
        """The way from the last frame over those passed since. It is added up: samples of long ago are forgotten."""
        passed = self._passed
        step = self._measured(passed or last, frame)
        if step is None or (passed is not None and passed.odometry is None):
            return Passed(frame.stamp_ns, frame.T_base_cam, None)
        if passed is None or passed.odometry is None:
            way, steps = step, 1
        else:
            T, S = passed.odometry.T_prev_cur, passed.odometry.covariance
            S = compose_covariance(S, step.T_prev_cur, step.covariance)
            way = RelativePose(last.stamp_ns, frame.stamp_ns, T @ step.T_prev_cur, S, ODOMETRY)
            steps = passed.steps + 1
        tangent = way.T_prev_cur.log()
        squared = float(tangent @ np.linalg.solve(way.covariance, tangent))
        # What has moved and is back has moved.
        has_moved = squared > self._still or (passed is not None and passed.moved)
        return Passed(frame.stamp_ns, frame.T_base_cam, way, steps, has_moved)

    def _told(self, passed: Passed, odometry: RelativePose) -> RelativePose:
        if not passed.moved:
            # Two witnesses that do not know of each other say the same.
            return replace(odometry, T_prev_cur=SE3.identity())
        elapsed_s = (odometry.stamp_cur_ns - odometry.stamp_prev_ns) * 1e-9
        lasts_s = self._config.smoother.correlation_s
        # Errors last: so many steps err alike.
        alike = max(1.0, passed.steps * min(1.0, lasts_s / elapsed_s))
        return replace(odometry, covariance=odometry.covariance * alike)

    def _assumed(self, last: _Last, stamp_ns: int) -> RelativePose:
        """The last velocity goes on; it fades where nothing has confirmed it since."""
        elapsed_s = (stamp_ns - last.stamp_ns) * 1e-9
        T_prev_cur = SE3.identity()
        if self._velocity is not None:
            measured_over_ns = self._velocity.stamp_cur_ns - self._velocity.stamp_prev_ns
            share = (stamp_ns - last.stamp_ns) / measured_over_ns
            if not last.confirmed or self._passed is not None:
                share *= float(np.exp(-elapsed_s / VELOCITY_FADES_S))
            T_prev_cur = interpolate(SE3.identity(), self._velocity.T_prev_cur, share)
        return RelativePose(last.stamp_ns, stamp_ns, T_prev_cur, self._walk(elapsed_s), "assumed")

    def _walk(self, elapsed_s: float) -> Array:
        c = self._config.smoother
        sigmas = np.array([np.radians(c.walk_rotation_deg_s), c.walk_translation_m_s]) * elapsed_s
        return np.diag(np.repeat(sigmas**2, 3))


def _sorted(measured: Iterable[RelativePose]) -> Motions:
    return Motions(tuple(sorted(measured, key=lambda m: float(np.trace(m.covariance)))))


def moved(pose: PoseEstimate, motion: RelativePose) -> PoseEstimate:
    """The pose after a motion."""
    covariance = pose.covariance
    if covariance is not None:
        covariance = compose_covariance(covariance, motion.T_prev_cur, motion.covariance)
    T_map_cam, stamp_ns = pose.T_map_cam @ motion.T_prev_cur, motion.stamp_cur_ns
    return replace(pose, stamp_ns=stamp_ns, T_map_cam=T_map_cam, covariance=covariance, common=None)
