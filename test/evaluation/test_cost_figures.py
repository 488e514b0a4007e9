"""Figures of latency and training."""

from __future__ import annotations

from pathlib import Path

from fake_runs import noisy_evaluation

from localizer_ros.evaluation.cost_figures import latency_figure, training_figure


def test_learning_curves_of_like_kind_share_a_panel(tmp_path: Path) -> None:
    file = tmp_path / "training.csv"
    file.write_text(
        "epoch,minutes,total,position,depth,val_median_t_m,val_vo_t_m,val_median_r_deg,val_score\n"
        "1,0.5,2.0,0.9,0.1,0.3,0.01,5,1\n2,1.0,-1.0,0.5,0.05,,,,\n3,1.5,-2.0,0.4,0.04,0.2,0.01,4,0\n"
    )
    figure = training_figure(file)
    assert figure is not None
    panels = {ax.get_title(loc="left"): ax for ax in figure.axes}
    assert {title: len(ax.lines) for title, ax in panels.items()} == {
        "loss": 1,
        "its parts": 2,
        "validation [m]": 2,
        "validation [deg]": 1,
    }
    # Orders of magnitude apart, and a total that may be negative.
    assert panels["validation [m]"].get_yscale() == "log" and panels["loss"].get_yscale() == "linear"
    # Not every epoch is validated.
    assert panels["validation [m]"].lines[0].get_xdata().tolist() == [1.0, 3.0]
    assert [t.get_text() for t in panels["validation [m]"].texts] == ["pose", "motion"]


def test_a_malformed_training_file_is_left_out(tmp_path: Path) -> None:
    file = tmp_path / "training.csv"
    assert training_figure(file) is None
    for text in ("", "epoch,loss\n1,x\n2,y\n", "epoch,loss\n1,2\n", "a,b\n1,2\n3,4\n"):
        file.write_text(text)
        assert training_figure(file) is None


def test_latency_has_a_bar_for_each_stage(tmp_path: Path) -> None:
    stages, whole = latency_figure(noisy_evaluation(tmp_path / "scene")).axes
    assert [label.get_text() for label in stages.get_yticklabels()] == ["total", "smoother", "network"]
    assert [text.get_text() for text in stages.texts] == ["5.4 / 5.4", "0.3 / 0.3", "5 / 5"]
    assert sum(bar.get_height() for bar in whole.patches) == 39
