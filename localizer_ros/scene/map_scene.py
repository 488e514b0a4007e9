"""A scene with a map, opened for localization: points, image index, extractor and pose correction."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from scipy.spatial import cKDTree

from localizer_ros.core.se3 import SE3, compose_covariance
from localizer_ros.core.types import Array, Camera, Float32, Frame, Index, Mask
from localizer_ros.features.extractors import open_extractor
from localizer_ros.features.local_features import Extractor, LocalFeatures
from localizer_ros.features.masks import open_static_mask, unmasked
from localizer_ros.features.matchers import MATCHER_FOLDER, Side
from localizer_ros.geometry.pose_solver import SolvedPose
from localizer_ros.geometry.rays import half_view_of
from localizer_ros.geometry.view_distance import view_distances
from localizer_ros.inference.model_card import COPIED_CARD
from localizer_ros.scene.bundle import INDEX_FOLDER, MAP_FOLDER
from localizer_ros.scene.confidence import PRIOR, ConfidenceModel
from localizer_ros.scene.image_index import ImageDatabase
from localizer_ros.scene.point_map import PointMap
from localizer_ros.scene.pose_correction import PoseCorrection

# Images whose views differ by less than this are one opinion on where a query is, not several. Frames of a drive at
# 30 Hz are a degree apart.
_ONE_OPINION_RAD = np.radians(5.0)
# Images looked at for each one that is wanted: neighbours in a drive are alike, and most are dropped.
_LOOKED_AT_FOR_DISTINCT, _LOOKED_AT_FOR_KEYFRAMES = 20, 4


@dataclass(frozen=True, eq=False)
class View:
    """What one image shows, ready for matching.

    Attributes:
        camera: took the image.
        features: its keypoints with descriptors.
        rays: (N, 2) where the keypoints look, on the plane z = 1.
    """

    camera: Camera
    features: LocalFeatures
    rays: Array

    @cached_property
    def tree(self) -> cKDTree:
        """Search tree of the rays."""
        return cKDTree(self.rays)

    @cached_property
    def half_view(self) -> Array:
        """(2,) half width and height of the image on the plane z = 1, distortion aside."""
        return half_view_of(self.camera)

    @property
    def side(self) -> Side:
        """Its keypoints for a matcher."""
        return Side(
            self.features.xy_px, self.features.descriptors, (self.camera.width_px, self.camera.height_px)
        )


@dataclass(frozen=True, eq=False)
class MapScene:
    """Everything that localization in a map reads from a scene.

    Attributes:
        point_map: the map of points, or of posed images alone.
        database: index of mapping images.
        extractor: the local features that the map was built with.
        correction: from the map's poses to the given ones, None when there is none.
        folder: of the scene, None for one that is still being made.
        static_mask: (H, W) bool, false where every frame shows the robot itself; None without.
        confidence: what the scene has learned of its own answers.
    """

    point_map: PointMap
    database: ImageDatabase
    extractor: Extractor
    correction: PoseCorrection | None
    folder: Path | None = None
    static_mask: Mask | None = None
    confidence: ConfidenceModel = PRIOR

    @staticmethod
    def open(scene_dir: Path) -> MapScene:
        """The scene in a folder.

        Raises:
            SceneError: a file is missing or damaged.
            BackendError: a network of it cannot be used.
        """
        point_map = PointMap.load(scene_dir / MAP_FOLDER)
        return MapScene(
            point_map,
            ImageDatabase.load(scene_dir / INDEX_FOLDER),
            open_extractor(point_map.settings.features, scene_dir),
            PoseCorrection.load(scene_dir / MAP_FOLDER, point_map.settings.pose_correction.noise),
            scene_dir,
            open_static_mask(scene_dir),
            ConfidenceModel.load(scene_dir / MAP_FOLDER),
        )

    @property
    def focal_px(self) -> float:
        """Pixels per unit on the plane z = 1."""
        return self.point_map.camera.focal_px

    @property
    def matcher_card(self) -> Path | None:
        """Model card of the matcher that the scene holds; where it would lie when it does not."""
        return None if self.folder is None else self.folder / MATCHER_FOLDER / COPIED_CARD

    def view(self, frame: Frame, max_keypoints: int, fine: bool) -> View:
        """Features of a frame, outside the static mask, and where they look.

        Args:
            frame: the image.
            max_keypoints: the strongest so many.
            fine: with the finest octave, at about four times the time.
        """
        features = self.extractor.extract(frame.image, max_keypoints, fine)
        features = unmasked(features, frame.camera, self.static_mask)
        return View(frame.camera, features, self.point_map.camera.rays(frame.camera, features.xy_px))

    def global_descriptor(self, frame: Frame, view: View) -> Float32:
        """(G,) float32 of a frame for retrieval, zeros where it has nothing to describe.

        Args:
            frame: the image.
            view: its features.
        """
        return self.database.descriptor(frame.image, view.features.descriptors[view.features.coarse])

    def keyframe_side(self, keyframe: int, most: int | None = None) -> Side:
        """A keyframe's stored keypoints for a matcher, the first ``most`` of them."""
        m, camera = self.point_map, self.point_map.camera.given
        first, last = int(m.image_start[keyframe]), int(m.image_start[keyframe + 1])
        stored = slice(first, last if most is None else min(last, first + most))
        return Side(
            m.observation_xy_px[stored], m.unit_descriptors(stored), (camera.width_px, camera.height_px)
        )

    def keyframe_rays(self, keyframe: int) -> Array:
        """(K, 2) where a keyframe's stored keypoints look, plane z = 1."""
        m = self.point_map
        return m.observation_ray[m.image_start[keyframe] : m.image_start[keyframe + 1]]

    def refined_pose(self, T_map_cam: SE3) -> SE3:
        """``T_map_refined`` of a pose in the frame of the given poses."""
        uncorrected = self.correction.uncorrect(T_map_cam) if self.correction is not None else T_map_cam
        return uncorrected @ self.point_map.T_cam_refined

    def given_pose(self, T_map_refined: SE3) -> tuple[SE3, Array]:
        """``T_map_cam`` of a refined pose, and the (6, 6) covariance of what led there."""
        T_map_cam = T_map_refined @ self.point_map.T_cam_refined.inverse()
        systematic = self.point_map.systematic_covariance
        if self.correction is None:
            return T_map_cam, systematic
        corrected, covariance = self.correction.correct(T_map_cam)
        return corrected, systematic + covariance

    def given_answer(self, solved: SolvedPose) -> tuple[SE3, Array]:
        """``T_map_cam`` of a solved pose and its (6, 6) covariance: the noise of keypoints and the map's own error.
        Answers have shown more, by the inflation of ``confidence``."""
        T_map_cam, systematic = self.given_pose(solved.T_map_refined)
        noise = compose_covariance(solved.covariance, self.point_map.T_cam_refined.inverse())
        return T_map_cam, noise + systematic

    def view_sigma_rad(self, covariance: Array) -> float:
        """How uncertain a view is, of its pose's (6, 6) covariance: the turn, and the move as seen from the median
        depth."""
        turn = np.trace(covariance[:3, :3])
        move = np.trace(covariance[3:, 3:]) / self.point_map.median_depth**2
        return float(np.sqrt((turn + move) / 2.0))

    def beyond_rad(self, T_map_refined: SE3) -> float:
        """Distance of a view from the nearest mapped one."""
        return float(self.point_map.view_distances(T_map_refined).min())

    def nearest_keyframes(self, T_map_refined: SE3, count: int) -> Index:
        """(count,) keyframes whose view is most like that of a camera at the pose, the most alike first."""
        distance = self.point_map.view_distances(T_map_refined)
        count = min(count, len(distance))
        nearest = np.argpartition(distance, count - 1)[:count] if count < len(distance) else np.arange(count)
        return np.asarray(nearest[np.argsort(distance[nearest], kind="stable")], dtype=np.intp)

    def similar_keyframes(self, query: Float32, wanted: int) -> tuple[Index, Float32]:
        """The most similar keyframes: indices in the database and similarities, most similar first.

        Args:
            query: (G,) global descriptor.
            wanted: at most.
        """
        database = self.database
        # Frames between the keyframes are in the index too.
        share = max(1, round(len(database.index) / max(1, int((database.keyframe >= 0).sum()))))
        found, similarity = database.index.search(query, _LOOKED_AT_FOR_KEYFRAMES * share * wanted)
        keyframes = np.nonzero(database.keyframe[found] >= 0)[0][:wanted]
        return found[keyframes], similarity[keyframes]

    def distinct_images(
        self, query: Float32, wanted: int, keyframes_only: bool = False
    ) -> tuple[Index, Float32]:
        """The most similar images that are not nearly the same view: indices in the database and similarities.

        Args:
            query: (G,) global descriptor.
            wanted: at most.
            keyframes_only: leave out the frames between the keyframes.
        """
        database, depth_m = self.database, self.point_map.median_depth
        found, similarity = database.index.search(query, _LOOKED_AT_FOR_DISTINCT * wanted)
        chosen: list[int] = []
        for n, image in enumerate(found):
            if keyframes_only and database.keyframe[image] < 0:
                continue
            T = database.T_map_cam[image]
            others = database.T_map_cam[found[chosen]]
            if np.all(view_distances(others, SE3(T[:3, :3], T[:3, 3]), depth_m) > _ONE_OPINION_RAD):
                chosen.append(n)
                if len(chosen) == wanted:
                    break
        return found[chosen], similarity[chosen]
