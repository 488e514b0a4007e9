"""A recording in the forms that people hold in their hands, for the how-to that begins with them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import yaml
from rosbags.highlevel import AnyReader

from localizer_ros.core.camera_frames import optical_in
from localizer_ros.core.types import Frame
from localizer_ros.datasets.bag_writer import TF_STATIC_TOPIC, TF_TOPIC, BagWriter, transform_stamped
from localizer_ros.datasets.calibration import write_camera_yaml
from localizer_ros.datasets.convert import write_bag
from localizer_ros.datasets.derived import PosedSource, SomeFrames
from localizer_ros.datasets.images import encode_jpeg, encode_png
from localizer_ros.datasets.source import FrameRecord, FrameSource


class Without(SomeFrames):
    """Every ``step``-th frame of a recording from the ``first``, without poses where those are not wanted."""

    def __init__(self, source: FrameSource, first: int, step: int, poses: bool = True) -> None:
        indices = range(first, len(source.records), step)
        records = [source.records[i] for i in indices]
        if not poses:
            records = [FrameRecord(r.name, r.sequence, r.stamp_ns, None) for r in records]
        super().__init__(source, indices, records)
        self.odometry = None
        self.ground_truth = source.ground_truth if poses else "none"


def write_all(source: FrameSource, folder: Path) -> None:
    """Every form of a recording of a robot that knows where its camera is: every other frame to map, a few to ask."""
    mapped, asked = Without(source, 0, 2), Without(source, 5, 10)
    write_tf_bag(mapped, folder / "tour")
    write_tf_bag(asked, folder / "again")
    write_bag(Without(source, 0, 2, poses=False), folder / "images")
    write_bag(PosedSource(source, [None] * len(source.records), "none"), folder / "wheels")
    write_orbslam(mapped, folder / "orbslam3.txt")
    write_euroc(mapped, folder / "MH_01")
    write_euroc(asked, folder / "MH_02")
    write_transforms(mapped, folder / "capture")
    write_photos(asked, folder / "photos")
    write_video(mapped, folder / "tour.mp4")
    write_video(asked, folder / "again.mp4")
    write_camera_yaml(folder / "camera.yaml", source.camera)


def write_tf_bag(source: FrameSource, out: Path) -> None:
    """A bag whose only poses are the transforms ``map -> base_link -> camera``."""
    plain = out.with_name(f"{out.name}-plain")
    write_bag(Without(source, 0, 1, poses=False), plain)
    out.mkdir()
    with AnyReader([plain]) as reader, BagWriter(out) as bag:
        for record in source.records:
            assert record.T_map_cam is not None and source.T_base_cam is not None
            T_map_base = record.T_map_cam @ source.T_base_cam.inverse()
            bag.write_transform(
                TF_TOPIC, record.stamp_ns, transform_stamped(record.stamp_ns, "map", "base_link", T_map_base)
            )
        for connection, stamp_ns, data in reader.messages():
            message = reader.deserialize(data, connection.msgtype)
            if connection.topic == TF_STATIC_TOPIC:
                bag.write(TF_STATIC_TOPIC, stamp_ns, message)
            else:
                bag.write(connection.topic, stamp_ns, message)


def write_orbslam(source: FrameSource, out: Path) -> None:
    """The trajectory of the camera as ORB-SLAM3 saves it: TUM's columns, stamps in nanoseconds."""
    lines = []
    for record in source.records:
        assert record.T_map_cam is not None
        values = (*record.T_map_cam.t, *record.T_map_cam.quaternion_xyzw())
        lines.append(f"{record.stamp_ns}.000000 " + " ".join(f"{v:.7f}" for v in values) + "\n")
    out.write_text("".join(lines))


def write_euroc(source: FrameSource, out: Path) -> None:
    """An ASL folder: grey images, poses of the body, the camera on it."""
    camera, body = source.camera, out / "mav0" / "state_groundtruth_estimate0"
    (out / "mav0" / "cam0" / "data").mkdir(parents=True)
    body.mkdir()
    assert source.T_base_cam is not None
    sensor = {
        "sensor_type": "camera",
        "T_BS": {"cols": 4, "rows": 4, "data": source.T_base_cam.matrix().reshape(-1).tolist()},
        "resolution": [camera.width_px, camera.height_px],
        "camera_model": "pinhole",
        "intrinsics": [float(camera.K[i, j]) for i, j in ((0, 0), (1, 1), (0, 2), (1, 2))],
        "distortion_model": "radial-tangential",
        "distortion_coefficients": [0.0, 0.0, 0.0, 0.0],
    }
    (out / "mav0" / "cam0" / "sensor.yaml").write_text(yaml.safe_dump(sensor))
    images, poses = ["#timestamp [ns],filename"], ["#timestamp,p_x,p_y,p_z,q_w,q_x,q_y,q_z"]
    for record, frame in zip(source.records, _frames(source), strict=True):
        file = f"{record.stamp_ns}.png"
        grey = np.asarray(cv2.cvtColor(frame.image, cv2.COLOR_RGB2GRAY), np.uint8)
        (out / "mav0" / "cam0" / "data" / file).write_bytes(encode_png(grey))
        images.append(f"{record.stamp_ns},{file}")
        assert record.T_map_cam is not None
        T = record.T_map_cam @ source.T_base_cam.inverse()
        x, y, z, w = T.quaternion_xyzw()
        poses.append(f"{record.stamp_ns}," + ",".join(f"{v:.9f}" for v in (*T.t, w, x, y, z)))
    (out / "mav0" / "cam0" / "data.csv").write_text("\n".join(images) + "\n")
    (body / "data.csv").write_text("\n".join(poses) + "\n")


def write_transforms(source: FrameSource, out: Path) -> None:
    """Images and ``transforms.json`` as nerfstudio has them."""
    K, rows = source.camera.K, []
    for number, name in enumerate(write_photos(source, out / "images")):
        T_map_cam = source.records[number].T_map_cam
        assert T_map_cam is not None
        matrix = (T_map_cam @ optical_in("opengl").inverse()).matrix().tolist()
        rows.append({"file_path": f"images/{name}", "transform_matrix": matrix})
    lens = {"fl_x": K[0, 0], "fl_y": K[1, 1], "cx": K[0, 2] + 0.5, "cy": K[1, 2] + 0.5}
    size = {"w": source.camera.width_px, "h": source.camera.height_px, "camera_model": "OPENCV"}
    (out / "transforms.json").write_text(json.dumps({**lens, **size, "frames": rows}))


def write_photos(source: FrameSource, out: Path) -> list[str]:
    """Names of the images that were written into a folder, and nothing else."""
    out.mkdir(parents=True)
    names = [f"frame_{number:05d}.jpg" for number in range(len(source.records))]
    for name, frame in zip(names, _frames(source), strict=True):
        (out / name).write_bytes(encode_jpeg(frame.image))
    return names


def write_video(source: FrameSource, out: Path, fps: float = 3.0) -> None:
    """A video."""
    size = source.camera.width_px, source.camera.height_px
    writer = cv2.VideoWriter(str(out), cv2.VideoWriter_fourcc(*"mp4v"), fps, size)
    for frame in _frames(source):
        writer.write(cv2.cvtColor(frame.image, cv2.COLOR_RGB2BGR))
    writer.release()


def _frames(source: FrameSource) -> Sequence[Frame]:
    return [source.read(i) for i in range(len(source.records))]
