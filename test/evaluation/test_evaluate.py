"""The evaluation run: what it feeds the localizer, what it counts, and the JSON object of the contract."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from localizer_ros.core.config.runtime import LocalizerConfig
from localizer_ros.core.se3 import SE3
from localizer_ros.core.trajectory import Trajectory
from localizer_ros.core.types import (
    Camera,
    ConfigError,
    Frame,
    FrameRejected,
    LocalizerOutput,
    PoseEstimate,
    RelativePose,
    SourceError,
    Status,
)
from localizer_ros.datasets.source import FrameRecord, Stamps
from localizer_ros.evaluation.evaluate import FRAME_COLUMNS, Evaluation, evaluate
from localizer_ros.evaluation.geometric_vo import GeometricMotion, GeometricVo
from localizer_ros.scene.bundle import Scene

CAMERA = Camera.pinhole(32, 24, 30.0, 30.0, 15.5, 11.5)
PERIOD_NS = 100_000_000


def truth(i: int) -> SE3:
    return SE3.exp([0.0, 0.02 * i, 0.0, 0.05 * i, 0.0, 0.01 * i])


@dataclass
class FakeSource:
    """Two sequences of ten frames; the first pixel of an image is the number of the frame."""

    records: Sequence[FrameRecord] = field(
        default_factory=lambda: [
            FrameRecord(f"{name}/{i}.png", name, (offset + i) * PERIOD_NS, truth(i))
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

    def split(self, name: str) -> "FakeSource":
        if name not in ("test", "all"):
            raise SourceError(f"no split {name}")
        return self


class FakeLocalizer:
    """Answers with the truth, raw with an offset; frame 3 is rejected, frame 4 has no answer."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int]] = []

    def process(self, frame: Frame) -> LocalizerOutput:
        index = int(frame.image[0, 0, 0])
        self.calls.append(("process", frame.stamp_ns))
        if index == 3:
            raise FrameRejected("stamp_repeats", "the stamp repeats")
        T = truth(index % 10)
        S = np.diag(np.repeat([1e-4, 1e-2], 3))
        estimate = PoseEstimate(frame.stamp_ns, T @ SE3.exp([0, 0, 0, 0.02, 0, 0]), S, "smoother")
        absolute = PoseEstimate(frame.stamp_ns, T @ SE3.exp([0, 0, 0, 0.06, 0, 0]), S, "posenet")
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

    def add_odometry(self, stamp_ns: int, T_odom_base: SE3) -> None:
        self.calls.append(("odometry", stamp_ns))

    def reset(self) -> None:
        self.calls.append(("reset", 0))


class FakeBaseline:
    poses = tuple(truth(i) @ SE3.exp([0, 0, 0, 0, 0.3, 0]) for i in range(10))
    names = tuple(f"mapping/{i}.png" for i in range(10))

    def nearest(self, frame: Frame) -> int:
        return int(frame.image[0, 0, 0]) % 10


SCENE = Scene(Path("kitchen"), {"method": "posenet", "map_frame": "map", "training": {}})


def run(source: FakeSource | None = None, **options: Any) -> tuple[Evaluation, FakeLocalizer]:
    localizer = FakeLocalizer()
    result = evaluate(localizer, SCENE, source or FakeSource(), "test", baseline=FakeBaseline(), **options)
    return result, localizer


def test_json_object_is_the_contracts() -> None:
    values = json.loads(run()[0].to_json())
    contract = {
        *("scene", "source", "method", "split", "ground_truth", "frames", "answered", "median_t_m"),
        *("median_r_deg", "mean_t_m", "p90_t_m", "p90_r_deg", "recall", "ate_rmse_m", "rpe_t_m", "rpe_r_deg"),
        *(
            "nees_median",
            "jumps_per_min",
            "nearest_neighbour",
            "latency_ms",
            "peak_rss_mb",
            "config",
            "versions",
        ),
    }
    assert contract <= set(values)
    assert set(values["recall"]) == {"5cm_5deg", "10cm_5deg", "25cm_2deg", "50cm_5deg"}
    assert {"median_t_m", "median_r_deg"} <= set(values["nearest_neighbour"])
    assert set(values["latency_ms"]) == {"p50", "p90", "p99", "stages"}
    assert set(values["latency_ms"]["stages"]["network"]) == {"p50", "p99"}
    assert values["config"]["smoother"]["lag_s"] == 3.0
    assert "localizer_ros" in values["versions"] and "python" in values["versions"]
    assert (values["method"], values["split"], values["ground_truth"]) == ("posenet", "test", "made up")


def test_one_pass_measures_smoothed_raw_and_baseline() -> None:
    result, localizer = run()
    assert [name for name, _ in localizer.calls].count("process") == 20
    values = result.to_dict()
    assert (values["frames"], values["answered"]) == (20, 18)
    assert values["median_t_m"] == pytest.approx(0.02)
    assert values["raw"]["median_t_m"] == pytest.approx(0.06)
    assert values["nearest_neighbour"]["median_t_m"] == pytest.approx(0.3)
    assert values["recall"]["5cm_5deg"] == pytest.approx(18 / 20)
    assert values["dropped"] == {"stamp_repeats": 1}
    assert values["status"] == {"TRACKING": 18, "LOST": 1}
    assert values["peak_rss_mb"] > 10.0


def test_sequences_are_not_bridged_and_the_first_is_not_reset() -> None:
    _, localizer = run()
    names = [name for name, _ in localizer.calls]
    assert names.count("reset") == 1
    assert names.index("reset") == 10


def test_odometry_is_fed_in_time_once_and_never_from_the_future() -> None:
    stamps = [int((10 + 0.5 * i) * PERIOD_NS) for i in range(-60, 60)]
    odometry = Trajectory.from_items((s, SE3.identity()) for s in stamps)
    _, localizer = run(FakeSource(odometry=odometry), limit=10)
    newest_frame = -1
    fed = []
    for name, stamp in localizer.calls:
        if name == "process":
            assert fed[-1] <= stamp and fed[-1] + PERIOD_NS > stamp
            newest_frame = stamp
        elif name == "odometry":
            assert stamp > newest_frame
            fed.append(stamp)
    assert fed == sorted(set(fed))
    # What lies more than a second before the first frame is of no use.
    assert fed[0] >= 10 * PERIOD_NS - 1_000_000_000


def test_limit_and_progress() -> None:
    told: list[tuple[str, int, int]] = []
    result, _ = run(limit=7, progress=lambda *values: told.append(values))
    assert len(result.frames) == 7
    assert told[-1] == ("eval", 7, 7)
    with pytest.raises(ConfigError, match="limit"):
        run(limit=0)
    assert len(run(limit=10_000)[0].frames) == 20


def test_frames_that_cannot_be_read_are_counted() -> None:
    result, _ = run(FakeSource(broken=frozenset({0, 12})))
    values = result.to_dict()
    assert values["dropped"] == {"unreadable": 2, "stamp_repeats": 1}
    assert (values["frames"], values["answered"]) == (20, 16)
    with pytest.raises(SourceError, match="truncated"):
        run(FakeSource(broken=frozenset(range(20))))


def test_no_ground_truth_gives_no_accuracy_and_still_a_result() -> None:
    records = [FrameRecord(r.name, r.sequence, r.stamp_ns, None) for r in FakeSource().records]
    values = json.loads(run(FakeSource(records, ground_truth="none"))[0].to_json())
    assert (values["frames"], values["frames_with_truth"], values["answered"]) == (20, 0, 18)
    assert values["median_t_m"] is None and values["recall"]["50cm_5deg"] is None
    assert values["latency_ms"]["p50"] is not None


def test_without_a_baseline() -> None:
    result = evaluate(FakeLocalizer(), SCENE, FakeSource(), "all", config=LocalizerConfig())
    values = result.to_dict()
    assert values["nearest_neighbour"]["median_t_m"] is None
    assert values["off_path"] == []


class MovingLocalizer(FakeLocalizer):
    """Measures motions twice: by vision, a tenth too long and unknown at frame 5, and by wheels, without an error."""

    def process(self, frame: Frame) -> LocalizerOutput:
        output = super().process(frame)
        index = int(frame.image[0, 0, 0])
        # Frame 3 is rejected: the motion into frame 4 bridges it. The second sequence is frames 10 to 19.
        before = index - 2 if index == 4 else index - 1
        if index % 10 == 0:
            return output
        T_prev_cur = truth(before % 10).inverse() @ truth(index % 10)
        stamps = frame.stamp_ns - (index - before) * PERIOD_NS, frame.stamp_ns
        motions = [RelativePose(*stamps, T_prev_cur, np.eye(6) * 1e-4, "odom")]
        if index != 5:
            longer = SE3(T_prev_cur.R, 1.1 * T_prev_cur.t)
            motions.append(RelativePose(*stamps, longer, np.eye(6) * 1e-4, "vo"))
        return replace(output, motions=tuple(motions))


class FakeGeometricVo(GeometricVo):
    """The true rotation and direction since the first frame of a sequence."""

    def __init__(self) -> None:
        self.key: tuple[int, int] | None = None

    def reset(self) -> None:
        self.key = None

    def observe(self, frame: Frame) -> GeometricMotion | None:
        index = int(frame.image[0, 0, 0])
        if self.key is None:
            self.key = (frame.stamp_ns, index)
            return None
        T = truth(self.key[1] % 10).inverse() @ truth(index % 10)
        return GeometricMotion(self.key[0], frame.stamp_ns, T.R, T.t / np.linalg.norm(T.t), 50, 3.0)


def test_odometry_by_itself_for_each_source() -> None:
    odometry = json.loads(evaluate(MovingLocalizer(), SCENE, FakeSource()).to_json())["odometry"]
    assert list(odometry) == ["odom", "vo"]
    odom, vo = odometry["odom"], odometry["vo"]
    # One of 20 frames is rejected, two begin a sequence.
    assert (odom["frames"], odom["motions"], odom["lengths"]) == (17, 17, "own")
    assert odom["drift_percent"] == pytest.approx(0.0, abs=1e-9)
    assert (vo["frames"], vo["motions"]) == (17, 16)
    assert vo["drift_percent"] == pytest.approx(10.0, rel=0.05)
    assert json.loads(run()[0].to_json())["odometry"] == {}


def test_geometric_odometry_takes_its_lengths_from_the_best_there_is() -> None:
    def geometric(source: FakeSource) -> dict[str, Any]:
        result = evaluate(FakeLocalizer(), SCENE, source, geometric=FakeGeometricVo())
        values: dict[str, Any] = result.to_dict()["odometry"]["geometric"]
        return values

    by_truth = geometric(FakeSource())
    assert (by_truth["lengths"], by_truth["motions"]) == ("ground truth", 17)
    assert by_truth["drift_percent"] == pytest.approx(0.0, abs=1e-9)
    # Wheels that measure a tenth too much.
    poses = {r.stamp_ns: SE3(r.T_map_cam.R, 1.1 * r.T_map_cam.t) for r in FakeSource().records if r.T_map_cam}
    source = FakeSource(odometry=Trajectory.from_items(poses.items()), T_base_cam=SE3.identity())
    by_wheels = geometric(source)
    assert by_wheels["lengths"] == "odometry"
    assert by_wheels["drift_percent"] == pytest.approx(10.0, rel=0.05)


def test_frames_csv_has_a_line_a_frame() -> None:
    result, _ = run()
    rows = list(csv.DictReader(io.StringIO(result.frames_csv())))
    assert len(rows) == 20 and set(rows[0]) == set(FRAME_COLUMNS)
    assert float(rows[0]["error_m"]) == pytest.approx(0.02)
    assert rows[3]["dropped"] == "stamp_repeats" and rows[3]["estimate_x"] == "" and rows[3]["true_x"] != ""
    assert rows[4]["status"] == "LOST" and rows[4]["reason"] == "no idea"
    assert rows[7]["nearest_mapping_image"] == "mapping/7.png"
    assert float(rows[0]["sigma_m"]) == pytest.approx(0.1)


def test_unknown_split_is_the_sources_error() -> None:
    with pytest.raises(SourceError, match="no split"):
        evaluate(FakeLocalizer(), SCENE, FakeSource(), "validation")
