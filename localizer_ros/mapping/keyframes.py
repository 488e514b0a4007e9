"""The keyframes of a recording, which a map is made of, and the pairs of them to match."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from localizer_ros.core.config.mapping import KeyframeConfig
from localizer_ros.core.progress import Progress
from localizer_ros.core.timing import StageTimer
from localizer_ros.core.types import Array, Camera, Index, SourceError
from localizer_ros.datasets.source import FrameSource
from localizer_ros.features.descriptor_matching import mutual_matches
from localizer_ros.geometry.rays import undistorted
from localizer_ros.geometry.triangulation import consistent, tracks_of
from localizer_ros.geometry.view_distance import view_vectors
from localizer_ros.mapping.feature_store import FeatureStore

# Frames for a first look at the scene, each matched with the two after it: enough for a median of depths.
_PROBED, _PROBED_AFTER = 40, (1, 2)
# Of that look: descriptor ratio of a match, error on the plane z = 1 (10 px at a focal length of 500), angle between
# the rays of a point, and the fewest points that make a depth.
_PROBE_RATIO, _PROBE_ERROR, _PROBE_ANGLE_RAD, _PROBE_POINTS = 0.8, 0.02, np.radians(1.5), 20
# Of the further neighbours of an image every third is matched: wide angles, without all of their copies.
_FURTHER_STEP = 3


@dataclass(frozen=True, eq=False)
class Keyframes:
    """The frames of a recording that have poses, and which of them are keyframes.

    Attributes:
        posed: N numbers of the frames with poses, in the recording.
        T_map_cam: (N, 4, 4) their given poses.
        names: N frame names.
        chosen: (K,) ascending, the keyframes as numbers into ``posed``.
        depth_m: median depth of what they show.
    """

    posed: list[int]
    T_map_cam: Array
    names: tuple[str, ...]
    chosen: Index
    depth_m: float

    @property
    def images(self) -> list[int]:
        """K numbers of the keyframes, in the recording."""
        return [self.posed[k] for k in self.chosen]

    @property
    def image_names(self) -> tuple[str, ...]:
        """K names of the keyframes."""
        return tuple(self.names[k] for k in self.chosen)

    @property
    def held_out(self) -> list[int]:
        """The other frames with poses, as numbers into ``posed``."""
        return [int(k) for k in np.setdiff1d(np.arange(len(self.posed)), self.chosen)]


def find_keyframes(
    source: FrameSource,
    store: FeatureStore,
    config: KeyframeConfig,
    fine: bool,
    timer: StageTimer,
    progress: Progress,
) -> Keyframes:
    """The keyframes of a recording; the features of all its frames with poses are in ``store`` then.

    Args:
        source: the recording, cut to the part to map; frames without a pose are left out.
        store: of its features.
        config: how many keyframes, and how far apart.
        fine: extract the fine features of keyframes; all other features are coarse.
        timer: of the stages ``features`` and ``keyframes``.
        progress: told as it goes.

    Raises:
        SourceError: fewer than three frames have poses.
    """
    posed, T_map_cam = posed_frames(source)
    probed = np.unique(np.linspace(0, len(posed) - 1, min(_PROBED, len(posed))).round().astype(np.intp))
    looked_at = [posed[k] for k in probed]
    with timer.stage("features"):
        store.extract(looked_at, False, progress, "features to probe the depth")
    with timer.stage("keyframes"):
        depth_m = probe_depth_m(store, source.camera, looked_at, T_map_cam[probed])
        chosen = choose_keyframes(T_map_cam, depth_m, config.max_images, config.min_spacing_deg)
    names = tuple(source.records[i].name for i in posed)
    keyframes = Keyframes(posed, T_map_cam, names, chosen, depth_m)
    with timer.stage("features"):
        store.extract(keyframes.images, fine, progress, "features of keyframes")
        others = [posed[k] for k in keyframes.held_out]
        store.extract(others, False, progress, "features for retrieval")
    return keyframes


def posed_frames(source: FrameSource) -> tuple[list[int], Array]:
    """Numbers of the frames with poses, and these (N, 4, 4). Raises SourceError when there are fewer than three."""
    posed = [(i, T.matrix()) for i, r in enumerate(source.records) if (T := r.T_map_cam) is not None]
    if len(posed) < 3:
        why = getattr(source, "pose_problem", None) or "`localizer sfm` finds poses"
        raise SourceError(f"{source.path}: {len(posed)} frames have poses, expected at least 3; {why}")
    return [i for i, _ in posed], np.stack([T for _, T in posed])


def choose_keyframes(T_map_cam: Array, depth_m: float, max_images: int, min_spacing_deg: float) -> Index:
    """(K,) ascending indices of views as far apart as possible: each next one is the furthest from all chosen so far.

    Args:
        T_map_cam: (N, 4, 4) poses.
        depth_m: median depth of the scene; a move counts as the angle it is seen under from there.
        max_images: at most.
        min_spacing_deg: stop when no view is further than this from a chosen one.
    """
    features = view_vectors(T_map_cam, depth_m)
    chosen = [0]
    nearest = np.linalg.norm(features - features[0], axis=1)
    while len(chosen) < min(max_images, len(T_map_cam)):
        k = int(nearest.argmax())
        if nearest[k] < np.radians(min_spacing_deg):
            break
        chosen.append(k)
        nearest = np.minimum(nearest, np.linalg.norm(features - features[k], axis=1))
    return np.sort(np.array(chosen, dtype=np.intp))


def choose_pairs(
    T_map_cam: Array, depth_m: float, neighbours: int, max_angle_rad: float
) -> list[tuple[int, int]]:
    """Ascending pairs of images to match: the nearest views for certain matches, further ones for wide angles.

    Args:
        T_map_cam: (N, 4, 4) poses.
        depth_m: median depth of the scene.
        neighbours: of each image.
        max_angle_rad: between two views.
    """
    T = T_map_cam
    features = view_vectors(T, depth_m)
    pairs: set[tuple[int, int]] = set()
    for i in range(len(T)):
        distance = np.linalg.norm(features - features[i], axis=1)
        distance[i] = np.inf
        order = np.argsort(distance, kind="stable")
        cosine = 0.5 * (np.einsum("nij,ij->n", T[order, :3, :3], T[i, :3, :3]) - 1.0)
        order = order[(cosine > np.cos(max_angle_rad)) & np.isfinite(distance[order])]
        near = neighbours // 2
        further = order[near : near + _FURTHER_STEP * (neighbours - near) : _FURTHER_STEP]
        for j in [*order[:near], *further]:
            pairs.add((min(i, int(j)), max(i, int(j))))
    return sorted(pairs)


def probe_depth_m(store: FeatureStore, camera: Camera, images: list[int], T_map_cam: Array) -> float:
    """Median depth of what a few images show, metres; from how far they are apart where they show too little."""
    features = [store.features(i, False) for i in images]
    rays = [undistorted(camera, f.xy_px) for f in features]
    pairs = [
        (a, b, mutual_matches(features[a].descriptors, features[b].descriptors, _PROBE_RATIO))
        for a in range(len(images))
        for b in (a + step for step in _PROBED_AFTER)
        if b < len(images)
    ]
    image, keypoint, track = tracks_of(pairs, [len(f) for f in features])
    if len(image):
        seen = np.stack([rays[i][k] for i, k in zip(image, keypoint, strict=True)])
        kept, label, X = consistent(T_map_cam, image, seen, track, _PROBE_ERROR, _PROBE_ANGLE_RAD)
        if len(X) >= _PROBE_POINTS:
            at = T_map_cam[image[kept]]
            return float(np.median(np.einsum("ni,ni->n", at[:, :3, 2], X[label] - at[:, :3, 3])))
    # Nothing better is known than that a place is looked at from all over it.
    apart_m = float(np.sqrt(np.mean(np.var(T_map_cam[:, :3, 3], axis=0))))
    return max(2.0 * apart_m, 0.1)
