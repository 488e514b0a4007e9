"""A recording to a scene, by method: the work behind ``localizer map``."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import msgspec
import numpy as np

from localizer_ros.core.config.mapping import MapConfig
from localizer_ros.core.config.schema import dump_yaml
from localizer_ros.core.methods import Method, find_method, load
from localizer_ros.core.progress import Progress, no_progress
from localizer_ros.core.types import Array, ConfigError, SourceError
from localizer_ros.datasets.derived import ShiftedSource, readable
from localizer_ros.datasets.source import FrameSource, require_camera
from localizer_ros.mapping.take_poses import has_poses, settings_for, take_poses
from localizer_ros.mapping.work_folder import work_folder, work_path
from localizer_ros.scene.bundle import check_free, write_scene


class Builder(Protocol):
    """Makes what a scene of a method holds; named in ``core/methods.py``."""

    def __call__(
        self,
        source: FrameSource,
        config: MapConfig,
        weights: Path | None,
        folder: Path,
        work: Path,
        progress: Progress,
    ) -> dict[str, Any]:
        """Facts for the manifest, ``{}`` in a process that only trains along.

        Args:
            source: the recording, cut to the part to map.
            config: all settings.
            weights: pretrained weights, None without; only methods that train a network are given any.
            folder: the scene being written.
            work: folder that outlives an interruption; where it is not empty, what is in it is gone on from.
            progress: told as it goes.

        Raises:
            SourceError: nothing can be made of this recording.
            ConfigError: settings do not go together.
        """
        ...


@dataclass(frozen=True)
class WriteOptions:
    """What a scene is made with beside its settings, and how it is written.

    Attributes:
        map_frame: name of the frame of all poses.
        overwrite: replace a scene that is there already.
        resume: go on where an interrupted call stopped; else what it left is lost.
        length_m: of the recording's path: poses are made from images alone then, in its scale.
    """

    map_frame: str = "map"
    overwrite: bool = False
    resume: bool = True
    length_m: float | None = None


_NEW_SCENE = WriteOptions()
# Within half of it single precision tells a thirtieth of a millimetre.
ORIGIN_STEP_M = 1000.0


def build_scene(
    source: FrameSource,
    split: str,
    config: MapConfig,
    out: Path,
    weights: Path | None = None,
    options: WriteOptions = _NEW_SCENE,
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """The manifest's facts of a scene that was made of a recording, ``minutes`` included.

    In a process of `torchrun` that only trains along there are none.

    Args:
        source: the recording, already cut to ``split``.
        split: name of that part, for the record.
        config: all settings.
        out: folder of the scene; appears whole, at the end.
        weights: pretrained encoder weights.
        options: how it is written.
        progress: told as it goes.

    Raises:
        SceneError, SourceError, ConfigError: see there; nothing is left at ``out``.
    """
    check_free(out, options.overwrite)
    source = readable(source)
    require_camera(source)
    method = find_method(config.method)
    build: Builder = load(method.builder)
    _check_request(method, weights)
    if _trains_along():
        return _train_along(build, source, config, weights, out)
    started = time.monotonic()
    extra = f"{weights} {options.length_m}"
    with work_folder(out, source, split, dump_yaml(config), options.resume, extra) as work:
        source = take_poses(source, config.structure, options.length_m, work, progress)
        config = msgspec.structs.replace(config, structure=settings_for(source, config.structure))
        origin_m = _origin(source)
        manifest = _manifest(source, split, config, options.map_frame, origin_m)
        with write_scene(out, manifest, options.overwrite) as folder:
            (folder / "config.yaml").write_text(dump_yaml(_placeless(config)))
            manifest.update(build(_shifted(source, origin_m), config, weights, folder, work, progress))
            manifest["minutes"] = round((time.monotonic() - started) / 60.0, 2)
    return manifest


def _manifest(
    source: FrameSource, split: str, config: MapConfig, map_frame: str, origin_m: Array
) -> dict[str, Any]:
    """What is known of a scene before it is made."""
    return {
        "method": config.method,
        "map_frame": map_frame,
        "origin_m": origin_m.tolist(),
        "camera": source.camera.to_dict(),
        "training": {
            "source": source.path.name,
            "format": source.format,
            "split": split,
            "frames": len(source.records),
            "ground_truth": source.ground_truth,
        },
    }


def _shifted(source: FrameSource, origin_m: Array) -> FrameSource:
    return ShiftedSource(source, origin_m) if np.any(origin_m) else source


def _train_along(
    build: Builder, source: FrameSource, config: MapConfig, weights: Path | None, out: Path
) -> dict[str, Any]:
    """What a process of `torchrun` does that does not write the scene. Raises SourceError where poses are missing."""
    if not has_poses(source):
        raise SourceError(
            f"{source.path}: has no poses, which several processes cannot find together; make them by `localizer sfm` "
            "and give them by --poses"
        )
    return build(_shifted(source, _origin(source)), config, weights, out, work_path(out), no_progress)


def _origin(source: FrameSource) -> Array:
    """(3,) the point of whole kilometres nearest to the middle of the recording's positions; zeros without poses.

    Most places keep their own zero then. In coordinates of a country (UTM) a pose is millions of metres from zero,
    where the single precision of maps and networks tells half a metre.
    """
    positions = [record.T_map_cam.t for record in source.records if record.T_map_cam is not None]
    if not positions:
        return np.zeros(3)
    # Plus zero: a negative zero would be written as such.
    return np.round(np.median(positions, axis=0) / ORIGIN_STEP_M) * ORIGIN_STEP_M + 0.0


def _check_request(method: Method, weights: Path | None) -> None:
    """Raise ConfigError where weights or processes are given to a method that has no use for them."""
    if not method.trains_network:
        if weights is not None:
            raise ConfigError(f"weights: a {method.name} scene trains no network; leave --weights out")
        if _started_by_torchrun():
            raise ConfigError(f"a {method.name} scene trains no network; start one process, without torchrun")
    if weights is not None and not weights.is_file():
        raise ConfigError(f"weights: {weights}: no such file")


def _started_by_torchrun() -> bool:
    return "TORCHELASTIC_RUN_ID" in os.environ


def _trains_along() -> bool:
    """True in every process of `torchrun` but the first, which alone writes the scene."""
    return _started_by_torchrun() and os.environ["RANK"] != "0"


def _placeless(config: MapConfig) -> MapConfig:
    """The config with file names in place of a user's paths: a scene says nothing of where it was made."""
    features, matcher, masks = config.structure.features, config.structure.matcher, config.structure.masks
    replace = msgspec.structs.replace
    structure = replace(
        config.structure,
        features=replace(features, card=Path(features.card).name),
        matcher=replace(matcher, card=Path(matcher.card).name),
        retrieval=replace(config.structure.retrieval, card=Path(config.structure.retrieval.card).name),
        masks=replace(masks, folder=Path(masks.folder).name, static=Path(masks.static).name),
    )
    return replace(config, structure=structure)
