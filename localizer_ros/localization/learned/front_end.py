"""Poses and motions from a trained network."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from localizer_ros.core.config.runtime import LocalizerConfig
from localizer_ros.core.preprocess import Preprocessor, rotate_camera
from localizer_ros.core.se3 import SE3, compose_covariance, weighted_mean
from localizer_ros.core.types import Array, Camera, ConfigError, Frame, PoseEstimate, RelativePose
from localizer_ros.inference.backend import Tensors
from localizer_ros.inference.network_step import NetworkStep
from localizer_ros.localization.front_end import Observation
from localizer_ros.localization.learned.out_of_distribution import (
    OTHER_PLACE,
    SAME_PLACE,
    Familiarity,
    motion_widening,
)
from localizer_ros.localization.learned.scene_coordinates import RefinedCamera, pose_from_coordinates

# A motion over a longer gap is none the head was trained for.
MAX_MOTION_GAP_NS = 300_000_000
# Poses within this time weigh as one. Errors of regressors with a sequence of Red Kitchen left out correlate by 0.7 to
# 0.9 after one second, and by 0.2 to 0.8 after two: a decay of about 4 s, and twice that is what a sum feels. Poses
# from scene coordinates err afresh sooner.
REGRESSED_ERROR_LASTS_S, SOLVED_ERROR_LASTS_S = 8.0, 3.0
# How much of the correlation that an alignment tells of its motion is there: depth and calibration, which it knows
# nothing of, err as well. Of none, two fifths and four fifths, two fifths give motions added up over a second the least
# normalised squared error.
MOTION_CORRELATION = 0.4
# Further views of a frame are turned by this, as a dense grid of crops would be.
VIEW_TURN_DEG = 5.0


class NetworkFrontEnd:
    """Runs the network of a scene as a stream; see :class:`localizer_ros.localization.front_end.FrontEnd`.

    Args:
        step: the open networks.
        method: name given to its absolute poses.
        views: of each frame, whose poses are averaged: the mean over dense crops of the first PoseNet, with turned
            cameras in place of crops, as the network knows one camera only.
        familiarity: what spreads grow with, away from what the network was trained on. In another place there is no
            pose.

    Raises:
        ConfigError: several views of a network that has states or gives no pose.
    """

    def __init__(
        self, step: NetworkStep, method: str, views: int = 1, familiarity: Familiarity | None = None
    ) -> None:
        self._step = step
        self._method = method
        if views > 1 and (step.card.states or "t" not in {output.name for output in step.card.outputs}):
            raise ConfigError(f"ensemble.views: {method} answers to one view of a frame only")
        self._turns = turned_views(views)
        card = step.card
        self._preprocess = Preprocessor(Camera.from_dict(card.camera), card.mean, card.std)
        absolute_rotation, absolute_translation, motion_rotation, motion_translation = card.sigma_scale
        self._sigma_scale = np.repeat([absolute_rotation, absolute_translation], 3)
        self._motion_sigma_scale = np.repeat([motion_rotation, motion_translation], 3)
        self._refined_camera = RefinedCamera.from_dict(card.refined_camera) if card.refined_camera else None
        self._familiarity = familiarity
        self._last_ns: int | None = None

    def observe(self, frame: Frame, prior: PoseEstimate | None) -> Observation:
        """One network step. An output that is not finite gives no pose, and the stream starts over."""
        start = time.perf_counter()
        seen = self._preprocess.warp(frame.image, frame.camera)
        image = self._preprocess.normalize(seen)
        prepared = time.perf_counter()
        outputs = self._step.run(image)
        others = [self._see_turned(seen, R) for R in self._turns]
        done = time.perf_counter()
        timings_ms = {"preprocess": (prepared - start) * 1e3, "network": (done - prepared) * 1e3}
        if not all(np.all(np.isfinite(value)) for each in (outputs, *others) for value in each.values()):
            self.reset()
            return Observation(reason="the network's output is not finite", timings_ms=timings_ms)
        widening, strangeness = 1.0, 0.0
        if self._familiarity is not None:
            widening, strangeness = self._familiarity.ask(outputs["descriptor"][0])
        # To start from, the place must be certain: poses that agree prove nothing, as one network errs alike in them.
        absolute, reason = None, "the image resembles nothing that the network was trained on"
        if strangeness < (SAME_PLACE if prior is None else OTHER_PLACE):
            absolute, reason = self._absolute(frame.stamp_ns, outputs, others, widening)
        timings_ms["absolute"] = (time.perf_counter() - done) * 1e3
        relative = None
        if self._last_ns is not None and frame.stamp_ns - self._last_ns <= MAX_MOTION_GAP_NS:
            rel = outputs["rel"][0].astype(np.float64)
            relative = RelativePose(
                self._last_ns,
                frame.stamp_ns,
                SE3(np.asarray(Rotation.from_rotvec(rel[:3]).as_matrix()), rel[3:]),
                self._motion_covariance(outputs) * float(motion_widening(widening)) ** 2,
                "vo",
            )
        self._last_ns = frame.stamp_ns
        return Observation(absolute=absolute, relative=relative, reason=reason, timings_ms=timings_ms)

    def _motion_covariance(self, outputs: Tensors) -> Array:
        covariance = _diagonal(outputs["rel_log_sigma"][0], self._motion_sigma_scale)
        if "rel_correlation" not in outputs:
            return covariance
        sigma, by_depth = np.sqrt(np.diagonal(covariance)), outputs["rel_depth_error"][0]
        told = np.outer(sigma, sigma) * outputs["rel_correlation"][0] + np.outer(by_depth, by_depth)
        return np.asarray(np.where(np.eye(6) > 0, told, MOTION_CORRELATION * told))

    def _see_turned(self, seen: NDArray[np.uint8], R_refined_view: Array) -> Tensors:
        view = rotate_camera(seen, self._preprocess.target, R_refined_view)
        return self._step.see(self._preprocess.normalize(view))

    def _regressed(self, outputs: Tensors) -> tuple[SE3, Array]:
        """The pose and its covariance: as calibrated, and what the samples differ by."""
        log_sigma = outputs["log_sigma"][0]
        if self._familiarity is not None:
            log_sigma = self._familiarity.believed(log_sigma)
        covariance = _diagonal(log_sigma, self._sigma_scale)
        if "covariance" in outputs:
            covariance = covariance + outputs["covariance"][0]
        return SE3.from_quaternion(outputs["t"][0], outputs["q"][0]), covariance

    def _absolute(
        self, stamp_ns: int, outputs: Tensors, others: list[Tensors], widening: float
    ) -> tuple[PoseEstimate | None, str]:
        """The absolute pose: regressed, or solved for from scene coordinates, whose spreads need no widening; None with
        the reason."""
        if "points" not in outputs:
            answers = [self._regressed(outputs)]
            T_cam_refined = (
                SE3.identity() if self._refined_camera is None else self._refined_camera.T_cam_refined
            )
            for R_refined_view, other in zip(self._turns, others, strict=True):
                T_map_view, covariance = self._regressed(other)
                T_view_cam = T_cam_refined @ SE3(R_refined_view.T, np.zeros(3)) @ T_cam_refined.inverse()
                answers.append((T_map_view @ T_view_cam, compose_covariance(covariance, T_view_cam)))
            T_map_cam, covariance = mean_of_views(answers)
            covariance = covariance * widening**2
            return self._estimate(stamp_ns, T_map_cam, covariance, REGRESSED_ERROR_LASTS_S), ""
        assert self._refined_camera is not None
        found = pose_from_coordinates(outputs["points"][0], outputs["log_sigma"][0], self._refined_camera)
        if found is None:
            return None, "too few scene coordinates agree on a pose"
        covariance = found.covariance * np.outer(self._sigma_scale, self._sigma_scale)
        return self._estimate(stamp_ns, found.T_map_cam, covariance, SOLVED_ERROR_LASTS_S), ""

    def _estimate(self, stamp_ns: int, T_map_cam: SE3, covariance: Array, lasts_s: float) -> PoseEstimate:
        return PoseEstimate(stamp_ns, T_map_cam, covariance, self._method, correlation_s=lasts_s)

    def reset(self) -> None:
        """Forget the frame before."""
        self._step.reset()
        self._last_ns = None

    def lost(self) -> None:
        """Nothing here rests on earlier poses."""

    def close(self) -> None:
        """Release the engine."""
        self._step.close()


def _diagonal(log_sigma: NDArray[np.floating], scale: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.diag(np.square(np.exp(log_sigma.astype(np.float64)) * scale))


def turned_views(count: int) -> list[Array]:
    """(3, 3) ``R_refined_view`` of all views of a frame but the first: turned by the same angle, in a ring about it."""
    directions = np.linspace(0.0, 2.0 * np.pi, count - 1, endpoint=False)
    axes = np.stack([np.cos(directions), np.sin(directions), np.zeros(count - 1)], 1)
    return list(Rotation.from_rotvec(np.radians(VIEW_TURN_DEG) * axes).as_matrix())


def mean_of_views(answers: list[tuple[SE3, Array]]) -> tuple[SE3, Array]:
    """Mean of poses, and its covariance.

    Views of one frame share most of their error, so averaging is not taken to reduce it: the covariance is the mean
    one, and what the views differ by comes on top.
    """
    if len(answers) == 1:
        return answers[0]
    T_map_cam = weighted_mean([T for T, _ in answers])
    apart = np.array([(T_map_cam.inverse() @ T).log() for T, _ in answers])
    return T_map_cam, np.mean([S for _, S in answers], axis=0) + apart.T @ apart / (len(answers) - 1)


def open_network_front_end(
    scene_dir: Path, method: str, config: LocalizerConfig, threaded: bool = False
) -> NetworkFrontEnd:
    """The front end of a scene with a pose network; see :class:`localizer_ros.localization.open.Opener`.

    It has no late search. Raises ConfigError, too, where the network cannot do what ``config.ensemble`` asks for.
    """
    step = NetworkStep(scene_dir / "networks", method, config.backend, config.ensemble.samples)
    familiarity = Familiarity.load(scene_dir / "networks")
    front_end = NetworkFrontEnd(step, method, config.ensemble.views, familiarity)
    step.warm_up()
    return front_end
