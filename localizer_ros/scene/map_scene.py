"""A scene with a map, opened for localization: points, image index, extractor and pose correction."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from localizer_ros.core.se3 import SE3, compose_covariance
from localizer_ros.core.types import Array, Camera, Float32, Frame, Mask, PoseEstimate
from localizer_ros.features.local_features import Extractor, LocalFeatures, open_extractor
from localizer_ros.features.masks import open_static_mask, unmasked
from localizer_ros.features.matchers import MATCHER_FOLDER, Side
from localizer_ros.geometry.pose_solver import SolvedPose
from localizer_ros.inference.model_card import COPIED_CARD
from localizer_ros.scene.image_index import ImageDatabase
from localizer_ros.scene.point_map import PointMap
from localizer_ros.scene.pose_correction import PoseCorrection

CORRELATION_S = 0.25
"""Poses in a map, and motions by its points, weigh as one within this time. It leaves their balance alone and makes the
uncertainty of what is fused from them honest (docs/explanation/maps.md)."""

MAP_FOLDER, INDEX_FOLDER = "map", "index"

# Images closer to each other than this (turn, or move of like effect) are one opinion, not several.
_ONE_OPINION_RAD = np.radians(5.0)


@dataclass(frozen=True, eq=False)
class View:
    """What one frame shows, ready for matching.

    Attributes:
        frame: where it comes from.
        rays: (N, 2) keypoints on the plane z = 1.
        features: their descriptors.
        half_view: (2,) half width and height of the image on that plane.
    """

    frame: Frame
    rays: Array
    features: LocalFeatures
    half_view: Array

    @cached_property
    def tree(self) -> cKDTree:
        """Search tree of the rays."""
        return cKDTree(self.rays)


@dataclass(frozen=True, eq=False)
class MapScene:
    """Everything that localization in a map reads from a scene.

    Attributes:
        point_map: the map of points.
        database: index of mapping images.
        extractor: the local features the map was built with.
        correction: from the map's poses to the given ones, None when there is none.
        folder: of the scene, None for one that is still being made.
        static_mask: (H, W) bool, false where every frame shows the robot itself; None without.
    """

    point_map: PointMap
    database: ImageDatabase
    extractor: Extractor
    correction: PoseCorrection | None
    folder: Path | None = None
    static_mask: Mask | None = None

    @staticmethod
    def open(scene_dir: Path) -> MapScene:
        """Read a scene folder. Raises SceneError when a file is missing or damaged."""
        point_map = PointMap.load(scene_dir / MAP_FOLDER)
        return MapScene(
            point_map,
            ImageDatabase.load(scene_dir / INDEX_FOLDER),
            open_extractor(point_map.settings.features, scene_dir),
            PoseCorrection.load(scene_dir / MAP_FOLDER),
            scene_dir,
            open_static_mask(scene_dir),
        )

    @property
    def focal_px(self) -> float:
        """Pixels per unit on the plane z = 1."""
        return self.point_map.camera.focal_px

    @property
    def matcher_card(self) -> Path | None:
        """Model card of the matcher that the scene brings along; where it would lie when it does not."""
        return None if self.folder is None else self.folder / MATCHER_FOLDER / COPIED_CARD

    def view(self, frame: Frame, max_keypoints: int, fine: bool) -> View:
        """Features of a frame, outside the static mask, and where they look."""
        features = self.extractor.extract(frame.image, max_keypoints, fine)
        features = unmasked(features, frame.camera, self.static_mask)
        camera = self.point_map.camera
        return View(
            frame,
            camera.rays(frame.camera, features.xy_px),
            features,
            half_view_of(frame.camera),
        )

    def global_descriptor(self, view: View) -> Float32:
        """(G,) float32 for retrieval."""
        coarse = view.features.descriptors[view.features.coarse]
        return self.database.descriptor(view.frame.image, coarse)

    def query_side(self, view: View) -> Side:
        """A frame's keypoints for a matcher."""
        camera = view.frame.camera
        return Side(view.features.xy_px, view.features.descriptors, (camera.width_px, camera.height_px))

    def keyframe_side(self, image: int, most: int | None = None) -> Side:
        """A keyframe's stored keypoints for a matcher, the first ``most`` of them."""
        s, camera = self.point_map, self.point_map.camera.given
        first, last = int(s.image_start[image]), int(s.image_start[image + 1])
        stored = slice(first, last if most is None else min(last, first + most))
        return Side(
            s.observation_xy_px[stored], s.unit_descriptors[stored], (camera.width_px, camera.height_px)
        )

    def keyframe_rays(self, image: int) -> Array:
        """(K, 2) where a keyframe's stored keypoints look, plane z = 1."""
        s = self.point_map
        return s.observation_ray[s.image_start[image] : s.image_start[image + 1]]

    def refined_pose(self, T_map_cam: SE3) -> SE3:
        """``T_map_refined`` of a pose in the frame of the given poses."""
        uncorrected = self.correction.uncorrect(T_map_cam) if self.correction is not None else T_map_cam
        return uncorrected @ self.point_map.T_cam_refined

    def given_pose(self, T_map_refined: SE3) -> tuple[SE3, Array]:
        """``T_map_cam`` of an optical pose, and the (6, 6) covariance of what led there."""
        T_map_cam = T_map_refined @ self.point_map.T_cam_refined.inverse()
        systematic = self.point_map.systematic_covariance
        if self.correction is None:
            return T_map_cam, systematic
        corrected, covariance = self.correction.correct(T_map_cam)
        return corrected, systematic + covariance

    def answer(self, frame: Frame, solved: SolvedPose, source: str, confidence: float) -> PoseEstimate:
        """A solved pose in the frame of the given poses, with the map's own error in its covariance."""
        T_map_cam, systematic = self.given_pose(solved.T_map_refined)
        noise = compose_covariance(solved.covariance, self.point_map.T_cam_refined.inverse())
        return PoseEstimate(
            frame.stamp_ns, T_map_cam, noise + systematic, source, solved.count, confidence, CORRELATION_S
        )

    def nearest_keyframes(self, T_map_refined: SE3, count: int) -> NDArray[np.intp]:
        """Keyframes whose view is most like that of a camera at the pose, the most alike first."""
        distance = self.point_map.view_distances(T_map_refined)
        count = min(count, len(distance))
        nearest = np.argpartition(distance, count - 1)[:count] if count < len(distance) else np.arange(count)
        return np.asarray(nearest[np.argsort(distance[nearest], kind="stable")], dtype=np.intp)

    def similar_keyframes(self, query: Float32, wanted: int) -> tuple[NDArray[np.intp], Float32]:
        """The most similar keyframes.

        Args:
            query: (G,) global descriptor.
            wanted: at most.

        Returns:
            Indices in the database and similarities, most similar first.
        """
        database = self.database
        # Frames between the keyframes are in the index too.
        share = max(1, round(len(database.index) / max(1, int((database.keyframe >= 0).sum()))))
        found, similarity = database.index.search(query, 4 * share * wanted)
        keyframes = np.nonzero(database.keyframe[found] >= 0)[0][:wanted]
        return found[keyframes], similarity[keyframes]

    def distinct_images(
        self, query: Float32, wanted: int, keyframes_only: bool = False
    ) -> tuple[NDArray[np.intp], Float32]:
        """The most similar images that are not nearly the same view.

        Args:
            query: (G,) global descriptor.
            wanted: at most.
            keyframes_only: leave out the frames between the keyframes.

        Returns:
            Indices in the database and similarities, most similar first.
        """
        database, depth = self.database, self.point_map.median_depth
        found, similarity = database.index.search(query, 20 * wanted)
        chosen: list[int] = []
        for n, image in enumerate(found):
            if keyframes_only and database.keyframe[image] < 0:
                continue
            T = database.T_map_cam[image]
            others = database.T_map_cam[found[chosen]]
            move = np.linalg.norm(others[:, :3, 3] - T[:3, 3], axis=1) / depth
            cosine = 0.5 * (np.einsum("nij,ij->n", others[:, :3, :3], T[:3, :3]) - 1.0)
            if np.all(np.hypot(move, np.arccos(np.clip(cosine, -1.0, 1.0))) > _ONE_OPINION_RAD):
                chosen.append(n)
                if len(chosen) == wanted:
                    break
        return found[chosen], similarity[chosen]


def half_view_of(camera: Camera) -> Array:
    """(2,) half width and height of a camera's view on the plane z = 1, distortion aside."""
    return np.array([camera.width_px / camera.K[0, 0], camera.height_px / camera.K[1, 1]]) / 2.0
