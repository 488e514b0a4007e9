"""TUM RGB-D: ``rgb.txt`` (stamp, file), ``groundtruth.txt`` (poses of the colour camera from motion capture).

Intrinsics come from ``camera.yaml``, else from the freiburg1/2/3 (fr1/2/3) in the folder's name.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from localizer_ros.core.files import is_there
from localizer_ros.core.trajectory import Trajectory, seconds_to_ns
from localizer_ros.core.types import Camera, SourceError
from localizer_ros.datasets.folder import FolderSource, ImageFile, read_lines
from localizer_ros.datasets.source import FrameRecord

# fx, fy, cx, cy and distortion of the colour cameras, as the data set gives them.
_CAMERAS = {
    "1": ((517.3, 516.5, 318.6, 255.3), (0.2624, -0.9531, -0.0054, 0.0026, 1.1633)),
    "2": ((520.9, 521.0, 325.1, 249.7), (0.2312, -0.7849, -0.0033, -0.0001, 0.9172)),
    "3": ((535.4, 539.2, 320.1, 247.6), ()),
}
# Motion capture runs at 100 Hz; a longer gap is a lost track, not to be bridged.
_MAX_GAP_NS = 100_000_000


def open_recording(path: Path) -> FolderSource:
    """Open a TUM folder; poses are interpolated at the images' stamps.

    Raises:
        SourceError: malformed ``rgb.txt`` or ``groundtruth.txt``, or an unknown camera.
    """
    listing = path / "rgb.txt"
    truth_file = path / "groundtruth.txt"
    truth = Trajectory.read_tum(truth_file) if is_there(truth_file) else None
    camera = _known_camera(path)
    frames: list[ImageFile] = []
    for number, line in read_lines(listing):
        fields = line.split()
        try:
            stamp, name = fields
            stamp_ns = seconds_to_ns(stamp)
        except ValueError as error:
            raise SourceError(f"{listing}:{number}: expected 'stamp file', got {line!r}") from error
        T_map_cam = truth.at(stamp_ns, _MAX_GAP_NS) if truth is not None else None
        record = FrameRecord(name, path.resolve().name, stamp_ns, T_map_cam)
        frames.append(ImageFile(record, path / name, camera))
    return FolderSource(path, "tum", frames, "motion capture")


def _known_camera(path: Path) -> Camera | None:
    match = re.search(r"(?:freiburg|fr)([123])(?![0-9])", path.resolve().name)
    if match is None:
        return None
    (fx, fy, cx, cy), distortion = _CAMERAS[match[1]]
    K = np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]])
    return Camera(640, 480, K, np.array(distortion))
