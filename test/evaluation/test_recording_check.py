"""The check of a recording finds what was broken in it, and says nothing of what is good."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable

import cv2
import numpy as np
import pytest
from small_recordings import Changed

from localizer_ros.core.camera_frames import optical_in
from localizer_ros.core.se3 import SE3
from localizer_ros.core.trajectory import Trajectory
from localizer_ros.core.types import Camera
from localizer_ros.datasets.derived import turned
from localizer_ros.datasets.simulated import SimulatedSource, WorldConfig
from localizer_ros.datasets.source import FrameRecord, FrameSource, open_source
from localizer_ros.evaluation.check_images import blur_of
from localizer_ros.evaluation.recording_check import check_lines, check_recording, recording_facts


class _Kept(Changed):
    """A recording whose frames are rendered once, for all defects."""

    def __init__(self, source: FrameSource) -> None:
        super().__init__(source)
        self._frames = {}

    def read(self, index: int):
        if index not in self._frames:
            self._frames[index] = super().read(index)
        return self._frames[index]


def _drive(**settings) -> FrameSource:
    size = {"width_px": 480, "height_px": 360, "duration_s": 24.0, "fps": 10.0}
    return _Kept(SimulatedSource(WorldConfig(**{**size, **settings})))


@pytest.fixture(scope="module")
def source() -> FrameSource:
    return _drive(drive=3)


# --- defects ---


def _replaced(source: FrameSource, **changes: Callable[[int, FrameRecord], object]) -> FrameSource:
    records = [
        dataclasses.replace(r, **{key: change(i, r) for key, change in changes.items()})
        for i, r in enumerate(source.records)
    ]
    return Changed(source, records)


def _posed(source: FrameSource, change: Callable[[SE3], SE3]) -> FrameSource:
    return _replaced(source, T_map_cam=lambda i, r: change(r.T_map_cam))


def _with_K(source: FrameSource, focal: float = 1.0, shift_px: float = 0.0) -> FrameSource:
    camera, K = source.camera, source.camera.K
    return Changed(
        source,
        camera=Camera.pinhole(
            camera.width_px,
            camera.height_px,
            focal * K[0, 0],
            focal * K[1, 1],
            K[0, 2] + shift_px,
            K[1, 2] - shift_px,
        ),
    )


class _Frozen(Changed):
    """The camera's driver hangs for half of the time."""

    def read(self, index: int):
        frame = super().read(index)
        stuck = super().read(index - index % 12) if index % 12 < 8 else frame
        return dataclasses.replace(frame, image=stuck.image)


def _dropped(source: FrameSource) -> FrameSource:
    return Changed(source, [r for i, r in enumerate(source.records) if i % 9 < 6])


def _jitter(source: FrameSource) -> FrameSource:
    rng = np.random.default_rng(0)
    late = rng.uniform(-0.35, 0.35, len(source.records))
    return _replaced(source, stamp_ns=lambda i, r: r.stamp_ns + round(late[i] * 1e8))


def _late_poses(source: FrameSource) -> FrameSource:
    path = Trajectory.from_items((r.stamp_ns, r.T_map_cam) for r in source.records)
    return _replaced(source, T_map_cam=lambda i, r: path.at(r.stamp_ns - 150_000_000))


def _noisy(source: FrameSource) -> FrameSource:
    rng = np.random.default_rng(0)
    sigma = np.array([np.radians(0.7)] * 3 + [0.05] * 3)
    return _posed(source, lambda T: T @ SE3.exp(rng.normal(size=6) * sigma))


def _still(source: FrameSource) -> FrameSource:
    return _replaced(source, T_map_cam=lambda i, r: source.records[0].T_map_cam)


_R_OPTICAL_BODY = np.array([[0.0, -1.0, 0.0], [0.0, 0.0, -1.0], [1.0, 0.0, 0.0]])
_DEFECTS: dict[str, tuple[str, Callable[[FrameSource], FrameSource]]] = {
    "blurred": ("blur", lambda s: Changed(s, image=lambda pixels: cv2.GaussianBlur(pixels, (0, 0), 3))),
    "dark": ("dark", lambda s: Changed(s, image=lambda pixels: (pixels * 0.04).astype(np.uint8))),
    "bright": (
        "bright",
        lambda s: Changed(s, image=lambda pixels: np.clip(pixels * 4.0, 0, 255).astype(np.uint8)),
    ),
    "frozen": ("frozen", _Frozen),
    "dropped frames": ("dropped", _dropped),
    "jitter of stamps": ("jitter", _jitter),
    "a clock that jumps": (
        "clock_jump",
        lambda s: _replaced(s, stamp_ns=lambda i, r: r.stamp_ns + (7_000_000_000 if i > 120 else 0)),
    ),
    "noisy poses": ("pose_noise", _noisy),
    "another unit": ("pose_scale", lambda s: _posed(s, lambda T: SE3(T.R, 1.3 * T.t))),
    "poses late": ("time_offset", _late_poses),
    "wrong focal length": ("focal_length", lambda s: _with_K(s, focal=1.15)),
    "wrong principal point": ("principal_point", lambda s: _with_K(s, shift_px=40.0)),
    "axes of a robot": ("frame_convention", lambda s: _posed(s, lambda T: SE3(T.R @ _R_OPTICAL_BODY, T.t))),
    "axes of OpenGL": (
        "frame_convention",
        lambda s: _posed(s, lambda T: SE3(T.R @ np.diag([1.0, -1.0, -1.0]), T.t)),
    ),
    "world to camera": ("inverse_poses", lambda s: _posed(s, lambda T: T.inverse())),
    "a camera that stands": ("standstill", _still),
    "poses missing": (
        "missing_poses",
        lambda s: _replaced(s, T_map_cam=lambda i, r: r.T_map_cam if i % 3 else None),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("defect", _DEFECTS)
def test_a_defect_is_found_and_named(source, defect):
    name, break_it = _DEFECTS[defect]
    found = check_recording(break_it(source))
    assert found.word != "good"
    assert name in {f.check for f in found.findings if f.severity != "note"}, found


@pytest.mark.slow
@pytest.mark.parametrize("convention", ["forward", "opengl"])
def test_another_frame_of_the_camera_is_named_with_the_option_that_mends_it(source, convention):
    R = optical_in(convention).R
    given = _posed(source, lambda T: SE3(T.R @ R.T, T.t))
    (finding,) = [f for f in check_recording(given).findings if f.check == "frame_convention"]
    assert finding.severity == "bad" and f"--camera-convention {convention}" in finding.advice
    assert check_recording(turned(given, convention)).word == "good"


@pytest.mark.slow
@pytest.mark.parametrize("place, drive", [("room", 3), ("corridor", 1), ("hall", 2)])
def test_good_drives_are_good(place, drive):
    found = check_recording(_drive(place=place, drive=drive))
    assert found.word == "good", found


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["redkitchen", "tum_fr1_rpy", "kitti_00"])
def test_real_recordings_are_good(shared_dir, folder):
    path = shared_dir / "data" / folder
    if not path.is_dir():
        pytest.skip(f"needs the shared recording {folder}")
    found = check_recording(open_source(path))
    assert found.word == "good", found
    assert found.facts["epipolar_error_px"] < 2.0


# --- what is told ---


@pytest.mark.slow
def test_facts_are_plain_and_lines_end_with_the_next_command(source):
    found = check_recording(source)
    facts = recording_facts(source)
    assert json.loads(json.dumps(facts)) == facts
    told = found.to_dict(source)
    assert json.loads(json.dumps(told)) == told
    assert check_lines(found, "drive.bag")[0] == "verdict: good"
    assert check_lines(found, "drive.bag")[-1] == "next: localizer map drive.bag --out SCENE"


@pytest.mark.slow
def test_without_poses_images_are_checked_all_the_same(source):
    found = check_recording(_replaced(source, T_map_cam=lambda i, r: None))
    assert [f.check for f in found.findings] == ["no_poses"]
    assert found.facts["frames_checked"] == 24
    assert found.facts["epipolar_error_px"] is None
    assert check_lines(found, "drive.bag")[-1].startswith("next: localizer map drive.bag")


def test_blur_does_not_depend_on_contrast():
    gray = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (240, 320)).astype(np.uint8), (0, 0), 1)
    soft = cv2.GaussianBlur(gray, (0, 0), 4)
    faint = (gray.astype(np.float32) * 0.4 + 60).astype(np.uint8)
    assert blur_of(soft) > blur_of(gray) + 0.2
    assert blur_of(faint) == pytest.approx(blur_of(gray), abs=0.03)
    # Motion blurs in one direction only.
    assert blur_of(cv2.blur(gray, (15, 1))) > blur_of(gray) + 0.2
