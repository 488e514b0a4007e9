"""The localizer: ``Localizer.process(frame)`` is the whole algorithm, offline and online."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from localizer_ros.core.config.runtime import LocalizerConfig
from localizer_ros.core.se3 import SE3
from localizer_ros.core.threads import share_cores
from localizer_ros.core.timing import StageTimer
from localizer_ros.core.types import (
    Array,
    Frame,
    LocalizerOutput,
    PoseEstimate,
    RelativePose,
)
from localizer_ros.localization.floor import on_floor
from localizer_ros.localization.front_end import FrontEnd, Observation
from localizer_ros.localization.gate import ACCEPTING, AnswerOutcome, Gate, doubted
from localizer_ros.localization.given_pose import GivenPose, settle
from localizer_ros.localization.motion_prediction import MotionPrediction, Motions
from localizer_ros.localization.open import open_front_end
from localizer_ros.localization.repeated_images import Repeated, RepeatedImages, carried_over
from localizer_ros.localization.status import Judgement, Trust, explain, judge
from localizer_ros.scene.bundle import Scene
from localizer_ros.smoothing import open_smoother
from localizer_ros.smoothing.smoother import Smoother


class Localizer:
    """Frames in, poses out. Created, used and closed in one thread.

    Args:
        front_end: gives absolute poses and motions.
        smoother: fuses them.
        config: gates and thresholds.
        origin_m: (3,) origin of the front end's coordinates in the map frame, in which poses come and go.
    """

    def __init__(
        self, front_end: FrontEnd, smoother: Smoother, config: LocalizerConfig, origin_m: Array | None = None
    ) -> None:
        self._origin_m = np.zeros(3) if origin_m is None else origin_m
        self._config = config
        self._front_end = front_end
        self._smoother = smoother
        self._motion = MotionPrediction(config)
        self._images = RepeatedImages()
        self._gate = Gate(config.gate, config.smoother.lag_s, config.independent)
        # The smoother holds a graph: there is a pose to predict from and to compare with.
        self._tracking = False
        self._accepted_ns: int | None = None
        self._trust = Trust()
        # External odometry has measured the whole way since the newest accepted pose.
        self._by_odometry = False
        # The pose was given up because odometry has moved away from an image that does not change.
        self._frozen = False
        self._given: GivenPose | None = None
        self._restart_gap_s: float | None = None

    def reconfigure(self, config: LocalizerConfig) -> None:
        """Take other gates, limits and errors of the odometry from the next frame on: the settings of
        ``core.config.live``. All others were read when the scene was opened."""
        self._config = config
        self._gate.reconfigure(config.gate)
        self._motion.reconfigure(config)

    def process(self, frame: Frame) -> LocalizerOutput:
        """The answer to the next frame.

        Raises:
            FrameRejected: the frame cannot be used; nothing has changed and the next one is welcome.
        """
        timer = StageTimer()
        if self._config.independent:
            self._forget_frames()
        self._check_time(frame.stamp_ns)
        repeated = self._images.repeated(frame)
        if repeated is None:
            self._frozen = False
        elif self._motion.has_pose or self._frozen:
            return self._pass_over(frame, repeated, timer)
        expected = self._predict(frame.stamp_ns, self._motion.expected(frame))
        prior = expected if self._given is not None or self._trust.vouched else None
        observation = self._observe(frame, prior, timer)
        # Said once, and kept until now: a rejected frame has no output to say it in.
        restart_gap_s, self._restart_gap_s = self._restart_gap_s, None

        answers = self._answers(observation)
        motions = self._motion.measured_by(answers, self._motion.since_last(frame, observation.relative))
        motions = self._motion.checked(frame, self._gate.undoubted(observation.absolute), motions)
        predicted = self._predict(frame.stamp_ns, motions.best)
        self._add_motions(motions)
        self._given, start, refuted = settle(self._given, predicted, answers, self._motion, self._gate)
        answers = [*start, *answers]
        taken = [self._take(answer, frame.stamp_ns, predicted) for answer in answers]
        outcomes = [*refuted, *taken]
        timer.lap("gate")

        estimate = self._smoother.estimate() if self._tracking else None
        published = None if estimate is None else self._motion.doubted(estimate)
        timer.lap("smoother")
        elsewhere = observation.elsewhere or AnswerOutcome.CONTRADICTS in outcomes
        self._trust = self._trust.after(not ACCEPTING.isdisjoint(outcomes), bool(motions.measured), elsewhere)
        in_doubt = self._trust.doubted or AnswerOutcome.ALONE in outcomes
        judgement = self._judge(frame.stamp_ns, published, motions, in_doubt)
        if not judgement.usable:
            self._give_up()
            estimate = published = None
        self._gate.remember(estimate, frame.stamp_ns)
        self._motion.remember(frame, estimate, motions, confirmed=self._accepted_ns == frame.stamp_ns)
        published = doubted(published, answers, taken)
        return LocalizerOutput(
            stamp_ns=frame.stamp_ns,
            status=judgement.status,
            estimate=self._from_origin(published),
            absolute=self._from_origin(observation.absolute),
            relative=motions.best,
            reason=explain(restart_gap_s, observation.reason, outcomes, judgement),
            timings_ms={**timer.timings_ms(), "total": timer.elapsed_ms()},
            reset=restart_gap_s is not None or AnswerOutcome.RELOCALIZED in outcomes,
            motions=motions.measured,
            out_of_distribution=observation.out_of_distribution,
            seen=observation.seen,
            odometry_contradicted=motions.contradicted,
        )

    def add_odometry(self, stamp_ns: int, T_odom_base: SE3, covariance: Array | None = None) -> None:
        """Add a sample of external odometry; it helps frames up to and shortly after its stamp that say where their
        camera is on that base (``Frame.T_base_cam``). Its (6, 6) covariance, of the whole way, counts as it grows."""
        self._motion.add_odometry(stamp_ns, T_odom_base, covariance)

    def set_prior(self, prior: PoseEstimate) -> None:
        """Start over at a pose that somebody gives, taken as that of the next frame; see ``GivenPose``."""
        self.relocalize()
        pose = replace(prior, T_map_cam=prior.T_map_cam.shifted(-self._origin_m))
        self._given = GivenPose(
            pose, 0.0 if self._config.independent else self._config.status.degraded_after_s
        )

    def relocalize(self) -> None:
        """Forget the pose and find it again from the map; time and odometry go on."""
        self._front_end.reset()
        self._motion.forget_pose()
        self._images.reset()
        self._forget_answers()
        self._given, self._frozen = None, False

    def reset(self) -> None:
        """Forget everything but the scene."""
        self.relocalize()
        self._motion.reset()
        self._images = RepeatedImages()
        self._restart_gap_s = None

    def close(self) -> None:
        """Release the engines and threads."""
        self._front_end.close()

    # --- the steps of process, in order ---

    def _forget_frames(self) -> None:
        """Forget everything but the scene, and a pose that somebody gave for the next frame."""
        given = self._given
        self.reset()
        self._given = given

    def _check_time(self, stamp_ns: int) -> None:
        """Start over where time jumped back far enough, or too long a time passed without frames."""
        gap_s = self._motion.gap_s(stamp_ns)
        if gap_s is None or 0.0 < gap_s <= self._config.smoother.max_gap_s:
            return
        if gap_s < 0.0:
            self.reset()
        else:
            self.relocalize()
        self._restart_gap_s = gap_s

    def _pass_over(self, frame: Frame, repeated: Repeated, timer: StageTimer) -> LocalizerOutput:
        """The answer to a frame whose image tells nothing new: what was known, moved. It is no new measurement, and the
        graph goes on from the frame before it."""
        carried = carried_over(self._motion, frame, repeated, self._accepted_ns, self._config.status)
        self._accepted_ns, judgement, estimate = carried.accepted_ns, carried.judgement, carried.estimate
        if not judgement.usable:
            self._give_up()
            self._motion.forget_pose()
            self._frozen, estimate = True, None
        return LocalizerOutput(
            stamp_ns=frame.stamp_ns,
            status=judgement.status,
            estimate=self._from_origin(estimate),
            absolute=None,
            relative=None,
            reason=judgement.why,
            timings_ms={"total": timer.elapsed_ms()},
            motions=carried.motions,
        )

    def _predict(self, stamp_ns: int, motion: RelativePose | None) -> PoseEstimate | None:
        """The last estimate moved by ``motion``; before the first estimate the pose somebody gave."""
        if self._given is not None:
            return self._given.predict(stamp_ns, motion)
        return self._motion.predict(motion)

    def _observe(self, frame: Frame, prior: PoseEstimate | None, timer: StageTimer) -> Observation:
        observation = self._front_end.observe(frame, prior)
        timer.lap("front_end", observation.timings_ms)
        timer.add(observation.beside_ms)  # no part of the total
        return observation

    def _from_origin(self, pose: PoseEstimate | None) -> PoseEstimate | None:
        """A pose of the front end's coordinates in the map frame."""
        return None if pose is None else replace(pose, T_map_cam=pose.T_map_cam.shifted(self._origin_m))

    def _add_motions(self, motions: Motions) -> None:
        self._motion.travel(motions)
        if self._tracking:
            for motion in motions.all:
                self._smoother.add_relative(motion)

    def _answers(self, observation: Observation) -> list[PoseEstimate]:
        """The absolute poses to consider; the gate is told of a frame that the map was searched for in vain."""
        if not observation.answers and observation.seen is not None:
            self._gate.unfound()
        return observation.answers

    def _take(self, answer: PoseEstimate, stamp_ns: int, predicted: PoseEstimate | None) -> AnswerOutcome:
        """Fuse an absolute pose, or set it aside, and say which."""
        current = self._motion.bring_forward(answer, stamp_ns)
        # With a graph an answer goes to its own frame; without one there is no past frame to go to.
        placed = answer if self._tracking else current
        if placed is None:
            return AnswerOutcome.TOO_LATE
        if self._tracking and self._gate.believes(placed, predicted):
            return self._accept(placed, stamp_ns)
        if not self._tracking and self._gate.believes_start(placed):
            return self._accept(placed, stamp_ns)
        if current is not None:
            self._gate.reject(current, lambda pose: self._motion.bring_forward(pose, stamp_ns))
            if self._gate.rejected_agree(self._tracking):
                return self._start_over_at(current)
        if not self._tracking:
            return AnswerOutcome.UNCONFIRMED
        return AnswerOutcome.CONTRADICTS if self._gate.contradicts(answer) else AnswerOutcome.REJECTED

    def _accept(self, answer: PoseEstimate, stamp_ns: int) -> AnswerOutcome:
        if not self._smoother.add_absolute(answer):
            return AnswerOutcome.TOO_LATE if answer.stamp_ns < stamp_ns else AnswerOutcome.UNUSABLE
        self._tracking = True
        self._accepted_ns = max(self._accepted_ns or answer.stamp_ns, answer.stamp_ns)
        return self._gate.accepted(answer)

    def _judge(
        self, stamp_ns: int, estimate: PoseEstimate | None, motions: Motions, contradicted: bool
    ) -> Judgement:
        self._by_odometry = self._accepted_ns == stamp_ns or (self._by_odometry and motions.by_odometry)
        config, problem = self._config.status, self._motion.take_odometry_problem()
        judged = judge(stamp_ns, self._accepted_ns, estimate, config, self._by_odometry, contradicted)
        return judged.at_best_degraded(problem) if problem else judged

    def _start_over_at(self, answer: PoseEstimate) -> AnswerOutcome:
        """Begin a new graph at ``answer``."""
        moved_away = self._tracking
        self._forget_answers()
        outcome = self._accept(answer, answer.stamp_ns)
        return AnswerOutcome.RELOCALIZED if moved_away else outcome

    def _give_up(self) -> None:
        """Nothing is worth trusting: the next absolute pose starts afresh, without a gate. It must not be what the
        front end has gone on believing while it was rejected."""
        if self._tracking:
            self._front_end.lost()
        self._smoother.reset()
        self._tracking = False

    def _forget_answers(self) -> None:
        self._smoother.reset()
        self._gate.reset()
        self._tracking, self._accepted_ns, self._trust = False, None, Trust()


def open_localizer(scene_path: Path, config: LocalizerConfig, threaded: bool = False) -> Localizer:
    """The localizer of a scene on disk.

    Args:
        scene_path: the scene.
        config: everything else.
        threaded: late searches run on a thread of their own, as on a robot, instead of in place, where their schedule
            does not depend on the machine.

    Raises:
        SceneError: the scene is missing, incomplete, changed or of another version.
        BackendError: no inference back end can run its network.
    """
    share_cores(config.backend.threads)
    scene = Scene.load(scene_path)
    front_end = on_floor(open_front_end(scene, config, threaded), scene, config.planar)
    return Localizer(front_end, open_smoother(config.smoother), config, scene.origin_m)
