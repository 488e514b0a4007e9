"""The front end of a scene, by its method."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from localizer_ros.core.config.runtime import LocalizerConfig
from localizer_ros.core.methods import METHODS, load, unknown_method
from localizer_ros.core.types import SceneError
from localizer_ros.localization.front_end import FrontEnd
from localizer_ros.scene.bundle import Scene


class Opener(Protocol):
    """Opens the front end of a method; named in ``core/methods.py``."""

    def __call__(self, scene_dir: Path, method: str, config: LocalizerConfig, threaded: bool) -> FrontEnd:
        """The front end of a scene.

        Args:
            scene_dir: folder of the scene.
            method: name of its method.
            config: thresholds and back end.
            threaded: late searches run on a thread of their own instead of in place.

        Raises:
            SceneError: a file is missing or does not fit.
            BackendError: no back end can run its network.
        """
        ...


def open_front_end(scene: Scene, config: LocalizerConfig, threaded: bool = False) -> FrontEnd:
    """The front end of a scene; see :class:`Opener`. Raises SceneError also where its method is not known here."""
    if scene.method not in METHODS:
        raise SceneError(f"{scene.path}: {unknown_method(scene.method)}")
    opener: Opener = load(METHODS[scene.method].opener)
    return opener(scene.path, scene.method, config, threaded)
