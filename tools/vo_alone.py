"""How far visual odometry goes astray by itself: windows of a recording, each begun by a map or by odometry.

A window begins with the first frame that the map answers (``--scene``), and the map is not looked at again; or lengths
come from odometry all the way: the recording's own or, with ``--wheels``, one that errs by 1 % in every length and is
made of the ground truth, for recordings that have none. Prints for each window how far it ends from the truth, in
percent of the path, and for all of them the normalised squared errors of the whole way, of seconds and of frames. With
a map it says as well how far the map is from the truth, asked at both ends: about as much may be the truth's own error.

Usage: python tools/vo_alone.py RECORDING [--scene SCENE] [--wheels] [--split test] [--seconds 30] [--skip 0] [--join]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from localizer_ros.core.config.map_based import SearchConfig
from localizer_ros.core.config.runtime import OdometryConfig
from localizer_ros.core.se3 import SE3, compose_covariance
from localizer_ros.core.types import Array, Frame, RelativePose
from localizer_ros.datasets.source import FrameSource, open_source
from localizer_ros.geometry.rays import RayCamera
from localizer_ros.localization.external_odometry import ExternalOdometry
from localizer_ros.localization.map_based.hierarchical import HierarchicalLocalizer
from localizer_ros.localization.visual_odometry.odometry import Seed, VisualOdometry
from localizer_ros.scene.map_scene import MapScene

# Error of wheels made of the ground truth: share of every length, and their white noise over a frame, m.
WHEEL_SCALE, WHEEL_NOISE_M = 0.01, 0.002
# The ground truth's own noise is not path: positions so far apart in time are.
PATH_NS = 200_000_000

Lengths = Callable[[int, int], RelativePose | None]


@dataclass(frozen=True)
class Step:
    """One frame of a window: its number, stamp, true pose, and where odometry puts it since the window's beginning."""

    index: int
    stamp_ns: int
    T_true: SE3
    T_begin_cur: SE3
    covariance: Array


def of_recording(source: FrameSource) -> Lengths:
    """The motion of the camera by the recording's odometry."""
    odometry = ExternalOdometry(OdometryConfig())
    trajectory, T_base_cam = source.odometry, source.T_base_cam
    assert trajectory is not None and T_base_cam is not None
    stamps = [int(ns) for ns in trajectory.stamps_ns]
    fed = 0

    def motion(prev_ns: int, cur_ns: int) -> RelativePose | None:
        nonlocal fed
        while fed < len(stamps) and stamps[fed] <= cur_ns + 100_000_000:
            covariance = None if trajectory.covariances is None else trajectory.covariances[fed]
            odometry.add(stamps[fed], trajectory.poses[fed], covariance)
            fed += 1
        return odometry.motion(prev_ns, cur_ns, T_base_cam, T_base_cam)

    return motion


def of_wheels(source: FrameSource, rng: np.random.Generator) -> Lengths:
    """The true motion, each length wrong by the same share and by noise."""
    truth = {r.stamp_ns: r.T_map_cam for r in source.records}
    scale = 1.0 + WHEEL_SCALE * (1.0 if rng.random() < 0.5 else -1.0)

    def motion(prev_ns: int, cur_ns: int) -> RelativePose | None:
        T_prev, T_cur = truth[prev_ns], truth[cur_ns]
        if T_prev is None or T_cur is None:
            return None
        T = T_prev.inverse() @ T_cur
        t = scale * T.t + rng.normal(0.0, WHEEL_NOISE_M, 3)
        sigma_m = WHEEL_NOISE_M + WHEEL_SCALE * float(np.linalg.norm(t))
        covariance = np.diag(np.repeat([0.01**2, sigma_m**2], 3))
        return RelativePose(prev_ns, cur_ns, SE3(T.R, t), covariance, "odom")

    return motion


def seed_from_map(scene: MapScene, localizer: HierarchicalLocalizer, frame: Frame) -> tuple[Seed, SE3] | None:
    """The points of a frame that the map answers, and the frame's pose."""
    found = localizer.localize(frame, None).verified
    if found is None:
        return None
    keep, T = found.solved.inliers, found.solved.T_map_refined
    depth_m = np.asarray((scene.point_map.points[found.points[keep]] - T.t) @ T.R[:, 2])
    T_map_cam = T @ scene.point_map.T_cam_refined.inverse()
    return Seed(frame, found.xy_px[keep], found.rays[keep], depth_m), T_map_cam


class Runner:
    """Runs windows of a recording.

    Args:
        source: the recording.
        scene: a map of its place; None = lengths come from odometry.
        wheels: lengths from made wheels, not the recording's odometry.
        join: go on from one sequence to the next.
    """

    def __init__(self, source: FrameSource, scene: Path | None, wheels: bool, join: bool) -> None:
        self._source, self._join = source, join
        self._scene = None if scene is None else MapScene.open(scene)
        self._localizer = None if self._scene is None else HierarchicalLocalizer(self._scene, SearchConfig())
        self._T_cam_refined = SE3.identity()
        camera = RayCamera(source.read(0).camera)
        self._lengths: Lengths | None = None
        if self._scene is not None:
            self._T_cam_refined, camera = self._scene.point_map.T_cam_refined, self._scene.point_map.camera
        else:
            self._lengths = of_wheels(source, np.random.default_rng(0)) if wheels else of_recording(source)
        self._odometry = VisualOdometry(camera)

    def windows(self, seconds: float, skip_s: float) -> Iterator[list[Step]]:
        """The windows, one after the other, without the first seconds of the recording."""
        window: list[Step] = []
        sequence: str | None = None
        begin_ns = self._source.records[0].stamp_ns + skip_s * 1e9
        for index, record in enumerate(self._source.records):
            if record.stamp_ns < begin_ns:
                continue
            frame = self._source.read(index)
            over = bool(window) and record.stamp_ns - window[0].stamp_ns > seconds * 1e9
            if over or (record.sequence != sequence and not self._join):
                if len(window) > 1:
                    yield window
                window = []
                self._odometry.reset()
            sequence = record.sequence
            if record.T_map_cam is None:
                continue
            motion = self._motion(index, frame)
            if motion is None or not window:
                if len(window) > 1:
                    print(f"lost after {len(window)} frames", flush=True)
                    yield window
                window = self._begun(index, frame)
            else:
                last = window[-1]
                T = last.T_begin_cur @ motion.T_prev_cur
                S = compose_covariance(last.covariance, motion.T_prev_cur, motion.covariance)
                window.append(Step(index, record.stamp_ns, record.T_map_cam, T, S))
        if len(window) > 1:
            yield window

    def _begun(self, index: int, frame: Frame) -> list[Step]:
        """The first frame of a window; none while the map does not know it, or odometry has not measured a baseline."""
        T_true = self._source.records[index].T_map_cam
        assert T_true is not None
        if self._scene is not None and self._localizer is not None:
            seed = seed_from_map(self._scene, self._localizer, frame)
            if seed is None:
                return []
            self._odometry.seed(seed[0])
        return [Step(index, frame.stamp_ns, T_true, SE3.identity(), np.zeros((6, 6)))]

    def error_of_map_m(self, window: list[Step]) -> float | None:
        """How far from the truth the map puts the end of a window from its beginning; None where it does not know."""
        if self._scene is None or self._localizer is None:
            return None
        ends = []
        for step in (window[0], window[-1]):
            found = seed_from_map(self._scene, self._localizer, self._source.read(step.index))
            if found is None:
                return None
            ends.append(found[1])
        T_true = window[0].T_true.inverse() @ window[-1].T_true
        return float(np.linalg.norm((T_true.inverse() @ ends[0].inverse() @ ends[1]).t))

    def _motion(self, index: int, frame: Frame) -> RelativePose | None:
        odometry = None
        if self._lengths is not None and index > 0:
            odometry = self._lengths(self._source.records[index - 1].stamp_ns, frame.stamp_ns)
        motion = self._odometry.observe(frame, odometry)
        if motion is None:
            return None
        C = self._T_cam_refined
        covariance = compose_covariance(motion.covariance, C.inverse())
        return RelativePose(
            motion.stamp_prev_ns,
            motion.stamp_cur_ns,
            C @ motion.T_prev_cur @ C.inverse(),
            covariance,
            motion.source,
        )


def path_m(window: list[Step]) -> float:
    """Length of the true way."""
    length, last = 0.0, window[0]
    for step in window[1:]:
        if step.stamp_ns - last.stamp_ns >= PATH_NS or step is window[-1]:
            length += last.T_true.distance_to(step.T_true)
            last = step
    return length


def between(a: Step, b: Step) -> tuple[Array, Array]:
    """(6,) error of the motion between two steps in its tangent, and its (6, 6) covariance."""
    T = a.T_begin_cur.inverse() @ b.T_begin_cur
    error = (T.inverse() @ a.T_true.inverse() @ b.T_true).log()
    S = b.covariance - compose_covariance(a.covariance, T)
    return error, S


def nees(pairs: list[tuple[Array, Array]]) -> str:
    """Median and p90 of normalised squared errors; 5.35 and 10.6 for an honest covariance."""
    values = [float(e @ np.linalg.solve(S + 1e-15 * np.eye(6), e)) for e, S in pairs]
    return f"{np.median(values):.1f} / {np.percentile(values, 90):.1f}" if values else "-"


def pairs_apart(window: list[Step], ns: int) -> list[tuple[Array, Array]]:
    """Motions of a window over so long a time, one beginning where the other ends."""
    found, begin = [], window[0]
    for step in window[1:]:
        if step.stamp_ns - begin.stamp_ns >= ns:
            found.append(between(begin, step))
            begin = step
    return found


def of_map(error_m: float | None, path: float) -> str:
    """What the map says of the same way."""
    return "" if error_m is None else f"; the map {error_m * 100:.1f} cm ({100 * error_m / path:.2f} %)"


def main() -> None:
    """Runs the windows and prints their figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("recording", type=Path)
    parser.add_argument("--scene", type=Path)
    parser.add_argument("--wheels", action="store_true")
    parser.add_argument("--split", default="all")
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--skip", type=float, default=0.0, help="seconds that are left out at the start")
    parser.add_argument("--join", action="store_true")
    args = parser.parse_args()
    source = open_source(args.recording)
    source = source if args.split == "all" else source.split(args.split)
    missed = length = 0.0
    whole: list[tuple[Array, Array]] = []
    seconds: list[tuple[Array, Array]] = []
    frames: list[tuple[Array, Array]] = []
    runner = Runner(source, args.scene, args.wheels, args.join)
    for window in runner.windows(args.seconds, args.skip):
        error, S = between(window[0], window[-1])
        path, off = path_m(window), float(np.linalg.norm(error[3:]))
        missed, length = missed + off, length + path
        print(
            f"{len(window)} frames, {(window[-1].stamp_ns - window[0].stamp_ns) * 1e-9:.1f} s, {path:.2f} m: "
            f"{off * 100:.1f} cm ({100 * off / path:.2f} %), {np.degrees(np.linalg.norm(error[:3])):.2f} deg, "
            f"NEES {nees([(error, S)]).split()[0]}{of_map(runner.error_of_map_m(window), path)}",
            flush=True,
        )
        whole += [(error, S), between(window[0], window[len(window) // 2])]
        seconds += pairs_apart(window, 1_000_000_000)
        frames += pairs_apart(window, 1)
    print(
        f"all: {100 * missed / length:.2f} % of {length:.1f} m; NEES median / p90 of whole and half windows "
        f"{nees(whole)}, of seconds {nees(seconds)}, of frames {nees(frames)}"
    )


if __name__ == "__main__":
    main()
