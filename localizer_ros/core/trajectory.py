"""A trajectory: stamps, poses and optional covariances; TUM files; interpolation and association by time."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from localizer_ros.core.se3 import SE3, interpolate
from localizer_ros.core.types import Array, SourceError


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

    def write_tum(self, path: Path) -> None:
        """Write ``stamp x y z qx qy qz qw`` lines, seconds with nine decimals."""
        lines = []
        for stamp, T in zip(self.stamps_ns.tolist(), self.poses, strict=True):
            seconds, nanoseconds = divmod(abs(stamp), 1_000_000_000)
            values = " ".join(f"{v:.9f}" for v in (*T.t, *T.quaternion_xyzw()))
            lines.append(f"{'-' if stamp < 0 else ''}{seconds}.{nanoseconds:09d} {values}\n")
        path.write_text("".join(lines))

    @staticmethod
    def read_tum(path: Path) -> Trajectory:
        """Read a TUM trajectory file.

        Raises:
            SourceError: the file is missing or a line is malformed; the message names file and line.
        """
        try:
            text = path.read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise SourceError(f"{path}: cannot be read ({error})") from error
        items = []
        for number, line in enumerate(text.splitlines(), start=1):
            fields = line.replace(",", " ").split()
            if not fields or fields[0].startswith("#"):
                continue
            try:
                values = [float(v) for v in fields[1:8]]
                items.append((seconds_to_ns(fields[0]), SE3.from_quaternion(values[:3], values[3:])))
            except ValueError as error:
                raise SourceError(f"{path}:{number}: expected 'stamp x y z qx qy qz qw' ({error})") from error
        return Trajectory.from_items(items)


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
            raise ValueError(f"stamp {text}: expected a finite number of seconds")
        stamp_ns = round(seconds * 1e9)
    if not -(2**63) <= stamp_ns < 2**63:
        raise ValueError(f"stamp {text}: expected seconds, with nanoseconds that 64 bits hold")
    return stamp_ns
