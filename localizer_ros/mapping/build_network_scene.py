"""A recording to a scene with a network: read the images, find their depth, train."""

from __future__ import annotations

import logging
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from localizer_ros.core.config.mapping import MapConfig
from localizer_ros.core.files import read_yaml
from localizer_ros.core.methods import find_method
from localizer_ros.core.preprocess import network_camera
from localizer_ros.core.progress import Progress
from localizer_ros.core.types import ConfigError, LocalizerError, SceneError
from localizer_ros.datasets.source import FrameSource
from localizer_ros.mapping.build_point_map import build_point_map
from localizer_ros.scene.map_scene import MapScene
from localizer_ros.training.data import PosedImages, load_posed_images
from localizer_ros.training.network_scene import train_network_scene
from localizer_ros.training.runtime import keep_freed_memory, open_fabric
from localizer_ros.training.virtual_views import SceneDepth, scene_depth

logger = logging.getLogger(__name__)

# Of the work folder: the map that the depth of training images is taken from and poses are refined with, what its
# making left, and what is said of it once it is whole.
_MAP, _MAP_WORK, _REPORT = "point_map", "point_map_work", "report.yaml"


def build_network_scene(
    source: FrameSource,
    config: MapConfig,
    weights: Path | None,
    folder: Path,
    work: Path,
    progress: Progress,
) -> dict[str, Any]:
    """Facts for the manifest; see :class:`localizer_ros.mapping.build.Builder`.

    The network of ``config.method`` is trained on every posed frame of ``source`` and written to ``folder/networks``.
    The map of points that its depth comes from is kept to refine its poses with, unless ``config.refine`` says no.

    Raises:
        ConfigError: settings or weights do not go together.
        SourceError: fewer than two frames have a pose.
    """
    training = config.training
    if training.fine_tune and weights is None:
        raise ConfigError(
            "training.fine_tune: needs the network to go on from: --weights SCENE/networks/NAME.safetensors"
        )
    geometric = config.method == "posenet" and config.posenet.loss == "geometric"
    fabric = open_fabric(some_unused=training.stored_views > 0)
    keep_freed_memory()
    camera = network_camera(source.camera, config.network.width_px, config.network.height_px)
    data = load_posed_images(source, camera, progress)
    moves = training.augmentation.virtual_move > 0.0
    needs_depth = moves or geometric or find_method(config.method).needs_depth
    first, problem = fabric.global_rank == 0, ""
    if needs_depth or config.refine == "map":
        problem = fabric.broadcast(_build_map(source, config, work, progress) if first else "")
    if needs_depth:
        data = replace(data, depth=_depth(work, data, problem, progress))
    facts = train_network_scene(data, config, weights, folder, work, fabric, progress)
    if first and config.refine == "map":
        facts.update(_keep_map(work, folder, problem))
    return facts


def _build_map(source: FrameSource, config: MapConfig, work: Path, progress: Progress) -> str:
    """Why no map of points of the recording can be made; empty when it is there."""
    folder = work / _MAP
    if (folder / _REPORT).is_file():
        return ""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        report = build_point_map(source, config.structure, folder, work / _MAP_WORK, progress)
    except LocalizerError as error:
        return str(error)
    (folder / _REPORT).write_text(yaml.safe_dump(vars(report), sort_keys=False), encoding="utf-8")
    return ""


def _keep_map(work: Path, folder: Path, problem: str) -> dict[str, Any]:
    """Facts of the map that the scene keeps; none, with a warning, where there is no map."""
    if problem:
        logger.warning("poses are not refined: no map of points could be made (%s)", problem)
        return {}
    shutil.copytree(work / _MAP, folder, ignore=shutil.ignore_patterns(_REPORT), dirs_exist_ok=True)
    return {"map": read_yaml(work / _MAP / _REPORT, SceneError)}


def _depth(work: Path, data: PosedImages, problem: str, progress: Progress) -> SceneDepth | None:
    """Depth of the images from the map of points; None, with a warning, where there is none."""
    if not problem:
        try:
            return scene_depth(MapScene.open(work / _MAP), data.camera, data.poses, progress)
        except LocalizerError as error:
            problem = str(error)
    logger.warning("training views are turned but not moved: no map of points could be made (%s)", problem)
    return None
