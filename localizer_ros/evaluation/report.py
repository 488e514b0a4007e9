"""The report of an evaluation: one HTML file that needs nothing else, and its figures as PNG beside it.

``write_report`` fills a folder with ``report.html``, ``summary.json``, ``frames.csv`` and ``*.png``.
"""

from __future__ import annotations

import base64
import datetime
import io
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import jinja2
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from localizer_ros.core.config.schema import dump_yaml
from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import Frame, LocalizerError
from localizer_ros.datasets.source import FrameSource
from localizer_ros.evaluation import metrics as m
from localizer_ros.evaluation.evaluate import Evaluation, FrameResult, sigmas
from localizer_ros.evaluation.figures import (
    NEIGHBOUR,
    RAW,
    SMOOTHED,
    cumulative_figure,
    error_figure,
    latency_figure,
    off_path_figure,
    training_figure,
    trajectory_figure,
)

Array = NDArray[np.float64]

_DPI = 130
_THUMBNAIL_PX = 300
_WORST = 6
# Thumbnails of neighbouring frames would all tell the same story.
_WORST_APART_NS = 1_000_000_000


def write_report(evaluation: Evaluation, folder: Path, mapping_recording: FrameSource | None = None) -> Path:
    """Write the report of an evaluation.

    Args:
        evaluation: the run.
        folder: made when it is not there; files of an earlier report in it are replaced.
        mapping_recording: what the scene was mapped from, to show its images; the evaluated recording itself
            is searched as well.

    Returns:
        Path of ``report.html``.

    Raises:
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    figures: list[tuple[str, str, Figure]] = [
        ("trajectory", "Trajectory", trajectory_figure(evaluation)),
        ("error_over_time", "Error over time", error_figure(evaluation)),
        ("cumulative_error", "Share of frames within an error", cumulative_figure(evaluation)),
    ]
    off_path = off_path_figure(evaluation)
    if off_path is not None:
        figures.append(("off_path", "How far off the mapped path", off_path))
    figures.append(("latency", "Latency", latency_figure(evaluation)))
    training = training_figure(evaluation.scene.path / "training.csv")
    if training is not None:
        figures.append(("training", "Training", training))
    images = {}
    for name, _, figure in figures:
        png = io.BytesIO()
        figure.savefig(png, format="png", dpi=_DPI)
        (folder / f"{name}.png").write_bytes(png.getvalue())
        images[name] = _data_uri(png.getvalue(), "image/png")
    (folder / "summary.json").write_text(evaluation.to_json())
    (folder / "frames.csv").write_text(evaluation.frames_csv())
    page = _template().render(
        e=evaluation,
        summary=evaluation.to_dict(),
        title=f"{evaluation.scene.path.resolve().name} · {evaluation.recording.path.resolve().name}",
        date=datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M"),
        rows=_summary_rows(evaluation),
        odometry=_odometry_rows(evaluation),
        cards=_cards(evaluation),
        figures={name: (title, images[name]) for name, title, _ in figures},
        off_path=m.off_path_table(evaluation.answers(), evaluation.mapping_poses),
        worst=_worst(evaluation, mapping_recording),
        failures=_failures(evaluation.frames),
        config=dump_yaml(evaluation.config),
        notes=_NOTES,
        colours={"smoothed": SMOOTHED, "raw": RAW, "neighbour": NEIGHBOUR},
    )
    path = folder / "report.html"
    path.write_text(page, encoding="utf-8")
    return path


# --- tables and pictures of the page ---


@dataclass(frozen=True)
class _Card:
    label: str
    value: str
    note: str


def _cards(evaluation: Evaluation) -> list[_Card]:
    e, values = evaluation.metrics, evaluation.to_dict()
    neighbour = evaluation.nearest_neighbour
    against = (
        f"nearest neighbour {_length(neighbour.median_t_m)}, {_angle(neighbour.median_r_deg)}"
        if neighbour is not None
        else "no nearest-neighbour baseline in this scene"
    )
    latency = values["latency_ms"]
    return [
        _Card("median error", f"{_length(e.median_t_m)} · {_angle(e.median_r_deg)}", against),
        _Card("answered", f"{e.answered} / {e.frames}", "frames; the rest count as failures"),
        _Card(
            "within 0.5 m, 5°",
            _percent(e.recall["50cm_5deg"]),
            f"{_percent(e.recall['25cm_2deg'])} within 0.25 m, 2°",
        ),
        _Card("latency", f"{_number(latency['p50'])} ms", f"median; p99 {_number(latency['p99'])} ms"),
        _Card(
            "covariance",
            _number(e.nees_median),
            f"median NEES; honest is {m.NEES_EXPECTED_MEDIAN:.1f}, more is too sure",
        ),
    ]


def _summary_rows(evaluation: Evaluation) -> list[tuple[str, str, list[str]]]:
    rows = [("localizer", "smoothed", evaluation.metrics), ("raw answers", "raw", evaluation.raw)]
    if evaluation.nearest_neighbour is not None:
        rows.append(("nearest neighbour", "neighbour", evaluation.nearest_neighbour))
    return [
        (
            label,
            colour,
            [
                str(e.answered),
                f"{_length(e.median_t_m)}\n{_angle(e.median_r_deg)}",
                f"{_length(e.p90_t_m)}\n{_angle(e.p90_r_deg)}",
                *(_percent(value) for value in e.recall.values()),
                _percent(e.wrong_fraction),
                _length(e.ate_rmse_m),
                f"{_length(e.rpe_t_m)}\n{_angle(e.rpe_r_deg)}",
                f"{_length(e.jitter_t_m)}\n{_angle(e.jitter_r_deg)}",
                _number(e.jumps_per_min),
                _number(e.nees_median),
            ],
        )
        for label, colour, e in rows
    ]


def _odometry_rows(evaluation: Evaluation) -> list[list[str]]:
    """What measured the motions, and how well these alone add up to the path; fused, there are absolute poses too."""
    rows = []
    for source, o in evaluation.odometry.items():
        name = _ODOMETRY.get(source, source)
        rows.append(
            [
                name if o.lengths == "own" else f"{name}, lengths from {o.lengths}",
                f"{o.motions} / {o.frames}",
                f"{_length(o.rpe_t_m)}\n{_angle(o.rpe_r_deg)}",
                f"{_length(o.rpe_median_t_m)}\n{_angle(o.rpe_median_r_deg)}",
                _number(o.drift_percent),
                _number(o.nees_median),
                _number(o.nees_1s_median),
            ]
        )
    for name, e in (("raw answers", evaluation.raw), ("localizer (fused)", evaluation.metrics)):
        rows.append([name, "", f"{_length(e.rpe_t_m)}\n{_angle(e.rpe_r_deg)}", *[""] * 4])
    return rows


@dataclass(frozen=True)
class _Worst:
    name: str
    error: str
    note: str
    query: str
    mapped_name: str
    mapped_note: str
    mapped: str


def _worst(evaluation: Evaluation, mapping_recording: FrameSource | None) -> list[_Worst]:
    answers = evaluation.answers()
    ranked = sorted(
        (i for i, a in enumerate(answers) if a.T_map_true is not None and a.T_map_cam is not None),
        key=lambda i: -max(answers[i].error_m / 0.25, answers[i].error_deg / 5.0),
    )
    chosen: list[int] = []
    for i in ranked:
        apart = all(
            answers[i].sequence != answers[j].sequence
            or abs(answers[i].stamp_ns - answers[j].stamp_ns) >= _WORST_APART_NS
            for j in chosen
        )
        if apart:
            chosen.append(i)
        if len(chosen) == _WORST:
            break
    recordings = [r for r in (mapping_recording, evaluation.recording) if r is not None]
    found = []
    for i in chosen:
        frame, answer = evaluation.frames[i], answers[i]
        assert answer.T_map_true is not None
        sigma_m, sigma_deg = sigmas(answer.covariance)
        claimed = "" if sigma_m is None else f"claimed 1σ {_length(sigma_m)}, {_angle(sigma_deg)}"
        reason = frame.output.reason if frame.output is not None else ""
        mapped_name, mapped_note, mapped = "", "", ""
        if evaluation.baseline is not None and evaluation.mapping_poses:
            index, metres, degrees = m.view_change(answer.T_map_true, evaluation.mapping_poses)
            mapped_name = evaluation.baseline.names[index]
            mapped_note = (
                f"{_length(metres)}, {_angle(degrees)} away · {_position(evaluation.mapping_poses[index])}"
            )
            mapped = _mapping_thumbnail(recordings, mapped_name, evaluation.mapping_poses[index])
        found.append(
            _Worst(
                frame.record.name,
                f"{_length(answer.error_m)} · {_angle(answer.error_deg)}",
                " · ".join(part for part in (claimed, reason) if part),
                _thumbnail(_read(evaluation.source, frame.index)),
                mapped_name,
                mapped_note,
                mapped,
            )
        )
    return found


def _failures(frames: Iterable[FrameResult]) -> list[tuple[str, int]]:
    """Why frames have no answer, most frequent first."""
    reasons = Counter(
        f"dropped: {f.message or f.dropped}"
        if f.output is None
        else f"{f.output.status.value}: {f.output.reason or 'no estimate'}"
        for f in frames
        if f.output is None or f.output.estimate is None
    )
    return reasons.most_common(8)


def _mapping_thumbnail(recordings: Sequence[FrameSource], name: str, T_map_cam: SE3) -> str:
    """The mapping image when one of the recordings has it: same name and same pose."""
    for recording in recordings:
        for index, record in enumerate(recording.records):
            if record.name == name and record.T_map_cam is not None:
                # Another recording may use the same names.
                if record.T_map_cam.distance_to(T_map_cam) < 1e-3:
                    return _thumbnail(_read(recording, index))
                break
    return ""


def _read(source: FrameSource, index: int) -> Frame | None:
    try:
        return source.read(index)
    except LocalizerError:
        return None


def _thumbnail(frame: Frame | None) -> str:
    if frame is None:
        return ""
    height, width = frame.image.shape[:2]
    size = (_THUMBNAIL_PX, max(1, round(_THUMBNAIL_PX * height / width)))
    image = np.asarray(cv2.resize(frame.image, size, interpolation=cv2.INTER_AREA), np.uint8)
    if image.ndim == 3:
        image = image[..., ::-1]
    done, jpeg = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 82])
    return _data_uri(jpeg.tobytes(), "image/jpeg") if done else ""


def _data_uri(data: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _length(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f} m" if value < 10 else f"{value:.1f} m"


def _angle(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}°" if value < 10 else f"{value:.1f}°"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 1000 else f"{value:.0f}"


def _position(T: SE3) -> str:
    return f"at ({', '.join(f'{v:.2f}' for v in T.t)})"


_COLUMNS = (
    "answered",
    "median",
    "p90",
    *(f"≤ {t:g} m\n{r:g}°" for t, r in m.RECALLS.values()),
    "wrong",
    "ATE",
    "RPE\n1 s",
    "jitter",
    "jumps\na minute",
    "NEES",
)

_ODOMETRY = {
    "vo": "motion head",
    "tracking": "tracking",
    "odom": "external odometry",
    "geometric": "geometric VO",
}
_ODOMETRY_COLUMNS = ("motions", "RPE\n1 s", "median\nof these", "drift\n% of path", "NEES", "NEES\n1 s")

_NOTES = (
    "A frame without an answer counts as a failure in every recall and is left out of medians and "
    "percentiles.",
    "Recalls are shares of the frames that have ground truth.",
    f"Wrong: answers off by more than {m.WRONG_M:g} m or {m.WRONG_DEG:g}°, as a share of the answers.",
    "ATE: root mean square position error. Nothing is aligned, as the map frame is that of the ground truth.",
    "RPE: root mean square error of the motion over one second. Jitter: root mean square of the step of the error "
    "from one frame to the next. Neither bridges sequences.",
    f"Jumps: steps of the error between two answers beyond {m.JUMP_M:g} m or {m.JUMP_DEG:g}°, per minute.",
    f"NEES: squared error in units of the covariance, six degrees of freedom; its median is "
    f"{m.NEES_EXPECTED_MEDIAN:.2f} when the covariance is honest, and larger when it is too small.",
    "Odometry: each source's motions alone, added up from the beginning of a sequence, or from where one was "
    "unknown. Drift is how far they miss the ends, in percent of the path. NEES of single motions, and of motions over "
    "one second with their errors taken as independent. Geometric VO knows directions only; lengths that come from the "
    "ground truth flatter it.",
    "Nearest neighbour: the pose of the mapping image that looks most alike, without any estimation.",
    "The band in the error plot is three standard deviations in the most uncertain direction.",
    f"The mapping pose most alike is the one with the least distance plus angle, {m.VIEW_DEG_PER_M:g}° "
    "counting as 1 m.",
    "Latency is the time of the whole pipeline for a frame, without reading the image.",
)


def _template() -> jinja2.Template:
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters.update(length_m=_length, angle=_angle, percent=_percent, number=_number)
    environment.globals["columns"] = _COLUMNS
    environment.globals["odometry_columns"] = _ODOMETRY_COLUMNS
    return environment.from_string(_PAGE)


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }} – localization report</title>
<style>
:root { --ink:#22262b; --soft:#5c6670; --line:#e3e7eb; --wash:#f6f8fa; }
* { box-sizing: border-box; }
body { margin:0; color:var(--ink); background:#fff;
  font:15px/1.5 system-ui, "Segoe UI", Roboto, sans-serif; }
main { max-width:1120px; margin:0 auto; padding:36px 24px 64px; }
h1 { font-size:26px; margin:0 0 2px; letter-spacing:-.01em; }
h2 { font-size:18px; margin:40px 0 10px; }
p { margin:6px 0; } .soft, small { color:var(--soft); }
.cards { display:flex; flex-wrap:wrap; gap:12px; margin:22px 0 8px; }
.card { flex:1 1 190px; background:var(--wash); border:1px solid var(--line); border-radius:10px;
  padding:12px 14px; }
.card b { display:block; font-size:21px; font-weight:600; margin:1px 0; white-space:nowrap; }
.card span { color:var(--soft); font-size:12.5px; display:block; line-height:1.35; }
.scroll { overflow-x:auto; }
table { border-collapse:collapse; font-size:13px; font-variant-numeric:tabular-nums; }
.wide { width:100%; }
th, td { text-align:right; padding:6px 8px; white-space:pre-line; line-height:1.35; }
th { font-weight:600; color:var(--soft); font-size:12px; vertical-align:bottom; }
td { border-top:1px solid var(--line); vertical-align:top; }
th:first-child, td:first-child { text-align:left; padding-left:0; white-space:nowrap; }
.dot { display:inline-block; width:9px; height:9px; border-radius:50%; margin-right:7px; }
img.figure { width:100%; height:auto; display:block; }
.worst { display:flex; flex-wrap:wrap; gap:18px; }
.pair { flex:1 1 500px; display:flex; gap:8px; border:1px solid var(--line); border-radius:10px;
  padding:10px; }
.pair figure { margin:0; flex:1 1 0; min-width:0; }
.pair img, .none { width:100%; border-radius:6px; display:block; }
.none { background:var(--wash); color:var(--soft); aspect-ratio:4/3; font-size:12px; text-align:center;
  padding:30% 8px 8px; }
figcaption { font-size:12px; line-height:1.4; margin-top:6px; overflow-wrap:anywhere; }
details { border-top:1px solid var(--line); padding:10px 0; }
summary { cursor:pointer; font-weight:600; }
pre { background:var(--wash); padding:12px; border-radius:8px; overflow-x:auto; font-size:12.5px;
  line-height:1.4; }
ul { padding-left:20px; margin:8px 0; } li { margin:2px 0; }
@media print { details { display:none; } h2 { break-after:avoid; } .pair { break-inside:avoid; } }
</style></head><body><main>
<h1>{{ title }}</h1>
<p class="soft">{{ e.scene.method }} · split <b>{{ e.split }}</b> ·
ground truth <b>{{ e.source.ground_truth }}</b>
{% if summary.frames_with_truth < summary.frames %}
on {{ summary.frames_with_truth }} of {{ summary.frames }} frames
{% endif %}
· localizer_ros {{ e.versions.localizer_ros }} · {{ date }}</p>
<div class="cards">
{% for card in cards %}
<div class="card"><span>{{ card.label }}</span><b>{{ card.value }}</b><span>{{ card.note }}</span></div>
{% endfor %}
</div>
<h2>Summary</h2>
<div class="scroll"><table class="wide">
<tr><th></th>{% for c in columns %}<th>{{ c }}</th>{% endfor %}</tr>
{% for label, colour, cells in rows %}
<tr><td><span class="dot" style="background:{{ colours[colour] }}"></span>{{ label }}</td>
{% for cell in cells %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}
</table></div>
<p><small>Ground truth: {{ e.source.ground_truth }}. Status of the frames:
{% for name, count in summary.status.items() %}
{{ name }} {{ count }}{{ ", " if not loop.last else "." }}
{% endfor %}
{% if summary.dropped %}
Dropped: {% for kind, count in summary.dropped.items() %}
{{ kind }} {{ count }}{{ ", " if not loop.last else "." }}
{% endfor %}
{% endif %}
Peak memory {{ "%.0f" | format(summary.peak_rss_mb) }} MiB; the run took
{{ "%.0f" | format(summary.wall_s) }} s.</small></p>
{% if failures %}
<p><small>Frames without an answer:
{% for reason, count in failures %}
{{ count }} × {{ reason }}{{ "; " if not loop.last else "." }}
{% endfor %}
</small></p>
{% endif %}
{% for name in ("trajectory", "error_over_time", "cumulative_error", "off_path") if name in figures %}
<h2>{{ figures[name][0] }}</h2>
<img class="figure" src="{{ figures[name][1] }}" alt="{{ figures[name][0] }}">
{% endfor %}
{% if off_path %}
<div class="scroll"><table><tr><th>view off the mapped path by</th><th>frames</th><th>answered</th>
<th>median</th><th></th><th>≤ 0.5 m 5°</th></tr>
{% for r in off_path %}
{% set unit = " m" if r.by == "distance_m" else "°" %}
{% set what = "distance" if r.by == "distance_m" else "angle" %}
{% set low = "%g" | format(r["from"]) %}
<tr><td>{{ what }} {% if r.to is none %}{{ low }}{{ unit }} and more
{%- else %}{{ low }} – {{ "%g" | format(r.to) }}{{ unit }}{% endif %}</td>
<td>{{ r.frames }}</td><td>{{ r.answered }}</td><td>{{ r.median_t_m | length_m }}</td>
<td>{{ r.median_r_deg | angle }}</td><td>{{ r.recall_50cm_5deg | percent }}</td></tr>
{% endfor %}
</table></div>
{% endif %}
{% if odometry | length > 2 %}
<h2>Odometry by itself</h2>
<div class="scroll"><table><tr><th></th>{% for c in odometry_columns %}<th>{{ c }}</th>{% endfor %}</tr>
{% for row in odometry %}
<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}
</table></div>
{% endif %}
{% if worst %}
<h2>Worst frames</h2>
<p class="soft">The frame on the left; on the right the mapping image whose pose is most like its true pose.
</p>
<div class="worst">
{% for w in worst %}
<div class="pair"><figure>
{% if w.query %}
<img src="{{ w.query }}" alt="query image">
{% else %}
<div class="none">image not available</div>
{% endif %}
<figcaption><b>{{ w.error }}</b><br>{{ w.name }}<br><span class="soft">{{ w.note }}</span></figcaption>
</figure><figure>
{% if w.mapped %}
<img src="{{ w.mapped }}" alt="mapping image">
{% else %}
<div class="none">{{ "not in this recording" if w.mapped_name else "no mapping images in this scene" }}</div>
{% endif %}
<figcaption>{{ w.mapped_note }}<br>{{ w.mapped_name }}</figcaption></figure></div>
{% endfor %}
</div>
{% endif %}
{% for name in ("latency", "training") if name in figures %}
<h2>{{ figures[name][0] }}</h2>
<img class="figure" src="{{ figures[name][1] }}" alt="{{ figures[name][0] }}">
{% endfor %}
<h2>Reading this report</h2>
<ul class="soft">{% for note in notes %}<li>{{ note }}</li>{% endfor %}</ul>
<h2>How it was made</h2>
<details><summary>Configuration of the localizer</summary><pre>{{ config }}</pre></details>
<details><summary>Versions</summary><pre>{% for name, version in e.versions.items() %}
{{ name }} {{ version }}
{% endfor %}</pre></details>
</main></body></html>
"""
