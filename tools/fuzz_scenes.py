"""Small scenes, and what is done with one that may be damaged; see ``fuzz_readers.py``."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import yaml

from localizer_ros.core.types import Frame
from localizer_ros.datasets.simulated import SimulatedSource, WorldConfig

Content = dict[str, Any]


def build_scene_of(name: str, folder: Path) -> None:
    """Make a small scene, of a map or of a network, in an empty folder."""
    from localizer_ros.core.config.mapping import MapConfig
    from localizer_ros.core.config.schema import config_from_dict
    from localizer_ros.mapping.build import build_scene

    folder.rmdir()
    build_scene(_drive(), "all", config_from_dict(MapConfig, SCENES[name]), folder)


SCENES: dict[str, dict[str, Any]] = {
    "map-scene": {
        "method": "hierarchical",
        "structure": {
            "features": {"max_keypoints": 400},
            "keyframes": {"max_images": 12},
            "retrieval": {"words": 16},
        },
    },
    "network-scene": {
        "method": "posenet",
        "network": {
            "encoder": "mobilenet_v3_small",
            "width_px": 96,
            "height_px": 64,
            "hidden": 32,
            "dropout": 0.0,
        },
        "refine": "none",
        "training": {
            "epochs": 2,
            "validate_every": 1,
            "batch_size": 8,
            "augmentation": {"virtual_move": 0.0},
        },
    },
}


def _drive() -> SimulatedSource:
    return SimulatedSource(
        WorldConfig(width_px=160, height_px=120, duration_s=4.0, fps=8.0, moving_objects=0)
    )


def frames_to_localize() -> list[Frame]:
    """Three frames of the drive that the scenes were made of."""
    drive = _drive()
    return [drive.read(index) for index in (4, 5, 6)]


def localize(folder: Path, frames: list[Frame]) -> tuple[Content, list[str]]:
    """Where a scene finds frames, and what was said to be wrong with it.

    Raises:
        LocalizerError: it cannot be used, and why.
    """
    from localizer_ros.core.config.runtime import LocalizerConfig
    from localizer_ros.localization.localizer import open_localizer
    from localizer_ros.scene.bundle import Scene
    from localizer_ros.scene.info import scene_info

    scene_info(folder)
    Scene.load(folder)
    localizer = open_localizer(folder, LocalizerConfig())
    outputs = [localizer.process(frame) for frame in frames]
    localizer.close()
    answers = [None if o.absolute is None else o.absolute.T_map_cam for o in outputs]
    return {
        "answers": [None if T is None else [round(v, 2) + 0.0 for v in T.t.tolist()] for T in answers]
    }, []


def sealed(folder: Path, file: Path) -> None:
    """Write the checksum of a changed file into its scene, as whoever forges or rebuilds one would."""
    manifest = folder / "scene.yaml"
    name = str(file.relative_to(folder))
    if not file.is_file() or file.is_symlink() or file == manifest:
        return
    values = yaml.safe_load(manifest.read_text())
    values["files"][name] = hashlib.sha256(file.read_bytes()).hexdigest()
    manifest.write_text(yaml.safe_dump(values, sort_keys=False))
