"""The report is one file that needs nothing else; views and benchmarks of small fakes."""

import html.parser
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from localizer_ros.core.config.runtime import RunConfig, SmootherConfig
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
from localizer_ros.evaluation.benchmark import NO_ANSWER, WARM_UP, bench, measure, smoother_benchmark
from localizer_ros.evaluation.evaluate import Evaluation, evaluate
from localizer_ros.evaluation.figures import map_views, training_figure
from localizer_ros.evaluation.replay import replay
from localizer_ros.evaluation.report import write_report
from localizer_ros.evaluation.view import read_content, view
from localizer_ros.scene.bundle import Scene

CAMERA = Camera.pinhole(64, 48, 60.0, 60.0, 31.5, 23.5)
# Optical frame of a camera that looks along +x of a map whose z is up.
R_MAP_CAM = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
COUNT = 40


def truth(i: int) -> SE3:
    return SE3(
        SE3.exp([0.0, 0.0, 0.02 * i, 0.0, 0.0, 0.0]).R @ R_MAP_CAM, np.array([0.1 * i, np.sin(i / 8), 1.5])
    )


class Drive:
    """Two sequences in memory; the first pixel is the number of the frame."""

    path, format, camera, splits = Path("<drive>"), "fake", CAMERA, ("test",)
    stamps: Stamps = "recorded"
    odometry: Trajectory | None = None
    T_base_cam: SE3 | None = None

    def __init__(self, ground_truth: str = "made <b>up</b>", broken: int | None = None) -> None:
        self.ground_truth, self._broken = ground_truth, broken
        self.records = [
            FrameRecord(
                f"{i}.png",
                "a" if i < 25 else "b",
                i * 100_000_000 + (0 if i < 25 else 10_000_000_000),
                None if ground_truth == "none" else truth(i),
            )
            for i in range(COUNT)
        ]

    def read(self, index: int) -> Frame:
        if index == self._broken:
            raise SourceError("truncated")
        image: NDArray[np.uint8] = np.full((48, 64, 3), index, np.uint8)
        return Frame(self.records[index].stamp_ns, image, CAMERA, self.records[index].name)

    def split(self, name: str) -> "Drive":
        return self


class Noisy:
    def __init__(self, answers: bool = True) -> None:
        self._rng = np.random.default_rng(1)
        self._answers = answers

    def process(self, frame: Frame) -> LocalizerOutput:
        i = int(frame.image[0, 0, 0])
        if i == 7:
            raise FrameRejected("image_type", "frame <7>: expected an image")
        S = np.diag(np.repeat([0.02**2, 0.1**2], 3))
        T = truth(i) @ SE3.exp(self._rng.normal(size=6) * np.repeat([0.02, 0.1], 3))
        pose = PoseEstimate(frame.stamp_ns, T, S if i != 9 else None, "posenet") if self._answers else None
        timings = {"network": 5.0, "smoother": 0.3, "total": 5.4}
        status = Status.TRACKING if self._answers else Status.LOST
        motions: tuple[RelativePose, ...] = ()
        if self._answers and 0 < i < 7:
            T_prev_cur = truth(i - 1).inverse() @ truth(i)
            motions = (RelativePose(frame.stamp_ns - 100_000_000, frame.stamp_ns, T_prev_cur, S, "vo"),)
        return LocalizerOutput(frame.stamp_ns, status, pose, pose, None, "", timings, motions=motions)

    def add_odometry(self, stamp_ns: int, T_odom_base: SE3) -> None:
        pass

    def reset(self) -> None:
        pass


class Mapped:
    poses = tuple(truth(i) @ SE3.exp([0, 0, 0, 0.1, 0, 0]) for i in range(0, COUNT, 3))
    names = tuple(f"map/{i}.png" for i in range(0, COUNT, 3))

    def nearest(self, frame: Frame) -> int:
        return int(frame.image[0, 0, 0]) // 3


def evaluation(
    folder: Path, source: Drive | None = None, answers: bool = True, baseline: bool = True
) -> Evaluation:
    folder.mkdir(exist_ok=True)
    scene = Scene(folder, {"method": "posenet", "map_frame": "map", "training": {}})
    return evaluate(Noisy(answers), scene, source or Drive(), "test", baseline=Mapped() if baseline else None)


class Page(html.parser.HTMLParser):
    """Checks that tags close, and collects what the page links to."""

    VOID = ("meta", "img", "br")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.text: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in ("li", "tr", "td", "th") and self.open[-1] != tag:
            return
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report folder; drawing it is what takes the time of these tests."""
    folder = tmp_path_factory.mktemp("evaluation")
    (folder / "scene").mkdir()
    (folder / "scene" / "training.csv").write_text("epoch,loss,val_t_m,val_r_deg\n1,2,3,4\n2,1,2,3\n")
    (folder / "report").mkdir()
    (folder / "report" / "report.html").write_text("of an earlier run")
    page = write_report(evaluation(folder / "scene"), folder / "report")
    assert page == folder / "report" / "report.html"
    return folder / "report"


def test_report_is_one_file_that_needs_nothing_else(report: Path) -> None:
    text = (report / "report.html").read_text(encoding="utf-8")
    parsed = Page(text)
    assert parsed.open == []
    assert parsed.links and all(link.startswith("data:image/") for link in parsed.links)
    assert not re.search(r"https?://|<script|@import|url\(", text)
    words = " ".join(" ".join(parsed.text).split())
    for expected in (
        "made <b>up</b>",  # escaped, and said as ground truth
        "nearest neighbour",
        "raw answers",
        "Worst frames",
        "Odometry by itself",
        "motion head",
        "mapped path",
        "image_type 1",
        "frame <7>: expected an image",
        "lag_s: 3.0",
        "localizer_ros",
        "Training",
    ):
        assert expected in words, expected
    for name in ("trajectory", "error_over_time", "cumulative_error", "off_path", "latency", "training"):
        assert (report / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((report / "summary.json").read_text())["frames"] == COUNT
    assert len((report / "frames.csv").read_text().splitlines()) == COUNT + 1


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("truth_and_map", [False, True])
def test_report_of_a_run_without_answers(tmp_path: Path, truth_and_map: bool) -> None:
    source = Drive("made up" if truth_and_map else "none", broken=3)
    result = evaluation(tmp_path / "scene", source, answers=False, baseline=truth_and_map)
    page = write_report(result, tmp_path / "report")
    text = page.read_text(encoding="utf-8")
    assert Page(text).open == [] and "Odometry by itself" not in text


def test_which_way_is_up_comes_from_the_cameras() -> None:
    above, side = map_views([truth(i) for i in range(5)])
    assert (above[1], above[2].axis, above[2].flipped) == (0, 1, False)
    assert (side[2].axis, side[2].flipped) == (2, False)
    # A map in the frame of its first camera: y is down; from above x is right and z, where it looks, up.
    above, side = map_views([SE3.identity()])
    assert (above[1], above[2].axis, above[2].flipped) == (0, 2, False)
    assert (side[2].axis, side[2].flipped) == (1, True)


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


# --- view ---


@pytest.mark.parametrize("suffix", [".png", ".rrd"])
def test_view_of_a_report(report: Path, tmp_path: Path, suffix: str) -> None:
    written = view(report, tmp_path / f"view{suffix}")
    assert written is not None and written.stat().st_size > 1000
    content = read_content(report)
    assert len(content.trajectories["true"]) == COUNT
    assert len(content.trajectories["localizer"]) == COUNT - 1


def test_view_of_a_replayed_bag_and_of_a_trajectory(tmp_path: Path) -> None:
    scene = Scene(tmp_path, {"method": "posenet", "map_frame": "map", "training": {}})
    replay(Noisy(), scene, Drive(), tmp_path / "answers", RunConfig())
    content = read_content(tmp_path / "answers")
    assert {name: len(t) for name, t in content.trajectories.items()} == {
        "localizer": COUNT - 1,
        "raw": COUNT - 2,  # frame 9 has no covariance
    }
    Trajectory.from_items((i, truth(i)) for i in range(5)).write_tum(tmp_path / "t.txt")
    assert view(tmp_path / "t.txt", tmp_path / "t.png") is not None


def test_view_refuses(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="does not exist"):
        view(tmp_path / "nothing", tmp_path / "x.png")
    with pytest.raises(SourceError, match="expected a scene"):
        view(tmp_path, tmp_path / "x.png")
    Trajectory.from_items([]).write_tum(tmp_path / "t.txt")
    with pytest.raises(SourceError, match="no poses"):
        view(tmp_path / "t.txt", tmp_path / "x.png")
    Trajectory.from_items([(0, truth(0))]).write_tum(tmp_path / "t.txt")
    with pytest.raises(ConfigError, match=r"\.png or \.rrd"):
        view(tmp_path / "t.txt", tmp_path / "x.gif")


# --- benchmark ---


def test_measure_leaves_the_warm_up_out(tmp_path: Path) -> None:
    values: dict[str, Any] = measure(Noisy(), Drive(broken=20), limit=30)
    assert (values["frames"], values["answered"], values["dropped"]) == (28, 28, 2)
    assert values["latency_ms"]["stages"]["network"] == {"p50": 5.0, "p99": 5.0}
    assert values["throughput_hz"] > 0.0 and values["peak_rss_mb"] > 10.0
    (only,) = values["latency_ms"]["answers"].items()
    assert only[0] == "posenet" and only[1]["frames"] == 28 - WARM_UP and only[1]["p50"] <= only[1]["p99"]
    nothing = measure(Noisy(answers=False), Drive(), limit=30)["latency_ms"]["answers"]
    assert list(nothing) == [NO_ANSWER]
    with pytest.raises(SourceError, match="usable frames"):
        measure(Noisy(), Drive(), limit=WARM_UP)
    with pytest.raises(ConfigError, match="limit"):
        bench(tmp_path, Drive(), limit=WARM_UP)


def test_smoother_benchmark_runs_and_smooths() -> None:
    told: list[int] = []
    values = smoother_benchmark(400, SmootherConfig(), progress=lambda stage, done, total: told.append(done))
    assert told[-1] == values["frames"] == 400
    assert set(values["rss_mb"]) == {"10%", "50%", "100%"}
    assert values["rebuilds"] == 0
    # Good odometry and a second of absolute poses: several times better than each of them.
    assert values["median_t_m"] < 0.6 * values["raw_median_t_m"]
    with pytest.raises(ConfigError, match="at least"):
        smoother_benchmark(10)
