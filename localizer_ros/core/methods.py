"""The one table of localization methods. A new method is one row here and the file that the row names.

A row is plain data: what makes a scene of the method and what opens one are named as ``module:function`` and imported
when they are needed, so that this module stands below everything and imports nothing of it.
"""

from __future__ import annotations

import difflib
import enum
import importlib
from dataclasses import dataclass
from typing import Any


class Family(enum.Enum):
    """What a scene of a method holds, and what mapping does for it."""

    POINT_MAP = "builds a map of points"
    POSED_IMAGES = "keeps posed images, in seconds"
    NETWORK = "trains a network"


@dataclass(frozen=True, slots=True)
class Method:
    """One way to localise in a place.

    Attributes:
        name: what a user writes: ``localizer map --method NAME``.
        family: what a scene of it holds.
        description: how it finds a pose, in a few words.
        builder: ``module:function`` that makes its scene, see :class:`localizer_ros.mapping.build.Builder`.
        opener: ``module:function`` that opens its scene, see :class:`localizer_ros.localization.open.Opener`.
        network: ``module:function`` that makes its network and what that is trained for, see
            :data:`localizer_ros.training.network_setup.NetworkMaker`; None where no network is trained. Only a method
            with one takes ``--weights`` and ``--time-budget``.
        needs_depth: its training needs a map of points of the recording, which is built first.
    """

    name: str
    family: Family
    description: str
    builder: str
    opener: str
    network: str | None = None
    needs_depth: bool = False

    @property
    def trains_network(self) -> bool:
        """True where mapping trains a network."""
        return self.network is not None


_POINT_MAP = "localizer_ros.mapping.build_point_map:build_point_map_scene"
_POSED_IMAGES = "localizer_ros.mapping.build_image_map:build_image_map_scene"
_NETWORK = "localizer_ros.mapping.build_network_scene:build_network_scene"
_OPEN_MAP = "localizer_ros.localization.map_based.front_end:open_map_front_end"
_OPEN_NETWORK = "localizer_ros.localization.learned.front_end:open_network_front_end"
_SETUP = "localizer_ros.training.network_setup"

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method(
            "hierarchical",
            Family.POINT_MAP,
            "image retrieval, matching with the points seen there, PnP in RANSAC; tracking in between",
            _POINT_MAP,
            _OPEN_MAP,
        ),
        Method(
            "direct",
            Family.POINT_MAP,
            "as hierarchical, but matched with all points at once, for small maps",
            _POINT_MAP,
            _OPEN_MAP,
        ),
        Method(
            "relative",
            Family.POINT_MAP,
            "essential matrices to several retrieved images, position where their directions meet",
            _POINT_MAP,
            _OPEN_MAP,
        ),
        Method(
            "local",
            Family.POSED_IMAGES,
            "points triangulated among the retrieved images for each frame, then PnP in RANSAC",
            _POSED_IMAGES,
            _OPEN_MAP,
        ),
        Method(
            "retrieval",
            Family.POSED_IMAGES,
            "mean of the poses of the most similar images",
            _POSED_IMAGES,
            _OPEN_MAP,
        ),
        Method(
            "posenet",
            Family.NETWORK,
            "absolute pose regression",
            _NETWORK,
            _OPEN_NETWORK,
            f"{_SETUP}:make_posenet",
        ),
        Method(
            "anchors",
            Family.NETWORK,
            "pose relative to the nearest training poses",
            _NETWORK,
            _OPEN_NETWORK,
            f"{_SETUP}:make_anchors",
        ),
        Method(
            "lsg",
            Family.NETWORK,
            "absolute pose regression over a sequence (Local Supports Global)",
            _NETWORK,
            _OPEN_NETWORK,
            f"{_SETUP}:make_lsg",
        ),
        Method(
            "scene_coords",
            Family.NETWORK,
            "scene coordinate regression, then PnP in RANSAC",
            _NETWORK,
            _OPEN_NETWORK,
            f"{_SETUP}:make_scene_coords",
            needs_depth=True,
        ),
    )
}


def find_method(name: str) -> Method:
    """The row of a method. Raises ConfigError, with the nearest name there is, where there is none."""
    # Late: a help page is made from this table, and must not wait for numpy.
    from localizer_ros.core.types import ConfigError

    if name not in METHODS:
        raise ConfigError(unknown_method(name))
    return METHODS[name]


def unknown_method(name: str) -> str:
    """What to say of a name that is no method's."""
    near = difflib.get_close_matches(name, METHODS, 1)
    guess = f"; did you mean {near[0]}?" if near else ""
    return f"method: expected one of {', '.join(METHODS)}, got {name!r}{guess}"


def method_help() -> str:
    """One sentence on all methods, for the help of a command and the description of a setting."""
    families = {family: [m.name for m in METHODS.values() if m.family is family] for family in Family}
    return "; ".join(f"{family.value}: {', '.join(names)}" for family, names in families.items() if names)


def load(reference: str) -> Any:
    """What ``module:function`` names, imported now."""
    module, _, name = reference.partition(":")
    return getattr(importlib.import_module(module), name)
