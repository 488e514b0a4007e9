"""The report is one file that needs nothing else."""

from __future__ import annotations

import html.parser
import json
import re
from pathlib import Path

import pytest
from fake_runs import NOISY_COUNT, NoisySource, fake_evaluation, noisy_evaluation

from localizer_ros.evaluation.report import write_report
from localizer_ros.evaluation.report_tables import cards


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
    page = write_report(noisy_evaluation(folder / "scene"), folder / "report")
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
        "What confidence is worth",
        "bad the pose of the mapping image that looks most alike is nearer to the truth;",
        "image_type 1",
        "frame <7>: expected an image",
        "lag_s: 3.0",
        "localizer_ros",
        "Training",
    ):
        assert expected in words, expected
    for name in (
        "trajectory",
        "error_over_time",
        "cumulative_error",
        "confidence",
        "off_path",
        "latency",
        "training",
    ):
        assert (report / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((report / "summary.json").read_text())["frames"] == NOISY_COUNT
    assert len((report / "frames.csv").read_text().splitlines()) == NOISY_COUNT + 1


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("truth_and_map", [False, True])
def test_report_of_a_run_without_answers(tmp_path: Path, truth_and_map: bool) -> None:
    source = NoisySource("made up" if truth_and_map else "none", broken=3)
    result = noisy_evaluation(tmp_path / "scene", source, answers=False, baseline=truth_and_map)
    page = write_report(result, tmp_path / "report")
    text = page.read_text(encoding="utf-8")
    assert Page(text).open == [] and "Odometry by itself" not in text


def test_cards_are_coloured_by_how_good_their_figures_are(tmp_path: Path) -> None:
    evaluation = fake_evaluation()  # 90 % answered
    words = {card.label: card.word for card in cards(evaluation)}
    assert (words["answered"], words["median error"]) == ("doubtful", "good")
    page = write_report(evaluation, tmp_path).read_text(encoding="utf-8")
    assert '<div class="card doubtful"><span>answered' in page
    # The page is the last to appear, and nothing half written stays beside it.
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_a_report_that_fails_leaves_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_report(fake_evaluation(), tmp_path)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    monkeypatch.setattr("localizer_ros.evaluation.report.frames_csv", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_report(fake_evaluation(), tmp_path)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before
