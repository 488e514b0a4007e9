"""Camera poses from images alone: structure from motion with pycolmap, and its alignment to the world.

A reconstruction knows neither where it is nor how large: it is carried to known poses by a similarity, or scaled by a
known distance. What it was aligned by is part of the answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pycolmap

from localizer_ros.core.config.mapping import StructureConfig
from localizer_ros.core.config.schema import dump_yaml
from localizer_ros.core.files import new_folder
from localizer_ros.core.progress import Progress, no_progress
from localizer_ros.core.se3 import SE3
from localizer_ros.core.trajectory import Trajectory
from localizer_ros.core.types import Array, Camera, Float32, SourceError
from localizer_ros.datasets.derived import FirstFrames
from localizer_ros.datasets.source import FrameRecord, FrameSource
from localizer_ros.features.local_features import mutual_matches
from localizer_ros.geometry.rays import undistorted
from localizer_ros.mapping.feature_store import FeatureStore
from localizer_ros.mapping.index_images import describe_images
from localizer_ros.mapping.work_folder import work_folder

# Neighbours in time that every image is matched with, and similar images further away in time (loops).
_NEXT = (1, 2, 3, 4, 6, 8)
_SIMILAR = 5
_FEWEST_MATCHES = 25
# Weight of orientations beside positions when aligning.
_ORIENTATIONS = 0.1
# COLMAP's origin is the corner of the first pixel, ours its centre.
_PIXEL_CENTRE = 0.5


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
        alignment_rms_m: of camera positions after alignment, None without.
    """

    names: tuple[str, ...]
    stamps_ns: tuple[int, ...]
    T_map_cam: tuple[SE3, ...]
    points: int
    reprojection_error_px: float
    aligned_by: str
    alignment_rms_m: float | None

    @property
    def trajectory(self) -> Trajectory:
        """The poses as a trajectory."""
        return Trajectory.from_items(list(zip(self.stamps_ns, self.T_map_cam, strict=True)))


def reconstruct(
    source: FrameSource,
    config: StructureConfig,
    out_dir: Path,
    work: Path,
    progress: Progress = no_progress,
    reference: dict[str, SE3] | None = None,
    reference_is: str = "ground truth",
) -> Reconstruction:
    """Find the camera poses of a recording.

    Args:
        source: the recording; its own poses are not looked at.
        config: features and matching; the first ``keyframes.max_images`` is no limit here.
        out_dir: the model, not aligned, is written to ``out_dir/sparse``.
        work: features are kept here, for going on after an interruption with the same recording and settings.
        progress: told as it goes.
        reference: known poses by frame name, to align to; None leaves place and scale arbitrary.
        reference_is: what the reference is, for the record.

    Raises:
        SourceError: fewer than three frames, or too little overlap or parallax for any reconstruction.
    """
    count = len(source.records)
    if count < 3:
        raise SourceError(f"{source.path}: {count} frames, expected at least 3")
    store = FeatureStore(source, config, work / "features")
    store.extract(list(range(count)), True, progress, "features")
    database_path = work / "database.db"
    database_path.unlink(missing_ok=True)
    _fill_database(database_path, source, store, config, progress)
    options = pycolmap.IncrementalPipelineOptions()
    options.min_model_size = 3
    # Where a bad beginning leads to a few images only, others are tried; the largest model counts.
    options.multiple_models = True
    options.max_num_models = 10
    options.extract_colors = False
    options.random_seed = config.seed
    # Intrinsics come with the recording; two or three images cannot better them, and a drive forward least of all.
    options.ba_refine_focal_length = False
    options.ba_refine_extra_params = False
    options.mapper.init_min_tri_angle = 4.0
    options.mapper.init_max_forward_motion = 1.0
    options.mapper.abs_pose_refine_focal_length = False
    options.mapper.abs_pose_refine_extra_params = False
    options.triangulation.ignore_two_view_tracks = False
    sparse = out_dir / "sparse"
    sparse.mkdir(parents=True, exist_ok=True)
    tried = 0

    def placing() -> None:
        nonlocal tried
        tried += 1
        # It may give up and begin again.
        progress("placing images", min(tried, count), count)

    # Hundreds of lines of it; what goes wrong comes back as models that are missing.
    pycolmap.logging.minloglevel = pycolmap.logging.Level.FATAL.value
    models = pycolmap.incremental_mapping(
        str(database_path), str(out_dir), str(sparse), options, next_image_callback=placing
    )
    if not models:
        raise SourceError(
            f"{source.path}: no reconstruction from {count} images; they need overlap, texture and sideways motion"
        )
    model = max(models.values(), key=lambda model: model.num_reg_images())
    placed: list[tuple[FrameRecord, SE3]] = []
    records = {record.name: record for record in source.records}
    for image in model.images.values():
        if image.has_pose:
            matrix = np.asarray(image.cam_from_world().inverse().matrix())
            placed.append((records[image.name], SE3(matrix[:, :3].copy(), matrix[:, 3].copy())))
    placed.sort(key=lambda item: item[0].stamp_ns)
    poses = [T for _, T in placed]
    aligned_by, rms = "", None
    if reference:
        both = [n for n, (record, _) in enumerate(placed) if record.name in reference]
        if len(both) < 3:
            raise SourceError(
                f"{source.path}: {len(both)} placed frames have a reference pose, expected at least 3"
            )
        poses, rms = aligned(poses, both, [reference[placed[n][0].name] for n in both])
        aligned_by = reference_is
    return Reconstruction(
        tuple(record.name for record, _ in placed),
        tuple(record.stamp_ns for record, _ in placed),
        tuple(poses),
        model.num_points3D(),
        float(model.compute_mean_reprojection_error()),
        aligned_by,
        rms,
    )


def aligned(poses: Sequence[SE3], both: Sequence[int], reference: Sequence[SE3]) -> tuple[list[SE3], float]:
    """Carry poses to a reference by the similarity that fits camera positions best (least squares).

    Args:
        poses: of the reconstruction.
        both: indices of those that have a reference.
        reference: their reference poses.

    Returns:
        All poses, and the RMS distance of positions, metres.

    Raises:
        SourceError: the reference contradicts the reconstruction.
    """
    a = np.stack([poses[n].t for n in both])
    b = np.stack([T.t for T in reference])
    a0, b0 = a - a.mean(axis=0), b - b.mean(axis=0)
    size = np.sqrt((a0**2).sum() * (b0**2).sum())
    # Positions on a line, as of a straight drive, leave the turn about it open; orientations do not. They count less,
    # because the reference may be of a body that the camera is mounted on at an angle.
    turns = np.mean([T.R @ poses[n].R.T for n, T in zip(both, reference, strict=True)], axis=0)
    u, _, vt = np.linalg.svd(b0.T @ a0 / max(size, 1e-12) + _ORIENTATIONS * turns)
    R = u @ np.diag([1.0, 1.0, np.sign(np.linalg.det(u @ vt))]) @ vt
    scale = float(np.einsum("ni,ij,nj->", b0, R, a0) / max(float((a0**2).sum()), 1e-12))
    if scale <= 0.0:
        raise SourceError(
            "alignment: positions and orientations of the reference contradict the reconstruction"
        )
    t = b.mean(axis=0) - scale * R @ a.mean(axis=0)
    carried = [SE3(R @ T.R, scale * R @ T.t + t) for T in poses]
    offsets = np.stack([carried[n].t for n in both]) - b
    return carried, float(np.sqrt(np.mean(np.sum(offsets**2, axis=1))))


def reference_poses(source: FrameSource, kind: str) -> tuple[dict[str, SE3], str]:
    """Poses of a recording's own to align to, by frame name, and what they are.

    Args:
        source: the recording.
        kind: ``ground_truth``, ``odometry``, ``none``, or ``auto`` for the first of these that there is.

    Raises:
        SourceError: the recording has none of that kind.
    """
    truth = {r.name: r.T_map_cam for r in source.records if r.T_map_cam is not None}
    if truth and kind in ("auto", "ground_truth"):
        return truth, source.ground_truth
    moved: dict[str, SE3] = {}
    if source.odometry is not None and source.T_base_cam is not None:
        for record in source.records:
            T_odom_base = source.odometry.at(record.stamp_ns)
            if T_odom_base is not None:
                moved[record.name] = T_odom_base @ source.T_base_cam
    if moved and kind in ("auto", "odometry"):
        return moved, "odometry"
    if kind in ("ground_truth", "odometry"):
        raise SourceError(f"{source.path}: has no {kind.replace('_', ' ')} to align to")
    return {}, ""


def run_sfm(
    source: FrameSource,
    split: str,
    config: StructureConfig,
    out: Path,
    limit: int | None = None,
    reference: dict[str, SE3] | None = None,
    reference_is: str = "",
    length_m: float | None = None,
    resume: bool = False,
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """The work behind ``localizer sfm``: reconstruct, align or scale, write ``trajectory.txt`` and the model.

    Args:
        source: the recording, already cut to ``split``.
        split: name of that part, for the record.
        config: features and matching.
        out: folder of the result; appears whole, at the end.
        limit: at most this many frames, the first ones.
        reference: known poses by frame name; empty leaves place and scale arbitrary.
        reference_is: what the reference is.
        length_m: length of the path, which gives the scale when there is no reference.
        resume: go on where an interrupted call stopped.
        progress: told as it goes.

    Returns:
        Facts for the user.

    Raises:
        SourceError: ``out`` exists, or see :func:`reconstruct`.
        ConfigError: the interrupted call had other settings or another recording.
    """
    part: FrameSource = source if limit is None else FirstFrames(source, limit)
    with work_folder(out, part, split, dump_yaml(config), resume) as work, new_folder(out) as folder:
        found = reconstruct(part, config, folder, work, progress, reference or None, reference_is)
        trajectory, aligned_by = found.trajectory, found.aligned_by
        if length_m is not None:
            scale = length_m / trajectory.length_m
            poses = tuple(SE3(T.R, scale * T.t) for T in trajectory.poses)
            trajectory, aligned_by = Trajectory(trajectory.stamps_ns, poses), f"path length {length_m} m"
        trajectory.write_tum(folder / "trajectory.txt")
    rms_m = found.alignment_rms_m
    return {
        "trajectory": str(out / "trajectory.txt"),
        "frames": len(part.records),
        "placed": len(trajectory),
        "points": found.points,
        "reprojection_error_px": found.reprojection_error_px,
        "place_and_scale_from": aligned_by or "nothing: arbitrary",
        "path_length_m": trajectory.length_m,
        "alignment_rms_m": rms_m,
        "alignment_rms_percent": 100.0 * rms_m / trajectory.length_m if rms_m is not None else None,
    }


def _fill_database(
    path: Path, source: FrameSource, store: FeatureStore, config: StructureConfig, progress: Progress
) -> None:
    camera: Camera = source.camera
    K = camera.K
    model = pycolmap.Camera(
        model="PINHOLE",
        width=camera.width_px,
        height=camera.height_px,
        params=[K[0, 0], K[1, 1], K[0, 2] + _PIXEL_CENTRE, K[1, 2] + _PIXEL_CENTRE],
        camera_id=1,
    )
    model.has_prior_focal_length = True
    features = [store.features(i, True) for i in range(len(source.records))]
    ideal: list[Array] = [
        undistorted(camera, f.xy_px) @ K[:2, :2].T + K[:2, 2] + _PIXEL_CENTRE for f in features
    ]
    pairs = _pairs(source, [f.only(f.coarse).descriptors for f in features], config)
    with pycolmap.Database.open(str(path)) as database:
        database.write_camera(model, use_camera_id=True)
        rig = pycolmap.Rig(rig_id=1)
        rig.add_ref_sensor(model.sensor_id)
        database.write_rig(rig, use_rig_id=True)
        for i, record in enumerate(source.records):
            image = pycolmap.Image(name=record.name, camera_id=1, image_id=i + 1)
            frame = pycolmap.Frame(frame_id=i + 1, rig_id=1)
            frame.add_data_id(image.data_id)
            database.write_frame(frame, use_frame_id=True)
            image.frame_id = i + 1
            database.write_image(image, use_image_id=True)
            database.write_keypoints(i + 1, ideal[i].astype(np.float32))
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


def _pairs(source: FrameSource, descriptors: list[Float32], config: StructureConfig) -> list[tuple[int, int]]:
    """Neighbours in time within a sequence, and the most similar images elsewhere."""
    count = len(source.records)
    pairs = {
        (i, i + step)
        for i in range(count)
        for step in _NEXT
        if i + step < count and source.records[i].sequence == source.records[i + step].sequence
    }
    _, vectors = describe_images(
        descriptors, lambda k: source.read(k).image, np.arange(count), config.retrieval, config.seed
    )
    similarity = vectors @ vectors.T
    for i in range(count):
        near = np.abs(np.arange(count) - i) <= max(_NEXT)
        similarity[i, near] = -2.0
        for j in np.argsort(-similarity[i], kind="stable")[:_SIMILAR]:
            if similarity[i, j] > 0.0:
                pairs.add((min(i, int(j)), max(i, int(j))))
    return sorted(pairs)
