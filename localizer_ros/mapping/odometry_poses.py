"""Camera poses of a drive from its odometry and its images: the drift is taken out where images recognise a place.

Odometry knows every move well and the whole drive badly. Pairs of keyframes, neighbours and such as look alike, are
matched, and what they say of the move between them goes into one graph with the odometry; a bundle adjustment with
priors as loose as what is left of the drift does the rest. Frames between two keyframes follow by odometry from both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np

from localizer_ros.core.config.mapping import StructureConfig
from localizer_ros.core.progress import Progress
from localizer_ros.core.se3 import SE3, interpolate
from localizer_ros.core.timing import StageTimer
from localizer_ros.core.types import Array, SourceError
from localizer_ros.datasets.derived import PosedSource
from localizer_ros.datasets.source import FrameSource
from localizer_ros.geometry.rays import undistorted
from localizer_ros.geometry.two_views import relative_pose
from localizer_ros.mapping.feature_store import FeatureStore
from localizer_ros.mapping.index_images import describe_images
from localizer_ros.mapping.keyframes import Keyframes, choose_pairs, find_keyframes
from localizer_ros.mapping.matching import PairMatches, match_keyframes
from localizer_ros.mapping.point_builder import PointBuilder
from localizer_ros.smoothing.odometry_graph import SeenMove, optimised

GROUND_TRUTH = "odometry, corrected by images"
CALIBRATED = 0.03
"""Freedom of the camera where images make the poses: what the calibration is off by and a turn of all poses look alike.
With the freedom that given poses leave, 20 s of a simulated drive came out turned by 0.6 deg, the principal point 6 px
off."""
# Neighbours in time that each keyframe is matched with, and similar keyframes.
_NEXT, _SIMILAR = (1, 2, 3), 6
# Matches that must agree on a move, between neighbours and where a place is seen again.
_FEWEST, _FEWEST_AGAIN = 20, 30
# What a move by images is known to: its rotation, and its direction at a wide angle; where the views hardly moved
# apart, an error of the rays over their parallax.
_SIGMA_RAD, _DIRECTION_RAD, _RAY_RAD = np.radians(0.2), np.radians(2.0), 0.006
# No robot drifts more than this: shares of the way and the turn, beside what is allowed for any pair.
_DRIFT_M, _DRIFT_RAD, _ANY_RAD = 0.15, 0.1, np.radians(12.0)
# A view is recognised from within so many depths of where it was taken.
_AGAIN_DEPTHS = 2.0
# What the graph leaves for the adjustment: degrees, a share of the depth.
_LEFT_DEG, _LEFT_OF_DEPTH, _ROUNDS = 0.5, 0.02, 3


def corrected_odometry(
    source: FrameSource, config: StructureConfig, work: Path, progress: Progress
) -> PosedSource:
    """The recording with a pose of every frame that odometry covers, its drift taken out.

    The map frame is the camera's at the first of them, turned as odometry has it.

    Args:
        source: the recording; its own poses are not looked at.
        config: features, keyframes and matching.
        work: features and matches are kept here.
        progress: told as it goes.

    Raises:
        SourceError: odometry or the camera's place on the robot is missing, or images and odometry do not go together.
    """
    driven = odometry_of_frames(source)
    drive = PosedSource(source, driven, "odometry")
    store = FeatureStore(drive, config, work / "features")
    keyframes = find_keyframes(drive, store, config.keyframes, True, StageTimer(), progress)
    matches, seen = _seen_moves(source, store, keyframes, config, work, progress)
    given = keyframes.T_map_cam[keyframes.chosen]
    start = np.stack([T.matrix() for T in optimised([SE3.from_matrix(T) for T in given], seen)])
    posed = replace(keyframes, T_map_cam=_with_chosen(keyframes, start))
    builder = PointBuilder(store, posed, source.camera, _loosened(config, keyframes.depth_m))
    refined = builder.build(matches, progress).T_map_refined
    at = [keyframes.posed[k] for k in keyframes.chosen]
    poses = carried(driven, at, [SE3.from_matrix(T) for T in refined])
    return PosedSource(source, poses, GROUND_TRUTH, keyframes.image_names)


def odometry_of_frames(source: FrameSource) -> list[SE3 | None]:
    """``T_odom_cam`` of each frame, None outside the odometry. Raises SourceError where nothing can be known of it."""
    if source.odometry is None:
        raise SourceError(f"{source.path}: has no odometry")
    if source.format == "several":
        raise SourceError(
            f"{source.path}: the odometry of several recordings has nothing in common; map one of them, localise the "
            "others in it, and map them all with the poses found"
        )
    if source.T_base_cam is None:
        raise SourceError(
            f"{source.path}: has odometry, but no transform tells where the camera sits on the robot; record /tf_static"
        )
    at = [source.odometry.at(record.stamp_ns) for record in source.records]
    return [None if T is None else T @ source.T_base_cam for T in at]


def carried(driven: Sequence[SE3 | None], at: Sequence[int], found: Sequence[SE3]) -> list[SE3 | None]:
    """Poses of all frames: those found, and in between by odometry from the one before and the one after.

    Args:
        driven: pose of each frame by odometry.
        at: ascending, the frames whose poses were found.
        found: their poses.
    """
    poses: list[SE3 | None] = []
    for i, T in enumerate(driven):
        if T is None:
            poses.append(None)
            continue
        after = int(np.searchsorted(at, i))
        sides = [k for k in (after - 1, after) if 0 <= k < len(at)]
        ends = [found[k] @ _known(driven[at[k]]).inverse() @ T for k in sides]
        share = (i - at[sides[0]]) / (at[sides[-1]] - at[sides[0]]) if len(sides) == 2 else 0.0
        poses.append(interpolate(ends[0], ends[-1], share))
    return poses


def _known(T: SE3 | None) -> SE3:
    assert T is not None
    return T


def _with_chosen(keyframes: Keyframes, T_chosen: Array) -> Array:
    """(N, 4, 4) the given poses, those of the keyframes replaced."""
    T = keyframes.T_map_cam.copy()
    T[keyframes.chosen] = T_chosen
    return T


def _loosened(config: StructureConfig, depth_m: float) -> StructureConfig:
    """Settings of an adjustment that may take out what the graph has left."""
    change = msgspec.structs.replace
    bundle = change(
        config.bundle,
        refine_poses=True,
        refine_extrinsics=False,
        camera_freedom=CALIBRATED * config.bundle.camera_freedom,
        pose_sigma_deg=_LEFT_DEG,
        pose_sigma_m=_LEFT_OF_DEPTH * depth_m,
        rounds=max(config.bundle.rounds, _ROUNDS),
    )
    return change(config, bundle=bundle)


def _seen_moves(
    source: FrameSource,
    store: FeatureStore,
    keyframes: Keyframes,
    config: StructureConfig,
    work: Path,
    progress: Progress,
) -> tuple[list[PairMatches], list[SeenMove]]:
    """Matches that agree on a move the odometry allows, and these moves."""
    T, depth_m = keyframes.T_map_cam[keyframes.chosen], keyframes.depth_m
    drift = _Drift(T)
    near = choose_pairs(T, depth_m, config.keyframes.neighbours, np.radians(config.keyframes.max_angle_deg))
    neighbours = [(i, i + step) for i in range(len(T)) for step in _NEXT if i + step < len(T)]
    pairs = sorted({*near, *neighbours, *_similar(source, store, keyframes, config)})
    pairs = [(a, b) for a, b in pairs if drift.may_meet(a, b, _AGAIN_DEPTHS * depth_m)]
    matches = match_keyframes(store, keyframes.images, pairs, config, work / "drive.npz", progress)
    camera = source.camera
    rays = [undistorted(camera, store.features(i, True).xy_px) for i in keyframes.images]
    focal_px = 0.5 * float(camera.K[0, 0] + camera.K[1, 1])
    kept: list[PairMatches] = []
    seen: list[SeenMove] = []
    for n, (a, b, pairs_ab) in enumerate(matches):
        fewest = _FEWEST if b - a <= max(_NEXT) else _FEWEST_AGAIN
        view = relative_pose(rays[a][pairs_ab[:, 0]], rays[b][pairs_ab[:, 1]], focal_px, fewest, config.seed)
        if view is not None and drift.may_turn(a, b, view.T_a_b.R):
            kept.append((a, b, np.asarray(pairs_ab[view.inliers])))
            direction = max(_DIRECTION_RAD, _RAY_RAD / max(view.parallax_rad, 1e-6))
            seen.append(SeenMove(a, b, view.T_a_b, float(_SIGMA_RAD), float(direction)))
        if n % 20 == 0 or n + 1 == len(matches):
            progress("moves between keyframes", n + 1, len(matches))
    if not seen:
        raise SourceError(f"{source.path}: no two keyframes of the drive show the same")
    return kept, seen


def _similar(
    source: FrameSource, store: FeatureStore, keyframes: Keyframes, config: StructureConfig
) -> set[tuple[int, int]]:
    """Pairs of keyframes that look alike, apart from neighbours in time."""
    features = [store.features(i, True) for i in keyframes.images]
    count = len(features)
    vectors = describe_images(
        [f.descriptors[f.coarse] for f in features],
        lambda k: source.read(keyframes.images[k]).image,
        np.arange(count),
        config.retrieval,
        config.seed,
    )[1]
    similarity = vectors @ vectors.T
    pairs = set()
    for i in range(count):
        similarity[i, max(0, i - max(_NEXT)) : i + max(_NEXT) + 1] = -2.0
        for j in np.argsort(-similarity[i], kind="stable")[:_SIMILAR]:
            if similarity[i, j] > 0.0:
                pairs.add((min(i, int(j)), max(i, int(j))))
    return pairs


class _Drift:
    """How far odometry may be off between two keyframes.

    Args:
        T: (K, 4, 4) the keyframes by odometry, in order of time.
    """

    def __init__(self, T: Array) -> None:
        self._T = T
        way = np.linalg.norm(np.diff(T[:, :3, 3], axis=0), axis=1)
        turn = [_angle(a.T @ b) for a, b in zip(T[:, :3, :3], T[1:, :3, :3], strict=False)]
        self._way, self._turn = (np.concatenate([[0.0], np.cumsum(steps)]) for steps in (way, turn))

    def may_meet(self, a: int, b: int, near_m: float) -> bool:
        """Whether two keyframes may be within some metres of each other."""
        apart = float(np.linalg.norm(self._T[a, :3, 3] - self._T[b, :3, 3]))
        return bool(apart <= near_m + _DRIFT_M * (self._way[b] - self._way[a]))

    def may_turn(self, a: int, b: int, R_a_b: Array) -> bool:
        """Whether the rotation between two keyframes may be this one."""
        off = _angle((self._T[a, :3, :3].T @ self._T[b, :3, :3]).T @ R_a_b)
        return bool(off <= _ANY_RAD + _DRIFT_RAD * (self._turn[b] - self._turn[a]))


def _angle(R: Array) -> float:
    return float(np.arccos(np.clip(0.5 * (np.trace(R) - 1.0), -1.0, 1.0)))
