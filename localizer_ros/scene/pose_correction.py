"""The pose correction: how given poses differ from the map's, as a smooth function of where the camera is.

Poses from a depth camera or an odometry bend the world by centimetres over metres. Bundle adjustment makes images agree
with each other and so leaves that bend behind. Who maps with given poses wants answers in their frame: the difference
is learnt from the mapping images by Gaussian process regression over position and orientation, and added to answers.
Far from all mapping images it fades to nothing.

What is far from a pose does not matter for it. So the kernel is cut off at a few reaches, where it is 0.0003; the
regression solves a sparse system, and a pose is corrected by the images within the cut alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import scipy.sparse
import scipy.sparse.linalg
from scipy.linalg.lapack import dposv
from scipy.spatial import cKDTree

from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import Array, SceneError
from localizer_ros.geometry.view_distance import view_vectors
from localizer_ros.scene.arrays import full_poses, load_arrays, save_arrays

FILE = "pose_correction.npz"
# Where the kernel ends, in reaches, and the nearest images that an uncertainty is worked out by: more of them only
# make it smaller. With 64, sigmas of Red Kitchen and TUM fr1_rpy are 1 % smaller.
_CUT, _NEAREST = 4.0, 32
# Relative residual of the sparse solution.
_SOLVED = 1e-8


@dataclass(frozen=True, eq=False)
class PoseCorrection:
    """Correction ``T_map_cam = T_uncorrected @ Exp(correction(T_uncorrected))``.

    Attributes:
        T: (I, 4, 4) uncorrected poses of the mapping images.
        weights: (I, 6) of the regression.
        amplitude: (6,) standard deviation of the corrections, rad and metres.
        reach_rad: turn over which the correction changes.
        reach_m: move over which the correction changes.
        noise: variance of one image's correction over that of the corrections.
    """

    T: Array
    weights: Array
    amplitude: Array
    reach_rad: float
    reach_m: float
    noise: float

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
        tree = cKDTree(view_vectors(T, reach_m, reach_rad))
        near = tree.sparse_distance_matrix(tree, _CUT, output_type="ndarray")
        kernel = scipy.sparse.csr_array(
            (np.exp(-0.5 * near["v"] ** 2), (near["i"], near["j"])), (len(T),) * 2
        )
        kernel = kernel + noise * scipy.sparse.eye_array(len(T))
        weights = [scipy.sparse.linalg.cg(kernel, column, rtol=_SOLVED)[0] for column in corrections.T]
        return PoseCorrection(T, np.stack(weights, axis=1), amplitude, reach_rad, reach_m, noise)

    @cached_property
    def _tree(self) -> cKDTree:
        return cKDTree(view_vectors(self.T, self.reach_m, self.reach_rad))

    def correct(self, T: SE3) -> tuple[SE3, Array]:
        """The corrected pose, and the (6, 6) covariance of the correction."""
        feature = view_vectors(T.matrix()[None], self.reach_m, self.reach_rad)[0]
        near = np.array(self._tree.query_ball_point(feature, _CUT, return_sorted=True), dtype=np.intp)
        if len(near) == 0:
            return T, np.diag(self.amplitude**2)
        features = self._tree.data[near]
        k = _kernel(feature[None], features)[0]
        return T @ SE3.exp(k @ self.weights[near]), np.diag(
            (1.0 - self._known(k, features)) * self.amplitude**2
        )

    def _known(self, k: Array, features: Array) -> float:
        """Share of the variance that the images near a pose take away."""
        if len(k) > _NEAREST:
            nearest = np.argpartition(-k, _NEAREST)[:_NEAREST]
            k, features = k[nearest], features[nearest]
        kernel = _kernel(features, features)
        kernel[np.diag_indices(len(k))] += self.noise
        _, solution, singular = dposv(kernel, k)
        # Where images are too near each other to be told apart, nothing is known.
        return 0.0 if singular else min(max(float(k @ solution), 0.0), 1.0)

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
            amplitude=self.amplitude,
            reach=np.array([self.reach_rad, self.reach_m]),
        )

    @staticmethod
    def load(folder: Path, noise: float) -> PoseCorrection | None:
        """What :meth:`save` has written; None when the map has none.

        Args:
            folder: where it is.
            noise: that it was fitted with.

        Raises:
            SceneError: it is damaged.
        """
        path = folder / FILE
        if not path.is_file():
            return None
        arrays = load_arrays(path, ("T", "weights", "amplitude", "reach"))
        count = len(arrays["T"])
        shapes = tuple(arrays[name].shape for name in ("weights", "amplitude", "reach"))
        if shapes != ((count, 6), (6,), (2,)):
            raise SceneError(f"{path}: array shapes do not fit together")
        return PoseCorrection(
            full_poses(arrays["T"]),
            arrays["weights"],
            arrays["amplitude"],
            float(arrays["reach"][0]),
            float(arrays["reach"][1]),
            noise,
        )


def _kernel(a: Array, b: Array) -> Array:
    squared = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1)[None] - 2.0 * a @ b.T
    return np.asarray(np.exp(-0.5 * np.maximum(squared, 0.0)))
