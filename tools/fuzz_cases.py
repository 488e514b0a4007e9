"""Small recordings in every format, and what is done with one that may be damaged; see ``fuzz_readers.py``."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml

from localizer_ros.core.se3 import SE3
from localizer_ros.core.trajectory import Trajectory
from localizer_ros.core.types import Frame, SourceError
from localizer_ros.datasets.calibration import camera_to_colmap, write_camera_yaml
from localizer_ros.datasets.convert import write_bag, write_kapture, write_tum
from localizer_ros.datasets.derived import FirstFrames, SourceWithPoses
from localizer_ros.datasets.images import encode_jpeg, encode_png
from localizer_ros.datasets.simulated import SimulatedSource, WorldConfig, write_world
from localizer_ros.datasets.source import FrameSource, broken_frames, open_source

Content = dict[str, Any]

WORLD = WorldConfig(width_px=96, height_px=72, duration_s=0.7, fps=8.0, moving_objects=0, odometry_noise=0.01)
POSES, BAG, VIDEO = "poses.tum", "one.bag", "one.mp4"
FILES = {"rosbag1": BAG, "video": VIDEO}
"""Recordings that are a file."""

MOST_FRAMES = 12
"""Read of a recording: a ``world.yaml`` may ask for thousands, each of which is rendered."""


def build(name: str, folder: Path) -> None:
    """Write the recording of a reader into an empty folder."""
    source = SimulatedSource(WORLD)
    READERS[name](source, folder, [source.read(index) for index in range(len(source.records))])


def _simulated(source: SimulatedSource, folder: Path, frames: list[Frame]) -> None:
    write_world(folder, WORLD)


def _bag_of(storage: Any, compression: Any) -> Callable[[SimulatedSource, Path, list[Frame]], None]:
    def write(source: SimulatedSource, folder: Path, frames: list[Frame]) -> None:
        folder.rmdir()
        write_bag(source, folder, storage, compression)

    return write


def _ros1(source: SimulatedSource, folder: Path, frames: list[Frame]) -> None:
    from rosbags.convert.converter import convert
    from rosbags.typesys import Stores, get_typestore

    write_bag(source, folder / "two", "sqlite3", "jpeg")
    types = get_typestore(Stores.ROS1_NOETIC)
    convert([folder / "two"], folder / BAG, "rosbag1", 2, None, "none", None, types, [], [], [], [])
    shutil.rmtree(folder / "two")


def _tum(source: SimulatedSource, folder: Path, frames: list[Frame]) -> None:
    folder.rmdir()
    write_tum(source, folder)


def _trajectory(source: SimulatedSource, folder: Path, frames: list[Frame]) -> None:
    """Images without poses, and these in a file of their own."""
    _tum(source, folder, frames)
    (folder / "groundtruth.txt").rename(folder / POSES)


def _kapture(source: SimulatedSource, folder: Path, frames: list[Frame]) -> None:
    folder.rmdir()
    write_kapture(source, folder)


def _seven_scenes(source: SimulatedSource, folder: Path, frames: list[Frame]) -> None:
    for number in (1, 2):
        (folder / f"seq-{number:02d}").mkdir()
    for index, (frame, record) in enumerate(zip(frames, source.records, strict=True)):
        stem = f"seq-{1 + index // 3:02d}/frame-{index % 3:06d}"
        (folder / f"{stem}.color.png").write_bytes(encode_png(frame.image))
        np.savetxt(folder / f"{stem}.pose.txt", _true(record.T_map_cam).matrix())
    (folder / "TrainSplit.txt").write_text("sequence1\n")
    (folder / "TestSplit.txt").write_text("sequence2\n")
    write_camera_yaml(folder / "camera.yaml", source.camera)


def _cambridge(source: SimulatedSource, folder: Path, frames: list[Frame]) -> None:
    (folder / "seq1").mkdir()
    lines, focal = [], []
    for index, (frame, record) in enumerate(zip(frames, source.records, strict=True)):
        name = f"seq1/frame{index:05d}"
        (folder / f"{name}.jpg").write_bytes(encode_jpeg(frame.image))
        T = _true(record.T_map_cam)
        x, y, z, w = T.inverse().quaternion_xyzw()
        lines.append(f"{name}.jpg " + " ".join(f"{v:.9f}" for v in (*T.t, w, x, y, z)))
        focal.append(f"{name}.jpg\t1500 1 0 0 0 0 0 0 0 0")
    heading = "Visual Landmark Dataset V1\nImageFile, Camera Position [X Y Z W P Q R]\n\n"
    (folder / "dataset_train.txt").write_text(heading + "\n".join(lines[:4]) + "\n")
    (folder / "dataset_test.txt").write_text(heading + "\n".join(lines[4:]) + "\n")
    (folder / "reconstruction.nvm").write_text(f"NVM_V3\n\n{len(focal)}\n" + "\n".join(focal) + "\n")


def _kitti(source: SimulatedSource, folder: Path, frames: list[Frame]) -> None:
    images = folder / "sequences" / "00" / "image_0"
    images.mkdir(parents=True)
    (folder / "poses").mkdir()
    for index, frame in enumerate(frames):
        (images / f"{index:06d}.png").write_bytes(encode_png(frame.image))
    first = source.records[0].stamp_ns
    times = "".join(f"{1e-9 * (record.stamp_ns - first):.6e}\n" for record in source.records)
    (images.parent / "times.txt").write_text(times)
    P = " ".join(f"{v:g}" for v in np.column_stack([source.camera.K, np.zeros(3)]).reshape(-1))
    (images.parent / "calib.txt").write_text(f"P0: {P}\nP2: {P}\n")
    poses = (
        " ".join(f"{v:.9e}" for v in _true(r.T_map_cam).matrix()[:3].reshape(-1)) for r in source.records
    )
    (folder / "poses" / "00.txt").write_text("\n".join(poses) + "\n")


def _colmap_text(source: SimulatedSource, folder: Path, frames: list[Frame]) -> None:
    model = folder / "sparse" / "0"
    model.mkdir(parents=True)
    (folder / "images").mkdir()
    rows = []
    for index, (frame, record) in enumerate(zip(frames, source.records, strict=True)):
        (folder / "images" / f"{index}.png").write_bytes(encode_png(frame.image))
        T = _true(record.T_map_cam).inverse()
        x, y, z, w = T.quaternion_xyzw()
        values = " ".join(f"{v:.12g}" for v in (w, x, y, z, *T.t))
        rows.append(f"{index + 1} {values} 1 {index}.png\n10 20 1 30 40 -1\n")
    kind, params = camera_to_colmap(source.camera)
    size = f"{source.camera.width_px} {source.camera.height_px}"
    (model / "cameras.txt").write_text(f"1 {kind} {size} {' '.join(f'{v:g}' for v in params)}\n")
    (model / "images.txt").write_text("".join(rows))
    track = " ".join(f"{index + 1} 0" for index in range(len(frames)))
    (model / "points3D.txt").write_text(f"1 1 2 3 255 255 255 0.5 {track}\n")


def _colmap_binary(source: SimulatedSource, folder: Path, frames: list[Frame]) -> None:
    import pycolmap

    _colmap_text(source, folder, frames)
    model = folder / "sparse" / "0"
    reconstruction = pycolmap.Reconstruction(model)
    for file in model.iterdir():
        file.unlink()
    reconstruction.write_binary(model)


def _euroc(source: SimulatedSource, folder: Path, frames: list[Frame]) -> None:
    camera, truth = folder / "mav0" / "cam0", folder / "mav0" / "state_groundtruth_estimate0"
    (camera / "data").mkdir(parents=True)
    truth.mkdir()
    rows, poses = ["#timestamp [ns],filename"], ["#timestamp,px,py,pz,qw,qx,qy,qz"]
    for frame, record in zip(frames, source.records, strict=True):
        (camera / "data" / f"{record.stamp_ns}.png").write_bytes(encode_png(frame.image))
        rows.append(f"{record.stamp_ns},{record.stamp_ns}.png")
        T = _true(record.T_map_cam)
        x, y, z, w = T.quaternion_xyzw()
        poses.append(",".join([str(record.stamp_ns), *(f"{v:.12g}" for v in (*T.t, w, x, y, z))]))
    K = source.camera.K
    sensor = {
        "T_BS": {"rows": 4, "cols": 4, "data": np.eye(4).reshape(-1).tolist()},
        "camera_model": "pinhole",
        "resolution": [source.camera.width_px, source.camera.height_px],
        "intrinsics": [float(v) for v in (K[0, 0], K[1, 1], K[0, 2], K[1, 2])],
        "distortion_model": "radial-tangential",
        "distortion_coefficients": [0.0, 0.0, 0.0, 0.0],
    }
    (camera / "sensor.yaml").write_text(yaml.safe_dump(sensor))
    (camera / "data.csv").write_text("\n".join(rows) + "\n")
    (truth / "data.csv").write_text("\n".join(poses) + "\n")


def _transforms(source: SimulatedSource, folder: Path, frames: list[Frame]) -> None:
    K, optical = source.camera.K, np.diag([1.0, -1.0, -1.0, 1.0])
    values: dict[str, Any] = {"w": source.camera.width_px, "h": source.camera.height_px}
    values.update(fl_x=K[0, 0], fl_y=K[1, 1], cx=K[0, 2] + 0.5, cy=K[1, 2] + 0.5, frames=[])
    for index, (frame, record) in enumerate(zip(frames, source.records, strict=True)):
        (folder / f"{index}.png").write_bytes(encode_png(frame.image))
        pose = (_true(record.T_map_cam).matrix() @ optical).tolist()
        values["frames"].append({"file_path": f"{index}.png", "transform_matrix": pose})
    (folder / "transforms.json").write_text(json.dumps(values, indent=1))


def _images(source: SimulatedSource, folder: Path, frames: list[Frame]) -> None:
    for index, frame in enumerate(frames):
        (folder / f"{index}.jpg").write_bytes(encode_jpeg(frame.image))
    write_camera_yaml(folder / "camera.yaml", source.camera)


def _video(source: SimulatedSource, folder: Path, frames: list[Frame]) -> None:
    size = source.camera.width_px, source.camera.height_px
    video = cv2.VideoWriter(str(folder / VIDEO), cv2.VideoWriter.fourcc(*"mp4v"), 8.0, size)
    for frame in frames:
        video.write(cv2.cvtColor(frame.image, cv2.COLOR_RGB2BGR))
    video.release()
    write_camera_yaml(folder / "camera.yaml", source.camera)


READERS: dict[str, Callable[[SimulatedSource, Path, list[Frame]], None]] = {
    "rosbag2-mcap": _bag_of("mcap", "jpeg"),
    "rosbag2-sqlite3": _bag_of("sqlite3", "png"),
    "rosbag2-raw": _bag_of("mcap", "none"),
    "rosbag1": _ros1,
    "simulated": _simulated,
    "7scenes": _seven_scenes,
    "tum": _tum,
    "trajectory": _trajectory,
    "cambridge": _cambridge,
    "kapture": _kapture,
    "kitti": _kitti,
    "colmap-text": _colmap_text,
    "colmap-binary": _colmap_binary,
    "euroc": _euroc,
    "transforms": _transforms,
    "images": _images,
    "video": _video,
}


def read_all(name: str, folder: Path, out: Path) -> tuple[Content, list[str]]:
    """What a recording holds, and what was said to be wrong with it.

    Args:
        name: of the reader.
        folder: the recording.
        out: a new folder, to which it is converted.

    Raises:
        LocalizerError: it cannot be used, and why.
    """
    from localizer_ros.evaluation.recording_check import recording_facts

    source: FrameSource = open_source(folder / FILES[name] if name in FILES else folder)
    if name == "trajectory":
        source = SourceWithPoses(source, Trajectory.read_tum(folder / POSES), POSES)
    few = FirstFrames(source, 2 * MOST_FRAMES) if len(source.records) > 2 * MOST_FRAMES else source
    facts = recording_facts(few)
    said = [*map(str, facts["problems"]), *broken_frames(source)]
    images = {}
    for index, record in enumerate(source.records[:MOST_FRAMES]):
        try:
            images[record.name] = hashlib.sha256(source.read(index).image.tobytes()).hexdigest()
        except SourceError as error:
            said.append(str(error))
    if not broken_frames(source) and len(images) == len(source.records):
        write_kapture(source, out)
    return {
        "records": [
            (r.name, r.sequence, r.stamp_ns, _rounded(r.T_map_cam)) for r in source.records
        ],
        "camera": source.camera.to_dict(),
        "images": images,
        "splits": {split: len(source.split(split).records) for split in source.splits},
        "extrinsics": _rounded(source.T_base_cam),
        "odometry": None if source.odometry is None else len(source.odometry),
    }, said  # fmt: skip


def _true(T: SE3 | None) -> SE3:
    assert T is not None
    return T


def _rounded(T: SE3 | None) -> list[float] | None:
    return None if T is None else [round(float(v), 6) + 0.0 for v in T.matrix()[:3].reshape(-1)]
