"""The keyframes of a recording, which a map is made of, and the pairs of them to match."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from localizer_ros.core.config.mapping import KeyframeConfig
from localizer_ros.core.progress import Progress
from localizer_ros.core.timing import StageTimer
from localizer_ros.core.types import Array, Camera, Index, SourceError
from localizer_ros.datasets.bag_choice import MAKES_POSES
from localizer_ros.datasets.derived import keyframe_names
from localizer_ros.datasets.source import FrameSource
from localizer_ros.evaluation.check_images import blur_of, small_gray
from localizer_ros.features.descriptor_matching import mutual_matches
from localizer_ros.geometry.rays import undistorted
from localizer_ros.geometry.triangulation import consistent, tracks_of
from localizer_ros.geometry.view_distance import view_vectors
from localizer_ros.mapping.feature_store import FeatureStore

# A first look at the scene, to learn its depth. Short recordings are looked at all over, each frame matched with the
# two after it; of long ones a few places, where frames further and further on show points from angles wide enough at
# any speed and any rate.
_PROBED, _PROBED_AFTER = 40, (1, 2)
_LONG, _PLACES, _FURTHER_ON = 1080, 8, (0, 3, 9, 27, 81)
# Of that look: descriptor ratio of a match, error on the plane z = 1 (10 px at a focal length of 500), angle between
# the rays of a point, and the fewest points that make a depth.
_PROBE_RATIO, _PROBE_ERROR, _PROBE_ANGLE_RAD, _PROBE_POINTS = 0.8, 0.02, np.radians(1.5), 20
# Of the further neighbours of an image every third is matched: wide angles, without all of their copies. Looked at are
# a few times as many as are wanted, because some look another way.
_FURTHER_STEP, _LOOKED_AT = 3, 3
# Spacing of the frames that keyframes are chosen from, and of the views in the retrieval index beside the keyframes,
# over the least spacing of keyframes.
_CANDIDATES, _INDEXED = 0.5, 2.0
# A keyframe that changes so much less under another blur than the others do (``blur_of``, over their median) makes way
# for the sharpest of a few frames beside it.
_BLURRED, _BESIDE = 1.15, (-2, -1, 1, 2)

FEWEST_VALIDATED = 8
"""Answers to fewer frames that are no keyframes say nothing of a map's error."""
# Where all frames are keyframes, each of so many is spared for that.
_SPARED_OF = 10


@dataclass(frozen=True, eq=False)
class Keyframes:
    """The frames of a recording that have poses, and which of them are keyframes.

    Attributes:
        posed: N numbers of the frames with poses, in the recording.
        T_map_cam: (N, 4, 4) their given poses.
        names: N frame names.
        views: (V,) ascending, the keyframes and the frames that differ from the one before them, as numbers into
            ``posed``: a camera that stands, or a higher frame rate, adds none. The retrieval index holds these.
        chosen: (K,) ascending, the keyframes as numbers into ``posed``, all of them among the views.
        depth_m: median depth of what they show.
    """

    posed: list[int]
    T_map_cam: Array
    names: tuple[str, ...]
    views: Index
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
        """The frames with poses that are no keyframes, as numbers into ``posed``."""
        return [int(k) for k in np.setdiff1d(np.arange(len(self.posed)), self.chosen)]


def find_keyframes(
    source: FrameSource,
    store: FeatureStore,
    config: KeyframeConfig,
    fine: bool,
    timer: StageTimer,
    progress: Progress,
) -> Keyframes:
    """The keyframes of a recording; the features of all its views are in ``store`` then.

    What it costs follows the path: of frames that hardly differ none but the first is looked at.

    Args:
        source: the recording, cut to the part to map; frames without a pose are left out.
        store: of its features.
        config: how far apart, and how many at most.
        fine: extract the fine features of keyframes; all other features are coarse.
        timer: of the stages ``features`` and ``keyframes``.
        progress: told as it goes.

    Raises:
        SourceError: fewer than three frames have poses.
    """
    posed, T_map_cam = posed_frames(source)
    groups = _probes(len(posed))
    with timer.stage("features"):
        looked_at = [posed[k] for k in np.unique(np.concatenate(groups))]
        store.extract(looked_at, False, progress, "features to probe the depth")
    with timer.stage("keyframes"):
        depth_m = probe_depth_m(store, source.camera, posed, T_map_cam, groups)
        chosen = _chosen_before(source, posed)
        if chosen is None:
            candidates = changed_views(T_map_cam, depth_m, _CANDIDATES * config.min_spacing_deg)
            chosen = candidates[choose_keyframes(T_map_cam[candidates], depth_m, config)]
            chosen = _sharp(source, posed, T_map_cam, depth_m, config.min_spacing_deg, chosen)
            chosen = some_left_out(chosen, len(posed))
        views = changed_views(T_map_cam, depth_m, _INDEXED * config.min_spacing_deg)
        views = np.union1d(views, chosen)
    names = tuple(source.records[i].name for i in posed)
    keyframes = Keyframes(posed, T_map_cam, names, views, chosen, depth_m)
    with timer.stage("features"):
        store.extract(keyframes.images, fine, progress, "features of keyframes")
        others = [posed[k] for k in np.setdiff1d(views, chosen)]
        store.extract(others, False, progress, "features for retrieval")
    return keyframes


def _chosen_before(source: FrameSource, posed: list[int]) -> Index | None:
    """The keyframes that the poses were found by, as numbers into ``posed``; None where poses came with the recording.

    They were chosen by the same rule, and their features are there.
    """
    names = keyframe_names(source)
    if names is None:
        return None
    wanted = set(names)
    chosen = [k for k, i in enumerate(posed) if source.records[i].name in wanted]
    return np.array(chosen, dtype=np.intp) if chosen else None


def posed_frames(source: FrameSource) -> tuple[list[int], Array]:
    """Numbers of the frames with poses, and these (N, 4, 4). Raises SourceError when there are fewer than three."""
    posed = [(i, T.matrix()) for i, r in enumerate(source.records) if (T := r.T_map_cam) is not None]
    if len(posed) < 3:
        why = getattr(source, "pose_problem", None) or MAKES_POSES
        raise SourceError(f"{source.path}: {len(posed)} frames have poses, expected at least 3; {why}")
    return [i for i, _ in posed], np.stack([T for _, T in posed])


def changed_views(T_map_cam: Array, depth_m: float, spacing_deg: float) -> Index:
    """(V,) ascending indices of the views that differ from the last of them, the first one and the last included.

    Args:
        T_map_cam: (N, 4, 4) poses in order of time.
        depth_m: median depth of the scene; a move counts as the angle it is seen under from there.
        spacing_deg: by how much.
    """
    features = view_vectors(T_map_cam, depth_m)
    least = np.radians(spacing_deg) ** 2
    kept = [0]
    last = features[0]
    for k in range(1, len(features)):
        step = features[k] - last
        if step @ step >= least:
            kept.append(k)
            last = features[k]
    if kept[-1] != len(features) - 1:
        kept.append(len(features) - 1)
    return np.array(kept, dtype=np.intp)


def choose_keyframes(T_map_cam: Array, depth_m: float, config: KeyframeConfig) -> Index:
    """(K,) ascending indices of views as far apart as possible: each next one is the furthest from all chosen so far.

    They end where no view is further from a chosen one than ``min_spacing_deg``, or, once there are ``dense_images``
    of them, than ``spacing_deg``: a small place is covered closely, and of a long drive the number follows the path and
    the directions that were looked in.

    Args:
        T_map_cam: (N, 4, 4) poses.
        depth_m: median depth of the scene; a move counts as the angle it is seen under from there.
        config: the spacings, and how many at most.
    """
    features = view_vectors(T_map_cam, depth_m)
    chosen = [0]
    nearest = np.linalg.norm(features - features[0], axis=1)
    most = min(config.max_images or len(features), len(features))
    while len(chosen) < most:
        k = int(nearest.argmax())
        dense = len(chosen) < config.dense_images
        if nearest[k] < np.radians(config.min_spacing_deg if dense else config.spacing_deg):
            break
        chosen.append(k)
        nearest = np.minimum(nearest, np.linalg.norm(features - features[k], axis=1))
    return np.sort(np.array(chosen, dtype=np.intp))


def some_left_out(chosen: Index, posed: int) -> Index:
    """The keyframes, less some that the map is validated on, where too few other frames are left for that and
    there are so many keyframes that they can be spared.

    Args:
        chosen: (K,) ascending, numbers of the keyframes.
        posed: frames that there are.
    """
    if len(chosen) < _SPARED_OF * FEWEST_VALIDATED or posed - len(chosen) >= FEWEST_VALIDATED:
        return chosen
    return np.delete(chosen, np.arange(_SPARED_OF // 2, len(chosen), _SPARED_OF))


def _sharp(
    source: FrameSource, posed: list[int], T_map_cam: Array, depth_m: float, reach_deg: float, chosen: Index
) -> Index:
    """The keyframes, each blurred one exchanged for the sharpest of the frames beside it that look the same way."""

    def blur(k: int) -> float:
        return blur_of(small_gray(source.read(posed[k]).image))

    features = view_vectors(T_map_cam, depth_m)
    blurs = np.array([blur(int(k)) for k in chosen])
    exchanged: list[int] = []
    for k, own in zip(chosen.tolist(), blurs, strict=True):
        best = k
        if own > _BLURRED * np.median(blurs):
            beside = [k + step for step in _BESIDE if 0 <= k + step < len(posed)]
            beside = [j for j in beside if np.linalg.norm(features[j] - features[k]) < np.radians(reach_deg)]
            best = min([k, *beside], key=lambda j: own if j == k else blur(j))
        exchanged.append(best)
    return np.unique(np.array(exchanged, dtype=np.intp))


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
    near = neighbours // 2
    wanted = 1 + near + _FURTHER_STEP * (neighbours - near)
    # Of the nearest only: every image with every other would grow with the square of the drive.
    nearest = cKDTree(features).query(features, min(len(T), _LOOKED_AT * wanted))[1]
    order_of = np.asarray(nearest, dtype=np.intp).reshape(len(T), -1)
    pairs: set[tuple[int, int]] = set()
    for i in range(len(T)):
        order = order_of[i][order_of[i] != i]
        cosine = 0.5 * (np.einsum("nij,ij->n", T[order, :3, :3], T[i, :3, :3]) - 1.0)
        order = order[cosine > np.cos(max_angle_rad)]
        further = order[near : near + _FURTHER_STEP * (neighbours - near) : _FURTHER_STEP]
        for j in [*order[:near], *further]:
            pairs.add((min(i, int(j)), max(i, int(j))))
    return sorted(pairs)


def _probes(count: int) -> list[Index]:
    """Groups of frames for a first look, each with the frames it is matched within."""
    if count <= _LONG:
        probed = np.unique(np.linspace(0, count - 1, min(_PROBED, count)).round().astype(np.intp))
        return [probed[a : a + 1 + max(_PROBED_AFTER)] for a in range(len(probed))]
    starts = np.linspace(0, count - 1 - max(_FURTHER_ON), _PLACES).round().astype(np.intp)
    return [start + np.array(_FURTHER_ON) for start in starts]


def probe_depth_m(
    store: FeatureStore, camera: Camera, posed: list[int], T_map_cam: Array, groups: list[Index]
) -> float:
    """Median depth of what a few images show, metres; from how far they are apart where they show too little.

    Args:
        store: has the coarse features of these images.
        camera: of the images.
        posed: N numbers of frames with poses, in the recording.
        T_map_cam: (N, 4, 4) their poses.
        groups: of them, as numbers below N; the first of each is matched with the others, and those with each other.
    """
    probed = np.unique(np.concatenate(groups))
    features = [store.features(posed[k], False) for k in probed]
    rays = [undistorted(camera, f.xy_px) for f in features]
    numbers = [np.searchsorted(probed, group).tolist() for group in groups]
    matched = sorted({(a, b) for group in numbers for a in group[:-1] for b in group if a < b})
    pairs = [
        (a, b, mutual_matches(features[a].descriptors, features[b].descriptors, _PROBE_RATIO))
        for a, b in matched
    ]
    image, keypoint, track = tracks_of(pairs, [len(f) for f in features])
    T_map_cam = T_map_cam[probed]
    if len(image):
        seen = np.stack([rays[i][k] for i, k in zip(image, keypoint, strict=True)])
        kept, label, X = consistent(T_map_cam, image, seen, track, _PROBE_ERROR, _PROBE_ANGLE_RAD)
        if len(X) >= _PROBE_POINTS:
            at = T_map_cam[image[kept]]
            return float(np.median(np.einsum("ni,ni->n", at[:, :3, 2], X[label] - at[:, :3, 3])))
    # Nothing better is known than that a place is looked at from all over it.
    apart_m = float(np.sqrt(np.mean(np.var(T_map_cam[:, :3, 3], axis=0))))
    return max(2.0 * apart_m, 0.1)
