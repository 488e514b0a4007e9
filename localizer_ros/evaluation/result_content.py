"""What a result has to show: the trajectories of a report, of a bag or of a file, over the map of a scene."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from rosbags.highlevel import AnyReader, AnyReaderError
from rosbags.typesys import Stores, get_typestore

from localizer_ros.core.files import like_it
from localizer_ros.core.se3 import SE3
from localizer_ros.core.trajectory import Trajectory
from localizer_ros.core.types import Array, Camera, LocalizerError, SourceError
from localizer_ros.datasets.bag_storage import bag_notes
from localizer_ros.scene.bundle import MAP_FOLDER, NETWORKS_FOLDER, Scene, is_scene
from localizer_ros.scene.nearest_image import DESCRIPTORS, read_baseline
from localizer_ros.scene.point_map import ARRAYS, PointMap

LOCALIZER, RAW, TRUE = "localizer", "raw", "true"
"""Names of trajectories that have a meaning; others are topics."""

_BAG_POSES = ("geometry_msgs/msg/PoseStamped", "geometry_msgs/msg/PoseWithCovarianceStamped")
_BAG_NAMES = {"/localizer/pose": LOCALIZER, "/localizer/global_pose": RAW, "/ground_truth": TRUE}
_CSV_COLUMNS = {TRUE: "true", RAW: "raw", LOCALIZER: "estimate"}
_MAX_POINTS = 200_000
# Two sequences must not be joined by a line, nor the ends of a stretch without answers: after so many usual steps.
_GAP_NS, _GAP_STEPS = 1_000_000_000, 5


@dataclass(frozen=True, slots=True, eq=False)
class Content:
    """What there is to show, all in the map frame.

    Attributes:
        title: name of the result.
        trajectories: name -> poses over time.
        mapping: poses of the mapping images.
        points: (N, 3) map points, None when the map has none.
        camera: of the trajectories' frames, None when unknown.
    """

    title: str
    trajectories: dict[str, Trajectory] = field(default_factory=dict)
    mapping: Sequence[SE3] = ()
    points: Array | None = None
    camera: Camera | None = None

    @property
    def poses(self) -> list[SE3]:
        """All of them, those of the mapping images last."""
        return [T for t in self.trajectories.values() for T in t.poses] + list(self.mapping)


def read_content(result: Path, scene: Path | None = None) -> Content:
    """What a result has to show, over the map of ``scene``.

    Args:
        result: scene, report folder, bag with poses, or TUM trajectory.
        scene: of the map to show; None takes that which a report or a replayed bag names, if it is still there.

    Raises:
        SourceError: that is nothing.
        SceneError: ``scene`` is damaged or none.
    """
    if not result.exists():
        raise SourceError(f"{result}: does not exist{like_it(result)}")
    if is_scene(result):
        content = scene_content(result)
    elif (result / "frames.csv").is_file():
        content = _report_content(result)
    elif (result / "metadata.yaml").is_file() or result.suffix in (".mcap", ".db3", ".bag"):
        content = _bag_content(result)
    elif result.is_file():
        content = Content(result.name, {LOCALIZER: Trajectory.read_tum(result)})
    else:
        raise SourceError(f"{result}: expected a scene, a report folder, a bag or a TUM trajectory")
    if scene is not None:
        content = _over(scene_content(scene), content)
    if not any(len(t) for t in content.trajectories.values()) and not content.mapping:
        raise SourceError(f"{result}: has no poses to show")
    return content


def gaps(trajectory: Trajectory) -> list[int]:
    """Indices of the poses before which the trajectory has a gap in time that no line should bridge."""
    steps_ns = np.diff(trajectory.stamps_ns)
    if not len(steps_ns):
        return []
    longest_ns = min(_GAP_NS, _GAP_STEPS * float(np.median(steps_ns)))
    found: list[int] = (np.flatnonzero(steps_ns > longest_ns) + 1).tolist()
    return found


def scene_content(path: Path) -> Content:
    """The map of a scene, without trajectories. Raises SceneError."""
    scene = Scene.load(path)
    mapping: list[SE3] = []
    points = None
    if (path / NETWORKS_FOLDER / DESCRIPTORS).is_file():
        mapping = list(read_baseline(path / NETWORKS_FOLDER)[1])
    if (path / MAP_FOLDER / ARRAYS).is_file():
        point_map = PointMap.load(path / MAP_FOLDER)
        mapping = [SE3.from_matrix(T) for T in point_map.T_map_cam]
        step = max(1, len(point_map.points) // _MAX_POINTS)
        points = point_map.points[::step].astype(np.float64) + scene.origin_m
    mapping = [T.shifted(scene.origin_m) for T in mapping]
    return Content(path.resolve().name, {}, mapping, points, scene.camera)


def _report_content(folder: Path) -> Content:
    items: dict[str, list[tuple[int, SE3]]] = {name: [] for name in _CSV_COLUMNS}
    try:
        with (folder / "frames.csv").open(newline="") as file:
            for row in csv.DictReader(file):
                for name, prefix in _CSV_COLUMNS.items():
                    if row[f"{prefix}_x"]:
                        t = [float(row[f"{prefix}_{c}"]) for c in ("x", "y", "z")]
                        q = [float(row[f"{prefix}_{c}"]) for c in ("qx", "qy", "qz", "qw")]
                        items[name].append((int(row["stamp_ns"]), SE3.from_quaternion(t, q)))
    except (OSError, KeyError, ValueError) as error:
        raise SourceError(f"{folder / 'frames.csv'}: cannot be read ({error})") from error
    trajectories = {name: Trajectory.from_items(found) for name, found in items.items()}
    content = Content(folder.resolve().name, trajectories)
    try:
        scene = str(json.loads((folder / "summary.json").read_text())["scene"])
    except (OSError, ValueError, KeyError):
        return content
    return _over_named(scene, content)


def _bag_content(path: Path) -> Content:
    items: dict[str, dict[int, SE3]] = {}
    try:
        with AnyReader([path], default_typestore=get_typestore(Stores.ROS2_HUMBLE)) as reader:
            connections = [c for c in reader.connections if c.msgtype in _BAG_POSES]
            for connection, _, raw in reader.messages(connections) if connections else ():
                message = reader.deserialize(raw, connection.msgtype)
                inner = message.pose.pose if hasattr(message.pose, "pose") else message.pose
                p, q = inner.position, inner.orientation
                stamp_ns = int(message.header.stamp.sec) * 1_000_000_000 + int(message.header.stamp.nanosec)
                T = SE3.from_quaternion((p.x, p.y, p.z), (q.x, q.y, q.z, q.w))
                items.setdefault(_short_name(connection.topic), {})[stamp_ns] = T
    except (AnyReaderError, ValueError) as error:
        raise SourceError(f"{path}: cannot be read ({' '.join(str(error).split())})") from error
    # With and without covariance they are the same poses.
    if LOCALIZER in items:
        items.pop("pose_with_covariance", None)
    trajectories = {name: Trajectory.from_items(found.items()) for name, found in items.items()}
    content = Content(path.resolve().name, trajectories)
    scene = bag_notes(path / "metadata.yaml").get("scene")
    return content if scene is None else _over_named(scene, content)


def _short_name(topic: str) -> str:
    return _BAG_NAMES.get(topic, topic.strip("/").rsplit("/", 1)[-1])


def _over(scene: Content, content: Content) -> Content:
    """The map beneath the trajectories."""
    return replace(content, mapping=scene.mapping, points=scene.points, camera=scene.camera)


def _over_named(scene: str, content: Content) -> Content:
    """The same where a result names the scene, which may have gone since."""
    try:
        return _over(scene_content(Path(scene)), content)
    except LocalizerError:
        return content
