"""Points from matches and poses: triangulation, bundle adjustment, pruning."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import numpy as np

from localizer_ros.core.config.mapping import StructureConfig
from localizer_ros.core.progress import Progress
from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import Array, Camera, Index, SourceError
from localizer_ros.features.local_features import to_bytes
from localizer_ros.geometry.rays import RayCamera, undistorted
from localizer_ros.geometry.triangulation import consistent, tracks_of
from localizer_ros.localization.map_based.guided_matching import guided_matches, points_of
from localizer_ros.mapping.bundle_adjustment import BundlePriors, BundleState, adjust
from localizer_ros.mapping.feature_store import FeatureStore
from localizer_ros.mapping.keyframes import Keyframes
from localizer_ros.mapping.matching import PairMatches, on_epipolar_lines
from localizer_ros.mapping.plausibility import implausible_refinement
from localizer_ros.mapping.pruning import budget_bytes, observations_within
from localizer_ros.scene.map_scene import View
from localizer_ros.scene.point_map import PointMap

# Below this many points nothing can be localised.
FEWEST_POINTS = 50
# How far a data sheet is off: shares of the focal length, and plain coefficients k1 k2 p1 p2.
_FOCAL_SIGMA, _CENTRE_SIGMA = 0.04, 0.02
_DISTORTION_SIGMA = (0.05, 0.02, 0.003, 0.003)
# Error of given positions where the settings leave it open, as a share of the median depth: 0.3 px at 500 px.
_POSITION_SIGMA_OF_DEPTH = 6e-4
# How far the camera may sit from where its poses were given, rad and share of the median depth.
_EXTRINSICS_SIGMA_RAD, _EXTRINSICS_SIGMA_OF_DEPTH = 0.1, 0.05
# How much looser the priors on poses are when the question is how wrong they are, and iterations to find out.
_FREEDOM, _FREE_ITERATIONS = 30.0, 6
# How far answers are off where a whole sequence was not mapped, over how far free images move.
_HIDDEN = 1.5
# Images whose points are looked for in another one, by their view, and the largest distance of descriptors.
_LOOKED_FOR, _MAX_DISTANCE = 12, 0.7
# The last observations to be dropped are dropped by this share of the largest error.
_LAST_ERROR = 0.75
# Bytes of an observation beside its descriptor: two indices and a keypoint, and 32 in the COLMAP model.
_OBSERVATION_BYTES = 12 + 32


class PointBuilder:
    """Points from matches: the part of mapping that goes back and forth between observations and geometry.

    Args:
        store: has the fine features of all keyframes.
        keyframes: what the map is made of.
        camera: of their images.
        config: how.
    """

    def __init__(
        self, store: FeatureStore, keyframes: Keyframes, camera: Camera, config: StructureConfig
    ) -> None:
        if store.several_cameras:
            # What is wrong with one of them is not wrong with the others.
            changed = msgspec.structs.replace
            config = changed(config, bundle=changed(config.bundle, refine_intrinsics=False))
        self._config, self._camera, self._depth_m = config, camera, keyframes.depth_m
        self._signed, self._names = store.signed, keyframes.image_names
        self._T_given = keyframes.T_map_cam[keyframes.chosen]
        self._features = [store.features(i, True) for i in keyframes.images]
        # Everything below is in the ideal image of the given camera: pixels by its K, no distortion.
        K = camera.K
        self._ideal = [undistorted(camera, f.xy_px) @ K[:2, :2].T + K[:2, 2] for f in self._features]
        # All keypoints one after the other: those of image i begin at ``_first[i]``.
        self._first = np.concatenate([[0], np.cumsum([len(f) for f in self._features])])
        self._xy_px = np.concatenate([f.xy_px for f in self._features])
        self._ideal_px = np.concatenate(self._ideal)
        self._focal_px = 0.5 * float(K[0, 0] + K[1, 1])
        self._state = BundleState(
            self._T_given.copy(),
            np.zeros((0, 3)),
            np.array([K[0, 0], K[1, 1], K[0, 2], K[1, 2], 0.0, 0.0, 0.0, 0.0]),
            np.eye(4),
        )
        empty = np.zeros(0, dtype=np.intp)
        self._image, self._keypoint, self._point = empty, empty, empty

    def build(self, matches: list[PairMatches], progress: Progress) -> PointMap:
        """The map of points, after all rounds; its systematic covariance and statistics are still to come.

        Raises:
            SourceError: the matches do not agree with the poses.
        """
        c = self._config
        verified = [(a, b, self._verified(a, b, m)) for a, b, m in matches]
        image, keypoint, track = tracks_of(verified, [len(f) for f in self._features])
        # The first triangulation has the given poses with all their error: be generous.
        self._keep_consistent(image, keypoint, track, c.keyframes.epipolar_px, 0.5 * c.points.min_angle_deg)
        if len(self._state.points) < FEWEST_POINTS:
            raise SourceError(
                f"only {len(self._state.points)} points agree with the given poses; are poses camera to map, in "
                "metres, and is the camera calibrated?"
            )
        for number in range(c.bundle.rounds):
            progress("bundle adjustment", number, c.bundle.rounds)
            self._adjust(c.bundle.iterations)
            self._complete()
            self._drop_inconsistent(c.points.max_error_px)
        self._adjust(c.bundle.iterations)
        self._drop_inconsistent(_LAST_ERROR * c.points.max_error_px)
        progress("bundle adjustment", c.bundle.rounds, c.bundle.rounds)
        self._prune()
        return self._point_map()

    def disagreement(self) -> Array:
        """(6,) how far given poses and images disagree, standard deviation of each component, rad and metres.

        The priors on poses are tight, because the map shall follow the given poses. How wrong these are shows only when
        images may move freely: a last adjustment, of which nothing else is used. What neighbouring images are wrong in
        together does not show even then.
        """
        free = self._adjusted(_FREEDOM, _FREE_ITERATIONS)
        given = self._T_given @ free.T_cam_refined
        differences = np.stack(
            [
                (SE3(a[:3, :3], a[:3, 3]).inverse() @ SE3(b[:3, :3], b[:3, 3])).log()
                for a, b in zip(given, free.T_map_refined, strict=True)
            ]
        )
        sigma = np.sqrt(np.mean(differences**2, axis=0))
        # A turn and the move that looks like it are told apart only half: what is wrong in one is wrong in the other.
        confused = 0.5 * self._depth_m * float(np.sqrt(np.mean(sigma[:3] ** 2)))
        return np.asarray(_HIDDEN * np.concatenate([sigma[:3], np.hypot(sigma[3:], confused)]))

    def implausible(self) -> list[str]:
        """What was found of the camera that no calibration is so wrong about, one line each."""
        return implausible_refinement(
            self._camera, self._state.intrinsics, SE3.from_matrix(self._state.T_cam_refined), self._depth_m
        )

    def refined_calibration(self) -> dict[str, Any]:
        """Intrinsics and extrinsics that were found, for the report."""
        extrinsics = SE3(self._state.T_cam_refined[:3, :3], self._state.T_cam_refined[:3, 3])
        return {
            "focal_px": [round(float(v), 2) for v in self._state.intrinsics[:2]],
            "centre_px": [round(float(v), 2) for v in self._state.intrinsics[2:4]],
            "distortion": [round(float(v), 5) for v in self._state.intrinsics[4:]],
            "extrinsics_deg": round(float(np.degrees(extrinsics.angle_to(SE3.identity()))), 3),
            "extrinsics_m": [round(float(v), 4) for v in extrinsics.t],
        }

    def _point_map(self) -> PointMap:
        """The map as far as it has come, in its stored form."""
        image, keypoint, point = self._by_image()
        start = np.searchsorted(image, np.arange(len(self._features) + 1))
        xy = [f.xy_px[keypoint[a:b]] for f, a, b in zip(self._features, start, start[1:], strict=False)]
        stored = [
            to_bytes(f.descriptors[keypoint[a:b]], self._signed)
            for f, a, b in zip(self._features, start, start[1:], strict=False)
        ]
        return PointMap(
            camera=self._ray_camera(),
            T_cam_refined=SE3.from_matrix(self._state.T_cam_refined),
            points=self._state.points.astype(np.float32),
            observation_image=image.astype(np.int32),
            observation_point=point.astype(np.int32),
            observation_xy_px=np.concatenate(xy),
            descriptors=np.concatenate(stored),
            signed=self._signed,
            T_map_refined=self._state.T_map_refined,
            T_map_cam=self._T_given,
            names=self._names,
            settings=self._config,
            systematic_covariance=np.zeros((6, 6)),
            statistics={},
        )

    def _by_image(self) -> tuple[Index, Index, Index]:
        """Image, keypoint and point of the observations, image by image."""
        order = np.argsort(self._image, kind="stable")
        return self._image[order], self._keypoint[order], self._point[order]

    def _ray_camera(self) -> RayCamera:
        """Rays as bundle adjustment sees them."""
        if not self._config.bundle.refine_intrinsics:
            return RayCamera(self._camera)
        fx, fy, cx, cy, *distortion = self._state.intrinsics
        K = np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]])
        refined = Camera(self._camera.width_px, self._camera.height_px, K, np.array(distortion))
        return RayCamera(self._camera, refined)

    def _rays(self, image: Index, keypoint: Index) -> Array:
        return self._ray_camera().rays(self._camera, self._xy_px[self._first[image] + keypoint])

    def _verified(self, a: int, b: int, matches: Index) -> Index:
        """Matches near their epipolar lines by the given poses."""
        if len(matches) == 0:
            return matches
        near = on_epipolar_lines(
            self._ideal[a][matches[:, 0]],
            self._ideal[b][matches[:, 1]],
            np.linalg.inv(self._T_given[b]) @ self._T_given[a],
            self._camera.K,
            self._depth_m,
            self._config.keyframes.epipolar_px,
        )
        return np.asarray(matches[near])

    def _drop_inconsistent(self, max_error_px: float) -> None:
        self._keep_consistent(
            self._image, self._keypoint, self._point, max_error_px, self._config.points.min_angle_deg
        )

    def _keep_consistent(
        self, image: Index, keypoint: Index, track: Index, max_error_px: float, min_angle_deg: float
    ) -> None:
        """Take observations and their points, less what does not agree with the poses."""
        kept, label, X = consistent(
            self._state.T_map_refined,
            image,
            self._rays(image, keypoint),
            track,
            max_error_px / self._focal_px,
            np.radians(min_angle_deg),
        )
        self._image, self._keypoint, self._point = image[kept], keypoint[kept], label
        self._state = replace(self._state, points=X)

    def _adjust(self, iterations: int) -> None:
        c = self._config.bundle
        if c.refine_poses or c.refine_intrinsics or c.refine_extrinsics:
            self._state = self._adjusted(1.0, iterations)

    def _adjusted(self, freedom: float, iterations: int) -> BundleState:
        """The state after bundle adjustment with priors on poses that are ``freedom`` times as loose."""
        c = self._config.bundle
        f, depth_m = self._focal_px, self._depth_m
        moves = c.refine_poses or freedom > 1.0
        pose_sigma_m = c.pose_sigma_m or _POSITION_SIGMA_OF_DEPTH * depth_m
        intrinsics = np.array([_FOCAL_SIGMA * f] * 2 + [_CENTRE_SIGMA * f] * 2 + list(_DISTORTION_SIGMA))
        priors = BundlePriors(
            self._T_given,
            freedom * np.radians(c.pose_sigma_deg) if moves else 0.0,
            freedom * pose_sigma_m if moves else 0.0,
            c.camera_freedom * intrinsics if c.refine_intrinsics else np.zeros(8),
            c.camera_freedom * _EXTRINSICS_SIGMA_RAD if c.refine_extrinsics else 0.0,
            c.camera_freedom * _EXTRINSICS_SIGMA_OF_DEPTH * depth_m if c.refine_extrinsics else 0.0,
            c.keypoint_sigma_px,
        )
        xy_px = self._ideal_px[self._first[self._image] + self._keypoint]
        return adjust(self._state, self._image, self._point, xy_px, priors, iterations)[0]

    def _complete(self) -> None:
        """Look for every point in the other images that should show it, now that poses agree better."""
        point_map, camera = self._point_map(), self._ray_camera()
        image, keypoint, point = self._by_image()
        start = np.searchsorted(image, np.arange(len(self._features) + 1))
        added: list[tuple[Index, Index, Index]] = []
        for i, features in enumerate(self._features):
            T = SE3(self._state.T_map_refined[i, :3, :3], self._state.T_map_refined[i, :3, 3])
            view = View(self._camera, features, camera.rays(self._camera, features.xy_px))
            nearest = np.argsort(point_map.view_distances(T), kind="stable")[1 : 1 + _LOOKED_FOR]
            found = guided_matches(
                point_map,
                points_of(point_map, nearest.astype(np.intp)),
                T,
                view,
                self._config.points.max_error_px / self._focal_px,
                _MAX_DISTANCE,
            )
            own = slice(start[i], start[i + 1])
            fresh = ~np.isin(found.keypoint, keypoint[own]) & ~np.isin(found.point, point[own])
            count = int(fresh.sum())
            added.append((np.full(count, i, dtype=np.intp), found.keypoint[fresh], found.point[fresh]))
        self._image = np.concatenate([self._image, *(a[0] for a in added)])
        self._keypoint = np.concatenate([self._keypoint, *(a[1] for a in added)])
        self._point = np.concatenate([self._point, *(a[2] for a in added)])

    def _prune(self) -> None:
        """Fit the map into its size."""
        each = self._features[0].descriptors.shape[1] + _OBSERVATION_BYTES
        budget = budget_bytes(self._config.points.max_megabytes, len(self._features)) // each
        keep = observations_within(budget, self._image, self._point, len(self._state.points))
        used, point = np.unique(self._point[keep], return_inverse=True)
        self._image, self._keypoint, self._point = self._image[keep], self._keypoint[keep], point
        self._state = replace(self._state, points=self._state.points[used])
