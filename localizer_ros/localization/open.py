"""The front end of a scene, by its method."""

from __future__ import annotations

from collections.abc import Callable

from localizer_ros.core.config.runtime import LocalizerConfig
from localizer_ros.core.types import SceneError
from localizer_ros.localization.front_end import FrontEnd
from localizer_ros.scene.bundle import Scene


def _network(scene: Scene, config: LocalizerConfig, threaded: bool) -> FrontEnd:
    from localizer_ros.localization.learned.front_end import open_network_front_end

    return open_network_front_end(scene.path, scene.method, config)


def _structure(scene: Scene, config: LocalizerConfig, threaded: bool) -> FrontEnd:
    from localizer_ros.localization.map_based.front_end import open_structure_front_end

    return open_structure_front_end(scene.path, scene.method, config, threaded)


FRONT_ENDS: dict[str, Callable[[Scene, LocalizerConfig, bool], FrontEnd]] = {
    "hierarchical": _structure,
    "direct": _structure,
    "relative": _structure,
    "local": _structure,
    "retrieval": _structure,
    "posenet": _network,
    "anchors": _network,
    "lsg": _network,
    "scene_coords": _network,
}


def open_front_end(scene: Scene, config: LocalizerConfig, threaded: bool = False) -> FrontEnd:
    """The front end of a scene.

    Args:
        scene: the scene.
        config: thresholds and back end.
        threaded: late searches run on a thread of their own instead of in place.

    Raises:
        SceneError: the method is not known here, or a file does not fit.
        BackendError: no back end can run its network.
    """
    if scene.method not in FRONT_ENDS:
        raise SceneError(
            f"{scene.path}: method {scene.method!r} is not known; this version knows {', '.join(FRONT_ENDS)}"
        )
    return FRONT_ENDS[scene.method](scene, config, threaded)
