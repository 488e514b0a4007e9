"""The transforms of a bag: every edge that TF gave, over time, and the trees that can be made of them.

A tree of TF has one parent for each frame, a bag need not: one node says ``map -> base_link``, another
``odom -> base_link``. All edges are kept, and a tree is made for the question: which way from the map to the camera.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from localizer_ros.core.se3 import SE3
from localizer_ros.core.transform_tree import TransformError, TransformTree
from localizer_ros.datasets.pose_coverage import MAX_GAP_NS, PoseSeries

# What the map is called in TF; a namespace may stand before it.
MAP_FRAMES = ("map", "world")
# An edge that repeats the same transform within rounding is a mounting, whatever topic it came on.
_SAME_M, _SAME_RAD = 1e-6, 1e-6


@dataclass
class BagTransforms:
    """Edges as they come, by parent and child."""

    _static: dict[tuple[str, str], SE3] = field(default_factory=dict)
    _moving: dict[tuple[str, str], dict[int, SE3]] = field(default_factory=dict)

    def add(self, parent: str, child: str, T_parent_child: SE3, stamp_ns: int | None) -> None:
        """Take an edge; ``stamp_ns`` None for one of a static topic."""
        if stamp_ns is None:
            self._static[parent, child] = T_parent_child
        else:
            self._moving.setdefault((parent, child), {})[stamp_ns] = T_parent_child

    def tree(self) -> TransformTree:
        """All frames: of a frame's several parents the one it is fixed to, else the one most often told."""
        chosen: dict[str, tuple[str, str]] = {}
        for edge in sorted(self._moving, key=lambda e: len(self._moving[e])):
            chosen[edge[1]] = edge
        for edge in [*filter(self._is_constant, self._moving), *self._static]:
            chosen[edge[1]] = edge
        return self._tree_of(list(chosen.values()))

    def camera_series(self, camera: str) -> PoseSeries | None:
        """``T_map_cam`` over the transforms from the map down to the camera; None where they do not join the two."""
        path = self._path_up(camera)
        moving = [edge for edge in path if self._moves(edge)]
        if not moving:
            return None
        tree = self._tree_of(path)
        top = path[-1][0]

        def pose_at(stamp_ns: int) -> SE3 | None:
            try:
                return tree.lookup(top, camera, stamp_ns)
            except TransformError:
                return None

        names = [camera, *(parent for parent, _ in path)]
        return PoseSeries(f"TF {' -> '.join(reversed(names))}", self._common_stamps(moving), pose_at)

    def reached(self) -> list[str]:
        """Frames that move against the map, for a message about a camera that is not among them."""
        return sorted({child for parent, child in self._moving if parent.rpartition("/")[2] in MAP_FRAMES})

    def _path_up(self, frame: str) -> list[tuple[str, str]]:
        """Edges from a frame up to the nearest map, the lowest first; empty where there is none."""
        edges = {**self._moving, **self._static}
        ways: dict[str, list[tuple[str, str]]] = {frame: []}
        todo = [frame]
        while todo:
            child = todo.pop(0)
            if child.rpartition("/")[2] in MAP_FRAMES:
                return ways[child]
            for edge in edges:
                if edge[1] == child and edge[0] not in ways:
                    ways[edge[0]] = [*ways[child], edge]
                    todo.append(edge[0])
        return []

    def _common_stamps(self, moving: list[tuple[str, str]]) -> NDArray[np.int64]:
        """Stamps of the edge told most rarely, within the time that all are told in."""
        stamps = [np.array(sorted(self._moving[edge]), dtype=np.int64) for edge in moving]
        first, last = max(int(s[0]) for s in stamps), min(int(s[-1]) for s in stamps)
        rarest = min(stamps, key=len)
        return rarest[(rarest >= first) & (rarest <= last)]

    def _moves(self, edge: tuple[str, str]) -> bool:
        return edge not in self._static and not self._is_constant(edge)

    def _is_constant(self, edge: tuple[str, str]) -> bool:
        transforms = list(self._moving.get(edge, {}).values())
        return len(transforms) > 1 and all(
            T.distance_to(transforms[0]) < _SAME_M and T.angle_to(transforms[0]) < _SAME_RAD
            for T in transforms[1:]
        )

    def _tree_of(self, edges: list[tuple[str, str]]) -> TransformTree:
        tree = TransformTree(history_s=None, max_gap_ns=MAX_GAP_NS)
        for edge in edges:
            if edge in self._static:
                tree.set(*edge, self._static[edge], None)
            elif self._is_constant(edge):
                tree.set(*edge, next(iter(self._moving[edge].values())), None)
            else:
                for stamp_ns, T in sorted(self._moving[edge].items()):
                    tree.set(*edge, T, stamp_ns)
        return tree
