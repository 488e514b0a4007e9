"""The evaluation run: what it counts, and the JSON object of the contract."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from fake_runs import PERIOD_NS, SCENE, FakeBaseline, FakeLocalizer, FakeSource, exact_pose, fake_evaluation

from localizer_ros.core.config.runtime import LocalizerConfig
from localizer_ros.core.se3 import SE3
from localizer_ros.core.trajectory import Trajectory
from localizer_ros.core.types import Frame, LocalizerOutput, RelativePose, SourceError
from localizer_ros.datasets.source import FrameRecord
from localizer_ros.evaluation.evaluate import OpenScene, evaluate
from localizer_ros.evaluation.geometric_vo import GeometricMotion, GeometricVo

FIGURES = {
    *(
        "frames",
        "answered",
        "wrong",
        "median_t_m",
        "median_r_deg",
        "mean_t_m",
        "p90_t_m",
        "p90_r_deg",
        "recall",
    ),
    *("ate_rmse_m", "rpe_t_m", "rpe_r_deg", "nees_median", "nees_p90", "confidence_auroc", "risk_coverage"),
    "jumps_per_min",
}


def test_json_object_has_all_fields_of_the_contract() -> None:
    values = json.loads(fake_evaluation().to_json())
    contract = {
        *("scene", "source", "method", "split", "ground_truth", "verdict", "stamps", "raw"),
        *("nearest_neighbour", "latency_ms", "peak_rss_mb", "config", "versions"),
    }
    assert contract | FIGURES <= set(values)
    assert set(values["raw"]) >= FIGURES
    assert set(values["recall"]) == {"5cm_5deg", "10cm_5deg", "25cm_2deg", "50cm_5deg"}
    assert {"median_t_m", "median_r_deg"} <= set(values["nearest_neighbour"])
    assert set(values["latency_ms"]) == {"p50", "p90", "p99", "stages"}
    assert set(values["latency_ms"]["stages"]["network"]) == {"p50", "p99"}
    assert values["config"]["smoother"]["lag_s"] == 3.0
    assert "localizer_ros" in values["versions"] and "python" in values["versions"]
    assert (values["method"], values["split"], values["ground_truth"]) == ("posenet", "test", "made up")
    assert (values["verdict"], values["stamps"]) == ("doubtful", "recorded")
    assert values["verdict_reasons"] == ["only 90 % of the frames have an answer"]
    assert json.loads(fake_evaluation(FakeSource(stamps="invented")).to_json())["stamps"] == "invented"


def test_stills_have_no_motion() -> None:
    alone = fake_evaluation(config=LocalizerConfig(independent=True)).to_dict()
    together = fake_evaluation().to_dict()
    assert alone["jumps_per_min"] is None and alone["raw"]["jumps_per_min"] is None
    assert together["jumps_per_min"] is not None
    assert alone["recall"] == together["recall"] and alone["median_t_m"] == together["median_t_m"]
    assert alone["config"]["independent"] is True


def test_one_pass_measures_smoothed_raw_and_baseline() -> None:
    localizer = FakeLocalizer()
    values = fake_evaluation(localizer=localizer).to_dict()
    assert [name for name, _ in localizer.calls].count("process") == 20
    assert (values["frames"], values["answered"]) == (20, 18)
    assert values["median_t_m"] == pytest.approx(0.02)
    assert values["raw"]["median_t_m"] == pytest.approx(0.06)
    assert values["nearest_neighbour"]["median_t_m"] == pytest.approx(0.3)
    assert values["recall"]["5cm_5deg"] == pytest.approx(18 / 20)
    assert values["dropped"] == {"stamp_repeats": 1}
    assert values["status"] == {"TRACKING": 18, "LOST": 1}
    assert values["peak_rss_mb"] > 10.0


def test_a_smoothed_answer_has_the_confidence_of_its_frames_raw_one() -> None:
    result = fake_evaluation()
    smoothed, raw = ([a.confidence for a in result.answers(kind)] for kind in ("smoothed", "raw"))
    assert smoothed == raw
    assert smoothed[:5] == [0.5, 0.51, 0.52, None, None]
    # All are right: nothing is known of what confidence is worth, but all of the curve.
    assert (result.metrics.confidence_auroc, result.raw.confidence_auroc) == (None, None)
    assert result.metrics.risk_coverage is not None
    assert result.metrics.risk_coverage[-1] == [18 / 20, 0.0]


def test_limit_and_progress() -> None:
    told: list[tuple[str, int, int]] = []
    result = fake_evaluation(limit=7, progress=lambda *values: told.append(values))
    assert len(result.frames) == 7
    assert told[-1] == ("eval", 7, 7)


def test_frames_that_cannot_be_read_are_counted() -> None:
    result = fake_evaluation(FakeSource(broken=frozenset({0, 12})))
    values = result.to_dict()
    assert values["dropped"] == {"unreadable": 2, "stamp_repeats": 1}
    assert (values["frames"], values["answered"]) == (20, 16)
    with pytest.raises(SourceError, match="truncated"):
        fake_evaluation(FakeSource(broken=frozenset(range(20))))


def test_no_ground_truth_gives_no_accuracy_and_still_a_result() -> None:
    records = [FrameRecord(r.name, r.sequence, r.stamp_ns, None) for r in FakeSource().records]
    values = json.loads(fake_evaluation(FakeSource(records, ground_truth="none")).to_json())
    assert (values["frames"], values["frames_with_truth"], values["answered"]) == (20, 0, 18)
    assert values["median_t_m"] is None and values["recall"]["50cm_5deg"] is None
    assert values["latency_ms"]["p50"] is not None


def test_without_a_baseline() -> None:
    opened = OpenScene(SCENE, FakeLocalizer(), LocalizerConfig())
    values = evaluate(opened, FakeSource(), "all").to_dict()
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
        T_prev_cur = exact_pose(before % 10).inverse() @ exact_pose(index % 10)
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
        T = exact_pose(self.key[1] % 10).inverse() @ exact_pose(index % 10)
        return GeometricMotion(self.key[0], frame.stamp_ns, T.R, T.t / np.linalg.norm(T.t), 50, 3.0)


def test_odometry_by_itself_for_each_source() -> None:
    odometry = json.loads(fake_evaluation(localizer=MovingLocalizer()).to_json())["odometry"]
    assert list(odometry) == ["odom", "vo"]
    odom, vo = odometry["odom"], odometry["vo"]
    # One of 20 frames is rejected, two begin a sequence.
    assert (odom["frames"], odom["motions"], odom["lengths"]) == (17, 17, "own")
    assert odom["drift_percent"] == pytest.approx(0.0, abs=1e-9)
    assert (vo["frames"], vo["motions"]) == (17, 16)
    assert vo["drift_percent"] == pytest.approx(10.0, rel=0.05)
    assert json.loads(fake_evaluation().to_json())["odometry"] == {}


def test_geometric_odometry_takes_its_lengths_from_odometry_else_from_ground_truth() -> None:
    def geometric(source: FakeSource) -> dict[str, Any]:
        result = fake_evaluation(source, geometric=FakeGeometricVo())
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


def test_unknown_split_is_the_sources_error() -> None:
    opened = OpenScene(SCENE, FakeLocalizer(), LocalizerConfig(), FakeBaseline())
    with pytest.raises(SourceError, match="no split"):
        evaluate(opened, FakeSource(), "validation")
