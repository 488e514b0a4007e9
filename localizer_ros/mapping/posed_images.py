"""A scene of posed images: keypoints, poses and an index, nothing triangulated. Made in seconds.

Methods ``retrieval`` and ``local`` need no more; points, where wanted, are made for each frame (``local_map``).
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from localizer_ros.core.config import SearchConfig, StructureConfig
from localizer_ros.core.progress import Progress, no_progress
from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import SourceError
from localizer_ros.datasets.source import FrameSource
from localizer_ros.localization.calibration import Calibration
from localizer_ros.localization.features import to_bytes
from localizer_ros.localization.global_local import LocalMapLocalizer
from localizer_ros.localization.map_store import StructureMap
from localizer_ros.localization.structure_scene import INDEX_FOLDER, MAP_FOLDER, StructureScene
from localizer_ros.mapping.networks import take_networks_along
from localizer_ros.mapping.retrieval import index_images
from localizer_ros.mapping.sfm import (
    FeatureStore,
    Stages,
    choose_images,
    posed_frames,
    probe_depth_m,
    probing_images,
    validate,
)

_VALIDATION_IMAGES = 12


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
        validation: method local: median errors on frames between the images: frames, answered, median_t_m,
            median_r_deg; empty for retrieval, whose index has all frames.
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
        method: ``local`` tries itself on frames between the images; ``retrieval`` does not.
        out_dir: folder of the scene; ``map/`` and ``index/`` are written there.
        progress: told as it goes.
        work_dir: what is kept for going on after an interruption; None = ``out_dir/.work``, removed by the caller.

    Raises:
        SourceError: fewer than three frames with poses, or too few features.
    """
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
        chosen = choose_images(T_given, depth_m, config.images.max_images, config.images.min_spacing_deg)
    images = [posed[k] for k in chosen]
    carrying = set(images)
    with stages("features"):
        store.extract(images, True, progress, "features of mapping images")
        others = sorted(set(posed) - carrying)
        store.extract(others, False, progress, "features for retrieval")
    with stages("retrieval"):
        progress("retrieval", 0, len(posed))
        coarse = [store.features(i, i in carrying) for i in posed]
        names = tuple(source.records[i].name for i in posed)
        database = index_images(
            [f.descriptors[f.coarse] for f in coarse], T_given, names, chosen, config.retrieval, config.seed
        )
    with stages("write"):
        config = take_networks_along(config, out_dir)
        structure = _posed(store, source, images, T_given[chosen], config, depth_m, len(posed))
        database.save(out_dir / INDEX_FOLDER)
        structure.save(out_dir / MAP_FOLDER)
    validation: dict[str, float] = {}
    if method == "local":
        with stages("validation"):
            held_out = [k for k in range(len(posed)) if database.mapped[k] < 0]
            tried = LocalMapLocalizer(StructureScene.open(out_dir), SearchConfig(fine_features="never"))
            validation, systematic = validate(
                tried, depth_m, source, posed, held_out, T_given, _VALIDATION_IMAGES, progress
            )
        statistics = {**structure.statistics, "validation": validation}
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


def _posed(
    store: FeatureStore,
    source: FrameSource,
    images: list[int],
    T: np.ndarray,
    config: StructureConfig,
    depth_m: float,
    indexed: int,
) -> StructureMap:
    """The images as a map without points, the strongest keypoints of each within the size asked for."""
    features = [store.features(i, True) for i in images]
    dimensions = features[0].descriptors.shape[1]
    # A keypoint costs its descriptor, two indices and its place.
    share = int(config.points.max_megabytes * 1e6 / (dimensions + 12) / len(images))
    features = [f.only(np.arange(min(len(f), share))) for f in features]
    count = [len(f) for f in features]
    if sum(count) == 0:
        raise SourceError(f"{source.path}: no keypoints in {len(images)} images")
    return StructureMap(
        calibration=Calibration(source.camera),
        T_cam_opt=SE3.identity(),
        points=np.zeros((0, 3), dtype=np.float32),
        observation_image=np.repeat(np.arange(len(images), dtype=np.int32), count),
        observation_point=np.full(sum(count), -1, dtype=np.int32),
        observation_xy_px=np.concatenate([f.xy_px for f in features]),
        descriptors=np.concatenate([to_bytes(f.descriptors, store.signed) for f in features]),
        signed=store.signed,
        T_map_opt=T,
        T_map_cam=T,
        names=tuple(source.records[i].name for i in images),
        settings=config,
        # Given poses of a hand-held camera are about this good; validation knows better.
        systematic_covariance=np.diag([np.radians(0.5) ** 2] * 3 + [(0.01 * depth_m) ** 2] * 3),
        statistics={
            "images": len(images),
            "indexed": indexed,
            "keypoints": sum(count),
            "median_depth_m": round(depth_m, 3),
        },
    )
