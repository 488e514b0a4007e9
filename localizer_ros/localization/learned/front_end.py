"""Poses and motions from a trained network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from localizer_ros.core.config.runtime import LocalizerConfig
from localizer_ros.core.preprocess import Preprocessor, rotate_camera
from localizer_ros.core.se3 import SE3, compose_covariance, weighted_mean
from localizer_ros.core.timing import StageTimer
from localizer_ros.core.types import Array, Camera, ConfigError, Frame, PoseEstimate, RelativePose
from localizer_ros.geometry.refined_camera import RefinedCamera
from localizer_ros.inference.backend import Tensors
from localizer_ros.inference.network_step import NetworkStep
from localizer_ros.localization.front_end import FrontEnd, Observation
from localizer_ros.localization.learned.out_of_distribution import (
    MAX_SCORE,
    MAX_START_SCORE,
    OutOfDistribution,
    TrainingDistribution,
    motion_sigma_inflation,
)
from localizer_ros.localization.learned.scene_coordinates import pose_from_coordinates
from localizer_ros.scene.bundle import has_map

# Longest time of a motion, ns: the head was trained on none over a longer one.
MAX_MOTION_GAP_NS = 300_000_000
# Time within which poses weigh as one, s. Errors of regressors with a sequence of Red Kitchen left out correlate by 0.7
# to 0.9 after one second, and by 0.2 to 0.8 after two: a decay of about 4 s, and twice that is what a sum feels. Poses
# from scene coordinates err afresh sooner.
REGRESSED_CORRELATION_S, SOLVED_CORRELATION_S = 8.0, 3.0
# Share of the correlation that an alignment tells of its motion: depth and calibration, which it knows nothing of, err
# as well. Motions added up over a second have a normalised squared error of 3.9, 3.3 and 3.8 with 0, 0.4 and 0.8.
MOTION_CORRELATION = 0.4
# Turn of further views of a frame, as far apart as a dense grid of crops would be.
VIEW_TURN_DEG = 5.0


class NetworkFrontEnd:
    """Runs the network of a scene as a stream; see :class:`localizer_ros.localization.front_end.FrontEnd`.

    Args:
        step: the open networks.
        method: name given to its absolute poses.
        views: views of each frame, whose poses are averaged: the mean over dense crops of the first PoseNet, with
            turned cameras in place of crops, as the network knows one camera only.
        trained_on: inflates covariances away from what the network was trained on; frames out of distribution get no
            pose. None = every frame counts as one of the training.
        start_score: score below which a frame gets a pose where none is known to go on from.

    Raises:
        ConfigError: several views of a network that has states or gives no pose.
    """

    def __init__(
        self,
        step: NetworkStep,
        method: str,
        views: int = 1,
        trained_on: TrainingDistribution | None = None,
        start_score: float = MAX_START_SCORE,
    ) -> None:
        card = step.card
        if views > 1 and (card.states or "t" not in {output.name for output in card.outputs}):
            raise ConfigError(f"ensemble.views: {method} answers to one view of a frame only")
        self._step, self._method, self._trained_on = step, method, trained_on
        self._start_score = start_score
        self._turns = turned_views(views)
        self._preprocess = Preprocessor(Camera.from_dict(card.camera), card.mean, card.std)
        target = self._preprocess.target
        self._input = np.empty((1, 3, target.height_px, target.width_px), np.float32)
        absolute_rotation, absolute_translation, motion_rotation, motion_translation = card.sigma_scale
        self._sigma_scale = np.repeat([absolute_rotation, absolute_translation], 3)
        self._motion_sigma_scale = np.repeat([motion_rotation, motion_translation], 3)
        self._refined_camera = RefinedCamera.from_dict(card.refined_camera) if card.refined_camera else None
        self._last_ns: int | None = None

    def observe(self, frame: Frame, prior: PoseEstimate | None) -> Observation:
        """One network step. An output that is not finite gives no pose, and the stream starts over."""
        timer = StageTimer()
        warped = self._preprocess.warp(frame.image, frame.camera)
        image = self._preprocess.normalize(warped, self._input)
        timer.lap("preprocess")
        outputs = self._step.run(image)
        turned = [self._see_turned(warped, R) for R in self._turns]
        timer.lap("network")
        if not all(np.all(np.isfinite(value)) for each in (outputs, *turned) for value in each.values()):
            self.reset()
            return Observation(reason="the network's output is not finite", timings_ms=timer.timings_ms())
        unlike = self._assess(outputs)
        # To start from, the place must be certain: poses that agree prove nothing, as one network errs alike in them.
        absolute, reason = None, "the image resembles nothing that the network was trained on"
        if unlike.score < (self._start_score if prior is None else MAX_SCORE):
            absolute, reason = self._absolute(frame.stamp_ns, outputs, turned, unlike.sigma_inflation)
        timer.lap("absolute")
        relative = self._relative(frame.stamp_ns, outputs, unlike.sigma_inflation)
        self._last_ns = frame.stamp_ns
        score = None if self._trained_on is None else unlike.score
        return Observation(
            absolute, (), relative, reason, timings_ms=timer.timings_ms(), out_of_distribution=score
        )

    def reset(self) -> None:
        """Forget the frame before."""
        self._step.reset()
        self._last_ns = None

    def lost(self) -> None:
        """Nothing here rests on earlier poses."""

    def close(self) -> None:
        """Release the engine."""
        self._step.close()

    def _see_turned(self, warped: NDArray[np.uint8], R_refined_view: Array) -> Tensors:
        view = rotate_camera(warped, self._preprocess.target, R_refined_view)
        return self._step.see(self._preprocess.normalize(view))

    def _assess(self, outputs: Tensors) -> OutOfDistribution:
        if self._trained_on is None:
            return OutOfDistribution(0.0, 1.0)
        return self._trained_on.assess(outputs["descriptor"][0])

    def _absolute(
        self, stamp_ns: int, outputs: Tensors, turned: list[Tensors], sigma_inflation: float
    ) -> tuple[PoseEstimate | None, str]:
        """The absolute pose and no reason, or None and why there is none."""
        if "points" not in outputs:
            T_map_cam, covariance = mean_of_views(self._regressed_of_views(outputs, turned))
            # Sigmas of scene coordinates follow from what agrees in the frame at hand; these do not, and are inflated.
            covariance = covariance * sigma_inflation**2
            correlation_s = REGRESSED_CORRELATION_S
        else:
            assert self._refined_camera is not None
            solved = pose_from_coordinates(
                outputs["points"][0], outputs["log_sigma"][0], self._refined_camera
            )
            if solved is None:
                return None, "too few scene coordinates agree on a pose"
            T_map_cam = solved.T_map_cam
            covariance = solved.covariance * np.outer(self._sigma_scale, self._sigma_scale)
            correlation_s = SOLVED_CORRELATION_S
        return PoseEstimate(stamp_ns, T_map_cam, covariance, self._method, correlation_s=correlation_s), ""

    def _regressed_of_views(self, outputs: Tensors, turned: list[Tensors]) -> list[tuple[SE3, Array]]:
        """Poses of the frame and their covariances, from the frame itself and from its turned views."""
        found = [self._regressed(outputs)]
        T_cam_refined = SE3.identity() if self._refined_camera is None else self._refined_camera.T_cam_refined
        for R_refined_view, view in zip(self._turns, turned, strict=True):
            T_map_view, covariance = self._regressed(view)
            T_view_cam = T_cam_refined @ SE3(R_refined_view.T, np.zeros(3)) @ T_cam_refined.inverse()
            found.append((T_map_view @ T_view_cam, compose_covariance(covariance, T_view_cam)))
        return found

    def _regressed(self, outputs: Tensors) -> tuple[SE3, Array]:
        """The pose and its covariance: as calibrated, and what the samples of Monte-Carlo dropout differ by."""
        log_sigma = outputs["log_sigma"][0]
        if self._trained_on is not None:
            log_sigma = self._trained_on.shrunk(log_sigma)
        covariance = _diagonal(log_sigma, self._sigma_scale)
        if "covariance" in outputs:
            covariance = covariance + outputs["covariance"][0]
        return SE3.from_quaternion(outputs["t"][0], outputs["q"][0]), covariance

    def _relative(self, stamp_ns: int, outputs: Tensors, sigma_inflation: float) -> RelativePose | None:
        """The motion since the frame before; None where there was none, or it was too long ago, or no network measures
        it."""
        if self._last_ns is None or stamp_ns - self._last_ns > MAX_MOTION_GAP_NS or "rel" not in outputs:
            return None
        rel = outputs["rel"][0].astype(np.float64)
        # Not the exponential: the translation is that of the pose, as networks are trained to answer.
        T_prev_cur = SE3(SE3.exp([*rel[:3], 0.0, 0.0, 0.0]).R, rel[3:])
        covariance_inflation = float(motion_sigma_inflation(sigma_inflation)) ** 2
        covariance = self._motion_covariance(outputs) * covariance_inflation
        return RelativePose(self._last_ns, stamp_ns, T_prev_cur, covariance, "vo")

    def _motion_covariance(self, outputs: Tensors) -> Array:
        covariance = _diagonal(outputs["rel_log_sigma"][0], self._motion_sigma_scale)
        if "rel_correlation" not in outputs:
            return covariance
        sigma, by_depth = np.sqrt(np.diagonal(covariance)), outputs["rel_depth_error"][0]
        told = np.outer(sigma, sigma) * outputs["rel_correlation"][0] + np.outer(by_depth, by_depth)
        return np.asarray(np.where(np.eye(6) > 0, told, MOTION_CORRELATION * told))


def _diagonal(log_sigma: NDArray[np.floating], scale: Array) -> Array:
    return np.diag(np.square(np.exp(log_sigma.astype(np.float64)) * scale))


def turned_views(count: int) -> list[Array]:
    """(3, 3) ``R_refined_view`` of all views of a frame but the first: turned by the same angle, in a ring about it."""
    directions = np.linspace(0.0, 2.0 * np.pi, count - 1, endpoint=False)
    axes = np.stack([np.cos(directions), np.sin(directions), np.zeros(count - 1)], 1)
    return list(Rotation.from_rotvec(np.radians(VIEW_TURN_DEG) * axes).as_matrix())


def mean_of_views(poses: list[tuple[SE3, Array]]) -> tuple[SE3, Array]:
    """Mean of poses, and its (6, 6) covariance.

    Views of one frame share most of their error, so averaging is not taken to reduce it: the covariance is the mean
    one, and what the views differ by comes on top.
    """
    if len(poses) == 1:
        return poses[0]
    T_map_cam = weighted_mean([T for T, _ in poses])
    apart = np.array([(T_map_cam.inverse() @ T).log() for T, _ in poses])
    return T_map_cam, np.mean([S for _, S in poses], axis=0) + apart.T @ apart / (len(poses) - 1)


def open_network_front_end(
    scene_dir: Path, method: str, config: LocalizerConfig, threaded: bool = False
) -> FrontEnd:
    """The front end of a scene with a pose network; see :class:`localizer_ros.localization.open.Opener`.

    Where the scene holds a map, its poses are refined by that. It has no late search. Raises ConfigError, too, where
    the network cannot do what ``config.ensemble`` asks for.
    """
    networks = scene_dir / "networks"
    refined = config.refine == "map" and has_map(scene_dir)
    # With a map optical flow and visual odometry measure motions, and better: the motion network's 80 MB are saved.
    step = NetworkStep(networks, method, config.backend, config.ensemble.samples, motion=not refined)
    # What the map confirms is certain of its place.
    start_score = MAX_SCORE if refined else MAX_START_SCORE
    trained_on = TrainingDistribution.load(networks)
    front_end = NetworkFrontEnd(step, method, config.ensemble.views, trained_on, start_score)
    step.warm_up()
    if not refined:
        return front_end
    # Late: a network alone needs none of the libraries of maps.
    from localizer_ros.localization.learned.refined_front_end import open_refined

    return open_refined(front_end, scene_dir, method, config, threaded, bool(step.card.states))
