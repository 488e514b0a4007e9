"""The ten lines of an evaluation."""

from __future__ import annotations

from dataclasses import replace

from fake_runs import FakeLocalizer, FakeSource, exact_pose, fake_evaluation

from localizer_ros.core.config.runtime import LocalizerConfig
from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import Frame, FrameRejected, LocalizerOutput, Status
from localizer_ros.datasets.source import FrameRecord
from localizer_ros.evaluation.summary import failures, summary_lines


def test_about_ten_lines_with_the_verdict_first() -> None:
    lines = summary_lines(fake_evaluation())
    assert len([line for line in lines if not line.startswith("  ")]) == 10
    assert lines[0] == "verdict: doubtful"
    assert lines[1] == "  only 90 % of the frames have an answer"
    by_name = {line.partition(":")[0]: line.partition(": ")[2] for line in lines}
    assert by_name["run"] == "posenet on recording, split test, ground truth made up"
    assert by_name["answered"] == "18 of 20 frames; 0 wrong (over 0.5 m or 10 deg)"
    assert by_name["error"].startswith("median 0.020 m 0.00 deg")
    assert "5 cm 5 deg 90 %" in by_name["error"]
    assert by_name["raw"].startswith("18 answered, median 0.060 m")
    assert by_name["nearest mapping image"].startswith("0.300 m")
    assert by_name["trust"].endswith("confidence AUROC -")
    assert by_name["without an answer"] == "1 x dropped: the stamp repeats; 1 x LOST: no idea"


def test_unknown_figures_are_dashes_and_invented_stamps_are_named() -> None:
    records = [FrameRecord(str(i), "one", i, None) for i in range(3)]
    lines = summary_lines(fake_evaluation(FakeSource(records, ground_truth="none", stamps="invented")))
    assert lines[0] == "verdict: unknown"
    assert any(
        "ground truth none, stamps invented: figures per second mean nothing" in line for line in lines
    )
    stills = fake_evaluation(FakeSource(stamps="invented"), config=LocalizerConfig(independent=True))
    assert any("stamps invented, each frame for itself" in line for line in summary_lines(stills))
    assert any("error: median -, 90 % -" in line for line in lines)
    assert any("3 of 3 frames; - wrong" in line for line in lines)


def test_it_is_said_what_smoothing_did_where_raw_answers_are_better() -> None:
    class Hesitant(FakeLocalizer):
        """Every third answer is not published, every other one is dragged along."""

        def process(self, frame: Frame) -> LocalizerOutput:
            output = super().process(frame)
            if output.absolute is None or output.estimate is None:
                return output
            if int(frame.image[0, 0, 0]) % 3 == 0:
                return replace(output, status=Status.LOST, estimate=None, reason="not sure")
            dragged = output.absolute.T_map_cam @ SE3.exp([0, 0, 0, 0.3, 0, 0])
            return replace(output, estimate=replace(output.estimate, T_map_cam=dragged))

    (line,) = (x for x in summary_lines(fake_evaluation(localizer=Hesitant())) if "raw answers are" in x)
    assert "raw answers were withheld (" in line and "x LOST: not sure" in line
    assert line.endswith("the others were moved by 0.300 m (median)")


def test_reasons_that_differ_in_numbers_only_are_one() -> None:
    class Blind(FakeLocalizer):
        def process(self, frame: Frame) -> LocalizerOutput:
            index = int(frame.image[0, 0, 0])
            if index % 2:
                raise FrameRejected("dark", f"frame {index}: too dark by {0.1 * index:.1f}")
            return super().process(frame)

    records = [FrameRecord(str(i), "one", i, exact_pose(i)) for i in range(9)]
    found = failures(fake_evaluation(FakeSource(records), Blind()).frames)
    assert found == [("dropped: frame 1: too dark by 0.1", 4), ("LOST: no idea", 1)]
