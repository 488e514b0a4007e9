"""What the node would have answered to a recording, as a bag, without ROS.

The localizer is fed as the node feeds it (images in order of time, odometry up to the stamp of each image, no
reset between sequences) and the same poses are written under the node's topics. Stamps are the images'.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localizer_ros.core.config.runtime import RunConfig
from localizer_ros.core.files import new_folder
from localizer_ros.core.map_correction import MapCorrection
from localizer_ros.core.progress import Progress, no_progress
from localizer_ros.core.robot_pose import BasePose, base_pose, map_to_odom
from localizer_ros.core.se3 import SE3, covariance_to_ros
from localizer_ros.core.transform_tree import TransformError, TransformTree
from localizer_ros.core.types import ConfigError, LocalizerOutput, PoseEstimate, Status
from localizer_ros.datasets.bag_writer import (
    TF_STATIC_TOPIC,
    TF_TOPIC,
    BagWriter,
    header,
    make,
    pose_stamped,
    transform_stamped,
)
from localizer_ros.datasets.bag_writer import pose as pose_message
from localizer_ros.datasets.robot_frames import given_camera, transforms_of
from localizer_ros.datasets.source import FrameSource, frame_names
from localizer_ros.evaluation.answers import percentiles
from localizer_ros.evaluation.run_localizer import FrameLocalizer, run_localizer
from localizer_ros.scene.bundle import Scene

NODE = "localizer"
POSE_TOPIC = f"/{NODE}/pose"
POSE_WITH_COVARIANCE_TOPIC = f"/{NODE}/pose_with_covariance"
GLOBAL_POSE_TOPIC = f"/{NODE}/global_pose"
PATH_TOPIC = f"/{NODE}/path"
DIAGNOSTICS_TOPIC = "/diagnostics"
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
        child: child of the map transform, the root of the robot's tree.
        base: whose pose is written.
        camera: frame that the images name.
        T_base_cam: of the optical frame; exact identity only where the camera's own pose is asked for.
    """

    map: str
    child: str
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
    """Counts and latencies of localising a recording, whose answers are written as a rosbag2 folder (mcap).

    Args:
        localizer: freshly opened for ``scene``.
        scene: names the map frame.
        source: the recording. Images are taken in order of their stamps.
        out: the new folder; appears whole, at the end.
        config: frames of the node, and the length of the path.
        progress: told of every frame.

    Raises:
        SourceError: ``out`` exists, or the recording is damaged.
        ConfigError: a frame that is asked for is not in the recording.
    """
    config = config if config is not None else RunConfig()
    frames = _frames(source, scene, config)
    statuses: Counter[str] = Counter()
    dropped: Counter[str] = Counter()
    latencies: list[float] = []
    answered = 0
    # For `localizer view`, which shows the map beneath.
    notes = {"scene": str(scene.path.resolve())}
    with new_folder(out) as folder, BagWriter(folder, notes=notes) as bag:
        answers = _AnswerWriter(bag, frames, source, config)
        # The node knows of no sequences either: it bridges them, or notices the gap by itself.
        for result, _ in run_localizer(
            localizer, source, bridge_sequences=True, stage="replay", progress=progress
        ):
            output = result.output
            if output is None:
                dropped[result.dropped] += 1
                continue
            statuses[output.status.value] += 1
            latencies.append(output.timings_ms.get("total", float("nan")))
            answered += answers.write(output, dropped)
        answers.finish()
    return {
        "frames": len(source.records),
        "answered": answered,
        "dropped": dict(dropped),
        "status": dict(statuses),
        "latency_ms": percentiles(latencies, 50, 99),
    }


class _AnswerWriter:
    """Writes the answers of a localizer as the node publishes them."""

    def __init__(self, bag: BagWriter, frames: _Frames, source: FrameSource, config: RunConfig) -> None:
        self._bag = bag
        self._frames, self._odometry, self._config = frames, source.odometry, config
        self._transforms = transforms_of(source)
        self._T_given_cam = given_camera(source)
        self._correction = MapCorrection(config.correction_m_s)
        self._path: deque[Any] = deque(maxlen=config.path_length)
        self._path_due_ns = self._diagnostics_due_ns = 0
        self._status: Status | None = None
        self._processed = self._answered = 0
        self._last_ns: int | None = None
        for topic, kind in (
            (POSE_TOPIC, "geometry_msgs/msg/PoseStamped"),
            (POSE_WITH_COVARIANCE_TOPIC, "geometry_msgs/msg/PoseWithCovarianceStamped"),
            (GLOBAL_POSE_TOPIC, "geometry_msgs/msg/PoseWithCovarianceStamped"),
            (PATH_TOPIC, "nav_msgs/msg/Path"),
            (DIAGNOSTICS_TOPIC, "diagnostic_msgs/msg/DiagnosticArray"),
        ):
            bag.add_topic(topic, kind)

    def finish(self) -> None:
        """The whole path, once more."""
        if self._last_ns is not None:
            self._write_path(self._last_ns)

    def write(self, output: LocalizerOutput, dropped: Counter[str]) -> bool:
        """Everything the node publishes for one frame; True when there was a pose."""
        stamp_ns, frames = output.stamp_ns, self._frames
        if self._last_ns is None and frames.base != frames.camera:
            T_base_given = frames.T_base_cam @ self._T_given_cam.inverse()
            extrinsics = transform_stamped(stamp_ns, frames.base, frames.camera, T_base_given)
            self._bag.write_transform(TF_STATIC_TOPIC, stamp_ns, extrinsics)
        if self._last_ns is not None and stamp_ns < self._last_ns:
            self._path.clear()
            self._path_due_ns = self._diagnostics_due_ns = 0
        self._last_ns = stamp_ns
        self._processed += 1
        pose = self._base_pose(output.estimate) if output.status is not Status.LOST else None
        if pose is None or output.reset:
            self._correction.restart()
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

    def _base_pose(self, estimate: PoseEstimate | None) -> BasePose | None:
        """The robot's pose; None for what is not finite."""
        if estimate is None:
            return None
        pose = base_pose(estimate, self._frames.T_base_cam)
        return pose if pose.finite else None

    def _write_pose(self, pose: BasePose) -> None:
        stamped = pose_stamped(pose.stamp_ns, self._frames.map, pose.T_map_base)
        self._bag.write(POSE_TOPIC, pose.stamp_ns, stamped)
        self._path.append(stamped)
        if pose.covariance is not None:
            self._write_with_covariance(POSE_WITH_COVARIANCE_TOPIC, pose)
        if self._config.publish_tf:
            self._write_map_transform(pose)

    def _write_with_covariance(self, topic: str, pose: BasePose) -> None:
        assert pose.covariance is not None
        S_ros = covariance_to_ros(pose.T_map_base, pose.covariance)
        with_covariance = make(
            "geometry_msgs/msg/PoseWithCovariance",
            pose=pose_message(pose.T_map_base),
            covariance=(0.5 * (S_ros + S_ros.T)).reshape(-1),
        )
        message = make(
            "geometry_msgs/msg/PoseWithCovarianceStamped",
            header=header(pose.stamp_ns, self._frames.map),
            pose=with_covariance,
        )
        self._bag.write(topic, pose.stamp_ns, message)

    def _write_map_transform(self, pose: BasePose) -> None:
        """The map's edge to the root of the robot's tree, where that tree is known at the image's own time."""
        frames, stamp_ns = self._frames, pose.stamp_ns
        T_child_base, moves = self._below_root(stamp_ns)
        if T_child_base is None:
            return
        T_map_child = map_to_odom(pose.T_map_base, T_child_base)
        if moves:
            T_map_child = self._correction.step(stamp_ns, T_map_child, T_child_base)
            stamp_ns += round(self._config.transform_tolerance * 1e9)
        transform = transform_stamped(stamp_ns, frames.map, frames.child, T_map_child)
        self._bag.write_transform(TF_TOPIC, pose.stamp_ns, transform)

    def _below_root(self, stamp_ns: int) -> tuple[SE3 | None, bool]:
        """``T_child_base`` at a time, None where it is not known, and whether it moves: whether there is odometry."""
        child, base = self._frames.child, self._frames.base
        if child == self._config.odom_frame:
            return (None if self._odometry is None else self._odometry.at(stamp_ns)), True
        if child == base or self._transforms is None:
            return SE3.identity(), False
        fixed = self._transforms.find_fixed(child, base)
        if fixed is not None:
            return fixed, False
        try:
            return self._transforms.lookup(child, base, stamp_ns), True
        except TransformError:
            return None, True

    def _write_path(self, stamp_ns: int) -> None:
        message = make("nav_msgs/msg/Path", header=header(stamp_ns, self._frames.map), poses=list(self._path))
        self._bag.write(PATH_TOPIC, stamp_ns, message)

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
        status = make(
            "diagnostic_msgs/msg/DiagnosticStatus",
            level=_LEVELS[output.status],
            name=f"{NODE}: localization",
            message=output.status.value + (f": {output.reason}" if output.reason else ""),
            hardware_id="",
            values=[make("diagnostic_msgs/msg/KeyValue", key=k, value=v) for k, v in values.items()],
        )
        message = make(
            "diagnostic_msgs/msg/DiagnosticArray", header=header(output.stamp_ns, ""), status=[status]
        )
        self._bag.write(DIAGNOSTICS_TOPIC, output.stamp_ns, message)


# --- frames of a recording ---


def _frames(source: FrameSource, scene: Scene, config: RunConfig) -> _Frames:
    map_frame = config.frame_of_map(scene.map_frame)
    if config.odom_frame and source.odometry is None:
        raise ConfigError(f"odom_frame: {source.path} has no odometry")
    if config.image_rectified and source.camera.distorted:
        raise ConfigError(
            "image_rectified: the recording's camera has distortion; name the image topic *_rect"
        )
    names, transforms = frame_names(source), transforms_of(source)
    if not config.base_frame:
        # The pose of the camera itself is asked for, in the frame that images name.
        root = _root(transforms, names.camera, map_frame)
        return _Frames(map_frame, root, names.camera, names.camera, given_camera(source))
    T_base_cam, known = None, ""
    if transforms is None:
        T_base_cam = source.T_base_cam if config.base_frame == names.base else None
    else:
        T_base_given = transforms.find_fixed(config.base_frame, names.camera)
        T_base_cam = None if T_base_given is None else T_base_given @ given_camera(source)
        known = f"; it has {', '.join(sorted(transforms.frames))}" if transforms.frames else ""
    if T_base_cam is None:
        raise ConfigError(
            f"base_frame: {source.path} has no static transform from {config.base_frame!r} to the camera "
            f"{names.camera!r}{known}"
        )
    root = config.odom_frame or _root(transforms, config.base_frame, map_frame)
    return _Frames(map_frame, root, config.base_frame, names.camera, T_base_cam)


def _root(transforms: TransformTree | None, frame: str, map_frame: str) -> str:
    """The highest frame above one of the robot, below the map that a recording may have a transform of."""
    above = [frame] if transforms is None else transforms.ancestors(frame)
    return next((name for name in reversed(above) if name != map_frame), frame)
