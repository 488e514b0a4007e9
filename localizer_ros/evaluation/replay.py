"""What the node would have answered to a recording, as a bag, without ROS.

The localizer is fed as the node feeds it (images in order of time, odometry up to the stamp of each image, no
reset between drives) and the same poses are written under the node's topics. Stamps are the images'.
"""

from __future__ import annotations

import shutil
import uuid
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rosbags.highlevel import AnyReader, AnyReaderError
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from localizer_ros.core.config import RunConfig
from localizer_ros.core.progress import Progress, no_progress
from localizer_ros.core.se3 import SE3, compose_covariance, covariance_to_ros
from localizer_ros.core.types import (
    ConfigError,
    FrameRejected,
    LocalizerOutput,
    PoseEstimate,
    SourceError,
    Status,
)
from localizer_ros.datasets.convert import bag_qos
from localizer_ros.datasets.source import FrameSource
from localizer_ros.evaluation.evaluate import FrameLocalizer, OdometryFeed
from localizer_ros.evaluation.metrics import percentiles
from localizer_ros.localization.scene import Scene

NODE = "localizer"
POSE_TOPIC = f"/{NODE}/pose"
POSE_WITH_COVARIANCE_TOPIC = f"/{NODE}/pose_with_covariance"
GLOBAL_POSE_TOPIC = f"/{NODE}/global_pose"
PATH_TOPIC = f"/{NODE}/path"
TF_TOPIC, TF_STATIC_TOPIC, DIAGNOSTICS_TOPIC = "/tf", "/tf_static", "/diagnostics"

# Of recordings without frame names; ``localizer play`` uses the same.
CAMERA_FRAME = "camera"
_PERIOD_NS = 1_000_000_000

_OK, _WARN, _ERROR = 0, 1, 2
_LEVELS = {
    Status.TRACKING: _OK,
    Status.INITIALIZING: _WARN,
    Status.DEGRADED: _WARN,
    Status.LOST: _ERROR,
}


@dataclass(frozen=True, slots=True, eq=False)
class _Frames:
    """Names of the frames, and the camera on the robot.

    Attributes:
        map: parent of all poses.
        odom: child of the map transform; empty makes it ``base``.
        base: whose pose is written.
        camera: optical frame of the images.
        T_base_cam: exact identity only where the camera's own pose is asked for.
    """

    map: str
    odom: str
    base: str
    camera: str
    T_base_cam: SE3


def replay(
    localizer: FrameLocalizer,
    scene: Scene,
    source: FrameSource,
    out: Path,
    config: RunConfig | None = None,
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """Localise a recording and write the answers as a rosbag2 folder (mcap).

    Args:
        localizer: freshly opened for ``scene``, with the recording's ``T_base_cam`` where it has odometry.
        scene: names the map frame.
        source: the recording. Images are taken in order of their stamps.
        out: the new folder; appears whole, at the end.
        config: frames of the node, and the length of the path.
        progress: told of every frame.

    Returns:
        Counts and latencies, for the user.

    Raises:
        SourceError: ``out`` exists, or the recording is damaged.
        ConfigError: a frame that is asked for is not in the recording.
    """
    config = config if config is not None else RunConfig()
    if out.exists():
        raise SourceError(f"{out}: exists already")
    frames = _frames(source, scene, config)
    odometry = OdometryFeed(source)
    statuses: Counter[str] = Counter()
    dropped: Counter[str] = Counter()
    latencies: list[float] = []
    answered = 0
    with _new_folder(out) as folder, _AnswerBag(folder, frames, source, config) as bag:
        for index, record in enumerate(source.records):
            odometry.feed(localizer, record.stamp_ns)
            try:
                output = localizer.process(source.read(index))
            except (FrameRejected, SourceError) as error:
                dropped[error.kind if isinstance(error, FrameRejected) else "unreadable"] += 1
            else:
                statuses[output.status.value] += 1
                latencies.append(output.timings_ms.get("total", float("nan")))
                answered += bag.write(output, dropped)
            progress("replay", index + 1, len(source.records))
    return {
        "frames": len(source.records),
        "answered": answered,
        "dropped": dict(dropped),
        "status": dict(statuses),
        "latency_ms": percentiles(latencies, 50, 99),
    }


class _AnswerBag:
    """Writes the answers of a localizer as the node publishes them."""

    def __init__(self, folder: Path, frames: _Frames, source: FrameSource, config: RunConfig) -> None:
        # Version 8 is read by every distribution since Iron.
        self._writer = Writer(folder, version=8, storage_plugin=StoragePlugin.MCAP)
        self._store = get_typestore(Stores.ROS2_JAZZY)
        self._connections: dict[str, Any] = {}
        self._frames, self._odometry, self._config = frames, source.odometry, config.node
        self._path: deque[Any] = deque(maxlen=config.node.path_length)
        self._path_due_ns = self._diagnostics_due_ns = 0
        self._status: Status | None = None
        self._processed = self._answered = 0
        self._last_ns: int | None = None

    def __enter__(self) -> _AnswerBag:
        self._writer.open()
        # A bag that shows nothing yet has its topics, so that displays can be set up.
        for topic, kind in (
            (POSE_TOPIC, "geometry_msgs/msg/PoseStamped"),
            (POSE_WITH_COVARIANCE_TOPIC, "geometry_msgs/msg/PoseWithCovarianceStamped"),
            (GLOBAL_POSE_TOPIC, "geometry_msgs/msg/PoseWithCovarianceStamped"),
            (PATH_TOPIC, "nav_msgs/msg/Path"),
            (DIAGNOSTICS_TOPIC, "diagnostic_msgs/msg/DiagnosticArray"),
        ):
            self._connect(topic, kind)
        return self

    def __exit__(self, *error: object) -> None:
        if self._last_ns is not None and error[0] is None:
            self._write_path(self._last_ns)
        self._writer.close()

    def write(self, output: LocalizerOutput, dropped: Counter[str]) -> bool:
        """Everything the node publishes for one frame; True when there was a pose."""
        stamp_ns, frames = output.stamp_ns, self._frames
        if self._last_ns is None and frames.base != frames.camera:
            static = self._transform(stamp_ns, frames.base, frames.camera, frames.T_base_cam)
            self._write_transforms(TF_STATIC_TOPIC, stamp_ns, static)
        if self._last_ns is not None and stamp_ns < self._last_ns:
            self._path.clear()
            self._path_due_ns = self._diagnostics_due_ns = 0
        self._last_ns = stamp_ns
        self._processed += 1
        pose = self._base_pose(output.estimate) if output.status is not Status.LOST else None
        if pose is not None:
            self._answered += 1
            self._write_pose(pose)
        absolute = self._base_pose(output.absolute)
        if absolute is not None and absolute.covariance is not None:
            self._write_with_covariance(GLOBAL_POSE_TOPIC, absolute)
        if stamp_ns >= self._path_due_ns and self._path:
            self._write_path(stamp_ns)
            self._path_due_ns = stamp_ns + _PERIOD_NS
        if output.status is not self._status or stamp_ns >= self._diagnostics_due_ns:
            self._status = output.status
            self._write_diagnostics(output, dropped)
            self._diagnostics_due_ns = stamp_ns + _PERIOD_NS
        return pose is not None

    # --- poses ---

    def _base_pose(self, estimate: PoseEstimate | None) -> PoseEstimate | None:
        """The robot's pose; ``T_map_cam`` of the result is that of the base. None for what is not finite."""
        if estimate is None:
            return None
        T_cam_base = self._frames.T_base_cam.inverse()
        T_map_base = estimate.T_map_cam @ T_cam_base
        covariance = estimate.covariance
        if covariance is not None:
            covariance = compose_covariance(covariance, T_cam_base)
        if not np.all(np.isfinite(T_map_base.matrix())):
            return None
        if covariance is not None and not np.all(np.isfinite(covariance)):
            return None
        return PoseEstimate(estimate.stamp_ns, T_map_base, covariance, estimate.source)

    def _write_pose(self, pose: PoseEstimate) -> None:
        stamped = self._make(
            "geometry_msgs/msg/PoseStamped",
            header=self._header(pose.stamp_ns, self._frames.map),
            pose=self._pose(pose.T_map_cam),
        )
        self._write(POSE_TOPIC, pose.stamp_ns, stamped)
        self._path.append(stamped)
        if pose.covariance is not None:
            self._write_with_covariance(POSE_WITH_COVARIANCE_TOPIC, pose)
        if self._config.publish_tf:
            self._write_map_transform(pose)

    def _write_with_covariance(self, topic: str, pose: PoseEstimate) -> None:
        assert pose.covariance is not None
        S_ros = covariance_to_ros(pose.T_map_cam, pose.covariance)
        with_covariance = self._make(
            "geometry_msgs/msg/PoseWithCovariance",
            pose=self._pose(pose.T_map_cam),
            covariance=(0.5 * (S_ros + S_ros.T)).reshape(-1),
        )
        message = self._make(
            "geometry_msgs/msg/PoseWithCovarianceStamped",
            header=self._header(pose.stamp_ns, self._frames.map),
            pose=with_covariance,
        )
        self._write(topic, pose.stamp_ns, message)

    def _write_map_transform(self, pose: PoseEstimate) -> None:
        """``map -> base``, or ``map -> odom`` where the odometry of the image's own time is known."""
        frames, stamp_ns = self._frames, pose.stamp_ns
        T_map_child, child = pose.T_map_cam, frames.base
        if frames.odom:
            T_odom_base = self._odometry.at(stamp_ns) if self._odometry is not None else None
            if T_odom_base is None:
                return
            T_map_child, child = pose.T_map_cam @ T_odom_base.inverse(), frames.odom
            stamp_ns += round(self._config.transform_tolerance_s * 1e9)
        transform = self._transform(stamp_ns, frames.map, child, T_map_child)
        self._write_transforms(TF_TOPIC, pose.stamp_ns, transform)

    def _write_path(self, stamp_ns: int) -> None:
        message = self._make(
            "nav_msgs/msg/Path", header=self._header(stamp_ns, self._frames.map), poses=list(self._path)
        )
        self._write(PATH_TOPIC, stamp_ns, message)

    def _write_diagnostics(self, output: LocalizerOutput, dropped: Counter[str]) -> None:
        values = {
            "status": output.status.value,
            "reason": output.reason,
            "frames processed": str(self._processed),
            "frames answered": str(self._answered),
            "frames dropped": str(sum(dropped.values())),
            **{f"dropped {kind}": str(count) for kind, count in sorted(dropped.items())},
            **{f"stage {stage} ms": f"{value:.2f}" for stage, value in output.timings_ms.items()},
        }
        status = self._make(
            "diagnostic_msgs/msg/DiagnosticStatus",
            level=_LEVELS[output.status],
            name=f"{NODE}: localization",
            message=output.status.value + (f": {output.reason}" if output.reason else ""),
            hardware_id="",
            values=[self._make("diagnostic_msgs/msg/KeyValue", key=k, value=v) for k, v in values.items()],
        )
        message = self._make(
            "diagnostic_msgs/msg/DiagnosticArray", header=self._header(output.stamp_ns, ""), status=[status]
        )
        self._write(DIAGNOSTICS_TOPIC, output.stamp_ns, message)

    # --- messages ---

    def _connect(self, topic: str, kind: str) -> Any:
        if topic not in self._connections:
            self._connections[topic] = self._writer.add_connection(
                topic, kind, typestore=self._store, offered_qos_profiles=[bag_qos(topic == TF_STATIC_TOPIC)]
            )
        return self._connections[topic]

    def _write(self, topic: str, stamp_ns: int, message: Any) -> None:
        kind = message.__msgtype__
        self._writer.write(self._connect(topic, kind), stamp_ns, self._store.serialize_cdr(message, kind))

    def _write_transforms(self, topic: str, stamp_ns: int, transform: Any) -> None:
        self._write(topic, stamp_ns, self._make("tf2_msgs/msg/TFMessage", transforms=[transform]))

    def _make(self, kind: str, **fields: Any) -> Any:
        return self._store.types[kind](**fields)

    def _header(self, stamp_ns: int, frame_id: str) -> Any:
        sec, nanosec = divmod(stamp_ns, 1_000_000_000)
        stamp = self._make("builtin_interfaces/msg/Time", sec=sec, nanosec=nanosec)
        return self._make("std_msgs/msg/Header", stamp=stamp, frame_id=frame_id)

    def _vector(self, kind: str, t: NDArray[np.float64]) -> Any:
        return self._make(f"geometry_msgs/msg/{kind}", x=float(t[0]), y=float(t[1]), z=float(t[2]))

    def _quaternion(self, T: SE3) -> Any:
        x, y, z, w = (float(value) for value in T.quaternion_xyzw())
        return self._make("geometry_msgs/msg/Quaternion", x=x, y=y, z=z, w=w)

    def _pose(self, T: SE3) -> Any:
        return self._make(
            "geometry_msgs/msg/Pose", position=self._vector("Point", T.t), orientation=self._quaternion(T)
        )

    def _transform(self, stamp_ns: int, parent: str, child: str, T_parent_child: SE3) -> Any:
        transform = self._make(
            "geometry_msgs/msg/Transform",
            translation=self._vector("Vector3", T_parent_child.t),
            rotation=self._quaternion(T_parent_child),
        )
        return self._make(
            "geometry_msgs/msg/TransformStamped",
            header=self._header(stamp_ns, parent),
            child_frame_id=child,
            transform=transform,
        )


# --- frames of a recording ---


def _frames(source: FrameSource, scene: Scene, config: RunConfig) -> _Frames:
    node = config.node
    map_frame = node.map_frame or scene.map_frame
    if node.odom_frame and not node.base_frame:
        raise ConfigError("node.odom_frame: needs node.base_frame as well, to know what moves in it")
    if node.odom_frame and source.odometry is None:
        raise ConfigError(f"node.odom_frame: {source.path} has no odometry")
    if node.image_rectified and source.camera.distorted:
        raise ConfigError(
            "node.image_rectified: the recording's camera has distortion; name the image topic *_rect"
        )
    camera, static = CAMERA_FRAME, None
    if source.format == "rosbag":
        camera, static = _bag_frames(source)
    if not node.base_frame:
        return _Frames(map_frame, "", camera, camera, SE3.identity())
    T_base_cam = source.T_base_cam if static is None else _find(static, node.base_frame, camera)
    if T_base_cam is None:
        known = f"; it has {', '.join(sorted(static))}" if static else ""
        raise ConfigError(
            f"node.base_frame: {source.path} has no static transform from {node.base_frame!r} to the camera "
            f"{camera!r}{known}"
        )
    return _Frames(map_frame, node.odom_frame, node.base_frame, camera, T_base_cam)


def _bag_frames(source: FrameSource) -> tuple[str, dict[str, dict[str, SE3]]]:
    """Frame of the images, and the static transforms as ``neighbours[a][b] = T_a_b``."""
    topic = getattr(source, "topics", {}).get("image")
    neighbours: dict[str, dict[str, SE3]] = {}
    camera = CAMERA_FRAME
    storage = [source.path]
    if source.path.is_dir() and not (source.path / "metadata.yaml").is_file():
        storage = sorted(p for p in source.path.iterdir() if p.suffix in (".mcap", ".db3", ".bag"))
    try:
        with AnyReader(storage, default_typestore=get_typestore(Stores.ROS2_HUMBLE)) as reader:
            images = [c for c in reader.connections if c.topic == topic]
            for connection, _, raw in reader.messages(images):
                header = reader.deserialize(raw, connection.msgtype).header
                camera = str(header.frame_id).lstrip("/") or CAMERA_FRAME
                break
            static = [c for c in reader.connections if c.topic == TF_STATIC_TOPIC]
            for connection, _, raw in reader.messages(static) if static else ():
                for message in reader.deserialize(raw, connection.msgtype).transforms:
                    t, q = message.transform.translation, message.transform.rotation
                    parent = str(message.header.frame_id).lstrip("/")
                    child = str(message.child_frame_id).lstrip("/")
                    T_parent_child = SE3.from_quaternion((t.x, t.y, t.z), (q.x, q.y, q.z, q.w))
                    neighbours.setdefault(parent, {})[child] = T_parent_child
                    neighbours.setdefault(child, {})[parent] = T_parent_child.inverse()
    except (AnyReaderError, ValueError) as error:
        raise SourceError(f"{source.path}: {TF_STATIC_TOPIC} cannot be read ({error})") from error
    return camera, neighbours


def _find(neighbours: dict[str, dict[str, SE3]], a: str, b: str) -> SE3 | None:
    """``T_a_b`` along static transforms, None when the frames are not joined."""
    reached = {a: SE3.identity()}
    waiting = deque([a])
    while waiting and b not in reached:
        frame = waiting.popleft()
        for other, T_frame_other in neighbours.get(frame, {}).items():
            if other not in reached:
                reached[other] = reached[frame] @ T_frame_other
                waiting.append(other)
    return reached.get(b)


@contextmanager
def _new_folder(out: Path) -> Iterator[Path]:
    """A path to write to that becomes ``out`` in one rename when there was no error."""
    out.parent.mkdir(parents=True, exist_ok=True)
    # The writer names its file after the folder, so the temporary part is the folder above it.
    temporary = out.parent / f".{out.name}.{uuid.uuid4().hex[:8]}.tmp"
    temporary.mkdir()
    try:
        yield temporary / out.name
        (temporary / out.name).rename(out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
