"""The report of an evaluation: one HTML file that needs nothing else, and its figures as PNG beside it.

``write_report`` fills a folder with ``report.html``, ``summary.json``, ``frames.csv`` and ``*.png``. The page is
``report.html.jinja`` of this package.
"""

from __future__ import annotations

import datetime
import importlib.resources
import io
import tempfile
from pathlib import Path

import jinja2
from matplotlib.figure import Figure

from localizer_ros.core.config.schema import dump_yaml
from localizer_ros.datasets.source import FrameSource
from localizer_ros.evaluation import report_tables
from localizer_ros.evaluation.cost_figures import latency_figure, training_figure
from localizer_ros.evaluation.error_figures import (
    confidence_figure,
    cumulative_figure,
    error_figure,
    off_path_figure,
)
from localizer_ros.evaluation.evaluate import Evaluation
from localizer_ros.evaluation.figures import NEIGHBOUR, RAW, SMOOTHED, trajectory_figure
from localizer_ros.evaluation.frame_table import frames_csv
from localizer_ros.evaluation.summary import failures, reasons, time_note
from localizer_ros.evaluation.worst_frames import data_uri, worst_frames

TEMPLATE, PAGE = "report.html.jinja", "report.html"
_DPI = 130
_FAILURES = 8


def write_report(evaluation: Evaluation, folder: Path, mapping_recording: FrameSource | None = None) -> Path:
    """Path of ``report.html``, the written report of an evaluation.

    Args:
        evaluation: the run.
        folder: made when it is not there; files of an earlier report in it are replaced, all at once at the end.
        mapping_recording: what the scene was mapped from, to show its images; the evaluated recording itself
            is searched as well.

    Raises:
        OSError: the folder cannot be written.
    """
    files: dict[str, bytes] = {}
    figures: dict[str, tuple[str, str]] = {}
    for name, title, figure in _figures(evaluation):
        png = io.BytesIO()
        figure.savefig(png, format="png", dpi=_DPI)
        files[f"{name}.png"] = png.getvalue()
        figures[name] = title, data_uri(png.getvalue(), "image/png")
    files["summary.json"] = evaluation.to_json().encode()
    files["frames.csv"] = frames_csv(evaluation).encode()
    page = _template().render(
        e=evaluation,
        verdict=evaluation.verdict,
        reasons=reasons(evaluation),
        summary=evaluation.to_dict(),
        title=f"{evaluation.scene.path.resolve().name} · {evaluation.recording.path.resolve().name}",
        date=datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M"),
        rows=report_tables.summary_rows(evaluation),
        odometry=report_tables.odometry_rows(evaluation),
        cards=report_tables.cards(evaluation),
        figures=figures,
        worst=worst_frames(evaluation, mapping_recording),
        time_note=time_note(evaluation),
        failures=failures(evaluation.frames)[:_FAILURES],
        config=dump_yaml(evaluation.config),
        notes=report_tables.NOTES,
        colours={"smoothed": SMOOTHED, "raw": RAW, "neighbour": NEIGHBOUR},
    )
    files[PAGE] = page.encode()
    _write(folder, files)
    return folder / PAGE


def _write(folder: Path, files: dict[str, bytes]) -> None:
    """Write files whole; the page is there only together with all others."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".report-", dir=folder) as partial:
        for name, content in files.items():
            (Path(partial) / name).write_bytes(content)
        (folder / PAGE).unlink(missing_ok=True)
        for name in sorted(files, key=lambda name: name == PAGE):
            (Path(partial) / name).replace(folder / name)


def _figures(evaluation: Evaluation) -> list[tuple[str, str, Figure]]:
    """Name, title and drawing of every figure there is something to draw for."""
    figures = [
        ("trajectory", "Trajectory", trajectory_figure(evaluation)),
        ("error_over_time", "Error over time", error_figure(evaluation)),
        ("cumulative_error", "Share of frames within an error", cumulative_figure(evaluation)),
        ("confidence", "What confidence is worth", confidence_figure(evaluation)),
        ("off_path", "How far off the mapped path", off_path_figure(evaluation)),
        ("latency", "Latency", latency_figure(evaluation)),
        ("training", "Training", training_figure(evaluation.scene.path / "training.csv")),
    ]
    return [(name, title, figure) for name, title, figure in figures if figure is not None]


def _template() -> jinja2.Template:
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters.update(
        length_m=report_tables.length, angle=report_tables.angle, percent=report_tables.percent
    )
    environment.globals["columns"] = report_tables.SUMMARY_COLUMNS
    environment.globals["odometry_columns"] = report_tables.ODOMETRY_COLUMNS
    text = importlib.resources.files(__package__).joinpath(TEMPLATE).read_text(encoding="utf-8")
    return environment.from_string(text)
