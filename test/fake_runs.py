"""Recordings, localizers and baselines in memory, for the tests of everything that runs a recording."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from localizer_ros.core.config.runtime import LocalizerConfig
from localizer_ros.core.se3 import SE3
from localizer_ros.core.trajectory import Trajectory
from localizer_ros.core.types import (
    Array,
    Camera,
    Frame,
    FrameRejected,
    LocalizerOutput,
    PoseEstimate,
    RelativePose,
    SourceError,
    Status,
)
from localizer_ros.datasets.source import FrameRecord, Stamps
from localizer_ros.evaluation.evaluate import Evaluation, OpenScene, evaluate
from localizer_ros.scene.bundle import Scene

PERIOD_NS = 100_000_000

# --- exact answers with few known errors ---

CAMERA = Camera.pinhole(32, 24, 30.0, 30.0, 15.5, 11.5)
SCENE = Scene(Path("kitchen"), {"method": "posenet", "map_frame": "map", "training": {}})


def exact_pose(i: int) -> SE3:
    """Where the camera is in frame ``i`` of a sequence."""
    return SE3.exp([0.0, 0.02 * i, 0.0, 0.05 * i, 0.0, 0.01 * i])


@dataclass
class FakeSource:
    """Two sequences of ten frames; the first pixel of an image is the number of the frame."""

    records: Sequence[FrameRecord] = field(
        default_factory=lambda: [
            FrameRecord(f"{name}/{i}.png", name, (offset + i) * PERIOD_NS, exact_pose(i))
            for name, offset in (("one", 10), ("two", 100))
            for i in range(10)
        ]
    )
    path: Path = Path("recording")
    format: str = "fake"
    ground_truth: str = "made up"
    stamps: Stamps = "recorded"
    camera: Camera = CAMERA
    odometry: Trajectory | None = None
    T_base_cam: SE3 | None = None
    splits: Sequence[str] = ("test",)
    broken: frozenset[int] = frozenset()

    def read(self, index: int) -> Frame:
        if index in self.broken:
            raise SourceError(f"{self.records[index].name}: truncated")
        image = np.full((24, 32, 3), index, np.uint8)
        return Frame(self.records[index].stamp_ns, image, CAMERA, self.records[index].name)

    def split(self, name: str) -> FakeSource:
        if name not in ("test", "all"):
            raise SourceError(f"no split {name}")
        return self


class FakeLocalizer:
    """Answers 2 cm off, raw 6 cm off; frame 3 is rejected, frame 4 has no answer. Keeps the calls it gets."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int]] = []

    def process(self, frame: Frame) -> LocalizerOutput:
        index = int(frame.image[0, 0, 0])
        self.calls.append(("process", frame.stamp_ns))
        if index == 3:
            raise FrameRejected("stamp_repeats", "the stamp repeats")
        T = exact_pose(index % 10)
        S = np.diag(np.repeat([1e-4, 1e-2], 3))
        estimate = PoseEstimate(frame.stamp_ns, T @ SE3.exp([0, 0, 0, 0.02, 0, 0]), S, "smoother")
        absolute = PoseEstimate(
            frame.stamp_ns, T @ SE3.exp([0, 0, 0, 0.06, 0, 0]), S, "posenet", confidence=0.5 + 0.01 * index
        )
        lost = index == 4
        return LocalizerOutput(
            frame.stamp_ns,
            Status.LOST if lost else Status.TRACKING,
            None if lost else estimate,
            None if lost else absolute,
            None,
            "no idea" if lost else "",
            {"network": 5.0 + index, "total": 6.0 + index},
        )

    def add_odometry(self, stamp_ns: int, T_odom_base: SE3, covariance: Array | None = None) -> None:
        self.calls.append(("odometry", stamp_ns))

    def reset(self) -> None:
        self.calls.append(("reset", 0))


class FakeBaseline:
    """Ten mapping images, each 30 cm beside a frame."""

    poses = tuple(exact_pose(i) @ SE3.exp([0, 0, 0, 0, 0.3, 0]) for i in range(10))
    names = tuple(f"mapping/{i}.png" for i in range(10))

    def nearest(self, frame: Frame) -> int:
        return int(frame.image[0, 0, 0]) % 10


def fake_evaluation(
    source: FakeSource | None = None,
    localizer: FakeLocalizer | None = None,
    config: LocalizerConfig | None = None,
    **options: Any,
) -> Evaluation:
    """An evaluation of the fakes; ``options`` are those of ``evaluate``."""
    opened = OpenScene(SCENE, localizer or FakeLocalizer(), config or LocalizerConfig(), FakeBaseline())
    return evaluate(opened, source or FakeSource(), "test", **options)


# --- noisy answers of an upright camera, for whatever is drawn ---

NOISY_CAMERA = Camera.pinhole(64, 48, 60.0, 60.0, 31.5, 23.5)
# Optical frame of a camera that looks along +x of a map whose z is up.
R_MAP_CAM = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
NOISY_COUNT = 40


def upright_pose(i: int) -> SE3:
    """Where the camera is in frame ``i``."""
    return SE3(
        SE3.exp([0.0, 0.0, 0.02 * i, 0.0, 0.0, 0.0]).R @ R_MAP_CAM, np.array([0.1 * i, np.sin(i / 8), 1.5])
    )


class NoisySource:
    """Two sequences in memory; the first pixel is the number of the frame."""

    path, format, camera, splits = Path("<drive>"), "fake", NOISY_CAMERA, ("test",)
    stamps: Stamps = "recorded"
    odometry: Trajectory | None = None
    T_base_cam: SE3 | None = None

    def __init__(self, ground_truth: str = "made <b>up</b>", broken: int | None = None) -> None:
        self.ground_truth, self._broken = ground_truth, broken
        self.records = [
            FrameRecord(
                f"{i}.png",
                "a" if i < 25 else "b",
                i * PERIOD_NS + (0 if i < 25 else 10_000_000_000),
                None if ground_truth == "none" else upright_pose(i),
            )
            for i in range(NOISY_COUNT)
        ]

    def read(self, index: int) -> Frame:
        if index == self._broken:
            raise SourceError("truncated")
        image: NDArray[np.uint8] = np.full((48, 64, 3), index, np.uint8)
        return Frame(self.records[index].stamp_ns, image, NOISY_CAMERA, self.records[index].name)

    def split(self, name: str) -> NoisySource:
        return self


class NoisyLocalizer:
    """Answers with noise, or never; frame 7 is rejected, frame 9 has no covariance, frame 30 is far off and unsure."""

    def __init__(self, answers: bool = True) -> None:
        self._rng = np.random.default_rng(1)
        self._answers = answers

    def process(self, frame: Frame) -> LocalizerOutput:
        i = int(frame.image[0, 0, 0])
        if i == 7:
            raise FrameRejected("image_type", "frame <7>: expected an image")
        S = np.diag(np.repeat([0.02**2, 0.1**2], 3))
        error = self._rng.normal(size=6) * np.repeat([0.02, 0.1], 3)
        if i == 30:
            error[3] += 1.0
        T, confidence = upright_pose(i) @ SE3.exp(error), 0.1 if i == 30 else 0.9
        pose: PoseEstimate | None = None
        if self._answers:
            covariance = S if i != 9 else None
            pose = PoseEstimate(frame.stamp_ns, T, covariance, "posenet", confidence=confidence)
        timings = {"network": 5.0, "smoother": 0.3, "total": 5.4}
        status = Status.TRACKING if self._answers else Status.LOST
        motions: tuple[RelativePose, ...] = ()
        if self._answers and 0 < i < 7:
            T_prev_cur = upright_pose(i - 1).inverse() @ upright_pose(i)
            motions = (RelativePose(frame.stamp_ns - PERIOD_NS, frame.stamp_ns, T_prev_cur, S, "vo"),)
        return LocalizerOutput(frame.stamp_ns, status, pose, pose, None, "", timings, motions=motions)

    def add_odometry(self, stamp_ns: int, T_odom_base: SE3, covariance: Array | None = None) -> None:
        pass

    def reset(self) -> None:
        pass


class NoisyBaseline:
    """Every third frame was mapped."""

    poses = tuple(upright_pose(i) @ SE3.exp([0, 0, 0, 0.1, 0, 0]) for i in range(0, NOISY_COUNT, 3))
    names = tuple(f"map/{i}.png" for i in range(0, NOISY_COUNT, 3))

    def nearest(self, frame: Frame) -> int:
        return int(frame.image[0, 0, 0]) // 3


def noisy_evaluation(
    folder: Path, source: NoisySource | None = None, answers: bool = True, baseline: bool = True
) -> Evaluation:
    """An evaluation of the noisy fakes, in a scene at ``folder``."""
    folder.mkdir(exist_ok=True)
    scene = Scene(folder, {"method": "posenet", "map_frame": "map", "training": {}})
    chosen = NoisyBaseline() if baseline else None
    return evaluate(
        OpenScene(scene, NoisyLocalizer(answers), LocalizerConfig(), chosen), source or NoisySource(), "test"
    )
