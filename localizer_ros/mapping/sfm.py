"""A map of points from images whose poses are known: matches, triangulation, bundle adjustment, pruning, index.

Stages leave what they made in a work folder, so that an interrupted mapping goes on where it stopped.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from localizer_ros.core.config import SearchConfig, StructureConfig
from localizer_ros.core.progress import Progress, no_progress
from localizer_ros.core.se3 import SE3, symmetrized
from localizer_ros.core.types import Array, Camera, SourceError
from localizer_ros.datasets.source import FrameSource
from localizer_ros.localization.calibration import Calibration, undistorted
from localizer_ros.localization.features import (
    Float32,
    LocalFeatures,
    from_bytes,
    mutual_matches,
    open_extractor,
    to_bytes,
)
from localizer_ros.localization.front_end import GlobalLocalizer
from localizer_ros.localization.global_hierarchical import HierarchicalLocalizer
from localizer_ros.localization.guided_matching import guided_matches
from localizer_ros.localization.map_store import StructureMap
from localizer_ros.localization.masks import RecordingMasks, open_static_mask
from localizer_ros.localization.matchers import Side, open_matcher
from localizer_ros.localization.pose_field import PoseField
from localizer_ros.localization.structure_scene import (
    INDEX_FOLDER,
    MAP_FOLDER,
    StructureScene,
    half_view_of,
)
from localizer_ros.localization.triangulation import consistent, reprojection_errors, tracks_of
from localizer_ros.mapping.brought_along import check_networks, take_along
from localizer_ros.mapping.bundle import BundlePriors, BundleState, adjust
from localizer_ros.mapping.colmap_model import write_colmap_model
from localizer_ros.mapping.retrieval import index_images

Index = NDArray[np.intp]

# Below this many points nothing can be localised.
_FEWEST_POINTS = 50
# Mapping images beside the map's own on which it is tried out.
_VALIDATION_IMAGES = 40
# Shares of the focal length, and plain coefficients: how far a data sheet is off.
_FOCAL_SIGMA, _CENTRE_SIGMA = 0.04, 0.02
_DISTORTION_SIGMA = (0.05, 0.02, 0.003, 0.003)
# How much looser the priors on poses are when the question is how wrong they are.
_FREEDOM = 30.0
# How far answers are off where a whole sequence was not mapped, over how far free images move.
_HIDDEN = 1.5
_MOUNTING_SIGMA_RAD, _MOUNTING_SIGMA_OF_DEPTH = 0.1, 0.05


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


class Stages:
    """Seconds of each stage, in order."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.seconds[name] = round(self.seconds.get(name, 0.0) + time.perf_counter() - started, 2)


class FeatureStore:
    """Features of a recording's frames, extracted once and kept in a folder.

    Args:
        source: the recording.
        config: which features.
        folder: where they are kept.
    """

    def __init__(self, source: FrameSource, config: StructureConfig, folder: Path) -> None:
        self._source, self._config, self._folder = source, config, folder
        self._extractor = open_extractor(config.features)
        check_networks(config, self._extractor.dimensions)
        self._masks = RecordingMasks(source, config.masks)
        self.signed = self._extractor.signed
        self._kept: dict[tuple[int, bool], tuple[Float32, NDArray[np.uint8], NDArray[np.bool_]]] = {}
        folder.mkdir(parents=True, exist_ok=True)

    def extract(self, indices: list[int], fine: bool, progress: Progress, stage: str) -> None:
        """Make sure that the features of these frames are there; reading and extraction overlap."""
        missing = [i for i in indices if not self._path(i, fine).is_file()]
        done = len(indices) - len(missing)
        with ThreadPoolExecutor(max_workers=1) as reader:
            pending = [reader.submit(self._source.read, i) for i in missing[:2]]
            for n, i in enumerate(missing):
                frame = pending.pop(0).result()
                if n + 2 < len(missing):
                    pending.append(reader.submit(self._source.read, missing[n + 2]))
                features = self._extractor.extract(frame.image, self._config.features.max_keypoints, fine)
                features = self._masks.apply(features, self._source.records[i].name, frame.camera)
                self._write(i, fine, features)
                progress(stage, done + n + 1, len(indices))

    def features(self, index: int, fine: bool) -> LocalFeatures:
        """Features of a frame that was extracted before."""
        if (index, fine) not in self._kept:
            with np.load(self._path(index, fine), allow_pickle=False) as data:
                self._kept[index, fine] = (data["xy"], data["descriptors"], data["coarse"])
        xy, descriptors, coarse = self._kept[index, fine]
        return LocalFeatures(xy, from_bytes(descriptors, self.signed), coarse)

    def side(self, index: int) -> Side:
        """Fine features of a frame for a matcher."""
        features, camera = self.features(index, True), self._source.camera
        return Side(features.xy_px, features.descriptors, (camera.width_px, camera.height_px))

    def _path(self, index: int, fine: bool) -> Path:
        return self._folder / f"{index:06d}-{'fine' if fine else 'coarse'}.npz"

    def _write(self, index: int, fine: bool, features: LocalFeatures) -> None:
        path = self._path(index, fine)
        # Renamed when complete: a killed run leaves no half file to trip over.
        partial = path.with_suffix(".partial.npz")
        np.savez(
            partial,
            xy=features.xy_px,
            descriptors=to_bytes(features.descriptors, self.signed),
            coarse=features.coarse,
        )
        partial.replace(path)


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
        chosen = choose_images(T_given, depth_m, config.images.max_images, config.images.min_spacing_deg)
    images = [posed[k] for k in chosen]
    T = T_given[chosen]
    with stages("features"):
        store.extract(images, True, progress, "features of mapping images")
        others = sorted(set(posed) - set(images))
        store.extract(others, False, progress, "features for retrieval")
    with stages("matches"):
        pairs = choose_pairs(T, depth_m, config.images.neighbours, np.radians(config.images.max_angle_deg))
        matches = _matched(store, images, pairs, config, work / "matches.npz", progress)
    with stages("bundle"):
        built = _Builder(store, images, T, source.camera, config, depth_m).build(matches, progress)
    structure = built.structure(tuple(source.records[i].name for i in images))
    if len(structure.points) < _FEWEST_POINTS:
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
        field = _fit_field(structure, config, disagreement) if config.pose_field.enabled else None
    extractor = open_extractor(config.features)
    structure = replace(structure, settings=take_along(config, out_dir))
    scene = StructureScene(structure, database, extractor, field, out_dir, open_static_mask(out_dir))
    with stages("validation"):
        held_out = [k for k in range(len(posed)) if database.mapped[k] < 0]
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
        if field is not None:
            written += field.save(out_dir / MAP_FOLDER)
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


def posed_frames(source: FrameSource) -> tuple[list[int], Array]:
    """Indices of the frames with poses, and these (N, 4, 4). Raises SourceError when there are fewer than three."""
    posed = [(i, T.matrix()) for i, r in enumerate(source.records) if (T := r.T_map_cam) is not None]
    if len(posed) < 3:
        raise SourceError(
            f"{source.path}: {len(posed)} frames have poses, expected at least 3; `localizer sfm` finds poses"
        )
    return [i for i, _ in posed], np.stack([T for _, T in posed])


def choose_images(T: Array, depth_m: float, max_images: int, min_spacing_deg: float) -> Index:
    """Views spread as evenly as possible: each next one is the furthest from all chosen so far.

    Args:
        T: (N, 4, 4) poses.
        depth_m: median depth of the scene; a move counts as the angle it is seen under from there.
        max_images: at most.
        min_spacing_deg: stop when no view is further than this from a chosen one.

    Returns:
        Ascending indices.
    """
    features = _view_features(T, depth_m)
    chosen = [0]
    nearest = np.linalg.norm(features - features[0], axis=1)
    while len(chosen) < min(max_images, len(T)):
        k = int(nearest.argmax())
        if nearest[k] < np.radians(min_spacing_deg):
            break
        chosen.append(k)
        nearest = np.minimum(nearest, np.linalg.norm(features - features[k], axis=1))
    return np.sort(np.array(chosen, dtype=np.intp))


def choose_pairs(T: Array, depth_m: float, neighbours: int, max_angle_rad: float) -> list[tuple[int, int]]:
    """Pairs of images to match: the nearest views for certain matches, and further ones for wide angles.

    Args:
        T: (N, 4, 4) poses.
        depth_m: median depth of the scene.
        neighbours: of each image.
        max_angle_rad: between two views.
    """
    features = _view_features(T, depth_m)
    pairs: set[tuple[int, int]] = set()
    for i in range(len(T)):
        distance = np.linalg.norm(features - features[i], axis=1)
        distance[i] = np.inf
        order = np.argsort(distance, kind="stable")
        cosine = 0.5 * (np.einsum("nij,ij->n", T[order, :3, :3], T[i, :3, :3]) - 1.0)
        order = order[(cosine > np.cos(max_angle_rad)) & np.isfinite(distance[order])]
        near = neighbours // 2
        for j in [*order[:near], *order[near : near + 3 * (neighbours - near) : 3]]:
            pairs.add((min(i, int(j)), max(i, int(j))))
    return sorted(pairs)


def _view_features(T: Array, depth_m: float) -> Array:
    turn = T[:, :3, :3].reshape(-1, 9) / np.sqrt(2.0)
    return np.concatenate([T[:, :3, 3] / depth_m, turn], axis=1)


def _coarse(features: LocalFeatures) -> LocalFeatures:
    return features.only(features.coarse)


def probing_images(count: int) -> Index:
    """A few of ``count`` frames, evenly spaced, for a first look at the scene."""
    return np.unique(np.linspace(0, count - 1, min(40, count)).round().astype(np.intp))


def probe_depth_m(store: FeatureStore, camera: Camera, picked: list[int], T: Array) -> float:
    """Median depth of what a few images show; twice the spread of positions when that fails."""
    features = [store.features(i, False) for i in picked]
    rays = [undistorted(camera, f.xy_px) for f in features]
    pairs = [
        (a, b, mutual_matches(features[a].descriptors, features[b].descriptors, 0.8))
        for a in range(len(picked))
        for b in (a + 1, a + 2)
        if b < len(picked)
    ]
    image, keypoint, track = tracks_of(pairs, [len(f) for f in features])
    spread = float(np.sqrt(np.mean(np.var(T[:, :3, 3], axis=0))))
    if len(image):
        seen = np.stack([rays[i][k] for i, k in zip(image, keypoint, strict=True)])
        kept, label, X = consistent(T, image, seen, track, 0.02, np.radians(1.5))
        if len(X) >= 20:
            at = T[image[kept]]
            return float(np.median(np.einsum("ni,ni->n", at[:, :3, 2], X[label] - at[:, :3, 3])))
    return max(2.0 * spread, 0.1)


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
    matcher = open_matcher(config.matcher.kind, config.images.ratio, card)
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


class _Builder:
    """Points from matches: the part of mapping that goes back and forth between observations and geometry."""

    def __init__(
        self,
        store: FeatureStore,
        images: list[int],
        T_given: Array,
        camera: Camera,
        config: StructureConfig,
        depth_m: float,
    ) -> None:
        self.store, self.images, self.config, self.depth_m = store, images, config, depth_m
        self.camera, self.T_given = camera, T_given
        self.features = [store.features(i, True) for i in images]
        # Everything below is in the ideal image of the given camera: pixels by its K, no distortion.
        K = camera.K
        self.ideal = [undistorted(camera, f.xy_px) @ K[:2, :2].T + K[:2, 2] for f in self.features]
        self.focal_px = 0.5 * float(K[0, 0] + K[1, 1])
        self.state = BundleState(
            T_given.copy(),
            np.zeros((0, 3)),
            np.array([K[0, 0], K[1, 1], K[0, 2], K[1, 2], 0.0, 0.0, 0.0, 0.0]),
            np.eye(4),
        )
        empty = np.zeros(0, dtype=np.intp)
        self.image, self.keypoint, self.point = empty, empty, empty

    def build(self, matches: list[tuple[int, int, Index]], progress: Progress) -> _Builder:
        """All rounds. Raises SourceError when the matches do not agree with the poses."""
        c = self.config
        verified = [(a, b, self._on_epipolar_line(a, b, m)) for a, b, m in matches]
        image, keypoint, track = tracks_of(verified, [len(f) for f in self.features])
        # The first triangulation has the given poses with all their error: be generous.
        self._keep_consistent(image, keypoint, track, c.images.epipolar_px, 0.5 * c.points.min_angle_deg)
        if len(self.state.points) < _FEWEST_POINTS:
            raise SourceError(
                f"only {len(self.state.points)} points agree with the given poses; are poses camera to map, in "
                "metres, and is the camera calibrated?"
            )
        for number in range(c.bundle.rounds):
            progress("bundle adjustment", number, c.bundle.rounds)
            self._adjust(c.bundle.iterations)
            self._complete()
            self._keep_consistent(
                self.image, self.keypoint, self.point, c.points.max_error_px, c.points.min_angle_deg
            )
        self._adjust(c.bundle.iterations)
        self._keep_consistent(
            self.image, self.keypoint, self.point, 0.75 * c.points.max_error_px, c.points.min_angle_deg
        )
        progress("bundle adjustment", c.bundle.rounds, c.bundle.rounds)
        self._prune()
        return self

    def calibration(self) -> Calibration:
        """Rays as bundle adjustment sees them."""
        if not self.config.bundle.refine_intrinsics:
            return Calibration(self.camera)
        fx, fy, cx, cy, *distortion = self.state.intrinsics
        K = np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]])
        refined = Camera(self.camera.width_px, self.camera.height_px, K, np.array(distortion))
        return Calibration(self.camera, refined)

    def calibration_found(self) -> dict[str, Any]:
        """For the report."""
        mounting = SE3(self.state.T_cam_opt[:3, :3], self.state.T_cam_opt[:3, 3])
        return {
            "focal_px": [round(float(v), 2) for v in self.state.intrinsics[:2]],
            "centre_px": [round(float(v), 2) for v in self.state.intrinsics[2:4]],
            "distortion": [round(float(v), 5) for v in self.state.intrinsics[4:]],
            "mounting_deg": round(float(np.degrees(mounting.angle_to(SE3.identity()))), 3),
            "mounting_m": [round(float(v), 4) for v in mounting.t],
        }

    def structure(self, names: tuple[str, ...]) -> StructureMap:
        """The map in its stored form."""
        order = np.argsort(self.image, kind="stable")
        image, keypoint, point = self.image[order], self.keypoint[order], self.point[order]
        start = np.searchsorted(image, np.arange(len(self.images) + 1))
        xy = [f.xy_px[keypoint[a:b]] for f, a, b in zip(self.features, start, start[1:], strict=False)]
        stored = [
            to_bytes(f.descriptors[keypoint[a:b]], self.store.signed)
            for f, a, b in zip(self.features, start, start[1:], strict=False)
        ]
        mounting = self.state.T_cam_opt
        return StructureMap(
            calibration=self.calibration(),
            T_cam_opt=SE3.from_matrix(mounting),
            points=self.state.points.astype(np.float32),
            observation_image=image.astype(np.int32),
            observation_point=point.astype(np.int32),
            observation_xy_px=np.concatenate(xy),
            descriptors=np.concatenate(stored),
            signed=self.store.signed,
            T_map_opt=self.state.T_map_opt,
            T_map_cam=self.T_given,
            names=names,
            settings=self.config,
            systematic_covariance=np.zeros((6, 6)),
            statistics={},
        )

    def _rays(self, image: Index, keypoint: Index) -> Array:
        calibration = self.calibration()
        xy = np.concatenate(
            [np.zeros((0, 2)), *(f.xy_px[keypoint[image == i]] for i, f in enumerate(self.features))]
        )
        rays = np.empty((len(image), 2))
        rays[np.argsort(image, kind="stable")] = calibration.rays(self.camera, xy)
        return rays

    def _on_epipolar_line(self, a: int, b: int, matches: Index) -> Index:
        """Matches within ``epipolar_px`` of their epipolar lines by the given poses."""
        if len(matches) == 0:
            return matches
        T_b_a = np.linalg.inv(self.T_given[b]) @ self.T_given[a]
        t = T_b_a[:3, 3]
        if np.linalg.norm(t) < 0.01 * self.depth_m:
            # Too short a baseline for a line; what remains is a homography by rotation alone.
            K = self.camera.K
            turned = (
                np.concatenate([self.ideal[a][matches[:, 0]], np.ones((len(matches), 1))], axis=1)
                @ (K @ T_b_a[:3, :3] @ np.linalg.inv(K)).T
            )
            shift = np.linalg.norm(turned[:, :2] / turned[:, 2:] - self.ideal[b][matches[:, 1]], axis=1)
            return matches[shift < 3.0 * self.config.images.epipolar_px]
        cross = np.array([[0.0, -t[2], t[1]], [t[2], 0.0, -t[0]], [-t[1], t[0], 0.0]])
        K_inverse = np.linalg.inv(self.camera.K)
        F = K_inverse.T @ cross @ T_b_a[:3, :3] @ K_inverse
        one = np.ones((len(matches), 1))
        xa = np.concatenate([self.ideal[a][matches[:, 0]], one], axis=1)
        xb = np.concatenate([self.ideal[b][matches[:, 1]], one], axis=1)
        in_b, in_a = xa @ F.T, xb @ F
        distance = np.abs(np.einsum("ni,ni->n", xb, in_b)) / np.sqrt(
            0.5 * (in_a[:, :2] ** 2 + in_b[:, :2] ** 2).sum(axis=1) + 1e-18
        )
        return matches[distance < self.config.images.epipolar_px]

    def _keep_consistent(
        self, image: Index, keypoint: Index, track: Index, max_error_px: float, min_angle_deg: float
    ) -> None:
        kept, label, X = consistent(
            self.state.T_map_opt,
            image,
            self._rays(image, keypoint),
            track,
            max_error_px / self.focal_px,
            np.radians(min_angle_deg),
        )
        self.image, self.keypoint, self.point = image[kept], keypoint[kept], label
        self.state = replace(self.state, points=X)

    def disagreement(self) -> Array:
        """(6,) how far given poses and images disagree, standard deviation of each component, rad and metres.

        The priors on poses are tight, because the map shall follow the given poses. How wrong these are shows only when
        images may move freely: a last adjustment, of which nothing else is used. What neighbouring images are wrong in
        together does not show even then.
        """
        free = self._adjusted(_FREEDOM, 6)
        given = self.T_given @ free.T_cam_opt
        differences = np.stack(
            [
                (SE3(a[:3, :3], a[:3, 3]).inverse() @ SE3(b[:3, :3], b[:3, 3])).log()
                for a, b in zip(given, free.T_map_opt, strict=True)
            ]
        )
        sigma = np.sqrt(np.mean(differences**2, axis=0))
        # A turn and the move that looks like it are told apart only half: what is wrong in one is wrong in the other.
        confused = 0.5 * self.depth_m * float(np.sqrt(np.mean(sigma[:3] ** 2)))
        return _HIDDEN * np.concatenate([sigma[:3], np.hypot(sigma[3:], confused)])

    def _adjust(self, iterations: int) -> None:
        c = self.config.bundle
        if c.refine_poses or c.refine_intrinsics or c.refine_mounting:
            self.state = self._adjusted(1.0, iterations)

    def _adjusted(self, freedom: float, iterations: int) -> BundleState:
        c = self.config.bundle
        f = self.focal_px
        intrinsics = np.array([_FOCAL_SIGMA * f] * 2 + [_CENTRE_SIGMA * f] * 2 + list(_DISTORTION_SIGMA))
        priors = BundlePriors(
            self.T_given,
            freedom * np.radians(c.pose_sigma_deg) if c.refine_poses or freedom > 1.0 else 0.0,
            freedom * (c.pose_sigma_m or 6e-4 * self.depth_m) if c.refine_poses or freedom > 1.0 else 0.0,
            intrinsics if c.refine_intrinsics else np.zeros(8),
            _MOUNTING_SIGMA_RAD if c.refine_mounting else 0.0,
            _MOUNTING_SIGMA_OF_DEPTH * self.depth_m if c.refine_mounting else 0.0,
            c.keypoint_sigma_px,
        )
        xy = np.stack([self.ideal[i][k] for i, k in zip(self.image, self.keypoint, strict=True)])
        return adjust(self.state, self.image, self.point, xy, priors, iterations)[0]

    def _complete(self) -> None:
        """Look for every point in the other images that should show it, now that poses agree better."""
        structure = self.structure(tuple(str(i) for i in range(len(self.images))))
        calibration = self.calibration()
        half_view = half_view_of(self.camera)
        added: list[tuple[Index, Index, Index]] = []
        for i, features in enumerate(self.features):
            T = SE3(self.state.T_map_opt[i, :3, :3], self.state.T_map_opt[i, :3, 3])
            rays = calibration.rays(self.camera, features.xy_px)
            distance = structure.view_distances(T)
            near = np.argsort(distance, kind="stable")[1:13].astype(np.intp)
            found = guided_matches(
                structure,
                T,
                near,
                rays,
                cKDTree(rays),
                features.descriptors,
                half_view,
                self.focal_px,
                self.config.points.max_error_px,
                0.7,
            )
            own = self.image == i
            fresh = ~np.isin(found.keypoint, self.keypoint[own]) & ~np.isin(found.point, self.point[own])
            count = int(fresh.sum())
            added.append((np.full(count, i, dtype=np.intp), found.keypoint[fresh], found.point[fresh]))
        self.image = np.concatenate([self.image, *(a[0] for a in added)])
        self.keypoint = np.concatenate([self.keypoint, *(a[1] for a in added)])
        self.point = np.concatenate([self.point, *(a[2] for a in added)])

    def _prune(self) -> None:
        """Fit the map into its size: first repeated views of a point, then the points seen least often."""
        dimensions = self.features[0].descriptors.shape[1]
        # An observation costs its descriptor, two indices and a keypoint, and 32 bytes in the COLMAP model.
        budget = int(self.config.points.max_megabytes * 1e6 / (dimensions + 12 + 32))
        length = np.bincount(self.point, minlength=len(self.state.points))
        keep = np.ones(len(self.point), dtype=bool)
        if len(self.point) > budget:
            order = np.lexsort((self.image, self.point))
            rank = np.empty(len(order), dtype=np.intp)
            first = np.cumsum(length) - length
            rank[order] = np.arange(len(order)) - first[self.point[order]]
            for most in range(int(length.max()), 3, -1):
                if int(np.minimum(length, most).sum()) <= budget:
                    break
            # Of images in order of the drive, evenly spaced ones.
            slot = rank * most // np.maximum(length[self.point], 1)
            before = (rank - 1) * most // np.maximum(length[self.point], 1)
            keep = (length[self.point] <= most) | (slot != before)
            if int(keep.sum()) > budget:
                by_length = np.argsort(-np.minimum(length, most), kind="stable")
                fits = np.cumsum(np.minimum(length, most)[by_length]) <= budget
                keep &= np.isin(self.point, by_length[fits])
        used, point = np.unique(self.point[keep], return_inverse=True)
        self.image, self.keypoint, self.point = self.image[keep], self.keypoint[keep], point
        self.state = replace(self.state, points=self.state.points[used])


def _fit_field(structure: StructureMap, config: StructureConfig, disagreement: Array) -> PoseField:
    mounting = structure.T_cam_opt.inverse().matrix()
    uncorrected = structure.T_map_opt @ mounting
    reach = np.radians(config.pose_field.reach_deg)
    return PoseField.fit(
        uncorrected,
        structure.T_map_cam,
        reach,
        reach * structure.median_depth,
        config.pose_field.noise,
        disagreement,
    )


def _errors_px(structure: StructureMap) -> Array:
    errors = reprojection_errors(
        structure.T_map_opt,
        structure.observation_image.astype(np.intp),
        structure.observation_ray,
        structure.points[structure.observation_point].astype(np.float64),
    )
    return errors * structure.calibration.focal_px


def validate(
    localizer: GlobalLocalizer,
    depth_m: float,
    source: FrameSource,
    posed: list[int],
    held_out: list[int],
    T_given: Array,
    most: int,
    progress: Progress,
) -> tuple[dict[str, float], Array]:
    """Localise recorded frames that the map was not made from.

    Args:
        localizer: of the new scene.
        depth_m: median depth of the scene.
        source: the recording.
        posed: its frames with poses.
        held_out: those of them to try, as numbers into ``posed``.
        T_given: (N, 4, 4) their poses.
        most: at most so many, evenly spaced.
        progress: told as it goes.

    Returns:
        Figures, and the (6, 6) covariance of answers beyond what keypoint noise explains.
    """
    least = np.diag([np.radians(0.05) ** 2] * 3 + [(5e-4 * depth_m) ** 2] * 3)
    spread = np.unique(np.linspace(0, len(held_out) - 1, most).astype(int)) if held_out else []
    picked = [held_out[k] for k in spread]
    errors, noises = [], []
    for n, k in enumerate(picked):
        answer = localizer.localize(source.read(posed[k]), None)
        progress("validation", n + 1, len(picked))
        if answer is not None and answer.covariance is not None:
            given = SE3(T_given[k, :3, :3], T_given[k, :3, 3])
            errors.append((given.inverse() @ answer.T_map_cam).log())
            noises.append(answer.covariance)
    figures: dict[str, float] = {"frames": len(picked), "answered": len(errors)}
    if len(errors) < 8:
        return figures, least + np.diag([np.radians(0.2) ** 2] * 3 + [(3e-3 * depth_m) ** 2] * 3)
    e = np.array(errors)
    figures["median_t_m"] = round(float(np.median(np.linalg.norm(e[:, 3:], axis=1))), 4)
    figures["median_r_deg"] = round(float(np.degrees(np.median(np.linalg.norm(e[:, :3], axis=1)))), 3)
    # A robust second moment of each component: the 68th percentile of a Gaussian's size is one sigma.
    sigma = np.percentile(np.abs(e), 68.3, axis=0)
    return figures, symmetrized(np.diag(sigma**2) - np.median(noises, axis=0), 0.0) + least
