"""Points from matches and poses: triangulation, bundle adjustment, pruning."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from localizer_ros.core.config.mapping import StructureConfig
from localizer_ros.core.progress import Progress
from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import Array, Camera, Index, SourceError
from localizer_ros.features.local_features import to_bytes
from localizer_ros.geometry.rays import RayCamera, undistorted
from localizer_ros.geometry.triangulation import consistent, tracks_of
from localizer_ros.localization.map_based.guided_matching import guided_matches
from localizer_ros.mapping.bundle_adjustment import BundlePriors, BundleState, adjust
from localizer_ros.mapping.feature_store import FeatureStore
from localizer_ros.scene.map_scene import half_view_of
from localizer_ros.scene.point_map import PointMap

# Below this many points nothing can be localised.
FEWEST_POINTS = 50
# Shares of the focal length, and plain coefficients: how far a data sheet is off.
_FOCAL_SIGMA, _CENTRE_SIGMA = 0.04, 0.02
_DISTORTION_SIGMA = (0.05, 0.02, 0.003, 0.003)
# How much looser the priors on poses are when the question is how wrong they are.
_FREEDOM = 30.0
# How far answers are off where a whole sequence was not mapped, over how far free images move.
_HIDDEN = 1.5
_MOUNTING_SIGMA_RAD, _MOUNTING_SIGMA_OF_DEPTH = 0.1, 0.05


class PointBuilder:
    """Points from matches: the part of mapping that goes back and forth between observations and geometry."""

    def __init__(
        self,
        store: FeatureStore,
        images: list[int],
        T_given: Array,
        camera: Camera,
        config: StructureConfig,
        depth_m: float,
    ) -> None:
        self.store, self.images, self.config, self.depth_m = store, images, config, depth_m
        self.camera, self.T_given = camera, T_given
        self.features = [store.features(i, True) for i in images]
        # Everything below is in the ideal image of the given camera: pixels by its K, no distortion.
        K = camera.K
        self.ideal = [undistorted(camera, f.xy_px) @ K[:2, :2].T + K[:2, 2] for f in self.features]
        self.focal_px = 0.5 * float(K[0, 0] + K[1, 1])
        self.state = BundleState(
            T_given.copy(),
            np.zeros((0, 3)),
            np.array([K[0, 0], K[1, 1], K[0, 2], K[1, 2], 0.0, 0.0, 0.0, 0.0]),
            np.eye(4),
        )
        empty = np.zeros(0, dtype=np.intp)
        self.image, self.keypoint, self.point = empty, empty, empty

    def build(self, matches: list[tuple[int, int, Index]], progress: Progress) -> PointBuilder:
        """All rounds. Raises SourceError when the matches do not agree with the poses."""
        c = self.config
        verified = [(a, b, self._on_epipolar_line(a, b, m)) for a, b, m in matches]
        image, keypoint, track = tracks_of(verified, [len(f) for f in self.features])
        # The first triangulation has the given poses with all their error: be generous.
        self._keep_consistent(image, keypoint, track, c.keyframes.epipolar_px, 0.5 * c.points.min_angle_deg)
        if len(self.state.points) < FEWEST_POINTS:
            raise SourceError(
                f"only {len(self.state.points)} points agree with the given poses; are poses camera to map, in "
                "metres, and is the camera calibrated?"
            )
        for number in range(c.bundle.rounds):
            progress("bundle adjustment", number, c.bundle.rounds)
            self._adjust(c.bundle.iterations)
            self._complete()
            self._keep_consistent(
                self.image, self.keypoint, self.point, c.points.max_error_px, c.points.min_angle_deg
            )
        self._adjust(c.bundle.iterations)
        self._keep_consistent(
            self.image, self.keypoint, self.point, 0.75 * c.points.max_error_px, c.points.min_angle_deg
        )
        progress("bundle adjustment", c.bundle.rounds, c.bundle.rounds)
        self._prune()
        return self

    def ray_camera(self) -> RayCamera:
        """Rays as bundle adjustment sees them."""
        if not self.config.bundle.refine_intrinsics:
            return RayCamera(self.camera)
        fx, fy, cx, cy, *distortion = self.state.intrinsics
        K = np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]])
        refined = Camera(self.camera.width_px, self.camera.height_px, K, np.array(distortion))
        return RayCamera(self.camera, refined)

    def calibration_found(self) -> dict[str, Any]:
        """For the report."""
        mounting = SE3(self.state.T_cam_refined[:3, :3], self.state.T_cam_refined[:3, 3])
        return {
            "focal_px": [round(float(v), 2) for v in self.state.intrinsics[:2]],
            "centre_px": [round(float(v), 2) for v in self.state.intrinsics[2:4]],
            "distortion": [round(float(v), 5) for v in self.state.intrinsics[4:]],
            "mounting_deg": round(float(np.degrees(mounting.angle_to(SE3.identity()))), 3),
            "mounting_m": [round(float(v), 4) for v in mounting.t],
        }

    def structure(self, names: tuple[str, ...]) -> PointMap:
        """The map in its stored form."""
        order = np.argsort(self.image, kind="stable")
        image, keypoint, point = self.image[order], self.keypoint[order], self.point[order]
        start = np.searchsorted(image, np.arange(len(self.images) + 1))
        xy = [f.xy_px[keypoint[a:b]] for f, a, b in zip(self.features, start, start[1:], strict=False)]
        stored = [
            to_bytes(f.descriptors[keypoint[a:b]], self.store.signed)
            for f, a, b in zip(self.features, start, start[1:], strict=False)
        ]
        mounting = self.state.T_cam_refined
        return PointMap(
            camera=self.ray_camera(),
            T_cam_refined=SE3.from_matrix(mounting),
            points=self.state.points.astype(np.float32),
            observation_image=image.astype(np.int32),
            observation_point=point.astype(np.int32),
            observation_xy_px=np.concatenate(xy),
            descriptors=np.concatenate(stored),
            signed=self.store.signed,
            T_map_refined=self.state.T_map_refined,
            T_map_cam=self.T_given,
            names=names,
            settings=self.config,
            systematic_covariance=np.zeros((6, 6)),
            statistics={},
        )

    def _rays(self, image: Index, keypoint: Index) -> Array:
        camera = self.ray_camera()
        xy = np.concatenate(
            [np.zeros((0, 2)), *(f.xy_px[keypoint[image == i]] for i, f in enumerate(self.features))]
        )
        rays = np.empty((len(image), 2))
        rays[np.argsort(image, kind="stable")] = camera.rays(self.camera, xy)
        return rays

    def _on_epipolar_line(self, a: int, b: int, matches: Index) -> Index:
        """Matches within ``epipolar_px`` of their epipolar lines by the given poses."""
        if len(matches) == 0:
            return matches
        T_b_a = np.linalg.inv(self.T_given[b]) @ self.T_given[a]
        t = T_b_a[:3, 3]
        if np.linalg.norm(t) < 0.01 * self.depth_m:
            # Too short a baseline for a line; what remains is a homography by rotation alone.
            K = self.camera.K
            turned = (
                np.concatenate([self.ideal[a][matches[:, 0]], np.ones((len(matches), 1))], axis=1)
                @ (K @ T_b_a[:3, :3] @ np.linalg.inv(K)).T
            )
            shift = np.linalg.norm(turned[:, :2] / turned[:, 2:] - self.ideal[b][matches[:, 1]], axis=1)
            return matches[shift < 3.0 * self.config.keyframes.epipolar_px]
        cross = np.array([[0.0, -t[2], t[1]], [t[2], 0.0, -t[0]], [-t[1], t[0], 0.0]])
        K_inverse = np.linalg.inv(self.camera.K)
        F = K_inverse.T @ cross @ T_b_a[:3, :3] @ K_inverse
        one = np.ones((len(matches), 1))
        xa = np.concatenate([self.ideal[a][matches[:, 0]], one], axis=1)
        xb = np.concatenate([self.ideal[b][matches[:, 1]], one], axis=1)
        in_b, in_a = xa @ F.T, xb @ F
        distance = np.abs(np.einsum("ni,ni->n", xb, in_b)) / np.sqrt(
            0.5 * (in_a[:, :2] ** 2 + in_b[:, :2] ** 2).sum(axis=1) + 1e-18
        )
        return matches[distance < self.config.keyframes.epipolar_px]

    def _keep_consistent(
        self, image: Index, keypoint: Index, track: Index, max_error_px: float, min_angle_deg: float
    ) -> None:
        kept, label, X = consistent(
            self.state.T_map_refined,
            image,
            self._rays(image, keypoint),
            track,
            max_error_px / self.focal_px,
            np.radians(min_angle_deg),
        )
        self.image, self.keypoint, self.point = image[kept], keypoint[kept], label
        self.state = replace(self.state, points=X)

    def disagreement(self) -> Array:
        """(6,) how far given poses and images disagree, standard deviation of each component, rad and metres.

        The priors on poses are tight, because the map shall follow the given poses. How wrong these are shows only when
        images may move freely: a last adjustment, of which nothing else is used. What neighbouring images are wrong in
        together does not show even then.
        """
        free = self._adjusted(_FREEDOM, 6)
        given = self.T_given @ free.T_cam_refined
        differences = np.stack(
            [
                (SE3(a[:3, :3], a[:3, 3]).inverse() @ SE3(b[:3, :3], b[:3, 3])).log()
                for a, b in zip(given, free.T_map_refined, strict=True)
            ]
        )
        sigma = np.sqrt(np.mean(differences**2, axis=0))
        # A turn and the move that looks like it are told apart only half: what is wrong in one is wrong in the other.
        confused = 0.5 * self.depth_m * float(np.sqrt(np.mean(sigma[:3] ** 2)))
        return _HIDDEN * np.concatenate([sigma[:3], np.hypot(sigma[3:], confused)])

    def _adjust(self, iterations: int) -> None:
        c = self.config.bundle
        if c.refine_poses or c.refine_intrinsics or c.refine_extrinsics:
            self.state = self._adjusted(1.0, iterations)

    def _adjusted(self, freedom: float, iterations: int) -> BundleState:
        c = self.config.bundle
        f = self.focal_px
        intrinsics = np.array([_FOCAL_SIGMA * f] * 2 + [_CENTRE_SIGMA * f] * 2 + list(_DISTORTION_SIGMA))
        priors = BundlePriors(
            self.T_given,
            freedom * np.radians(c.pose_sigma_deg) if c.refine_poses or freedom > 1.0 else 0.0,
            freedom * (c.pose_sigma_m or 6e-4 * self.depth_m) if c.refine_poses or freedom > 1.0 else 0.0,
            intrinsics if c.refine_intrinsics else np.zeros(8),
            _MOUNTING_SIGMA_RAD if c.refine_extrinsics else 0.0,
            _MOUNTING_SIGMA_OF_DEPTH * self.depth_m if c.refine_extrinsics else 0.0,
            c.keypoint_sigma_px,
        )
        xy = np.stack([self.ideal[i][k] for i, k in zip(self.image, self.keypoint, strict=True)])
        return adjust(self.state, self.image, self.point, xy, priors, iterations)[0]

    def _complete(self) -> None:
        """Look for every point in the other images that should show it, now that poses agree better."""
        structure = self.structure(tuple(str(i) for i in range(len(self.images))))
        camera = self.ray_camera()
        half_view = half_view_of(self.camera)
        added: list[tuple[Index, Index, Index]] = []
        for i, features in enumerate(self.features):
            T = SE3(self.state.T_map_refined[i, :3, :3], self.state.T_map_refined[i, :3, 3])
            rays = camera.rays(self.camera, features.xy_px)
            distance = structure.view_distances(T)
            near = np.argsort(distance, kind="stable")[1:13].astype(np.intp)
            found = guided_matches(
                structure,
                T,
                near,
                rays,
                cKDTree(rays),
                features.descriptors,
                half_view,
                self.focal_px,
                self.config.points.max_error_px,
                0.7,
            )
            own = self.image == i
            fresh = ~np.isin(found.keypoint, self.keypoint[own]) & ~np.isin(found.point, self.point[own])
            count = int(fresh.sum())
            added.append((np.full(count, i, dtype=np.intp), found.keypoint[fresh], found.point[fresh]))
        self.image = np.concatenate([self.image, *(a[0] for a in added)])
        self.keypoint = np.concatenate([self.keypoint, *(a[1] for a in added)])
        self.point = np.concatenate([self.point, *(a[2] for a in added)])

    def _prune(self) -> None:
        """Fit the map into its size: first repeated views of a point, then the points seen least often."""
        dimensions = self.features[0].descriptors.shape[1]
        # An observation costs its descriptor, two indices and a keypoint, and 32 bytes in the COLMAP model.
        budget = int(self.config.points.max_megabytes * 1e6 / (dimensions + 12 + 32))
        length = np.bincount(self.point, minlength=len(self.state.points))
        keep = np.ones(len(self.point), dtype=bool)
        if len(self.point) > budget:
            order = np.lexsort((self.image, self.point))
            rank = np.empty(len(order), dtype=np.intp)
            first = np.cumsum(length) - length
            rank[order] = np.arange(len(order)) - first[self.point[order]]
            for most in range(int(length.max()), 3, -1):
                if int(np.minimum(length, most).sum()) <= budget:
                    break
            # Of images in order of the drive, evenly spaced ones.
            slot = rank * most // np.maximum(length[self.point], 1)
            before = (rank - 1) * most // np.maximum(length[self.point], 1)
            keep = (length[self.point] <= most) | (slot != before)
            if int(keep.sum()) > budget:
                by_length = np.argsort(-np.minimum(length, most), kind="stable")
                fits = np.cumsum(np.minimum(length, most)[by_length]) <= budget
                keep &= np.isin(self.point, by_length[fits])
        used, point = np.unique(self.point[keep], return_inverse=True)
        self.image, self.keypoint, self.point = self.image[keep], self.keypoint[keep], point
        self.state = replace(self.state, points=self.state.points[used])
