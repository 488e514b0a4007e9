"""Several scenes on one recording, in one table: what each costs and how well it answers.

Every figure is that of :func:`evaluation.evaluate.evaluate`, one pass a scene.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localizer_ros.core.config.runtime import LocalizerConfig
from localizer_ros.core.files import read_yaml
from localizer_ros.core.progress import Progress, no_progress
from localizer_ros.core.types import LocalizerError, SceneError
from localizer_ros.datasets.source import FrameSource
from localizer_ros.evaluation.environment import versions
from localizer_ros.evaluation.evaluate import Evaluation, OpenScene, evaluate
from localizer_ros.evaluation.geometric_vo import GeometricVo
from localizer_ros.evaluation.metrics import Metrics
from localizer_ros.evaluation.open_scene import open_scene
from localizer_ros.inference.model_card import ModelCard, card_path, read_card
from localizer_ros.scene.bundle import NETWORKS_FOLDER, Scene
from localizer_ros.scene.info import disk_mb

# Settings of config.yaml that may tell two scenes of a method apart, in the order in which they are named.
TELLING: dict[str, tuple[str, ...]] = {
    "posenet": ("posenet.loss",),
    "anchors": ("anchors.cross_entropy", "anchors.orientation", "anchors.every"),
    "lsg": ("lsg.size", "lsg.memory"),
    "scene_coords": ("scene_coords.width",),
}
TELLING_NETWORKS = ("network.head", "network.width_px", "training.stored_views")
TELLING_MAPS = ("structure.features.kind", "structure.matcher.kind", "structure.retrieval.kind")


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
        neighbour = self.nearest_neighbour()
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

    def nearest_neighbour(self) -> tuple[SceneResult, Metrics] | None:
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
    """Scenes evaluated on one part of a recording, in turn; one that cannot be run does not stop the others.

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
            with open_scene(path, config, with_baseline=neighbour) as opened:
                evaluation = evaluate(
                    opened,
                    source,
                    split,
                    limit=limit,
                    geometric=GeometricVo() if geometric else None,
                    progress=told,
                )
            results.append(_result(opened, evaluation))
        except (LocalizerError, OSError) as error:
            results.append(SceneResult(path, error=" ".join(str(error).split())))
            continue
        neighbour = neighbour and evaluation.nearest_neighbour is None
        geometric = False
    return Comparison(source, split, results)


def _result(opened: OpenScene, evaluation: Evaluation) -> SceneResult:
    scene = opened.scene
    sizes = disk_mb(scene.path)
    return SceneResult(
        scene.path,
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
    card = card_path(scene.path / NETWORKS_FOLDER, scene.method)
    networks = card.is_file()
    if networks:
        # The configuration may have left the choice to the weights.
        found.append(("network.encoder", str(read_card(card, ModelCard).architecture.get("encoder", ""))))
    for key in (*TELLING.get(scene.method, ()), *(TELLING_NETWORKS if networks else TELLING_MAPS)):
        value: Any = values
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if value is not None:
            word = key.rpartition(".")[2].replace("_", " ")
            found.append((key, str(value) if isinstance(value, str) else f"{word} {value}"))
    return tuple(found)
