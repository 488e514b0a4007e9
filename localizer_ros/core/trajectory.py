"""A trajectory: stamps, poses and optional covariances; TUM files; interpolation and association by time."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from localizer_ros.core.files import read_text
from localizer_ros.core.se3 import SE3, interpolate
from localizer_ros.core.types import Array, SourceError

UNKNOWN_SCALE = "scale unknown: positions are in units of their own, not in metres"
"""Heading of a file of positions that no measure stands behind."""


@dataclass(frozen=True, slots=True, eq=False)
class Trajectory:
    """Poses over time, strictly increasing in time.

    Attributes:
        stamps_ns: (N,) int64.
        poses: N poses ``T_ref_body``; which frames they relate is the owner's to say.
        covariances: (N, 6, 6) in the tangent of each pose, or None.
    """

    stamps_ns: NDArray[np.int64]
    poses: tuple[SE3, ...]
    covariances: Array | None = None

    def __post_init__(self) -> None:
        if self.stamps_ns.shape != (len(self.poses),):
            raise ValueError(f"trajectory: {self.stamps_ns.shape} stamps for {len(self.poses)} poses")
        if np.any(np.diff(self.stamps_ns) <= 0):
            raise ValueError("trajectory: stamps must increase")

    @staticmethod
    def from_items(items: Iterable[tuple[int, SE3]]) -> Trajectory:
        """From (stamp_ns, pose) pairs in any order; of equal stamps the first is kept."""
        unique: dict[int, SE3] = {}
        for stamp_ns, pose in items:
            unique.setdefault(stamp_ns, pose)
        stamps = sorted(unique)
        return Trajectory(np.array(stamps, dtype=np.int64), tuple(unique[s] for s in stamps))

    def __len__(self) -> int:
        return len(self.poses)

    @property
    def positions(self) -> Array:
        """(N, 3) origins, metres."""
        return np.stack([T.t for T in self.poses]) if self.poses else np.zeros((0, 3))

    @property
    def length_m(self) -> float:
        """Length of the path."""
        return float(np.linalg.norm(np.diff(self.positions, axis=0), axis=1).sum()) if len(self) > 1 else 0.0

    def at(self, stamp_ns: int, max_gap_ns: int = 200_000_000) -> SE3 | None:
        """Pose at a time, interpolated between its neighbours.

        Returns None outside the trajectory, and where the two neighbours are more than ``max_gap_ns`` apart.
        """
        index = int(np.searchsorted(self.stamps_ns, stamp_ns))
        if index < len(self) and self.stamps_ns[index] == stamp_ns:
            return self.poses[index]
        if index == 0 or index == len(self):
            return None
        before, after = int(self.stamps_ns[index - 1]), int(self.stamps_ns[index])
        if after - before > max_gap_ns:
            return None
        return interpolate(self.poses[index - 1], self.poses[index], (stamp_ns - before) / (after - before))

    def nearest(self, stamps_ns: Sequence[int], tolerance_ns: int) -> list[int | None]:
        """For each stamp the index of the pose closest in time, None beyond ``tolerance_ns``."""
        found: list[int | None] = []
        for stamp in stamps_ns:
            index = int(np.searchsorted(self.stamps_ns, stamp))
            candidates = [i for i in (index - 1, index) if 0 <= i < len(self)]
            best = min(candidates, key=lambda i: abs(int(self.stamps_ns[i]) - stamp), default=None)
            within = best is not None and abs(int(self.stamps_ns[best]) - stamp) <= tolerance_ns
            found.append(best if within else None)
        return found

    def write_tum(self, path: Path, heading: str = "") -> None:
        """Write ``stamp x y z qx qy qz qw`` lines, seconds with nine decimals, below a comment where there is one."""
        lines = [f"# {heading}\n"] if heading else []
        for stamp, T in zip(self.stamps_ns.tolist(), self.poses, strict=True):
            seconds, nanoseconds = divmod(abs(stamp), 1_000_000_000)
            values = " ".join(f"{v:.9f}" for v in (*T.t, *T.quaternion_xyzw()))
            lines.append(f"{'-' if stamp < 0 else ''}{seconds}.{nanoseconds:09d} {values}\n")
        path.write_text("".join(lines))

    @staticmethod
    def read_tum(path: Path) -> Trajectory:
        """Read a TUM trajectory file: ``stamp x y z qx qy qz qw``, seconds, separated by blanks or commas.

        Stamps that can only be nanoseconds (ORB-SLAM3 writes such) are taken so. A heading may say that the
        quaternion begins with w (``#timestamp [ns],p_x,p_y,p_z,q_w,q_x,q_y,q_z``, as EuRoC has it).

        Raises:
            SourceError: the file is missing or a line is malformed; the message names file and line.
        """
        items = []
        order = _XYZW
        nanoseconds: bool | None = None
        commas = False
        for number, line in enumerate(read_text(path, SourceError).splitlines(), start=1):
            fields = line.replace(",", " ").split()
            if not fields or fields[0].startswith("#"):
                order = _order_of(line, order)
                continue
            commas = commas or "," in line
            try:
                if nanoseconds is None:
                    nanoseconds = abs(float(fields[0])) >= NANOSECONDS
                stamp_ns = whole_ns(fields[0]) if nanoseconds else seconds_to_ns(fields[0])
                values = [float(v) for v in fields[1:8]]
                q = values[3:] if order != _WXYZ or len(values) != 7 else [*values[4:], values[3]]
                items.append((stamp_ns, SE3.from_unit_quaternion(values[:3], q)))
            except ValueError as error:
                raise SourceError(f"{path}:{number}: expected 'stamp x y z qx qy qz qw' ({error})") from error
        if nanoseconds and order == _XYZW and commas:
            raise SourceError(
                f"{path}: commas and nanoseconds, but no heading: expected one that names the columns, for the order "
                "of the quaternion, e.g. '#timestamp [ns],p_x,p_y,p_z,q_w,q_x,q_y,q_z'"
            )
        return Trajectory.from_items(items)


# No clock shows so many seconds (three hundred million years); nanoseconds since 1970 are 1.7e18.
NANOSECONDS = 1e16
# Order of a quaternion's values in a file: not said (TUM's), and as a heading says it.
_XYZW, _SAID_XYZW, _WXYZ = "xyzw", "said xyzw", "wxyz"


def _order_of(heading: str, so_far: str) -> str:
    """Order of the quaternion that a heading names, else that so far."""
    names = re.findall(r"q[a-z_]*?_?([wx])\b", heading.lower())
    if names[:1] == ["w"] and "x" in names:
        return _WXYZ
    return _SAID_XYZW if names[:1] == ["x"] and "w" in names else so_far


def is_of_unknown_scale(path: Path) -> bool:
    """Whether the heading of a trajectory file says so. Raises SourceError where it cannot be read."""
    return UNKNOWN_SCALE in read_text(path, SourceError)[: 2 * len(UNKNOWN_SCALE)]


def whole_ns(text: str) -> int:
    """Nanoseconds of a whole number of them; ``.000000`` may follow.

    Raises:
        ValueError: not a number, or not a time that 64 bits hold.
    """
    whole, _, fraction = text.partition(".")
    plain = whole.lstrip("+-").isdigit() and not fraction.strip("0")
    if not plain and not math.isfinite(float(text)):
        raise ValueError(f"stamp {text[:40]}: expected nanoseconds")
    stamp_ns = int(whole) if plain else round(float(text))
    if not -(2**63) <= stamp_ns < 2**63:
        raise ValueError(f"stamp {text[:40]}: expected nanoseconds that 64 bits hold")
    return stamp_ns


def seconds_to_ns(text: str) -> int:
    """Exact nanoseconds of a decimal number of seconds (a float would lose the last digits of an epoch stamp).

    Raises:
        ValueError: not a number, or not a time that 64 bits hold.
    """
    whole, _, fraction = text.partition(".")
    if whole.lstrip("+-").isdigit() and (not fraction or fraction.isdigit()):
        sign = -1 if whole.startswith("-") else 1
        stamp_ns = int(whole) * 1_000_000_000 + sign * int(fraction[:9].ljust(9, "0"))
    else:
        seconds = float(text)
        if not math.isfinite(seconds):
            raise ValueError(f"stamp {text[:40]}: expected a finite number of seconds")
        stamp_ns = round(seconds * 1e9)
    if not -(2**63) <= stamp_ns < 2**63:
        raise ValueError(f"stamp {text[:40]}: expected seconds, with nanoseconds that 64 bits hold")
    return stamp_ns
