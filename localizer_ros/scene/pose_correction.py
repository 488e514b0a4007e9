"""The pose correction: how given poses differ from the map's, as a smooth function of where the camera is.

Poses from a depth camera or an odometry bend the world by centimetres over metres. Bundle adjustment makes images agree
with each other and so leaves that bend behind. Who maps with given poses wants answers in their frame: the difference
is learnt from the mapping images by Gaussian process regression over position and orientation, and added to answers.
Far from all mapping images it fades to nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.linalg

from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import Array, SceneError
from localizer_ros.geometry.view_distance import view_vectors
from localizer_ros.scene.arrays import full_poses, load_arrays, save_arrays

FILE = "pose_correction.npz"


@dataclass(frozen=True, eq=False)
class PoseCorrection:
    """Correction ``T_map_cam = T_uncorrected @ Exp(correction(T_uncorrected))``.

    Attributes:
        T: (I, 4, 4) uncorrected poses of the mapping images.
        weights: (I, 6) of the regression.
        inverse: (I, I) inverse of the images' kernel matrix with noise, for the uncertainty.
        amplitude: (6,) standard deviation of the corrections, rad and metres.
        reach_rad: turn over which the correction changes.
        reach_m: move over which the correction changes.
    """

    T: Array
    weights: Array
    inverse: Array
    amplitude: Array
    reach_rad: float
    reach_m: float

    @staticmethod
    def fit(
        T: Array, T_given: Array, reach_rad: float, reach_m: float, noise: float, amplitude: Array
    ) -> PoseCorrection:
        """The correction that takes ``T`` to ``T_given``.

        Args:
            T: (I, 4, 4) poses of the mapping images by the map.
            T_given: (I, 4, 4) their given poses.
            reach_rad: turn over which the correction changes.
            reach_m: move over which the correction changes.
            noise: variance of one image's correction over that of the corrections.
            amplitude: (6,) standard deviation of what the correction may be away from all images, rad and metres.
        """
        corrections = np.stack(
            [
                (SE3(a[:3, :3], a[:3, 3]).inverse() @ SE3(b[:3, :3], b[:3, 3])).log()
                for a, b in zip(T, T_given, strict=True)
            ]
        )
        features = view_vectors(T, reach_m, reach_rad)
        kernel = _kernel(features, features) + noise * np.eye(len(T))
        inverse = np.asarray(scipy.linalg.inv(kernel))
        return PoseCorrection(T, inverse @ corrections, inverse, amplitude, reach_rad, reach_m)

    def correct(self, T: SE3) -> tuple[SE3, Array]:
        """The corrected pose, and the (6, 6) covariance of the correction."""
        k = _kernel(
            view_vectors(T.matrix()[None], self.reach_m, self.reach_rad),
            view_vectors(self.T, self.reach_m, self.reach_rad),
        )[0]
        # einsum: a product this small is not worth waiting for a second BLAS thread on a busy machine.
        known = float(np.clip(np.einsum("i,ij,j->", k, self.inverse, k), 0.0, 1.0))
        return T @ SE3.exp(k @ self.weights), np.diag((1.0 - known) * self.amplitude**2)

    def uncorrect(self, T: SE3) -> SE3:
        """The pose that :meth:`correct` takes to ``T``."""
        uncorrected = T
        for _ in range(3):
            uncorrected = T @ (uncorrected.inverse() @ self.correct(uncorrected)[0]).inverse()
        return uncorrected

    def save(self, folder: Path) -> int:
        """Bytes written to a folder."""
        return save_arrays(
            folder / FILE,
            T=self.T[:, :3].astype(np.float32),
            weights=self.weights,
            inverse=self.inverse.astype(np.float32),
            amplitude=self.amplitude,
            reach=np.array([self.reach_rad, self.reach_m]),
        )

    @staticmethod
    def load(folder: Path) -> PoseCorrection | None:
        """What :meth:`save` has written; None when the map has none. Raises SceneError when it is damaged."""
        path = folder / FILE
        if not path.is_file():
            return None
        arrays = load_arrays(path, ("T", "weights", "inverse", "amplitude", "reach"))
        count = len(arrays["T"])
        if (arrays["weights"].shape, arrays["inverse"].shape) != ((count, 6), (count, count)):
            raise SceneError(f"{path}: array shapes do not fit together")
        if (arrays["amplitude"].shape, arrays["reach"].shape) != ((6,), (2,)):
            raise SceneError(f"{path}: array shapes do not fit together")
        return PoseCorrection(
            full_poses(arrays["T"]),
            arrays["weights"],
            arrays["inverse"].astype(np.float64),
            arrays["amplitude"],
            float(arrays["reach"][0]),
            float(arrays["reach"][1]),
        )


def _kernel(a: Array, b: Array) -> Array:
    squared = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1)[None] - 2.0 * a @ b.T
    return np.asarray(np.exp(-0.5 * np.maximum(squared, 0.0)))
