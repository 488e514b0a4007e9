"""Several scenes on one recording, in one table: what each costs and how well it answers.

Every figure is that of :func:`evaluation.evaluate.evaluate`, one pass a scene.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from localizer_ros.core.config.runtime import LocalizerConfig
from localizer_ros.core.files import read_yaml
from localizer_ros.core.progress import Progress, no_progress
from localizer_ros.core.types import LocalizerError, SceneError
from localizer_ros.datasets.source import FrameSource
from localizer_ros.evaluation.evaluate import Evaluation, evaluate, versions
from localizer_ros.evaluation.geometric_vo import GeometricVo
from localizer_ros.evaluation.metrics import NEES_EXPECTED_MEDIAN, Metrics, OdometryMetrics
from localizer_ros.inference.backend import ModelCard
from localizer_ros.localization.localizer import open_localizer
from localizer_ros.scene.bundle import Scene
from localizer_ros.scene.info import disk_mb
from localizer_ros.scene.nearest_image import open_baseline

# Settings of config.yaml that may tell two scenes of a method apart, in the order in which they are named.
TELLING: dict[str, tuple[str, ...]] = {
    "posenet": ("posenet.loss",),
    "anchors": ("anchors.cross_entropy", "anchors.orientation", "anchors.every"),
    "lsg": ("lsg.size", "lsg.memory"),
    "scene_coords": ("scene_coords.width",),
}
TELLING_NETWORKS = ("network.head", "network.width_px", "training.stored_views")
TELLING_MAPS = ("structure.features.kind", "structure.matcher.kind", "structure.retrieval.kind")
RECALLS = {"5cm_5deg": "5 cm, 5°", "10cm_5deg": "10 cm, 5°", "25cm_2deg": "25 cm, 2°"}


@dataclass(frozen=True, slots=True, eq=False)
class SceneResult:
    """One scene on the recording.

    Attributes:
        path: of the scene.
        method: of the scene, empty when it could not be read.
        settings: that may tell it apart from other scenes of its method, as words.
        evaluation: the run; None when there was none.
        error: why there was none; empty otherwise.
        megabytes: of the scene without its cache of engines.
        minutes: that making the scene took, None where the scene does not say.
        training_minutes: of these, training; None where nothing was trained.
    """

    path: Path
    method: str = ""
    settings: tuple[tuple[str, str], ...] = ()
    evaluation: Evaluation | None = None
    error: str = ""
    megabytes: float | None = None
    minutes: float | None = None
    training_minutes: float | None = None


class Table(NamedTuple):
    """Title, names of the columns, and cells as text."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """Scenes side by side.

    Attributes:
        source: the recording.
        split: the part of it that was run.
        scenes: one result each, in the order given.
    """

    source: FrameSource
    split: str
    scenes: Sequence[SceneResult]

    @property
    def failed(self) -> list[SceneResult]:
        """Scenes that could not be run."""
        return [s for s in self.scenes if s.evaluation is None]

    @property
    def labels(self) -> list[str]:
        """A name for each scene: its method, with the settings in which scenes of that method differ; the folder's name
        where these do not tell."""
        names = []
        for scene in self.scenes:
            alike = [dict(s.settings) for s in self.scenes if s.method == scene.method]
            differing = [v for k, v in scene.settings if len({other.get(k) for other in alike}) > 1]
            names.append(", ".join([scene.method, *differing]))
        folders = [s.path.resolve().name for s in self.scenes]
        return [
            name if name and names.count(name) == 1 else f"{name} ({folder})" if name else folder
            for name, folder in zip(names, folders, strict=True)
        ]

    def to_dict(self, command: str) -> dict[str, Any]:
        """The one JSON object of ``localizer compare --json``; ``command`` is what made it."""
        first = next((s.evaluation for s in self.scenes if s.evaluation is not None), None)
        neighbour = self._with_neighbour()
        return {
            "command": command,
            "source": str(self.source.path),
            "split": self.split,
            "ground_truth": self.source.ground_truth,
            "frames": None if first is None else len(first.frames),
            "scenes": [
                {
                    "label": label,
                    "scene": str(s.path),
                    "method": s.method or None,
                    "settings": dict(s.settings),
                    "error": s.error or None,
                    "megabytes": s.megabytes,
                    "minutes": s.minutes,
                    "training_minutes": s.training_minutes,
                    "eval": None if s.evaluation is None else s.evaluation.to_dict(),
                }
                for label, s in zip(self.labels, self.scenes, strict=True)
            ],
            "nearest_neighbour": (
                None if neighbour is None else {"scene": str(neighbour[0].path), **neighbour[1].to_dict()}
            ),
            "versions": versions(),
        }

    def to_json(self, command: str) -> str:
        """:meth:`to_dict` as text."""
        return json.dumps(self.to_dict(command), indent=2, allow_nan=False) + "\n"

    def tables(self) -> list[Table]:
        """Poses, and motions where there are any."""
        poses = Table("Poses", _POSE_COLUMNS, [])
        motions = Table("Motions over one second", _MOTION_COLUMNS, [])
        # The same whatever the scene.
        common: dict[str, OdometryMetrics] = {}
        for label, scene in zip(self.labels, self.scenes, strict=True):
            if scene.evaluation is None:
                poses.rows.append((label, f"error: {scene.error}", *[""] * (len(_POSE_COLUMNS) - 2)))
                continue
            poses.rows.append(_pose_row(label, scene, scene.evaluation))
            for source, odometry in scene.evaluation.odometry.items():
                if source in _COMMON:
                    common.setdefault(source, odometry)
                else:
                    motions.rows.append(_motion_row(label, source, odometry, scene.evaluation))
        neighbour = self._with_neighbour()
        if neighbour is not None:
            poses.rows.append(_neighbour_row(*neighbour))
        for source, odometry in common.items():
            label = _COMMON[source] + ("" if odometry.lengths == "own" else f", lengths: {odometry.lengths}")
            motions.rows.append(_motion_row(label, source, odometry, None))
        return [table for table in (poses, motions) if table.rows]

    def markdown(self, command: str) -> str:
        """The tables, with the command that made them."""
        lines = [
            f"`{self.source.path.resolve().name}`, split `{self.split}`, ground truth: {self.source.ground_truth}.",
            "",
            "```",
            command,
            "```",
        ]
        for table in self.tables():
            lines += ["", f"**{table.title}**", "", f"| {' | '.join(table.columns)} |"]
            lines += ["|" + "---|" * len(table.columns)]
            lines += [f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in table.rows]
        for note in NOTES:
            lines += ["", note]
        return "\n".join(lines) + "\n"

    def _with_neighbour(self) -> tuple[SceneResult, Metrics] | None:
        """The first scene that has the nearest-neighbour baseline, and the baseline's figures."""
        for scene in self.scenes:
            if scene.evaluation is not None and scene.evaluation.nearest_neighbour is not None:
                return scene, scene.evaluation.nearest_neighbour
        return None


def compare(
    scenes: Sequence[Path],
    source: FrameSource,
    split: str,
    config: LocalizerConfig,
    *,
    limit: int | None = None,
    geometric_vo: bool = False,
    progress: Progress = no_progress,
) -> Comparison:
    """Evaluate scenes on one part of a recording, one after the other; one that cannot be run does not stop the others.

    Args:
        scenes: their folders.
        source: the whole recording.
        split: part of it.
        config: of the localizer, the same for all.
        limit: at most this many frames.
        geometric_vo: also run geometric visual odometry, beside the first scene that runs.
        progress: told of every frame.

    Raises:
        SourceError: no such split.
    """
    source.split(split)
    results: list[SceneResult] = []
    neighbour, geometric = True, geometric_vo
    for path in scenes:

        def told(stage: str, done: int, total: int, name: str = path.name) -> None:
            progress(f"{stage} {name}", done, total)

        try:
            result = _run(path, source, split, config, limit, neighbour, geometric, told)
        except (LocalizerError, OSError) as error:
            results.append(SceneResult(path, error=" ".join(str(error).split())))
            continue
        results.append(result)
        assert result.evaluation is not None
        neighbour = neighbour and result.evaluation.nearest_neighbour is None
        geometric = False
    return Comparison(source, split, results)


def _run(
    path: Path,
    source: FrameSource,
    split: str,
    config: LocalizerConfig,
    limit: int | None,
    neighbour: bool,
    geometric: bool,
    progress: Progress,
) -> SceneResult:
    scene = Scene.load(path)
    localizer = open_localizer(path, config, source.T_base_cam)
    try:
        evaluation = evaluate(
            localizer,
            scene,
            source,
            split,
            config=config,
            limit=limit,
            baseline=open_baseline(path, config.backend) if neighbour else None,
            geometric=GeometricVo() if geometric else None,
            progress=progress,
        )
    finally:
        localizer.close()
    sizes = disk_mb(path)
    return SceneResult(
        path,
        scene.method,
        telling_settings(scene),
        evaluation,
        megabytes=round(sizes["total"] - sum(v for k, v in sizes.items() if "cache" in k), 2),
        minutes=scene.manifest.get("minutes"),
        training_minutes=(scene.manifest.get("learning") or {}).get("minutes"),
    )


def telling_settings(scene: Scene) -> tuple[tuple[str, str], ...]:
    """Settings that may tell a scene apart from others of its method: key and a word or two, e.g. ``head lstm``."""
    try:
        values = read_yaml(scene.path / "config.yaml", SceneError)
    except SceneError:
        return ()
    found: list[tuple[str, str]] = []
    card = scene.path / "networks" / f"{scene.method}.json"
    networks = card.is_file()
    if networks:
        # The configuration may have left the choice to the weights.
        found.append(("network.encoder", str(ModelCard.read(card).network.get("encoder", ""))))
    for key in (*TELLING.get(scene.method, ()), *(TELLING_NETWORKS if networks else TELLING_MAPS)):
        value: Any = values
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if value is not None:
            word = key.rpartition(".")[2].replace("_", " ")
            found.append((key, str(value) if isinstance(value, str) else f"{word} {value}"))
    return tuple(found)


# --- cells ---

_POSE_COLUMNS = (
    *("method", "answered", "median"),
    *RECALLS.values(),
    *("jitter", "NEES", "ms", "MB", "minutes (training)"),
)
_COMMON = {"odom": "external odometry", "geometric": "geometric VO"}
_MOTION_COLUMNS = (
    "method",
    "motions by",
    "alone",
    "drift, % of path",
    "NEES",
    "raw poses",
    "fused",
    "whole path",
)
NOTES = (
    "Medians of the answers; recalls of all frames with ground truth, in percent. Where two figures are given they are "
    "raw -> smoothed (causal). Jitter: RMS step of the error from frame to frame. NEES: median, "
    f"{NEES_EXPECTED_MEDIAN:.2f} when covariances are honest. ms: frame to answer, p50 / p99. MB: without engines.",
    "Motions: RMS error over one second of what the motions alone add up to, of the raw poses, and of the smoothed "
    "ones; NEES of motions over one second. Whole path: RMS error of raw poses / of the first of each drive carried on "
    "by the motions alone / of what is fused, nothing aligned.",
)


def _pose_row(label: str, scene: SceneResult, evaluation: Evaluation) -> tuple[str, ...]:
    raw, smoothed = evaluation.raw, evaluation.metrics
    latency = evaluation.to_dict()["latency_ms"]
    training = "" if scene.training_minutes is None else f" ({scene.training_minutes:.1f})"
    return (
        label,
        f"{raw.answered} -> {smoothed.answered} of {smoothed.frames}",
        f"{_error(raw.median_t_m, raw.median_r_deg)} -> {_error(smoothed.median_t_m, smoothed.median_r_deg)}",
        *(f"{_percent(raw.recall[k])} -> {_percent(smoothed.recall[k])}" for k in RECALLS),
        f"{_error(raw.jitter_t_m, raw.jitter_r_deg)} -> {_error(smoothed.jitter_t_m, smoothed.jitter_r_deg)}",
        f"{_number(raw.nees_median)} -> {_number(smoothed.nees_median)}",
        f"{_number(latency['p50'])} / {_number(latency['p99'])}",
        _number(scene.megabytes),
        "–" if scene.minutes is None else f"{scene.minutes:.1f}{training}",
    )


def _neighbour_row(scene: SceneResult, m: Metrics) -> tuple[str, ...]:
    label = f"nearest neighbour ({scene.path.resolve().name})"
    cells = (label, f"{m.answered} of {m.frames}", _error(m.median_t_m, m.median_r_deg))
    recalls = tuple(_percent(m.recall[k]) for k in RECALLS)
    return (*cells, *recalls, *[""] * (len(_POSE_COLUMNS) - len(cells) - len(recalls)))


def _motion_row(
    label: str, source: str, odometry: OdometryMetrics, evaluation: Evaluation | None
) -> tuple[str, ...]:
    fused = ("", "", "")
    if evaluation is not None:
        paths = (evaluation.raw.ate_rmse_m, odometry.ate_rmse_m, evaluation.metrics.ate_rmse_m)
        fused = (
            _error(evaluation.raw.rpe_t_m, evaluation.raw.rpe_r_deg),
            _error(evaluation.metrics.rpe_t_m, evaluation.metrics.rpe_r_deg),
            " / ".join("–" if path is None else f"{path:.3f}" for path in paths) + " m",
        )
    return (
        label,
        source,
        _error(odometry.rpe_t_m, odometry.rpe_r_deg),
        _number(odometry.drift_percent),
        _number(odometry.nees_1s_median),
        *fused,
    )


def _error(metres: float | None, degrees: float | None) -> str:
    if metres is None or degrees is None:
        return "–"
    length = f"{100 * metres:.1f} cm" if metres < 1.0 else f"{metres:.2f} m"
    return f"{length}, {degrees:.2f}°"


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.0f}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"
