"""Any recording to a rosbag2, a TUM folder or a kapture folder.

Each is written under a temporary name and renamed when complete: a killed run leaves nothing that looks like
a recording.

Topics of the bag: ``/camera/image_raw`` (sensor_msgs/Image, bgr8 or mono8) or
``/camera/image_raw/compressed``; ``/camera/camera_info``; ``/ground_truth`` (geometry_msgs/PoseStamped in
frame ``map``): the pose of the camera's optical frame, the one of the image headers; ``/odom``
(nav_msgs/Odometry) with covariance; ``/tf_static`` (base to camera). Frames are ``camera``, ``base_link`` and
``odom``, or what the recording calls them. What the recording does not know is left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from localizer_ros.core.files import inside_name, new_folder
from localizer_ros.core.se3 import covariance_to_ros
from localizer_ros.core.trajectory import Trajectory
from localizer_ros.core.types import Camera, Frame, SourceError
from localizer_ros.datasets.bag_writer import (
    TF_STATIC_TOPIC,
    BagWriter,
    Compression,
    Storage,
    header,
    make,
    pose,
    pose_stamped,
    transform_stamped,
    vector,
)
from localizer_ros.datasets.calibration import camera_to_colmap, write_camera_yaml
from localizer_ros.datasets.derived import readable
from localizer_ros.datasets.folder import INVENTED_NOTE
from localizer_ros.datasets.images import encode_jpeg, encode_png
from localizer_ros.datasets.source import FrameSource, by_sequence, frame_names, is_image, require_camera

FramesDone = Callable[[int, int], None]
"""Called with (frames done, frames in total)."""

MAP_FRAME = "map"
# Of the only sensor of a kapture folder.
CAMERA_ID = "camera"
IMAGE_TOPIC, INFO_TOPIC = "/camera/image_raw", "/camera/camera_info"
GROUND_TRUTH_TOPIC, ODOM_TOPIC = "/ground_truth", "/odom"


def write_bag(
    source: FrameSource,
    out: Path,
    storage: Storage = "mcap",
    compression: Compression = "none",
    progress: FramesDone | None = None,
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
    require_camera(source)
    source = readable(source)
    notes = {"ground_truth": source.ground_truth, "stamps": source.stamps}
    with new_folder(out) as folder, BagWriter(folder, storage, notes) as bag:
        _Recorder(bag, source, compression).write_all(progress)


def write_tum(source: FrameSource, out: Path, progress: FramesDone | None = None) -> None:
    """Write a TUM RGB-D folder: ``rgb/``, ``rgb.txt``, ``groundtruth.txt``, ``camera.yaml``, ``splits/``.

    Images are PNG, so that nothing is lost. Poses at the images' own stamps.

    Raises:
        SourceError: ``out`` exists, a frame cannot be read, or cameras differ (the format has one).
    """
    require_camera(source)
    source = readable(source)
    with new_folder(out) as folder:
        (folder / "rgb").mkdir()
        names = {name: f"rgb/{file}" for name, file in _file_names(source).items()}
        lines = ["# timestamp filename\n"]
        for frame in _frames(source, progress):
            _same_camera(source, frame)
            stamp = f"{frame.stamp_ns // 1_000_000_000}.{frame.stamp_ns % 1_000_000_000:09d}"
            (folder / names[frame.name]).parent.mkdir(parents=True, exist_ok=True)
            (folder / names[frame.name]).write_bytes(encode_png(frame.image))
            lines.append(f"{stamp} {names[frame.name]}\n")
        (folder / "rgb.txt").write_text("".join(lines))
        _write_trajectory(source, folder / "groundtruth.txt")
        _write_notes(source, folder)
        write_camera_yaml(folder / "camera.yaml", source.camera)
        _write_splits(source, folder, names)


def write_kapture(source: FrameSource, out: Path, progress: FramesDone | None = None) -> None:
    """Write a kapture folder (version 1.1): sensors, records, trajectories, images as PNG, and ``splits/``.

    Timestamps are nanoseconds. As kapture has it, poses are world to camera and pixel centres at 0.5.

    Raises:
        SourceError: ``out`` exists, a frame cannot be read, or cameras differ.
        ConfigError: the camera has no kapture model.
    """
    require_camera(source)
    source = readable(source)
    model, params = camera_to_colmap(source.camera)
    size = f"{source.camera.width_px}, {source.camera.height_px}"
    with new_folder(out) as folder:
        sensors = folder / "sensors"
        images = sensors / "records_data"
        images.mkdir(parents=True)
        names = _file_names(source)
        records, poses = [], []
        for record, frame in zip(source.records, _frames(source, progress), strict=True):
            _same_camera(source, frame)
            file = names[frame.name]
            (images / file).parent.mkdir(parents=True, exist_ok=True)
            (images / file).write_bytes(encode_png(frame.image))
            records.append(f"{frame.stamp_ns}, {CAMERA_ID}, {file}\n")
            if record.T_map_cam is not None:
                T_cam_map = record.T_map_cam.inverse()
                x, y, z, w = T_cam_map.quaternion_xyzw()
                values = ", ".join(f"{value:.12g}" for value in (w, x, y, z, *T_cam_map.t))
                poses.append(f"{frame.stamp_ns}, {CAMERA_ID}, {values}\n")
        version = "# kapture format: 1.1\n"
        numbers = ", ".join(f"{value:.12g}" for value in params)
        (sensors / "sensors.txt").write_text(
            f"{version}# sensor_id, name, sensor_type, [sensor_params]+\n"
            f"{CAMERA_ID}, {CAMERA_ID}, camera, {model}, {size}, {numbers}\n"
        )
        (sensors / "records_camera.txt").write_text(
            f"{version}# timestamp, device_id, image_path\n" + "".join(records)
        )
        if poses:
            (sensors / "trajectories.txt").write_text(
                f"{version}# timestamp, device_id, qw, qx, qy, qz, tx, ty, tz\n" + "".join(poses)
            )
        _write_notes(source, folder)
        _write_splits(source, folder, names)


class _Recorder:
    """Messages of one source into an open bag."""

    def __init__(self, bag: BagWriter, source: FrameSource, compression: Compression) -> None:
        self._bag, self._source, self._compression = bag, source, compression
        self._frames = frame_names(source)

    def write_all(self, progress: FramesDone | None) -> None:
        source, bag, frames = self._source, self._bag, self._frames
        if source.T_base_cam is not None:
            first_ns = source.records[0].stamp_ns
            if source.odometry is not None and len(source.odometry):
                first_ns = min(first_ns, int(source.odometry.stamps_ns[0]))
            extrinsics = transform_stamped(first_ns, frames.base, frames.camera, source.T_base_cam)
            bag.write_transform(TF_STATIC_TOPIC, first_ns, extrinsics)
        # In order of time, as a robot would have recorded it.
        odometry = self._odometry(source.odometry)
        pending = next(odometry, None)
        for record, frame in zip(source.records, _frames(source, progress), strict=True):
            _same_camera(source, frame)
            while pending is not None and pending[0] <= frame.stamp_ns:
                bag.write(ODOM_TOPIC, *pending)
                pending = next(odometry, None)
            bag.write(INFO_TOPIC, frame.stamp_ns, self._info(frame.camera, frame.stamp_ns))
            if record.T_map_cam is not None:
                true = pose_stamped(frame.stamp_ns, MAP_FRAME, record.T_map_cam)
                bag.write(GROUND_TRUTH_TOPIC, frame.stamp_ns, true)
            topic = IMAGE_TOPIC if self._compression == "none" else f"{IMAGE_TOPIC}/compressed"
            bag.write(topic, frame.stamp_ns, self._image(frame))
        while pending is not None:
            bag.write(ODOM_TOPIC, *pending)
            pending = next(odometry, None)

    def _image(self, frame: Frame) -> Any:
        stamped = header(frame.stamp_ns, self._frames.camera)
        image = frame.image
        if self._compression != "none":
            data = encode_png(image) if self._compression == "png" else encode_jpeg(image)
            return make(
                "sensor_msgs/msg/CompressedImage",
                header=stamped,
                format=f"{'bgr8' if image.ndim == 3 else 'mono8'}; {self._compression} compressed",
                data=np.frombuffer(data, np.uint8),
            )
        pixels = cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if image.ndim == 3 else np.ascontiguousarray(image)
        return make(
            "sensor_msgs/msg/Image",
            header=stamped,
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
        return make(
            "sensor_msgs/msg/CameraInfo",
            header=header(stamp_ns, self._frames.camera),
            height=camera.height_px,
            width=camera.width_px,
            distortion_model=camera.model,
            d=camera.distortion.copy(),
            k=K.reshape(-1).copy(),
            r=np.eye(3).reshape(-1),
            p=P.reshape(-1),
            binning_x=0,
            binning_y=0,
            roi=make(
                "sensor_msgs/msg/RegionOfInterest",
                x_offset=0,
                y_offset=0,
                height=0,
                width=0,
                do_rectify=False,
            ),
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
            twist = make(
                "geometry_msgs/msg/Twist",
                linear=vector("Vector3", velocity[3:]),
                angular=vector("Vector3", velocity[:3]),
            )
            yield (
                stamp_ns,
                make(
                    "nav_msgs/msg/Odometry",
                    header=header(stamp_ns, self._frames.odom),
                    child_frame_id=self._frames.base,
                    pose=make("geometry_msgs/msg/PoseWithCovariance", pose=pose(T_odom_base), covariance=S),
                    twist=make("geometry_msgs/msg/TwistWithCovariance", twist=twist, covariance=np.zeros(36)),
                ),
            )


def _frames(source: FrameSource, progress: FramesDone | None) -> Iterator[Frame]:
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


def _file_names(source: FrameSource) -> dict[str, str]:
    """The file of every frame by its name: the same where it can be, in a folder for each of several sequences."""
    several = len(by_sequence(source.records)) > 1
    files: dict[str, str] = {}
    for record in source.records:
        plain = record.name.rpartition(".")[0] if is_image(Path(record.name)) else record.name
        if several and not plain.startswith(f"{record.sequence}/"):
            plain = f"{record.sequence}/{plain}"
        # A name may lead to ../.., and lists of names are divided by blanks and commas.
        file = re.sub(r"[\s,]", "_", inside_name(plain))
        files[record.name] = f"{file}.png"
    if len(set(files.values())) < len(files):
        return {r.name: f"{inside_name(r.sequence)}/{r.stamp_ns}.png" for r in source.records}
    return files


def _write_notes(source: FrameSource, folder: Path) -> None:
    """What the poses are, and whether times are made up: the formats have no place for either."""
    if source.ground_truth != "none":
        (folder / "ground_truth.txt").write_text(f"{source.ground_truth}\n")
    if source.stamps == "invented":
        (folder / INVENTED_NOTE).write_text("invented\n")


def _write_trajectory(source: FrameSource, file: Path) -> None:
    items = [(record.stamp_ns, record.T_map_cam) for record in source.records if record.T_map_cam is not None]
    Trajectory.from_items(items).write_tum(file)


def _write_splits(source: FrameSource, folder: Path, names: dict[str, str]) -> None:
    for name in source.splits:
        (folder / "splits").mkdir(exist_ok=True)
        part = [record for record in source.split(name).records if record.name in names]
        (folder / "splits" / f"{name}.txt").write_text("".join(f"{names[record.name]}\n" for record in part))
