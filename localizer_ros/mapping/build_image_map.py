"""A scene of posed images: keypoints, poses and an index, nothing triangulated. Made in seconds.

Methods ``retrieval`` and ``local`` need no more; points, where wanted, are made for each frame (``local_map``).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from localizer_ros.core.config.map_based import SearchConfig
from localizer_ros.core.config.mapping import MapConfig, StructureConfig
from localizer_ros.core.progress import Progress, no_progress
from localizer_ros.core.se3 import SE3
from localizer_ros.core.timing import StageTimer
from localizer_ros.core.types import Array, ConfigError, Frame, PoseEstimate, SourceError
from localizer_ros.datasets.source import FrameSource
from localizer_ros.features.local_features import to_bytes
from localizer_ros.geometry.rays import RayCamera
from localizer_ros.localization.map_based.local_map import LocalMapLocalizer
from localizer_ros.localization.map_based.pose_interpolation import RetrievalLocalizer
from localizer_ros.localization.map_based.reranking import RERANK_KEYPOINTS
from localizer_ros.localization.map_based.search import SearchResult
from localizer_ros.mapping.bundled_models import bundle_models
from localizer_ros.mapping.feature_store import FeatureStore
from localizer_ros.mapping.index_images import index_recording
from localizer_ros.mapping.keyframes import FEWEST_VALIDATED, Keyframes, find_keyframes
from localizer_ros.mapping.pruning import budget_bytes
from localizer_ros.mapping.validation import validate
from localizer_ros.scene.bundle import INDEX_FOLDER, MAP_FOLDER
from localizer_ros.scene.image_index import ImageDatabase, ImageIndex
from localizer_ros.scene.map_scene import MapScene
from localizer_ros.scene.point_map import PointMap

# Frames that the new map is validated on, at most.
_VALIDATION_IMAGES = 16
# Frames are tried as if no keyframe were nearer than this (turn, or move of like effect): a robot strays from the path
# that was mapped, and what poses given with an error do to an answer shows only away from it.
_BEYOND_DEG = 10.0
# What answers are off by where too few frames could be tried: poses of a hand-held camera are about this good.
_UNTRIED_SIGMA_RAD = np.radians(0.6)
# Bytes of a keypoint beside its descriptor: two indices and its place.
_KEYPOINT_BYTES = 12


@dataclass(frozen=True)
class ImageMapReport:
    """What a mapping of posed images made.

    Attributes:
        images: keyframes, of which keypoints are kept.
        indexed: images in the retrieval index.
        keypoints: stored.
        median_depth_m: of what a few images show.
        bytes: of images and index.
        seconds: all stages.
        stage_seconds: each stage.
        validation: median errors on frames of the recording from which keyframes nearer than ``beyond_deg`` were
            hidden: frames, answered, median_t_m, median_r_deg.
    """

    images: int
    indexed: int
    keypoints: int
    median_depth_m: float
    bytes: int
    seconds: float
    stage_seconds: dict[str, float]
    validation: dict[str, float]


def build_image_map_scene(
    source: FrameSource,
    config: MapConfig,
    weights: Path | None,
    folder: Path,
    work: Path,
    progress: Progress,
) -> dict[str, Any]:
    """Facts for the manifest; see :class:`localizer_ros.mapping.build.Builder`."""
    report = build_image_map(source, config.structure, config.method, folder, work, progress)
    return {"map": vars(report)}


def build_image_map(
    source: FrameSource,
    config: StructureConfig,
    method: str,
    out_dir: Path,
    work: Path,
    progress: Progress = no_progress,
) -> ImageMapReport:
    """What was made of a recording with poses: ``map/``, without points, and ``index/`` are written to ``out_dir``.

    Args:
        source: the recording, cut to the part to map; frames without a pose are left out.
        config: features, keyframes, index; of ``points`` the size.
        method: ``local`` or ``retrieval``; the latter needs fewer keypoints.
        out_dir: folder of the scene.
        work: what is kept for going on after an interruption; made where it is not there.
        progress: told as it goes.

    Raises:
        SourceError: fewer than three frames with poses, or too few features.
        ConfigError: a matcher of keyframes, which are not matched here.
    """
    if config.matcher.kind != "mutual":
        raise ConfigError(
            f"structure.matcher.kind: {config.matcher.kind} matches keyframes, which method {method} does not; "
            "search.matcher decides for frames"
        )
    timer = StageTimer()
    fine = method == "local"
    store = FeatureStore(source, config, work / "features")
    keyframes = find_keyframes(source, store, config.keyframes, fine, timer, progress)
    with timer.stage("retrieval"):
        database = index_recording(source, store, keyframes, config, fine, progress)
    with timer.stage("write"):
        config = bundle_models(config, out_dir)
        point_map = _without_points(source, store, keyframes, config, fine)
        database.save(out_dir / INDEX_FOLDER)
        point_map.save(out_dir / MAP_FOLDER)
    with timer.stage("validation"):
        poses = dict(zip(keyframes.names, keyframes.T_map_cam, strict=True))
        localizer = _FromAfar(MapScene.open(out_dir), method, poses)
        validated = validate(localizer, source, keyframes, keyframes.depth_m, _VALIDATION_IMAGES, progress)
        validation, systematic = validated.figures, validated.systematic
        validation["beyond_deg"] = _BEYOND_DEG
    if validation["answered"] < FEWEST_VALIDATED:
        sigma_m = _UNTRIED_SIGMA_RAD * keyframes.depth_m
        systematic = np.diag([_UNTRIED_SIGMA_RAD**2] * 3 + [sigma_m**2] * 3)
    statistics = {**_counts(point_map, keyframes), "validation": validation}
    with timer.stage("write"):
        point_map = replace(point_map, systematic_covariance=systematic, statistics=statistics)
        point_map.save(out_dir / MAP_FOLDER)
    return ImageMapReport(
        **statistics,
        bytes=_bytes_of(out_dir, work),
        seconds=round(timer.elapsed_ms() / 1e3, 2),
        stage_seconds=timer.timings_s(),
    )


def _without_points(
    source: FrameSource, store: FeatureStore, keyframes: Keyframes, config: StructureConfig, fine: bool
) -> PointMap:
    """The keyframes as a map without points, the strongest keypoints of each."""
    features = [store.features(i, fine) for i in keyframes.images]
    each = features[0].descriptors.shape[1] + _KEYPOINT_BYTES
    most = budget_bytes(config.points.max_megabytes, len(features)) // each // len(features)
    if not fine:
        most = min(most, RERANK_KEYPOINTS)
    features = [f.only(np.arange(min(len(f), most))) for f in features]
    count = [len(f) for f in features]
    if sum(count) == 0:
        raise SourceError(f"{source.path}: no keypoints in {len(features)} images")
    T = keyframes.T_map_cam[keyframes.chosen]
    return PointMap(
        camera=RayCamera(source.camera),
        T_cam_refined=SE3.identity(),
        points=np.zeros((0, 3), dtype=np.float32),
        observation_image=np.repeat(np.arange(len(features), dtype=np.int32), count),
        observation_point=np.full(sum(count), -1, dtype=np.int32),
        observation_xy_px=np.concatenate([f.xy_px for f in features]),
        descriptors=np.concatenate([to_bytes(f.descriptors, store.signed) for f in features]),
        signed=store.signed,
        T_map_refined=T,
        T_map_cam=T,
        names=keyframes.image_names,
        settings=config,
        systematic_covariance=np.zeros((6, 6)),
        statistics={"median_depth_m": round(keyframes.depth_m, 3)},
    )


def _counts(point_map: PointMap, keyframes: Keyframes) -> dict[str, Any]:
    return {
        "images": len(keyframes.chosen),
        "indexed": len(keyframes.views),
        "keypoints": len(point_map.observation_point),
        "median_depth_m": round(keyframes.depth_m, 3),
    }


def _bytes_of(folder: Path, without: Path) -> int:
    files = (file for file in folder.rglob("*") if file.is_file() and without not in file.parents)
    return sum(file.stat().st_size for file in files)


class _FromAfar:
    """Implements ``GlobalLocalizer``: finds frames as if the keyframes near them were not there.

    Args:
        scene: the new scene.
        method: ``local`` or ``retrieval``.
        T_map_cam: (4, 4) given poses by frame name.
    """

    def __init__(self, scene: MapScene, method: str, T_map_cam: dict[str, Array]) -> None:
        self._scene, self._T_map_cam = scene, T_map_cam
        self._localizer = LocalMapLocalizer if method == "local" else RetrievalLocalizer

    def localize(self, frame: Frame, prior: PoseEstimate | None) -> SearchResult:
        """See ``GlobalLocalizer``."""
        database, T = self._scene.database, self._T_map_cam[frame.name]
        far = self._scene.point_map.view_distances(SE3(T[:3, :3], T[:3, 3])) > np.radians(_BEYOND_DEG)
        rows = np.nonzero((database.keyframe >= 0) & far[database.keyframe])[0]
        index = ImageIndex(database.index.descriptors.shape[1], database.index.kind)
        index.add(database.index.descriptors[rows])
        names = tuple(database.names[row] for row in rows)
        seen = ImageDatabase(
            index, database.descriptor, database.T_map_cam[rows], names, database.keyframe[rows]
        )
        config = SearchConfig(fine_features="never")
        return self._localizer(replace(self._scene, database=seen), config).localize(frame, prior)
