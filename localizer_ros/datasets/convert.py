"""Any recording to a rosbag2, a TUM folder or a kapture folder.

Each is written under a temporary name and renamed when complete: a killed run leaves nothing that looks like
a recording.

Topics of the bag: ``/camera/image_raw`` (sensor_msgs/Image, bgr8 or mono8) or
``/camera/image_raw/compressed``; ``/camera/camera_info``; ``/ground_truth`` (geometry_msgs/PoseStamped in
frame ``map``): the pose of the camera's optical frame ``camera``, the one of the image headers; ``/odom``
(nav_msgs/Odometry, ``odom`` to ``base_link``) with covariance; ``/tf_static`` (``base_link`` to ``camera``).
What the recording does not know is left out.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from localizer_ros.core.se3 import SE3, covariance_to_ros
from localizer_ros.core.trajectory import Trajectory
from localizer_ros.core.types import Camera, Frame, SourceError
from localizer_ros.datasets.calibration import camera_to_colmap, write_camera_yaml
from localizer_ros.datasets.images import encode_jpeg, encode_png
from localizer_ros.datasets.source import FrameSource

Progress = Callable[[int, int], None]
"""Called with (frames done, frames in total)."""

MAP_FRAME, ODOM_FRAME, BASE_FRAME, CAMERA_FRAME = "map", "odom", "base_link", "camera"
IMAGE_TOPIC, INFO_TOPIC = "/camera/image_raw", "/camera/camera_info"
GROUND_TRUTH_TOPIC, ODOM_TOPIC, TF_STATIC_TOPIC = "/ground_truth", "/odom", "/tf_static"


def write_bag(
    source: FrameSource,
    out: Path,
    storage: Literal["mcap", "sqlite3"] = "mcap",
    compression: Literal["none", "jpeg", "png"] = "none",
    progress: Progress | None = None,
) -> None:
    """Write a rosbag2 folder.

    Args:
        source: what to write.
        out: the new folder; must not exist.
        storage: storage plugin of rosbag2.
        compression: ``none`` writes raw images, else compressed ones (png without loss, jpeg at quality 95).
        progress: called after every frame.

    Raises:
        SourceError: ``out`` exists, or a frame cannot be read.
    """
    with _new_folder(out) as folder:
        # The writer makes the folder itself, and names its file after it.
        folder.rmdir()
        writer = Writer(
            # Version 8 is read by every distribution since Iron; 9 differs in how it spells QoS.
            folder,
            version=8,
            storage_plugin=StoragePlugin.MCAP if storage == "mcap" else StoragePlugin.SQLITE3,
        )
        writer.set_custom_data("ground_truth", source.ground_truth)
        with writer:
            _BagWriter(writer, source, compression).write_all(progress)


def write_tum(source: FrameSource, out: Path, progress: Progress | None = None) -> None:
    """Write a TUM RGB-D folder: ``rgb/``, ``rgb.txt``, ``groundtruth.txt``, ``camera.yaml``, ``splits/``.

    Images are PNG, so that nothing is lost. Poses at the images' own stamps.

    Raises:
        SourceError: ``out`` exists, a frame cannot be read, or cameras differ (the format has one).
    """
    with _new_folder(out) as folder:
        (folder / "rgb").mkdir()
        names: dict[str, str] = {}
        lines = ["# timestamp filename\n"]
        for frame in _frames(source, progress):
            _same_camera(source, frame)
            stamp = f"{frame.stamp_ns // 1_000_000_000}.{frame.stamp_ns % 1_000_000_000:09d}"
            names[frame.name] = f"rgb/{stamp}.png"
            (folder / names[frame.name]).write_bytes(encode_png(frame.image))
            lines.append(f"{stamp} {names[frame.name]}\n")
        (folder / "rgb.txt").write_text("".join(lines))
        _write_trajectory(source, folder / "groundtruth.txt")
        (folder / "ground_truth.txt").write_text(f"{source.ground_truth}\n")
        write_camera_yaml(folder / "camera.yaml", source.camera)
        _write_splits(source, folder, names)


def write_kapture(source: FrameSource, out: Path, progress: Progress | None = None) -> None:
    """Write a kapture folder (version 1.1): sensors, records, trajectories, images as PNG, and ``splits/``.

    Timestamps are nanoseconds. As kapture has it, poses are world to camera and pixel centres at 0.5.

    Raises:
        SourceError: ``out`` exists, a frame cannot be read, or cameras differ.
        ConfigError: the camera has no kapture model.
    """
    model, params = camera_to_colmap(source.camera)
    size = f"{source.camera.width_px}, {source.camera.height_px}"
    with _new_folder(out) as folder:
        sensors = folder / "sensors"
        images = sensors / "records_data"
        images.mkdir(parents=True)
        names: dict[str, str] = {}
        records, poses = [], []
        for record, frame in zip(source.records, _frames(source, progress), strict=True):
            _same_camera(source, frame)
            file = f"{record.sequence}/{frame.stamp_ns}.png"
            names[frame.name] = file
            (images / record.sequence).mkdir(parents=True, exist_ok=True)
            (images / file).write_bytes(encode_png(frame.image))
            records.append(f"{frame.stamp_ns}, {CAMERA_FRAME}, {file}\n")
            if record.T_map_cam is not None:
                T_cam_map = record.T_map_cam.inverse()
                x, y, z, w = T_cam_map.quaternion_xyzw()
                values = ", ".join(f"{value:.12g}" for value in (w, x, y, z, *T_cam_map.t))
                poses.append(f"{frame.stamp_ns}, {CAMERA_FRAME}, {values}\n")
        version = "# kapture format: 1.1\n"
        numbers = ", ".join(f"{value:.12g}" for value in params)
        (sensors / "sensors.txt").write_text(
            f"{version}# sensor_id, name, sensor_type, [sensor_params]+\n"
            f"{CAMERA_FRAME}, {CAMERA_FRAME}, camera, {model}, {size}, {numbers}\n"
        )
        (sensors / "records_camera.txt").write_text(
            f"{version}# timestamp, device_id, image_path\n" + "".join(records)
        )
        if poses:
            (sensors / "trajectories.txt").write_text(
                f"{version}# timestamp, device_id, qw, qx, qy, qz, tx, ty, tz\n" + "".join(poses)
            )
            (folder / "ground_truth.txt").write_text(f"{source.ground_truth}\n")
        _write_splits(source, folder, names)


class _BagWriter:
    """Messages of one source into an open bag."""

    def __init__(self, writer: Writer, source: FrameSource, compression: str) -> None:
        self._writer, self._source, self._compression = writer, source, compression
        self._store = get_typestore(Stores.ROS2_JAZZY)
        self._connections: dict[str, Any] = {}

    def write_all(self, progress: Progress | None) -> None:
        source = self._source
        if source.T_base_cam is not None:
            first_ns = source.records[0].stamp_ns
            if source.odometry is not None and len(source.odometry):
                first_ns = min(first_ns, int(source.odometry.stamps_ns[0]))
            transform = self._make(
                "geometry_msgs/msg/TransformStamped",
                header=self._header(first_ns, BASE_FRAME),
                child_frame_id=CAMERA_FRAME,
                transform=self._transform(source.T_base_cam),
            )
            self._write(
                TF_STATIC_TOPIC,
                first_ns,
                self._make("tf2_msgs/msg/TFMessage", transforms=[transform]),
                latched=True,
            )
        # In order of time, as a robot would have recorded it.
        odometry = self._odometry(source.odometry)
        pending = next(odometry, None)
        for record, frame in zip(source.records, _frames(source, progress), strict=True):
            while pending is not None and pending[0] <= frame.stamp_ns:
                self._write(ODOM_TOPIC, *pending)
                pending = next(odometry, None)
            self._write(INFO_TOPIC, frame.stamp_ns, self._info(frame.camera, frame.stamp_ns))
            if record.T_map_cam is not None:
                pose = self._make(
                    "geometry_msgs/msg/PoseStamped",
                    header=self._header(frame.stamp_ns, MAP_FRAME),
                    pose=self._pose(record.T_map_cam),
                )
                self._write(GROUND_TRUTH_TOPIC, frame.stamp_ns, pose)
            topic = IMAGE_TOPIC if self._compression == "none" else f"{IMAGE_TOPIC}/compressed"
            self._write(topic, frame.stamp_ns, self._image(frame))
        while pending is not None:
            self._write(ODOM_TOPIC, *pending)
            pending = next(odometry, None)

    def _write(self, topic: str, stamp_ns: int, message: Any, latched: bool = False) -> None:
        kind = message.__msgtype__
        if topic not in self._connections:
            self._connections[topic] = self._writer.add_connection(
                topic, kind, typestore=self._store, offered_qos_profiles=[bag_qos(latched)]
            )
        self._writer.write(self._connections[topic], stamp_ns, self._store.serialize_cdr(message, kind))

    def _make(self, kind: str, **fields: Any) -> Any:
        return self._store.types[kind](**fields)

    def _header(self, stamp_ns: int, frame_id: str) -> Any:
        sec, nanosec = divmod(stamp_ns, 1_000_000_000)
        stamp = self._make("builtin_interfaces/msg/Time", sec=sec, nanosec=nanosec)
        return self._make("std_msgs/msg/Header", stamp=stamp, frame_id=frame_id)

    def _image(self, frame: Frame) -> Any:
        header = self._header(frame.stamp_ns, CAMERA_FRAME)
        image = frame.image
        if self._compression != "none":
            data = encode_png(image) if self._compression == "png" else encode_jpeg(image)
            return self._make(
                "sensor_msgs/msg/CompressedImage",
                header=header,
                format=f"{'bgr8' if image.ndim == 3 else 'mono8'}; {self._compression} compressed",
                data=np.frombuffer(data, np.uint8),
            )
        pixels = cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if image.ndim == 3 else np.ascontiguousarray(image)
        return self._make(
            "sensor_msgs/msg/Image",
            header=header,
            height=image.shape[0],
            width=image.shape[1],
            encoding="bgr8" if image.ndim == 3 else "mono8",
            is_bigendian=0,
            step=image.shape[1] * (3 if image.ndim == 3 else 1),
            data=np.asarray(pixels, np.uint8).reshape(-1),
        )

    def _info(self, camera: Camera, stamp_ns: int) -> Any:
        K = camera.K
        P = np.zeros((3, 4))
        P[:, :3] = K
        return self._make(
            "sensor_msgs/msg/CameraInfo",
            header=self._header(stamp_ns, CAMERA_FRAME),
            height=camera.height_px,
            width=camera.width_px,
            distortion_model=camera.model,
            d=camera.distortion.copy(),
            k=K.reshape(-1).copy(),
            r=np.eye(3).reshape(-1),
            p=P.reshape(-1),
            binning_x=0,
            binning_y=0,
            roi=self._make(
                "sensor_msgs/msg/RegionOfInterest",
                x_offset=0,
                y_offset=0,
                height=0,
                width=0,
                do_rectify=False,
            ),
        )

    def _vector(self, kind: str, t: Any) -> Any:
        return self._make(f"geometry_msgs/msg/{kind}", x=float(t[0]), y=float(t[1]), z=float(t[2]))

    def _quaternion(self, T: SE3) -> Any:
        x, y, z, w = (float(value) for value in T.quaternion_xyzw())
        return self._make("geometry_msgs/msg/Quaternion", x=x, y=y, z=z, w=w)

    def _pose(self, T: SE3) -> Any:
        return self._make(
            "geometry_msgs/msg/Pose", position=self._vector("Point", T.t), orientation=self._quaternion(T)
        )

    def _transform(self, T: SE3) -> Any:
        return self._make(
            "geometry_msgs/msg/Transform",
            translation=self._vector("Vector3", T.t),
            rotation=self._quaternion(T),
        )

    def _odometry(self, odometry: Trajectory | None) -> Iterator[tuple[int, Any]]:
        if odometry is None:
            return
        for index, stamp_ns in enumerate(odometry.stamps_ns.tolist()):
            T_odom_base = odometry.poses[index]
            S = np.zeros(36)
            if odometry.covariances is not None:
                S = covariance_to_ros(T_odom_base, odometry.covariances[index]).reshape(-1)
            # Velocity in the base frame, from the pose before.
            velocity = np.zeros(6)
            if index > 0:
                seconds = 1e-9 * (stamp_ns - int(odometry.stamps_ns[index - 1]))
                velocity = (odometry.poses[index - 1].inverse() @ T_odom_base).log() / seconds
            twist = self._make(
                "geometry_msgs/msg/Twist",
                linear=self._vector("Vector3", velocity[3:]),
                angular=self._vector("Vector3", velocity[:3]),
            )
            pose = self._make(
                "geometry_msgs/msg/PoseWithCovariance", pose=self._pose(T_odom_base), covariance=S
            )
            yield (
                stamp_ns,
                self._make(
                    "nav_msgs/msg/Odometry",
                    header=self._header(stamp_ns, ODOM_FRAME),
                    child_frame_id=BASE_FRAME,
                    pose=pose,
                    twist=self._make(
                        "geometry_msgs/msg/TwistWithCovariance", twist=twist, covariance=np.zeros(36)
                    ),
                ),
            )


def bag_qos(latched: bool) -> Qos:
    """Reliable; a latched topic reaches those who subscribe later."""
    never = QosTime(9223372036, 854775807)
    return Qos(
        QosHistory.KEEP_LAST,
        1 if latched else 10,
        QosReliability.RELIABLE,
        QosDurability.TRANSIENT_LOCAL if latched else QosDurability.VOLATILE,
        never,
        never,
        QosLiveliness.AUTOMATIC,
        never,
        False,
    )


@contextmanager
def _new_folder(out: Path) -> Iterator[Path]:
    """A temporary folder of the same name that becomes ``out`` when all went well and vanishes when not."""
    if out.exists():
        raise SourceError(f"{out}: exists already, expected a new folder")
    parent = out.absolute().parent
    parent.mkdir(parents=True, exist_ok=True)
    partial = parent / f".{out.name}.partial-{os.getpid()}"
    shutil.rmtree(partial, ignore_errors=True)
    folder = partial / out.name
    folder.mkdir(parents=True)
    try:
        yield folder
        folder.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _frames(source: FrameSource, progress: Progress | None) -> Iterator[Frame]:
    total = len(source.records)
    for index in range(total):
        yield source.read(index)
        if progress is not None:
            progress(index + 1, total)


def _same_camera(source: FrameSource, frame: Frame) -> None:
    if frame.camera is not source.camera and not frame.camera.same_as(source.camera):
        raise SourceError(
            f"{source.path}: frame {frame.label} has another camera, and the format holds only one"
        )


def _write_trajectory(source: FrameSource, file: Path) -> None:
    items = [(record.stamp_ns, record.T_map_cam) for record in source.records if record.T_map_cam is not None]
    Trajectory.from_items(items).write_tum(file)


def _write_splits(source: FrameSource, folder: Path, names: dict[str, str]) -> None:
    for name in source.splits:
        (folder / "splits").mkdir(exist_ok=True)
        part = source.split(name).records
        (folder / "splits" / f"{name}.txt").write_text("".join(f"{names[record.name]}\n" for record in part))
