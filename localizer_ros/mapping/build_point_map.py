"""A map of points from images whose poses are known: matches, triangulation, bundle adjustment, pruning, index.

Stages leave what they made in a work folder, so that an interrupted mapping goes on where it stopped.
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
from localizer_ros.core.types import Array, Index, SourceError
from localizer_ros.datasets.source import FrameSource
from localizer_ros.features.local_features import LocalFeatures, open_extractor
from localizer_ros.features.masks import open_static_mask
from localizer_ros.features.matchers import open_matcher
from localizer_ros.geometry.triangulation import reprojection_errors
from localizer_ros.localization.map_based.hierarchical import HierarchicalLocalizer
from localizer_ros.mapping.bundled_models import take_along
from localizer_ros.mapping.colmap_model import write_colmap_model
from localizer_ros.mapping.feature_store import FeatureStore
from localizer_ros.mapping.index_images import index_images
from localizer_ros.mapping.keyframes import (
    choose_images,
    choose_pairs,
    posed_frames,
    probe_depth_m,
    probing_images,
)
from localizer_ros.mapping.point_builder import FEWEST_POINTS, PointBuilder
from localizer_ros.mapping.stages import Stages
from localizer_ros.mapping.trial import validate
from localizer_ros.scene.map_scene import INDEX_FOLDER, MAP_FOLDER, MapScene
from localizer_ros.scene.point_map import PointMap
from localizer_ros.scene.pose_correction import PoseCorrection

# Mapping images beside the map's own on which it is tried out.
_VALIDATION_IMAGES = 40


@dataclass(frozen=True)
class StructureReport:
    """What a mapping made.

    Attributes:
        images: mapping images that carry points.
        indexed: images in the retrieval index.
        points: of the map.
        observations: of the points.
        mean_track_length: observations a point.
        reprojection_error_px: median.
        bytes: of the map, the index and the COLMAP model.
        seconds: all stages.
        stage_seconds: each stage.
        validation: median errors on recorded frames that carry no points of the map: frames, answered, median_t_m,
            median_r_deg.
        calibration: focal lengths, principal point and distortion after refinement, mounting.
    """

    images: int
    indexed: int
    points: int
    observations: int
    mean_track_length: float
    reprojection_error_px: float
    bytes: int
    seconds: float
    stage_seconds: dict[str, float]
    validation: dict[str, float]
    calibration: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return dict(vars(self))


def build_structure_map(
    source: FrameSource,
    config: StructureConfig,
    out_dir: Path,
    progress: Progress = no_progress,
    work_dir: Path | None = None,
) -> StructureReport:
    """Build the map of a recording with poses.

    Args:
        source: the recording, cut to the part to map; frames without a pose are left out.
        config: how.
        out_dir: folder of the scene; ``map/`` and ``index/`` are written there.
        progress: told as it goes.
        work_dir: what is kept for going on after an interruption; None = ``out_dir/.work``, removed by the caller.

    Raises:
        SourceError: fewer than three frames with poses, or images from which no map can be made; says why.
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
        chosen = choose_images(
            T_given, depth_m, config.keyframes.max_images, config.keyframes.min_spacing_deg
        )
    images = [posed[k] for k in chosen]
    T = T_given[chosen]
    with stages("features"):
        store.extract(images, True, progress, "features of mapping images")
        others = sorted(set(posed) - set(images))
        store.extract(others, False, progress, "features for retrieval")
    with stages("matches"):
        pairs = choose_pairs(
            T, depth_m, config.keyframes.neighbours, np.radians(config.keyframes.max_angle_deg)
        )
        matches = _matched(store, images, pairs, config, work / "matches.npz", progress)
    with stages("bundle"):
        built = PointBuilder(store, images, T, source.camera, config, depth_m).build(matches, progress)
    structure = built.structure(tuple(source.records[i].name for i in images))
    if len(structure.points) < FEWEST_POINTS:
        raise SourceError(
            f"{source.path}: only {len(structure.points)} points were found in {len(images)} images; the usual "
            "reasons are wrong poses or intrinsics, motion blur, or no sideways motion"
        )
    with stages("retrieval"):
        progress("retrieval", 0, len(posed))
        carrying = set(images)
        coarse = [_coarse(store.features(i, i in carrying)) for i in posed]
        names = tuple(source.records[i].name for i in posed)
        database = index_images(
            [f.descriptors for f in coarse],
            lambda k: source.read(posed[k]).image,
            T_given,
            names,
            chosen,
            config.retrieval,
            config.seed,
        )
    with stages("bundle"):
        disagreement = built.disagreement()
        correction = (
            _fit_correction(structure, config, disagreement) if config.pose_correction.enabled else None
        )
    extractor = open_extractor(config.features)
    structure = replace(structure, settings=take_along(config, out_dir))
    scene = MapScene(structure, database, extractor, correction, out_dir, open_static_mask(out_dir))
    with stages("validation"):
        held_out = [k for k in range(len(posed)) if database.keyframe[k] < 0]
        tried = HierarchicalLocalizer(scene, SearchConfig(fine_features="never"))
        validation, systematic = validate(
            tried, structure.median_depth, source, posed, held_out, T_given, _VALIDATION_IMAGES, progress
        )
    structure = replace(structure, systematic_covariance=systematic)

    with stages("write"):
        error_px = _errors_px(structure)
        statistics = {
            "images": len(images),
            "indexed": len(posed),
            "points": len(structure.points),
            "observations": len(structure.observation_point),
            "mean_track_length": round(len(structure.observation_point) / len(structure.points), 2),
            "reprojection_error_px": round(float(np.median(error_px)), 3),
            "median_depth_m": round(structure.median_depth, 3),
            "validation": validation,
        }
        structure = replace(structure, statistics=statistics)
        written = structure.save(out_dir / MAP_FOLDER)
        if correction is not None:
            written += correction.save(out_dir / MAP_FOLDER)
        written += database.save(out_dir / INDEX_FOLDER)
        written += write_colmap_model(structure, out_dir / MAP_FOLDER / "colmap")
    return StructureReport(
        images=len(images),
        indexed=len(posed),
        points=len(structure.points),
        observations=len(structure.observation_point),
        mean_track_length=float(statistics["mean_track_length"]),
        reprojection_error_px=float(statistics["reprojection_error_px"]),
        bytes=written,
        seconds=round(time.perf_counter() - started, 2),
        stage_seconds=stages.seconds,
        validation=validation,
        calibration=built.calibration_found(),
    )


def _coarse(features: LocalFeatures) -> LocalFeatures:
    return features.only(features.coarse)


def _matched(
    store: FeatureStore,
    images: list[int],
    pairs: list[tuple[int, int]],
    config: StructureConfig,
    path: Path,
    progress: Progress,
) -> list[tuple[int, int, Index]]:
    """Matches of all pairs; read from ``path`` where an earlier run has left the same pairs."""
    if path.is_file():
        with np.load(path, allow_pickle=False) as data:
            if np.array_equal(data["images"], images) and np.array_equal(data["pairs"], pairs):
                parts = np.split(data["matches"].astype(np.intp), np.cumsum(data["counts"])[:-1])
                return [(a, b, m) for (a, b), m in zip(pairs, parts, strict=True)]
    found: list[tuple[int, int, Index]] = []
    card = Path(config.matcher.card) if config.matcher.card else None
    matcher = open_matcher(config.matcher.kind, config.keyframes.ratio, card)
    current, first = -1, store.side(images[0])
    for n, (a, b) in enumerate(pairs):
        if a != current:
            current, first = a, store.side(images[a])
        found.append((a, b, matcher.match(first, store.side(images[b]))))
        if n % 20 == 0 or n + 1 == len(pairs):
            progress("matches", n + 1, len(pairs))
    partial = path.with_suffix(".partial.npz")
    np.savez(
        partial,
        images=np.array(images),
        pairs=np.array(pairs),
        counts=np.array([len(m) for _, _, m in found]),
        matches=np.concatenate([m for _, _, m in found]).astype(np.int32)
        if found
        else np.zeros((0, 2), np.int32),
    )
    partial.replace(path)
    return found


def _fit_correction(structure: PointMap, config: StructureConfig, disagreement: Array) -> PoseCorrection:
    mounting = structure.T_cam_refined.inverse().matrix()
    uncorrected = structure.T_map_refined @ mounting
    reach = np.radians(config.pose_correction.reach_deg)
    return PoseCorrection.fit(
        uncorrected,
        structure.T_map_cam,
        reach,
        reach * structure.median_depth,
        config.pose_correction.noise,
        disagreement,
    )


def _errors_px(structure: PointMap) -> Array:
    errors = reprojection_errors(
        structure.T_map_refined,
        structure.observation_image.astype(np.intp),
        structure.observation_ray,
        structure.points[structure.observation_point].astype(np.float64),
    )
    return errors * structure.camera.focal_px
