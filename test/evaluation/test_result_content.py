"""What results have to show: reports, replayed bags, trajectories; what is none of these is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_runs import NOISY_COUNT, NoisyLocalizer, NoisySource, noisy_evaluation, upright_pose

from localizer_ros.core.config.runtime import RunConfig
from localizer_ros.core.trajectory import Trajectory
from localizer_ros.core.types import SourceError
from localizer_ros.evaluation.frame_table import frames_csv
from localizer_ros.evaluation.replay import replay
from localizer_ros.evaluation.result_content import gaps, read_content
from localizer_ros.scene.bundle import Scene


def test_trajectories_of_a_report(tmp_path: Path) -> None:
    (tmp_path / "frames.csv").write_text(frames_csv(noisy_evaluation(tmp_path / "scene")))
    content = read_content(tmp_path)
    assert len(content.trajectories["true"]) == NOISY_COUNT
    assert len(content.trajectories["localizer"]) == NOISY_COUNT - 1
    # The second sequence begins after a pause, which no line bridges.
    assert gaps(content.trajectories["true"]) == [25]
    (tmp_path / "frames.csv").write_text("name\nfirst\n")
    with pytest.raises(SourceError, match=r"frames\.csv: cannot be read"):
        read_content(tmp_path)


def test_trajectories_of_a_replayed_bag(tmp_path: Path) -> None:
    scene = Scene(tmp_path, {"method": "posenet", "map_frame": "map", "training": {}})
    replay(NoisyLocalizer(), scene, NoisySource(), tmp_path / "answers", RunConfig())
    content = read_content(tmp_path / "answers")
    assert {name: len(t) for name, t in content.trajectories.items()} == {
        "localizer": NOISY_COUNT - 1,
        "raw": NOISY_COUNT - 2,  # frame 9 has no covariance
    }


def test_what_has_nothing_to_show_is_refused(tmp_path: Path) -> None:
    (tmp_path / "something").mkdir()
    with pytest.raises(SourceError, match=r"does not exist; did you mean something\?"):
        read_content(tmp_path / "somthing")
    (tmp_path / "something").rmdir()
    with pytest.raises(SourceError, match="expected a scene"):
        read_content(tmp_path)
    Trajectory.from_items([]).write_tum(tmp_path / "t.txt")
    with pytest.raises(SourceError, match="no poses"):
        read_content(tmp_path / "t.txt")
    Trajectory.from_items([(0, upright_pose(0))]).write_tum(tmp_path / "t.txt")
    assert [len(t) for t in read_content(tmp_path / "t.txt").trajectories.values()] == [1]


def test_no_line_bridges_a_stretch_without_answers() -> None:
    stamps = [0, 1, 2, 3, 12, 13, 14]  # lost for nine frames at 30 Hz
    steady = Trajectory.from_items([(round(i * 1e9 / 30), upright_pose(i)) for i in stamps])
    assert gaps(steady) == [4]
    # Keyframes a second apart are no gaps of each other; those of one pose have none.
    assert gaps(Trajectory.from_items([(i * 10**9, upright_pose(i)) for i in range(4)])) == []
    assert gaps(Trajectory.from_items([(0, upright_pose(0))])) == []
