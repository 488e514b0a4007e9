"""Transforms between named frames over time: what a TF listener remembers. Knows nothing of ROS."""

from __future__ import annotations

import bisect
import math
from dataclasses import dataclass, field

from localizer_ros.core.continuity import OVER_SAMPLES, jump
from localizer_ros.core.se3 import SE3, interpolate
from localizer_ros.core.types import LocalizerError

# Whatever happened in a gap whose ends differ by less, the pose in between is known about as well as poses are.
_STILL_M, _STILL_RAD = 0.02, math.radians(0.5)


class TransformError(LocalizerError):
    """Two frames are not connected, or not at that time; the message says what is missing."""


class TransformNotYet(TransformError):
    """A moving edge is not known as late as that; it may be soon."""


@dataclass(slots=True)
class _Edge:
    """One parent -> child edge: a fixed transform, or a history sorted by stamp."""

    parent: str
    fixed: SE3 | None = None
    stamps_ns: list[int] = field(default_factory=list)
    transforms: list[SE3] = field(default_factory=list)


class TransformTree:
    """Frames that know their parents.

    Args:
        history_s: seconds of a moving edge that are kept; None keeps all, in whatever order they come.
        time_jump_s: a stamp further back than this means that time itself went back (a looping recording).
        max_gap_ns: transforms further apart in time are not interpolated, unless they hardly differ; None for no limit.
    """

    def __init__(
        self, history_s: float | None = 10.0, time_jump_s: float = 0.5, max_gap_ns: int | None = None
    ) -> None:
        self._max_gap_ns = max_gap_ns
        self._history_ns = None if history_s is None else round(history_s * 1e9)
        self._time_jump_ns = round(time_jump_s * 1e9)
        self._edges: dict[str, _Edge] = {}

    @property
    def frames(self) -> set[str]:
        """The names of all frames that an edge joins to another."""
        return {*self._edges, *(edge.parent for edge in self._edges.values())}

    def parent(self, frame: str) -> str | None:
        """The frame above, None where there is none."""
        edge = self._edges.get(frame)
        return None if edge is None else edge.parent

    def _starts_over(self, edge: _Edge, stamp_ns: int, T_parent_child: SE3) -> bool:
        """Whether time went back, or the edge has jumped: there is nothing between before and after."""
        if stamp_ns <= edge.stamps_ns[-1]:
            return stamp_ns < edge.stamps_ns[-1] - self._time_jump_ns
        recent = zip(edge.stamps_ns[-OVER_SAMPLES:], edge.transforms[-OVER_SAMPLES:], strict=True)
        return jump(list(recent), stamp_ns, T_parent_child) is not None

    def fixed(self, parent: str, child: str) -> SE3 | None:
        """``T_parent_child`` of a fixed edge; None where there is no such one."""
        edge = self._edges.get(child)
        return None if edge is None or edge.parent != parent else edge.fixed

    def ancestors(self, frame: str) -> list[str]:
        """The frame, its parent and so on to the root."""
        chain = [frame]
        while (parent := self.parent(chain[-1])) is not None and parent not in chain:
            chain.append(parent)
        return chain

    def set(self, parent: str, child: str, T_parent_child: SE3, stamp_ns: int | None) -> None:
        """Remember an edge; ``stamp_ns`` None makes it fixed."""
        edge = self._edges.get(child)
        if edge is None or edge.parent != parent:
            edge = self._edges[child] = _Edge(parent)
        if stamp_ns is None:
            edge.fixed = T_parent_child
            return
        edge.fixed = None
        if (
            self._history_ns is not None
            and edge.stamps_ns
            and self._starts_over(edge, stamp_ns, T_parent_child)
        ):
            edge.stamps_ns.clear()
            edge.transforms.clear()
        index = bisect.bisect_left(edge.stamps_ns, stamp_ns)
        if index < len(edge.stamps_ns) and edge.stamps_ns[index] == stamp_ns:
            edge.transforms[index] = T_parent_child
            return
        edge.stamps_ns.insert(index, stamp_ns)
        edge.transforms.insert(index, T_parent_child)
        if self._history_ns is not None:
            keep = bisect.bisect_left(edge.stamps_ns, edge.stamps_ns[-1] - self._history_ns)
            del edge.stamps_ns[:keep], edge.transforms[:keep]

    def lookup(self, target: str, source: str, stamp_ns: int | None = None) -> SE3:
        """``T_target_source`` at a time, or over fixed edges only.

        Moving edges are interpolated, never extrapolated.

        Raises:
            TransformError: not connected, a moving edge without a stamp, or a time outside an edge's history.
        """
        below_target, below_source = self._ways_up(target, source)
        return self._climb(below_target, stamp_ns).inverse() @ self._climb(below_source, stamp_ns)

    def latest(self, target: str, source: str) -> int | None:
        """The latest stamp at which ``T_target_source`` is known; None where it is fixed, and known at any.

        Raises:
            TransformError: the frames are not connected.
        """
        below_target, below_source = self._ways_up(target, source)
        moving = [self._edges[child] for child in (*below_target, *below_source)]
        newest = [edge.stamps_ns[-1] if edge.stamps_ns else -1 for edge in moving if edge.fixed is None]
        return min(newest, default=None)

    def _ways_up(self, target: str, source: str) -> tuple[list[str], list[str]]:
        """The frames from each of two to below the one that they have in common. Raises TransformError."""
        of_target, of_source = self.ancestors(target), self.ancestors(source)
        common = next((frame for frame in of_source if frame in of_target), None)
        if common is None:
            known = ", ".join(sorted(self.frames)) or "none"
            raise TransformError(f"no transform connects {target!r} and {source!r}; known frames: {known}")
        return of_target[: of_target.index(common)], of_source[: of_source.index(common)]

    def find_fixed(self, target: str, source: str) -> SE3 | None:
        """``T_target_source`` over fixed edges only, None when they do not join the two frames."""
        try:
            return self.lookup(target, source)
        except TransformError:
            return None

    def clear_moving(self) -> None:
        """Forget where moving frames were (time went back), but not whose children they are."""
        for edge in self._edges.values():
            edge.stamps_ns.clear()
            edge.transforms.clear()

    def _climb(self, children: list[str], stamp_ns: int | None) -> SE3:
        T = SE3.identity()
        for child in children:
            T = self._at(child, stamp_ns) @ T
        return T

    def _at(self, child: str, stamp_ns: int | None) -> SE3:
        edge = self._edges[child]
        if edge.fixed is not None:
            return edge.fixed
        if stamp_ns is None:
            raise TransformError(f"{edge.parent!r} -> {child!r} moves; expected a static transform")
        index = bisect.bisect_left(edge.stamps_ns, stamp_ns)
        if index < len(edge.stamps_ns) and edge.stamps_ns[index] == stamp_ns:
            return edge.transforms[index]
        if index == 0:
            raise TransformError(f"{edge.parent!r} -> {child!r} is not known as early as {stamp_ns} ns")
        if index == len(edge.stamps_ns):
            raise TransformNotYet(f"{edge.parent!r} -> {child!r} is not known as late as {stamp_ns} ns yet")
        before, after = edge.stamps_ns[index - 1], edge.stamps_ns[index]
        fraction = (stamp_ns - before) / (after - before)
        T_before, T_after = edge.transforms[index - 1], edge.transforms[index]
        far = self._max_gap_ns is not None and after - before > self._max_gap_ns
        if far and (T_before.distance_to(T_after) > _STILL_M or T_before.angle_to(T_after) > _STILL_RAD):
            gap_s = 1e-9 * (after - before)
            raise TransformError(f"{edge.parent!r} -> {child!r} is known only {gap_s:.2f} s apart")
        return interpolate(T_before, T_after, fraction)
