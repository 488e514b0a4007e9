"""A scene of posed images: keypoints, poses and an index, nothing triangulated. Made in seconds.

Methods ``retrieval`` and ``local`` need no more; points, where wanted, are made for each frame (``local_map``).
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from localizer_ros.core.config.map_based import SearchConfig
from localizer_ros.core.config.mapping import StructureConfig
from localizer_ros.core.progress import Progress, no_progress
from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import Array, ConfigError, Frame, PoseEstimate, SourceError
from localizer_ros.datasets.source import FrameSource
from localizer_ros.features.local_features import LocalFeatures, to_bytes
from localizer_ros.geometry.rays import RayCamera
from localizer_ros.localization.map_based.local_map import LocalMapLocalizer
from localizer_ros.localization.map_based.pose_interpolation import RetrievalLocalizer
from localizer_ros.localization.map_based.reranking import RERANK_KEYPOINTS
from localizer_ros.mapping.bundled_models import take_along
from localizer_ros.mapping.feature_store import FeatureStore
from localizer_ros.mapping.index_images import index_images
from localizer_ros.mapping.keyframes import choose_images, posed_frames, probe_depth_m, probing_images
from localizer_ros.mapping.stages import Stages
from localizer_ros.mapping.trial import validate
from localizer_ros.scene.image_index import ImageDatabase, ImageIndex
from localizer_ros.scene.map_scene import INDEX_FOLDER, MAP_FOLDER, MapScene
from localizer_ros.scene.point_map import PointMap

_VALIDATION_IMAGES = 16
# Frames are tried as if no mapping image were nearer than this (turn, or move of like effect): a robot strays from
# the drive that was mapped, and what poses given with an error do to an answer shows only away from them.
_BEYOND_DEG = 10.0
# Too few answers say nothing of the error; poses of a hand-held camera are about this good.
_FEWEST_ANSWERED = 8
_UNTRIED_SIGMA_RAD = np.radians(0.6)


@dataclass(frozen=True)
class PosedImagesReport:
    """What a mapping of posed images made.

    Attributes:
        images: that carry keypoints.
        indexed: images in the retrieval index.
        keypoints: stored.
        median_depth_m: of what a few images show.
        bytes: of images and index.
        seconds: all stages.
        stage_seconds: each stage.
        validation: median errors on frames of the recording from which mapping images nearer than ``beyond_deg`` were
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

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return dict(vars(self))


def build_posed_images(
    source: FrameSource,
    config: StructureConfig,
    method: str,
    out_dir: Path,
    progress: Progress = no_progress,
    work_dir: Path | None = None,
) -> PosedImagesReport:
    """Make a scene of a recording with poses, without a map of points.

    Args:
        source: the recording, cut to the part to map; frames without a pose are left out.
        config: features, images, index; of ``points`` the size.
        method: ``local`` or ``retrieval``; the latter needs fewer keypoints.
        out_dir: folder of the scene; ``map/`` and ``index/`` are written there.
        progress: told as it goes.
        work_dir: what is kept for going on after an interruption; None = ``out_dir/.work``, removed by the caller.

    Raises:
        SourceError: fewer than three frames with poses, or too few features.
        ConfigError: a matcher of mapping images, which are not matched here.
    """
    if config.matcher.kind != "mutual":
        raise ConfigError(
            f"structure.matcher.kind: {config.matcher.kind} matches mapping images, which method {method} does not; "
            "search.matcher decides for frames"
        )
    stages = Stages()
    started = time.perf_counter()
    work = work_dir if work_dir is not None else out_dir / ".work"
    posed, T_given = posed_frames(source)
    store = FeatureStore(source, config, work / "features")
    probed = probing_images(len(posed))
    with stages("features"):
        store.extract([posed[k] for k in probed], False, progress, "features to probe the depth")
    with stages("images"):
        depth_m = probe_depth_m(store, source.camera, [posed[k] for k in probed], T_given[probed])
        chosen = choose_images(
            T_given, depth_m, config.keyframes.max_images, config.keyframes.min_spacing_deg
        )
    images = [posed[k] for k in chosen]
    carrying = set(images)
    fine = method == "local"
    with stages("features"):
        store.extract(images, fine, progress, "features of mapping images")
        others = sorted(set(posed) - carrying)
        store.extract(others, False, progress, "features for retrieval")
    with stages("retrieval"):
        progress("retrieval", 0, len(posed))
        coarse = [store.features(i, fine and i in carrying) for i in posed]
        names = tuple(source.records[i].name for i in posed)
        database = index_images(
            [f.descriptors[f.coarse] for f in coarse],
            lambda k: source.read(posed[k]).image,
            T_given,
            names,
            chosen,
            config.retrieval,
            config.seed,
        )
    with stages("write"):
        config = take_along(config, out_dir)
        features = [store.features(i, fine) for i in images]
        # A keypoint costs its descriptor, two indices and its place.
        bytes_each = features[0].descriptors.shape[1] + 12
        most = int(config.points.max_megabytes * 1e6 / bytes_each / len(images))
        structure = _posed(
            source,
            images,
            T_given[chosen],
            features,
            store.signed,
            config,
            depth_m,
            most if fine else min(most, RERANK_KEYPOINTS),
        )
        database.save(out_dir / INDEX_FOLDER)
        structure.save(out_dir / MAP_FOLDER)
    with stages("validation"):
        held_out = [k for k in range(len(posed)) if database.keyframe[k] < 0]
        tried = _FromAfar(MapScene.open(out_dir), method, dict(zip(names, T_given, strict=True)))
        validation, systematic = validate(
            tried, depth_m, source, posed, held_out, T_given, _VALIDATION_IMAGES, progress
        )
        validation["beyond_deg"] = _BEYOND_DEG
    if validation["answered"] < _FEWEST_ANSWERED:
        systematic = np.diag([_UNTRIED_SIGMA_RAD**2] * 3 + [(_UNTRIED_SIGMA_RAD * depth_m) ** 2] * 3)
    with stages("write"):
        statistics = {
            "images": len(images),
            "indexed": len(posed),
            "keypoints": len(structure.observation_point),
            "median_depth_m": round(depth_m, 3),
            "validation": validation,
        }
        structure = replace(structure, systematic_covariance=systematic, statistics=statistics)
        structure.save(out_dir / MAP_FOLDER)
    return PosedImagesReport(
        images=len(images),
        indexed=len(posed),
        keypoints=len(structure.observation_point),
        median_depth_m=round(depth_m, 3),
        bytes=sum(
            file.stat().st_size for file in out_dir.rglob("*") if file.is_file() and work not in file.parents
        ),
        seconds=round(time.perf_counter() - started, 2),
        stage_seconds=stages.seconds,
        validation=validation,
    )


class _FromAfar:
    """Implements ``GlobalLocalizer``: finds frames as if the mapping images near them were not there.

    Args:
        scene: the new scene.
        method: ``local`` or ``retrieval``.
        T_map_cam: (4, 4) given poses by frame name.
    """

    def __init__(self, scene: MapScene, method: str, T_map_cam: dict[str, Array]) -> None:
        self._scene, self._T_map_cam = scene, T_map_cam
        self._localizer = LocalMapLocalizer if method == "local" else RetrievalLocalizer

    def localize(self, frame: Frame, prior: PoseEstimate | None) -> PoseEstimate | None:
        database, T = self._scene.database, self._T_map_cam[frame.name]
        far = self._scene.point_map.view_distances(SE3(T[:3, :3], T[:3, 3])) > np.radians(_BEYOND_DEG)
        rows = np.nonzero((database.keyframe >= 0) & far[database.keyframe])[0]
        index = ImageIndex(database.index.descriptors.shape[1], database.index.kind)
        index.add(database.index.descriptors[rows])
        names = tuple(database.names[row] for row in rows)
        seen = ImageDatabase(
            index, database.describe, database.T_map_cam[rows], names, database.keyframe[rows]
        )
        config = SearchConfig(fine_features="never")
        return self._localizer(replace(self._scene, database=seen), config).localize(frame, prior)


def _posed(
    source: FrameSource,
    images: list[int],
    T: Array,
    features: list[LocalFeatures],
    signed: bool,
    config: StructureConfig,
    depth_m: float,
    most: int,
) -> PointMap:
    """The images as a map without points, the strongest keypoints of each."""
    features = [f.only(np.arange(min(len(f), most))) for f in features]
    count = [len(f) for f in features]
    if sum(count) == 0:
        raise SourceError(f"{source.path}: no keypoints in {len(images)} images")
    return PointMap(
        camera=RayCamera(source.camera),
        T_cam_refined=SE3.identity(),
        points=np.zeros((0, 3), dtype=np.float32),
        observation_image=np.repeat(np.arange(len(images), dtype=np.int32), count),
        observation_point=np.full(sum(count), -1, dtype=np.int32),
        observation_xy_px=np.concatenate([f.xy_px for f in features]),
        descriptors=np.concatenate([to_bytes(f.descriptors, signed) for f in features]),
        signed=signed,
        T_map_refined=T,
        T_map_cam=T,
        names=tuple(source.records[i].name for i in images),
        settings=config,
        systematic_covariance=np.zeros((6, 6)),
        statistics={"median_depth_m": round(depth_m, 3)},
    )
