"""Camera poses from images alone: structure from motion with pycolmap, in a frame and a scale of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pycolmap

from localizer_ros.core.config.mapping import StructureConfig
from localizer_ros.core.progress import Progress, no_progress
from localizer_ros.core.se3 import SE3
from localizer_ros.core.signals import take_back_sigterm
from localizer_ros.core.trajectory import Trajectory
from localizer_ros.core.types import Array, Camera, Float32, SourceError
from localizer_ros.datasets.source import FrameRecord, FrameSource
from localizer_ros.features.descriptor_matching import mutual_matches
from localizer_ros.geometry.rays import undistorted
from localizer_ros.mapping.colmap_model import PIXEL_CENTRE
from localizer_ros.mapping.feature_store import FeatureStore
from localizer_ros.mapping.index_images import describe_images
from localizer_ros.mapping.view_change import changed_frames

take_back_sigterm()

# Neighbours in time that every image is matched with, and similar images further away in time (loops).
_NEXT = (1, 2, 3, 4, 6, 8)
_SIMILAR = 5
# Fewer matches of a pair are chance.
_FEWEST_MATCHES = 25
_FEWEST_IMAGES = 3


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """Poses of a recording's frames.

    Attributes:
        names: of the frames that were placed.
        stamps_ns: their stamps.
        T_map_cam: their poses; metres when ``aligned_by`` is not empty, else in an arbitrary scale.
        points: number of points.
        reprojection_error_px: mean.
        aligned_by: where place and scale come from, e.g. ``ground truth``; empty when they are arbitrary.
    """

    names: tuple[str, ...]
    stamps_ns: tuple[int, ...]
    T_map_cam: tuple[SE3, ...]
    points: int
    reprojection_error_px: float
    aligned_by: str = ""

    @property
    def trajectory(self) -> Trajectory:
        """The poses as a trajectory."""
        return Trajectory.from_items(list(zip(self.stamps_ns, self.T_map_cam, strict=True)))


def reconstruct(
    source: FrameSource, config: StructureConfig, out_dir: Path, work: Path, progress: Progress = no_progress
) -> Reconstruction:
    """The camera poses of a recording's keyframes, in a frame and a scale of their own.

    Args:
        source: the recording; its own poses are not looked at.
        config: features and matching; of ``keyframes`` the most images.
        out_dir: the model is written to ``out_dir/sparse``.
        work: features are kept here, for going on after an interruption with the same recording and settings.
        progress: told as it goes.

    Raises:
        SourceError: fewer than three frames, or too little overlap or parallax for any reconstruction.
    """
    count = len(source.records)
    if count < _FEWEST_IMAGES:
        raise SourceError(f"{source.path}: {count} frames, expected at least {_FEWEST_IMAGES}")
    chosen = _keyframes(source, config.keyframes.max_images, progress)
    store = FeatureStore(source, config, work / "features")
    store.extract(chosen, True, progress, "features")
    database_path = work / "database.db"
    database_path.unlink(missing_ok=True)
    _fill_database(database_path, source, chosen, store, config, progress)
    sparse = out_dir / "sparse"
    sparse.mkdir(parents=True, exist_ok=True)
    # Hundreds of lines of it; what goes wrong comes back as models that are missing.
    pycolmap.logging.minloglevel = pycolmap.logging.Level.FATAL.value
    models = pycolmap.incremental_mapping(
        str(database_path),
        str(out_dir),
        str(sparse),
        _options(config.seed),
        next_image_callback=_counted(progress, len(chosen)),
    )
    if not models:
        raise SourceError(
            f"{source.path}: no reconstruction from {len(chosen)} keyframes; they need overlap, texture and sideways "
            "motion"
        )
    model = max(models.values(), key=lambda model: model.num_reg_images())
    placed = _placed(source, model)
    return Reconstruction(
        tuple(record.name for record, _ in placed),
        tuple(record.stamp_ns for record, _ in placed),
        tuple(T for _, T in placed),
        model.num_points3D(),
        float(model.compute_mean_reprojection_error()),
    )


def _placed(source: FrameSource, model: pycolmap.Reconstruction) -> list[tuple[FrameRecord, SE3]]:
    """The frames that the model has a pose of, in order of time."""
    records = {record.name: record for record in source.records}
    placed: list[tuple[FrameRecord, SE3]] = []
    for image in model.images.values():
        if image.has_pose:
            matrix = np.asarray(image.cam_from_world().inverse().matrix())
            placed.append((records[image.name], SE3(matrix[:, :3].copy(), matrix[:, 3].copy())))
    return sorted(placed, key=lambda item: item[0].stamp_ns)


def _keyframes(source: FrameSource, most: int, progress: Progress) -> list[int]:
    """Frames that show something new, at most so many of them (0 = all). Raises SourceError where hardly any does."""
    chosen = changed_frames(source, progress)
    if 0 < most < len(chosen):
        chosen = [chosen[round(k)] for k in np.linspace(0, len(chosen) - 1, most)]
    if len(chosen) < _FEWEST_IMAGES:
        raise SourceError(
            f"{source.path}: the view hardly changes in all {len(source.records)} frames; the camera must move"
        )
    return chosen


def _options(seed: int) -> pycolmap.IncrementalPipelineOptions:
    options = pycolmap.IncrementalPipelineOptions()
    options.min_model_size = _FEWEST_IMAGES
    # Where a bad beginning leads to a few images only, others are tried; the largest model counts.
    options.multiple_models = True
    options.max_num_models = 10
    options.extract_colors = False
    options.random_seed = seed
    # Intrinsics come with the recording; two or three images cannot better them, and a drive forward least of all.
    options.ba_refine_focal_length = False
    options.ba_refine_extra_params = False
    options.mapper.init_min_tri_angle = 4.0
    options.mapper.init_max_forward_motion = 1.0
    options.mapper.abs_pose_refine_focal_length = False
    options.mapper.abs_pose_refine_extra_params = False
    options.triangulation.ignore_two_view_tracks = False
    return options


def _counted(progress: Progress, count: int) -> Callable[[], None]:
    """Told of each image that is placed; it may give up and begin again."""
    tried = 0

    def placing() -> None:
        nonlocal tried
        tried += 1
        progress("placing images", min(tried, count), count)

    return placing


def _fill_database(
    path: Path,
    source: FrameSource,
    chosen: list[int],
    store: FeatureStore,
    config: StructureConfig,
    progress: Progress,
) -> None:
    """Write camera, images, keypoints and verified matches of some frames to a database of COLMAP."""
    features = [store.features(i, True) for i in chosen]
    camera, K = source.camera, source.camera.K
    ideal = [undistorted(camera, f.xy_px) @ K[:2, :2].T + K[:2, 2] + PIXEL_CENTRE for f in features]
    pairs = _pairs(source, chosen, [f.only(f.coarse).descriptors for f in features], config)
    with pycolmap.Database.open(str(path)) as database:
        model = _write_images(database, source.camera, [source.records[i].name for i in chosen], ideal)
        for n, (a, b) in enumerate(pairs):
            matches = mutual_matches(features[a].descriptors, features[b].descriptors, config.keyframes.ratio)
            if len(matches) >= _FEWEST_MATCHES:
                found = pycolmap.estimate_calibrated_two_view_geometry(
                    model, ideal[a], model, ideal[b], matches.astype(np.uint32)
                )
                if len(found.inlier_matches) >= _FEWEST_MATCHES:
                    database.write_matches(a + 1, b + 1, matches.astype(np.uint32))
                    database.write_two_view_geometry(a + 1, b + 1, found)
            if n % 10 == 0 or n + 1 == len(pairs):
                progress("matches", n + 1, len(pairs))


def _write_images(
    database: pycolmap.Database, camera: Camera, names: list[str], ideal: list[Array]
) -> pycolmap.Camera:
    """The camera of all images, after it, the images and their keypoints (N, 2) were written."""
    K = camera.K
    model = pycolmap.Camera(
        model="PINHOLE",
        width=camera.width_px,
        height=camera.height_px,
        params=[K[0, 0], K[1, 1], K[0, 2] + PIXEL_CENTRE, K[1, 2] + PIXEL_CENTRE],
        camera_id=1,
    )
    model.has_prior_focal_length = True
    database.write_camera(model, use_camera_id=True)
    rig = pycolmap.Rig(rig_id=1)
    rig.add_ref_sensor(model.sensor_id)
    database.write_rig(rig, use_rig_id=True)
    for i, name in enumerate(names):
        image = pycolmap.Image(name=name, camera_id=1, image_id=i + 1)
        frame = pycolmap.Frame(frame_id=i + 1, rig_id=1)
        frame.add_data_id(image.data_id)
        database.write_frame(frame, use_frame_id=True)
        image.frame_id = i + 1
        database.write_image(image, use_image_id=True)
        database.write_keypoints(i + 1, ideal[i].astype(np.float32))
    return model


def _pairs(
    source: FrameSource, chosen: list[int], descriptors: list[Float32], config: StructureConfig
) -> list[tuple[int, int]]:
    """Neighbours in time within a sequence, and the most similar images elsewhere."""
    count = len(chosen)
    sequence = [source.records[i].sequence for i in chosen]
    pairs = {
        (i, i + step)
        for i in range(count)
        for step in _NEXT
        if i + step < count and sequence[i] == sequence[i + step]
    }
    _, vectors = describe_images(
        descriptors, lambda k: source.read(chosen[k]).image, np.arange(count), config.retrieval, config.seed
    )
    similarity = vectors @ vectors.T
    for i in range(count):
        near = np.abs(np.arange(count) - i) <= max(_NEXT)
        similarity[i, near] = -2.0
        for j in np.argsort(-similarity[i], kind="stable")[:_SIMILAR]:
            if similarity[i, j] > 0.0:
                pairs.add((min(i, int(j)), max(i, int(j))))
    return sorted(pairs)
