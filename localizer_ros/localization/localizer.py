"""The localizer: ``Localizer.process(frame)`` is the whole algorithm, offline and online."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from scipy.stats import chi2

from localizer_ros.core.config.runtime import LocalizerConfig
from localizer_ros.core.se3 import SE3, compose_covariance, interpolate
from localizer_ros.core.types import (
    LATE_SEARCH,
    Array,
    Frame,
    FrameRejected,
    LocalizerOutput,
    PoseEstimate,
    RelativePose,
    Status,
)
from localizer_ros.localization.external_odometry import ExternalOdometry
from localizer_ros.localization.front_end import FrontEnd
from localizer_ros.localization.open import open_front_end
from localizer_ros.scene.bundle import Scene
from localizer_ros.smoothing import open_smoother
from localizer_ros.smoothing.smoother import Smoother

# Source of a motion nobody has measured.
ASSUMED = "assumed"
VELOCITY_FADES_S = 0.3
TOO_LATE = "absolute pose came too late: its frame is no longer known"
REJECTED = "absolute pose rejected: far from the prediction"
UNCONFIRMED = "absolute pose not sure enough of itself to start from: waits for others that agree"
# Poses in a row that are not sure of themselves, to start from the last of them: two that err alike are not rare.
_AGREEING_STARTS = 3
RELOCALIZED = "re-localised: many rejected poses agreed with each other"


class Localizer:
    """Frames in, poses out. Created, used and closed in one thread.

    Args:
        front_end: gives absolute poses and motions.
        smoother: fuses them.
        config: gates and thresholds.
        T_base_cam: camera on the robot; needed only where external odometry is used.
    """

    def __init__(
        self,
        front_end: FrontEnd,
        smoother: Smoother,
        config: LocalizerConfig,
        T_base_cam: SE3 | None = None,
    ) -> None:
        self.config = config
        self.T_base_cam = T_base_cam
        self._front_end = front_end
        self._smoother = smoother
        self._odometry = ExternalOdometry(config.odometry)
        self._gate = float(chi2.ppf(config.gate.probability, 6))
        self._last_ns: int | None = None
        self._started_over = ""
        self._memory = _Memory()

    def process(self, frame: Frame) -> LocalizerOutput:
        """Localise the next frame.

        Raises:
            FrameRejected: the frame cannot be used; nothing has changed and the next one is welcome.
        """
        clock = _Clock()
        self._check_time(frame.stamp_ns)
        prior = self._predict(frame.stamp_ns, self._expected_motion(frame.stamp_ns))
        observation = self._front_end.observe(frame, prior)
        clock.add(observation.timings_ms, "front_end")
        if observation.late_ms is not None:
            clock.beside(LATE_SEARCH, observation.late_ms)
        motions = self._motions(frame.stamp_ns, observation.relative)
        self._memory.travelled.extend(motions[:1])
        predicted = self._predict(frame.stamp_ns, motions[0] if motions else None)
        if self._memory.started:
            for motion in motions:
                self._smoother.add_relative(motion)
        # Kept until now: a frame that is rejected has no output to say it in.
        started_over, self._started_over = self._started_over, ""
        reasons = [why for why in (started_over, observation.reason) if why]
        relocalized = False
        for answer in self._absolutes(observation.absolute, observation.late, frame.stamp_ns):
            current = self._brought_forward(answer, frame.stamp_ns)
            # With a graph an answer goes to its own frame; without one there is no past frame to go to.
            absolute = answer if self._memory.started else current
            if absolute is None:
                reasons.append(TOO_LATE)
            elif self._believable(absolute, predicted if absolute.stamp_ns == frame.stamp_ns else None):
                if not self._accept(absolute) and absolute.stamp_ns < frame.stamp_ns:
                    reasons.append(TOO_LATE)
            elif current is not None and self._agree(current):
                if self._memory.started:
                    relocalized = True
                    reasons.append(RELOCALIZED)
                self._start_over_at(current)
            else:
                reasons.append(REJECTED if self._memory.started else UNCONFIRMED)
        clock.lap("gate")
        estimate = self._smoother.estimate() if self._memory.started else None
        clock.lap("smoother")
        status, why = self._judge(frame.stamp_ns, estimate)
        if why:
            reasons.append(why)
        if status in (Status.INITIALIZING, Status.LOST):
            # Nothing here is worth trusting: the next absolute pose starts afresh, without a gate. It must not be
            # what the front end has gone on believing while it was rejected.
            if self._memory.started:
                self._front_end.lost()
            self._smoother.reset()
            self._memory.started, estimate = False, None
        self._remember(frame.stamp_ns, estimate, motions)
        return LocalizerOutput(
            stamp_ns=frame.stamp_ns,
            status=status,
            estimate=estimate,
            absolute=observation.absolute,
            relative=motions[0] if motions else None,
            reason="; ".join(reasons),
            timings_ms=clock.timings_ms(),
            reset=bool(started_over) or relocalized,
            motions=tuple(m for m in motions if m.source != ASSUMED),
        )

    def add_odometry(self, stamp_ns: int, T_odom_base: SE3) -> None:
        """Add a sample of external odometry; it helps frames up to and shortly after its stamp."""
        self._odometry.add(stamp_ns, T_odom_base)

    def set_prior(self, prior: PoseEstimate) -> None:
        """Start over at a pose somebody knows; taken as the pose of the next frame."""
        self.reset()
        self._memory.given = prior

    def relocalize(self) -> None:
        """Forget the pose and find it again from the map; time and odometry go on."""
        self._smoother.reset()
        self._front_end.reset()
        self._memory = _Memory()

    def reset(self) -> None:
        """Forget everything but the scene."""
        self.relocalize()
        self._odometry.reset()
        self._last_ns, self._started_over = None, ""

    def close(self) -> None:
        """Release the engines and threads."""
        self._front_end.close()

    # --- the steps of process, in order ---

    def _check_time(self, stamp_ns: int) -> None:
        """Start over where time jumped back far enough, or too long a time passed without frames."""
        if self._last_ns is not None and stamp_ns <= self._last_ns:
            back_s = (self._last_ns - stamp_ns) * 1e-9
            if back_s == 0.0:
                raise FrameRejected("stamp_repeats", f"frame at {stamp_ns} ns: the stamp repeats")
            if back_s < self.config.status.time_jump_s:
                raise FrameRejected(
                    "stamp_goes_back", f"frame at {stamp_ns} ns: {back_s:.3f} s before the last"
                )
            self.reset()
            self._started_over = "time jumped back: started over"
        elif self._last_ns is not None:
            gap_s = (stamp_ns - self._last_ns) * 1e-9
            if gap_s > self.config.smoother.max_gap_s:
                self.relocalize()
                self._started_over = f"no frame for {gap_s:.1f} s: started over"

    def _expected_motion(self, stamp_ns: int) -> RelativePose | None:
        """What the camera has probably done since the last frame: the odometry's word, else an assumption."""
        if self._last_ns is None:
            return None
        return self._external_motion(stamp_ns) or self._assumed_motion(stamp_ns)

    def _assumed_motion(self, stamp_ns: int) -> RelativePose:
        """The last velocity goes on; it fades where nothing has confirmed it since."""
        assert self._last_ns is not None
        velocity, elapsed_ns = self._memory.velocity, stamp_ns - self._last_ns
        T_prev_cur = SE3.identity()
        if velocity is not None:
            share = elapsed_ns / (velocity.stamp_cur_ns - velocity.stamp_prev_ns)
            if self._memory.accepted_ns != self._last_ns:
                share *= float(np.exp(-elapsed_ns * 1e-9 / VELOCITY_FADES_S))
            T_prev_cur = interpolate(SE3.identity(), velocity.T_prev_cur, share)
        return RelativePose(self._last_ns, stamp_ns, T_prev_cur, self._walk(stamp_ns), ASSUMED)

    def _external_motion(self, stamp_ns: int) -> RelativePose | None:
        if self._last_ns is None or self.T_base_cam is None or not self.config.odometry.use:
            return None
        return self._odometry.motion(self._last_ns, stamp_ns, self.T_base_cam)

    def _motions(self, stamp_ns: int, relative: RelativePose | None) -> list[RelativePose]:
        """Every motion measured since the last frame, the most certain first; an assumed one where there is none."""
        if self._last_ns is None:
            return []
        measured = [m for m in (relative, self._external_motion(stamp_ns)) if m is not None]
        if not measured:
            return [self._assumed_motion(stamp_ns)]
        return sorted(measured, key=lambda m: float(np.trace(m.covariance)))

    def _walk(self, stamp_ns: int) -> Array:
        assert self._last_ns is not None
        elapsed_s = (stamp_ns - self._last_ns) * 1e-9
        c = self.config.smoother
        sigmas = np.array([np.radians(c.walk_rotation_deg_s), c.walk_translation_m_s]) * elapsed_s
        return np.diag(np.repeat(sigmas**2, 3))

    def _predict(self, stamp_ns: int, motion: RelativePose | None) -> PoseEstimate | None:
        """The last estimate moved by ``motion``; before the first estimate the pose somebody gave."""
        if self._memory.estimate is None:
            given = self._memory.given
            if given is None:
                return None
            return replace(given, stamp_ns=stamp_ns)
        if motion is None:
            last_ns = self._memory.estimate.stamp_ns
            motion = RelativePose(last_ns, stamp_ns, SE3.identity(), self._walk(stamp_ns), ASSUMED)
        assert self._memory.estimate.covariance is not None
        covariance = compose_covariance(
            self._memory.estimate.covariance, motion.T_prev_cur, motion.covariance
        )
        return PoseEstimate(
            stamp_ns, self._memory.estimate.T_map_cam @ motion.T_prev_cur, covariance, "prediction"
        )

    def _absolutes(
        self, absolute: PoseEstimate | None, late: tuple[PoseEstimate, ...], stamp_ns: int
    ) -> list[PoseEstimate]:
        """The absolute poses to consider, oldest first; a pose somebody gave comes before all."""
        given = self._memory.given
        self._memory.given = None
        first = [] if given is None else [replace(given, stamp_ns=stamp_ns)]
        return first + sorted(late, key=lambda p: p.stamp_ns) + ([] if absolute is None else [absolute])

    def _believable(self, absolute: PoseEstimate, predicted: PoseEstimate | None) -> bool:
        """Inside the gate around the prediction; while there is nothing to compare with, sure of itself."""
        if not self._memory.started:
            return absolute.confidence is None or absolute.confidence >= self.config.gate.start_confidence
        if predicted is None:
            # A late pose: compare at its own time.
            predicted = self._memory.past.get(absolute.stamp_ns)
        if predicted is None or predicted.covariance is None or absolute.covariance is None:
            return predicted is None
        return self._distance(predicted, absolute) < self._gate

    @staticmethod
    def _distance(a: PoseEstimate, b: PoseEstimate) -> float:
        """Squared Mahalanobis distance of two poses under the sum of their covariances."""
        assert a.covariance is not None and b.covariance is not None
        residual = (a.T_map_cam.inverse() @ b.T_map_cam).log()
        return float(residual @ np.linalg.solve(a.covariance + b.covariance, residual))

    def _accept(self, absolute: PoseEstimate) -> bool:
        """False when the smoother has no use for it."""
        if not self._smoother.add_absolute(absolute):
            return False
        self._memory.started = True
        self._memory.rejected = []
        self._memory.accepted_ns = max(self._memory.accepted_ns or absolute.stamp_ns, absolute.stamp_ns)
        return True

    def _agree(self, absolute: PoseEstimate) -> bool:
        """True when enough poses in a row that were not believed tell the same story among themselves."""
        if self._memory.rejected:
            moved = self._brought_forward(self._memory.rejected[-1], absolute.stamp_ns)
            unknown = moved is None or moved.covariance is None or absolute.covariance is None
            if moved is None or unknown or not self._distance(moved, absolute) < self._gate:
                self._memory.rejected = []
        self._memory.rejected.append(absolute)
        return len(self._memory.rejected) >= (
            self.config.gate.agreeing_rejections if self._memory.started else _AGREEING_STARTS
        )

    def _brought_forward(self, absolute: PoseEstimate, stamp_ns: int) -> PoseEstimate | None:
        """An answer for an earlier frame, moved to ``stamp_ns`` by the motions since; None when those are not known."""
        for motion in self._memory.travelled:
            if motion.stamp_prev_ns == absolute.stamp_ns and absolute.stamp_ns < stamp_ns:
                covariance = absolute.covariance
                if covariance is not None:
                    covariance = compose_covariance(covariance, motion.T_prev_cur, motion.covariance)
                absolute = replace(
                    absolute,
                    stamp_ns=motion.stamp_cur_ns,
                    T_map_cam=absolute.T_map_cam @ motion.T_prev_cur,
                    covariance=covariance,
                )
        return absolute if absolute.stamp_ns == stamp_ns else None

    def _start_over_at(self, absolute: PoseEstimate) -> None:
        self._smoother.reset()
        self._memory.started, self._memory.rejected, self._memory.accepted_ns = False, [], None
        self._memory.past.clear()
        self._accept(absolute)

    def _judge(self, stamp_ns: int, estimate: PoseEstimate | None) -> tuple[Status, str]:
        if self._memory.accepted_ns is None:
            return Status.INITIALIZING, "no absolute pose yet"
        c = self.config.status
        since_s = (stamp_ns - self._memory.accepted_ns) * 1e-9
        if since_s > c.lost_after_s:
            return Status.LOST, f"no believable absolute pose for {since_s:.1f} s"
        if estimate is None or estimate.covariance is None:
            return Status.DEGRADED, "no estimate for this frame"
        sigma_m = float(np.sqrt(np.linalg.eigvalsh(estimate.covariance[3:, 3:])[-1]))
        if sigma_m > c.lost_sigma_m:
            return Status.LOST, f"position known to {sigma_m:.1f} m only"
        if since_s > c.degraded_after_s:
            return Status.DEGRADED, f"no believable absolute pose for {since_s:.1f} s"
        if sigma_m > c.degraded_sigma_m:
            return Status.DEGRADED, f"position known to {sigma_m:.1f} m only"
        return Status.TRACKING, ""

    def _remember(self, stamp_ns: int, estimate: PoseEstimate | None, motions: list[RelativePose]) -> None:
        self._last_ns = stamp_ns
        moved = estimate is not None and self._memory.estimate is not None
        measured = [m for m in motions if m.source != ASSUMED]
        if measured:
            self._memory.velocity = measured[0]
        elif moved:
            assert estimate is not None and self._memory.estimate is not None
            T_prev_cur = self._memory.estimate.T_map_cam.inverse() @ estimate.T_map_cam
            self._memory.velocity = RelativePose(
                self._memory.estimate.stamp_ns, stamp_ns, T_prev_cur, np.eye(6), "velocity"
            )
        else:
            self._memory.velocity = None
        self._memory.estimate = estimate
        if estimate is not None and estimate.covariance is not None:
            self._memory.past[stamp_ns] = estimate
        oldest_ns = stamp_ns - int(self.config.smoother.lag_s * 1e9)
        while self._memory.past and next(iter(self._memory.past)) < oldest_ns:
            del self._memory.past[next(iter(self._memory.past))]


@dataclass(eq=False)
class _Memory:
    """What is known of the drive so far; gone at a reset.

    Attributes:
        started: the smoother holds a graph.
        estimate: answer to the last frame.
        velocity: last motion, for predicting the next.
        given: pose somebody gave, not used yet.
        accepted_ns: stamp of the newest absolute pose believed.
        rejected: absolute poses not believed, in a row, that agree with each other.
        past: answers within the lag, by stamp.
        travelled: last motions, for answers that come late while there is no graph.
    """

    started: bool = False
    estimate: PoseEstimate | None = None
    velocity: RelativePose | None = None
    given: PoseEstimate | None = None
    accepted_ns: int | None = None
    rejected: list[PoseEstimate] = field(default_factory=list)
    past: dict[int, PoseEstimate] = field(default_factory=dict)
    travelled: deque[RelativePose] = field(default_factory=lambda: deque(maxlen=300))


class _Clock:
    """Wall time of stages; the front end reports its own, what it leaves over goes under its name."""

    def __init__(self) -> None:
        self._start = self._last = time.perf_counter()
        self._laps: dict[str, float] = {}

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self._laps[name] = (now - self._last) * 1e3
        self._last = now

    def add(self, timings_ms: dict[str, float], name: str) -> None:
        self._laps.update(timings_ms)
        spent = sum(timings_ms.values())
        self.lap(name)
        self._laps[name] = max(0.0, self._laps[name] - spent)

    def beside(self, name: str, spent_ms: float) -> None:
        """What ran beside the frames: no part of the total."""
        self._laps[name] = spent_ms

    def timings_ms(self) -> dict[str, float]:
        return {**self._laps, "total": (time.perf_counter() - self._start) * 1e3}


def open_localizer(
    scene_path: Path, config: LocalizerConfig, T_base_cam: SE3 | None = None, threaded: bool = False
) -> Localizer:
    """The localizer of a scene on disk.

    Args:
        scene_path: the scene.
        config: everything else.
        T_base_cam: camera on the robot; needed only where external odometry is used.
        threaded: late searches run on a thread of their own, as on a robot, instead of in place, where their schedule
            does not depend on the machine.

    Raises:
        SceneError: the scene is missing, incomplete, changed or of another version.
        BackendError: no inference back end can run its network.
    """
    front_end = open_front_end(Scene.load(scene_path), config, threaded)
    return Localizer(front_end, open_smoother(config.smoother), config, T_base_cam)
