"""Poses and motions from a trained network."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from localizer_ros.core.config import BackendConfig
from localizer_ros.core.preprocess import Preprocessor
from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import Camera, Frame, PoseEstimate, RelativePose
from localizer_ros.inference.backend import Tensors
from localizer_ros.inference.network_step import NetworkStep
from localizer_ros.localization.front_end import Observation
from localizer_ros.localization.scene_coordinates import Optics, pose_from_coordinates

# A motion over a longer gap is none the head was trained for.
MAX_MOTION_GAP_NS = 300_000_000


class NetworkFrontEnd:
    """Runs the network of a scene as a stream; see :class:`localizer_ros.localization.front_end.FrontEnd`.

    Args:
        step: the open networks.
        method: name given to its absolute poses.
    """

    def __init__(self, step: NetworkStep, method: str) -> None:
        self._step = step
        self._method = method
        card = step.card
        self._preprocess = Preprocessor(Camera.from_dict(card.camera), card.mean, card.std)
        absolute_rotation, absolute_translation, motion_rotation, motion_translation = card.sigma_scale
        self._sigma_scale = np.repeat([absolute_rotation, absolute_translation], 3)
        self._motion_sigma_scale = np.repeat([motion_rotation, motion_translation], 3)
        self._optics = Optics.from_dict(card.optics) if card.optics else None
        self._last_ns: int | None = None

    def observe(self, frame: Frame, prior: PoseEstimate | None) -> Observation:
        """One network step. An output that is not finite gives no pose, and the stream starts over."""
        start = time.perf_counter()
        image = self._preprocess(frame.image, frame.camera)
        prepared = time.perf_counter()
        outputs = self._step.run(image)
        done = time.perf_counter()
        timings_ms = {"preprocess": (prepared - start) * 1e3, "network": (done - prepared) * 1e3}
        if not all(np.all(np.isfinite(value)) for value in outputs.values()):
            self.reset()
            return Observation(reason="the network's output is not finite", timings_ms=timings_ms)
        absolute, reason = self._absolute(frame.stamp_ns, outputs)
        timings_ms["absolute"] = (time.perf_counter() - done) * 1e3
        relative = None
        if self._last_ns is not None and frame.stamp_ns - self._last_ns <= MAX_MOTION_GAP_NS:
            rel = outputs["rel"][0].astype(np.float64)
            relative = RelativePose(
                self._last_ns,
                frame.stamp_ns,
                SE3(np.asarray(Rotation.from_rotvec(rel[:3]).as_matrix()), rel[3:]),
                _diagonal(outputs["rel_log_sigma"][0], self._motion_sigma_scale),
                "vo",
            )
        self._last_ns = frame.stamp_ns
        return Observation(absolute=absolute, relative=relative, reason=reason, timings_ms=timings_ms)

    def _absolute(self, stamp_ns: int, outputs: Tensors) -> tuple[PoseEstimate | None, str]:
        """The absolute pose: regressed, or solved for from scene coordinates; None with the reason."""
        if "points" not in outputs:
            T_map_cam = SE3.from_quaternion(outputs["t"][0], outputs["q"][0])
            covariance = _diagonal(outputs["log_sigma"][0], self._sigma_scale)
            return PoseEstimate(stamp_ns, T_map_cam, covariance, self._method), ""
        assert self._optics is not None
        found = pose_from_coordinates(outputs["points"][0], outputs["log_sigma"][0], self._optics)
        if found is None:
            return None, "too few scene coordinates agree on a pose"
        covariance = found.covariance * np.outer(self._sigma_scale, self._sigma_scale)
        return PoseEstimate(stamp_ns, found.T_map_cam, covariance, self._method), ""

    def reset(self) -> None:
        """Forget the frame before."""
        self._step.reset()
        self._last_ns = None

    def close(self) -> None:
        """Release the engine."""
        self._step.close()


def _diagonal(log_sigma: NDArray[np.float32], scale: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.diag(np.square(np.exp(log_sigma.astype(np.float64)) * scale))


def open_network_front_end(scene: Path, method: str, config: BackendConfig) -> NetworkFrontEnd:
    """The front end of a scene with a pose network. Raises SceneError or BackendError."""
    return NetworkFrontEnd(NetworkStep(scene / "networks", method, config), method)
