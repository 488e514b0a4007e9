"""A recording to a scene with a network: read the images, find their depth, train."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

from localizer_ros.core.config.mapping import MapConfig
from localizer_ros.core.methods import find_method
from localizer_ros.core.preprocess import network_camera
from localizer_ros.core.progress import Progress
from localizer_ros.core.types import ConfigError, LocalizerError
from localizer_ros.datasets.source import FrameSource
from localizer_ros.mapping.build_point_map import build_point_map
from localizer_ros.scene.bundle import MAP_FOLDER
from localizer_ros.scene.map_scene import MapScene
from localizer_ros.training.data import PosedImages, load_posed_images
from localizer_ros.training.network_scene import train_network_scene
from localizer_ros.training.runtime import keep_freed_memory, open_fabric
from localizer_ros.training.virtual_views import SceneDepth, scene_depth

logger = logging.getLogger(__name__)

# Of the work folder: the map that the depth of training images is taken from.
_DEPTH_MAP = "depth_map"


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
    if moves or geometric or find_method(config.method).needs_depth:
        first = fabric.global_rank == 0
        problem = _build_depth_map(source, config, work, progress) if first else ""
        data = replace(data, depth=_depth(work, data, fabric.broadcast(problem), progress))
    return train_network_scene(data, config, weights, folder, work, fabric, progress)


def _build_depth_map(source: FrameSource, config: MapConfig, work: Path, progress: Progress) -> str:
    """Why no map of points of the recording can be made; empty when it is there."""
    folder = work / _DEPTH_MAP
    if (folder / MAP_FOLDER).is_dir():
        return ""
    folder.mkdir(exist_ok=True)
    try:
        build_point_map(source, config.structure, folder, work / "depth_map_work", progress)
    except LocalizerError as error:
        return str(error)
    return ""


def _depth(work: Path, data: PosedImages, problem: str, progress: Progress) -> SceneDepth | None:
    """Depth of the images from the map of points; None, with a warning, where there is none."""
    if not problem:
        try:
            return scene_depth(MapScene.open(work / _DEPTH_MAP), data.camera, data.poses, progress)
        except LocalizerError as error:
            problem = str(error)
    logger.warning("training views are turned but not moved: no map of points could be made (%s)", problem)
    return None
