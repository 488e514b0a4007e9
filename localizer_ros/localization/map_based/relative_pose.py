"""Relative poses to several retrieved images: rotation averaged, position where their directions meet.

An essential matrix gives a rotation and the direction of the baseline. Directions from two or more known camera
centres meet in the query's position, which is where the scale comes from. The pose is then refined on the
epipolar errors of all matches together; no 3-D points are used.
"""

from __future__ import annotations

import time

import numpy as np
import poselib

from localizer_ros.core.config.map_based import SearchConfig
from localizer_ros.core.se3 import SE3, weighted_mean
from localizer_ros.core.types import Array, Frame, PoseEstimate
from localizer_ros.features.matchers import open_matcher
from localizer_ros.localization.map_based.search import StructureLocalizer
from localizer_ros.scene.map_scene import MapScene

_LEAST_INLIERS = 20
_EPIPOLAR_PX = 2.0
# Directions that hardly meet leave the position open.
_MAX_SIGMA_OF_DEPTH = 0.1
_AGREEING_RAD = np.radians(8.0)


class RelativeLocalizer(StructureLocalizer):
    """Implements ``GlobalLocalizer`` by relative poses.

    Args:
        scene: mapping images with keypoints; of its points nothing is used.
        config: how many images.
    """

    def __init__(self, scene: MapScene, config: SearchConfig) -> None:
        super().__init__(scene, config)
        self._matcher = open_matcher(config.matcher, config.ratio, scene.matcher_card)

    def localize(self, frame: Frame, prior: PoseEstimate | None) -> PoseEstimate | None:
        """See :class:`GlobalLocalizer`; ``prior`` is not used."""
        c, scene = self._config, self._scene
        point_map, database = scene.point_map, scene.database
        self.timings_ms = {}
        now = time.perf_counter()
        view = scene.view(frame, point_map.settings.features.max_keypoints, fine=True)
        now = self._lap("extract", now)
        if len(view.features) < _LEAST_INLIERS:
            self.reason = f"too few keypoints ({len(view.features)})"
            return None
        query = scene.global_descriptor(view)
        images, _ = scene.distinct_images(query, c.relative_neighbours, keyframes_only=True)
        now = self._lap("retrieve", now)
        camera = {"model": "SIMPLE_PINHOLE", "width": 1, "height": 1, "params": [scene.focal_px, 0.0, 0.0]}
        T_map_db: list[SE3] = []
        T_db_query: list[SE3] = []
        matched: list[tuple[Array, Array]] = []
        for image in database.keyframe[images]:
            pairs = self._matcher.match(scene.query_side(view), scene.keyframe_side(int(image)))
            if len(pairs) < _LEAST_INLIERS:
                continue
            a = scene.keyframe_rays(int(image))[pairs[:, 1]]
            b = view.rays[pairs[:, 0]]
            pose, report = poselib.estimate_relative_pose(
                a * scene.focal_px,
                b * scene.focal_px,
                camera,
                camera,
                {"max_epipolar_error": _EPIPOLAR_PX, "max_iterations": c.max_iterations, "seed": c.seed},
                {},
            )
            inliers = np.asarray(report["inliers"], dtype=bool)
            if inliers.sum() < _LEAST_INLIERS:
                continue
            R, t = np.asarray(pose.R), np.asarray(pose.t)
            T = point_map.T_map_refined[image]
            T_map_db.append(SE3(T[:3, :3], T[:3, 3]))
            T_db_query.append(SE3(R, t).inverse())
            matched.append((a[inliers], b[inliers]))
        self._lap("match", now)
        if len(matched) < 2:
            self.reason = f"relative pose to {len(matched)} of {len(images)} retrieved images, expected 2"
            return None
        met = _met(T_map_db, T_db_query, np.array([len(a) for a, _ in matched]), point_map.median_depth)
        if met is None:
            self.reason = "relative poses to the retrieved images do not agree"
            return None
        start, agreeing = met
        refined = self._refined(start, [T_map_db[i] for i in agreeing], [matched[i] for i in agreeing])
        if refined is None:
            self.reason = "epipolar errors leave the pose undetermined"
            return None
        T_map_refined, covariance, count = refined
        T_map_cam, systematic = scene.given_pose(T_map_refined)
        # Matches to images that say otherwise count half against it.
        against = sum(len(a) for n, (a, _) in enumerate(matched) if n not in agreeing)
        confidence = count / (count + 50.0 + 0.5 * against)
        sigma_m = float(np.sqrt(np.trace(covariance[3:, 3:])))
        if confidence < c.min_confidence or sigma_m > _MAX_SIGMA_OF_DEPTH * point_map.median_depth:
            self.reason = (
                f"confidence {confidence:.2f}: {len(agreeing)} of {len(matched)} matched images agree, position known "
                f"to {sigma_m:.2f} m"
            )
            return None
        self.reason = ""
        return PoseEstimate(
            frame.stamp_ns,
            T_map_cam,
            covariance + systematic,
            "relative",
            inliers=count,
            confidence=confidence,
        )

    def _refined(
        self, start: SE3, T_map_db: list[SE3], matched: list[tuple[Array, Array]]
    ) -> tuple[SE3, Array, int] | None:
        """Robust least squares on epipolar distances. Returns pose, covariance, and number of inliers."""
        focal = self._scene.focal_px
        owner = np.repeat(np.arange(len(matched)), [len(a) for a, _ in matched])
        one = np.ones((len(owner), 1))
        a = np.concatenate([np.concatenate([m[0] for m in matched]), one], axis=1)
        b = np.concatenate([np.concatenate([m[1] for m in matched]), one], axis=1)
        R_db, t_db = np.stack([T.R for T in T_map_db])[owner], np.stack([T.t for T in T_map_db])[owner]
        ray_map = np.einsum("nij,nj->ni", R_db, a)

        def distances(T: SE3) -> Array:
            # The epipolar line of a in the query: (centre seen from the query) x (ray in the query).
            line = np.cross((t_db - T.t) @ T.R, ray_map @ T.R)
            return np.asarray(
                focal * np.einsum("ni,ni->n", line, b) / np.maximum(np.linalg.norm(line[:, :2], axis=1), 1e-9)
            )

        T = start
        step_of = np.array([1e-6] * 3 + [1e-6 * self._scene.point_map.median_depth] * 3)
        for _ in range(12):
            r = distances(T)
            J = np.stack(
                [(distances(T @ SE3.exp(np.eye(6)[k] * step_of[k])) - r) / step_of[k] for k in range(6)],
                axis=1,
            )
            weight = 1.0 / (1.0 + (r / 1.5) ** 2)
            H = (J * weight[:, None]).T @ J
            H[np.diag_indices(6)] *= 1.0 + 1e-6
            try:
                step = -np.linalg.solve(H, (J * weight[:, None]).T @ r)
            except np.linalg.LinAlgError:
                return None
            if not np.all(np.isfinite(step)) or np.linalg.norm(step[:3]) > 0.5:
                return None
            T = T @ SE3.exp(step)
            if np.abs(step).max() < 1e-6:
                break
        inliers = np.abs(r) < 2.0 * _EPIPOLAR_PX
        if inliers.sum() < _LEAST_INLIERS:
            return None
        # Keypoints on the same image share its pose's error: information grows slower than their number.
        spread = max(float(np.mean(r[inliers] ** 2)), 0.25) * (1.0 + inliers.sum() / 100.0)
        return T, np.asarray(np.linalg.inv(H) * spread), int(inliers.sum())


def _met(
    T_map_db: list[SE3], T_db_query: list[SE3], inliers: Array, depth_m: float
) -> tuple[SE3, list[int]] | None:
    """Average rotation and the point nearest to the baselines, of the largest set of images that agree."""
    rotations = [a.R @ b.R for a, b in zip(T_map_db, T_db_query, strict=True)]
    angle = np.array(
        [[SE3(p, np.zeros(3)).angle_to(SE3(q, np.zeros(3))) for q in rotations] for p in rotations]
    )
    support = (angle < _AGREEING_RAD).astype(float) @ inliers
    centre = int(support.argmax())
    agreeing = [int(i) for i in np.nonzero(angle[centre] < _AGREEING_RAD)[0]]
    if len(agreeing) < 2:
        return None
    R = weighted_mean([SE3(rotations[i], np.zeros(3)) for i in agreeing], inliers[agreeing]).R
    origin = np.stack([T_map_db[i].t for i in agreeing])
    direction = np.stack([T_map_db[i].R @ T_db_query[i].t for i in agreeing])
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    across = np.eye(3) - direction[:, :, None] * direction[:, None, :]
    # Start between the images; a weak pull there decides along directions that are all parallel.
    t = origin.mean(axis=0)
    pull = 1e-3 / depth_m**2 * np.eye(3)
    for _ in range(10):
        offset = np.einsum("nij,nj->ni", across, t - origin)
        distance = np.maximum(np.linalg.norm(t - origin, axis=1), 0.02 * depth_m)
        error = np.linalg.norm(offset, axis=1) / distance
        weight = inliers[agreeing] / inliers[agreeing].sum() / (1.0 + (error / 0.1) ** 2) / distance**2
        A = np.einsum("n,nij->ij", weight, across) + pull
        t = np.linalg.solve(A, np.einsum("n,nij,nj->i", weight, across, origin) + pull @ origin.mean(axis=0))
    return SE3(R, t), agreeing
