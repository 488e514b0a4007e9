"""A map of points from images whose poses are known: matches, triangulation, bundle adjustment, pruning, index.

Stages leave what they made in a work folder, so that an interrupted mapping goes on where it stopped.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from localizer_ros.core.config.map_based import SearchConfig
from localizer_ros.core.config.mapping import MapConfig, PoseCorrectionConfig, StructureConfig
from localizer_ros.core.progress import Progress, no_progress
from localizer_ros.core.timing import StageTimer
from localizer_ros.core.types import Array, SourceError
from localizer_ros.datasets.source import FrameSource
from localizer_ros.features.extractors import open_extractor
from localizer_ros.features.masks import open_static_mask
from localizer_ros.geometry.triangulation import reprojection_errors
from localizer_ros.localization.map_based.hierarchical import HierarchicalLocalizer
from localizer_ros.mapping.bundled_models import bundle_models
from localizer_ros.mapping.colmap_model import write_colmap_model
from localizer_ros.mapping.confidence_fit import fit_confidence, no_surer_than
from localizer_ros.mapping.examination import examine
from localizer_ros.mapping.feature_store import FeatureStore
from localizer_ros.mapping.index_images import index_recording
from localizer_ros.mapping.keyframes import Keyframes, choose_pairs, find_keyframes
from localizer_ros.mapping.matching import PairMatches, match_keyframes
from localizer_ros.mapping.point_builder import FEWEST_POINTS, PointBuilder
from localizer_ros.mapping.trial import refuse_dead
from localizer_ros.mapping.validation import validate
from localizer_ros.scene.bundle import INDEX_FOLDER, MAP_FOLDER
from localizer_ros.scene.confidence import PLAIN
from localizer_ros.scene.map_scene import MapScene
from localizer_ros.scene.point_map import PointMap
from localizer_ros.scene.pose_correction import PoseCorrection

# Frames that the new map is validated on, at most.
_VALIDATION_IMAGES = 24


@dataclass(frozen=True)
class PointMapReport:
    """What a mapping made.

    Attributes:
        images: keyframes.
        indexed: images in the retrieval index.
        points: of the map.
        observations: of the points.
        mean_track_length: observations a point.
        reprojection_error_px: median.
        bytes: of the map, the index and the COLMAP model.
        seconds: all stages.
        stage_seconds: each stage.
        validation: median errors on frames that are no keyframes: frames, answered, median_t_m, median_r_deg.
        calibration: focal lengths, principal point and distortion after refinement, extrinsics.
        implausible: what of it no calibration is so wrong about, one line each.
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
    implausible: list[str]


def build_point_map_scene(
    source: FrameSource,
    config: MapConfig,
    weights: Path | None,
    folder: Path,
    work: Path,
    progress: Progress,
) -> dict[str, Any]:
    """Facts for the manifest; see :class:`localizer_ros.mapping.build.Builder`."""
    return {"map": vars(build_point_map(source, config.structure, folder, work, progress))}


def build_point_map(
    source: FrameSource,
    config: StructureConfig,
    out_dir: Path,
    work: Path,
    progress: Progress = no_progress,
) -> PointMapReport:
    """What was made of a recording with poses: ``map/`` and ``index/`` are written to ``out_dir``.

    Args:
        source: the part of a recording to map; frames without a pose are left out.
        config: how.
        out_dir: folder of the scene.
        work: what is kept for going on after an interruption; made where it is not there.
        progress: told as it goes.

    Raises:
        SourceError: fewer than three frames with poses, or images from which no map can be made; says why.
    """
    timer = StageTimer()
    store = FeatureStore(source, config, work / "features")
    keyframes = find_keyframes(source, store, config.keyframes, True, timer, progress)
    with timer.stage("matches"):
        matches = _matches(store, keyframes, config, work / "matches.npz", progress)
    with timer.stage("bundle"):
        builder = PointBuilder(store, keyframes, source.camera, config)
        point_map = builder.build(matches, progress)
        _check_size(point_map, source)
        correction = _fit_correction(point_map, config.pose_correction, builder.disagreement())
    with timer.stage("retrieval"):
        database = index_recording(source, store, keyframes, config, True, progress)
    # Statistics first: errors of poses are held against the map's own, in the examination as later.
    statistics = _statistics(point_map, len(keyframes.views))
    point_map = replace(point_map, settings=bundle_models(config, out_dir), statistics=statistics)
    extractor, mask = open_extractor(config.features), open_static_mask(out_dir)
    scene = MapScene(point_map, database, extractor, correction, out_dir, mask, PLAIN)
    with timer.stage("validation"):
        localizer = HierarchicalLocalizer(scene, SearchConfig(fine_features="never"))
        asked, depth_m = _VALIDATION_IMAGES, point_map.median_depth
        validation = validate(localizer, source, keyframes, depth_m, asked, progress)
        refuse_dead(validation.figures, str(source.path))
    with timer.stage("examination"):
        point_map = replace(point_map, systematic_covariance=validation.systematic)
        samples = examine(replace(scene, point_map=point_map), source, keyframes, config.seed, progress)
        confidence = no_surer_than(validation.samples, fit_confidence(samples))
    statistics["validation"] = validation.figures
    with timer.stage("write"):
        written = point_map.save(out_dir / MAP_FOLDER) + database.save(out_dir / INDEX_FOLDER)
        written += confidence.save(out_dir / MAP_FOLDER)
        written += 0 if correction is None else correction.save(out_dir / MAP_FOLDER)
        written += write_colmap_model(point_map, out_dir / MAP_FOLDER / "colmap")
    del statistics["median_depth_m"]
    return PointMapReport(
        **statistics,
        bytes=written,
        seconds=round(timer.elapsed_ms() / 1e3, 2),
        stage_seconds=timer.timings_s(),
        calibration=builder.refined_calibration(),
        implausible=builder.implausible(),
    )


def _matches(
    store: FeatureStore, keyframes: Keyframes, config: StructureConfig, path: Path, progress: Progress
) -> list[PairMatches]:
    pairs = choose_pairs(
        keyframes.T_map_cam[keyframes.chosen],
        keyframes.depth_m,
        config.keyframes.neighbours,
        np.radians(config.keyframes.max_angle_deg),
    )
    return match_keyframes(store, keyframes.images, pairs, config, path, progress)


def _check_size(point_map: PointMap, source: FrameSource) -> None:
    if len(point_map.points) < FEWEST_POINTS:
        raise SourceError(
            f"{source.path}: only {len(point_map.points)} points were found in {len(point_map.names)} images; the "
            "usual reasons are wrong poses or intrinsics, motion blur, or no sideways motion"
        )


def _fit_correction(
    point_map: PointMap, config: PoseCorrectionConfig, disagreement: Array
) -> PoseCorrection | None:
    """From the map's poses to the given ones; None where it is not wanted."""
    if not config.enabled:
        return None
    reach = np.radians(config.reach_deg)
    return PoseCorrection.fit(
        point_map.T_map_refined @ point_map.T_cam_refined.inverse().matrix(),
        point_map.T_map_cam,
        reach,
        reach * point_map.median_depth,
        config.noise,
        disagreement,
    )


def _statistics(point_map: PointMap, indexed: int) -> dict[str, Any]:
    """Figures that are kept with the map."""
    observations = len(point_map.observation_point)
    errors = reprojection_errors(
        point_map.T_map_refined,
        point_map.observation_image.astype(np.intp),
        point_map.observation_ray,
        point_map.points[point_map.observation_point].astype(np.float64),
    )
    return {
        "images": len(point_map.names),
        "indexed": indexed,
        "points": len(point_map.points),
        "observations": observations,
        "mean_track_length": round(observations / len(point_map.points), 2),
        "reprojection_error_px": round(float(np.median(errors * point_map.camera.focal_px)), 3),
        "median_depth_m": round(point_map.median_depth, 3),
    }
