"""What a drive costs to map, and how well its poses are found where it has none.

    .venv/bin/python tools/drive_cost.py poses OUT [--place room] [--seconds 60] [--fps 30] [--from odometry|images]
    .venv/bin/python tools/drive_cost.py length OUT [--metres 30] [--fps 10]
    .venv/bin/python tools/drive_cost.py hidden OUT --recording RECORDING [--split train]

`poses` hides the true poses of a drive, maps it, and localises frames of a second drive. Both are compared with the
truth after the similarity that fits the keyframes best: where a map lies, and the scale of an odometry, are its own.
`length` maps a drive through a hall and a room of so many metres and prints CPU seconds for each 100 m, and what a
tracked frame takes. `hidden` hides the poses of a recording, says what `localizer check` finds then, and finds them
from its images. OUT gets the scene, or the trajectory.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from localizer_ros.cli.console import progress_bar
from localizer_ros.core.config.map_based import SearchConfig
from localizer_ros.core.config.mapping import MapConfig, StructureConfig
from localizer_ros.core.config.runtime import RunConfig
from localizer_ros.core.config.schema import config_from_dict
from localizer_ros.core.se3 import SE3
from localizer_ros.core.trajectory import Trajectory
from localizer_ros.core.types import Array, Status
from localizer_ros.datasets.derived import PosedSource, ShiftedSource
from localizer_ros.datasets.several import JoinedSource
from localizer_ros.datasets.simulated import SimulatedSource, WorldConfig
from localizer_ros.datasets.source import FrameSource, open_source
from localizer_ros.evaluation.recording_check import check_lines, check_recording
from localizer_ros.localization.localizer import open_localizer
from localizer_ros.localization.map_based.hierarchical import HierarchicalLocalizer
from localizer_ros.mapping.alignment import fit_similarity
from localizer_ros.mapping.build import WriteOptions, build_scene
from localizer_ros.mapping.sfm import run_sfm
from localizer_ros.scene.map_scene import MapScene

# Of the simulated robot, m/s, with its stops; and where the room lies beside the hall, m.
_SPEED, _BESIDE = 0.57, np.array([-60.0, 0.0, 0.0])
_QUERIES, _TRACKED = 100, 120
# Of the odometry: 1 = 1 % of distance and 1.5 % of turns.
_ODOMETRY_NOISE = 2.0


def drive(place: str, seconds: float, fps: float, number: int = 0, light: float = 1.0) -> SimulatedSource:
    """A drive through a simulated place."""
    world = {"place": place, "duration_s": seconds, "fps": fps, "drive": number, "light": light}
    world["odometry_noise"] = _ODOMETRY_NOISE
    return SimulatedSource(config_from_dict(WorldConfig, world))


def true_poses(source: FrameSource) -> list[SE3]:
    """The truth of each frame."""
    return [record.T_map_cam for record in source.records if record.T_map_cam is not None]


def errors(found: Sequence[SE3], truth: Sequence[SE3]) -> Array:
    """(N, 2) mm and degrees."""
    return np.array(
        [(1e3 * a.distance_to(b), np.degrees(a.angle_to(b))) for a, b in zip(found, truth, strict=True)]
    )


def measure_poses(out: Path, place: str, seconds: float, fps: float, images: bool) -> None:
    """Map a drive whose poses are hidden, and ask a second one."""
    source = drive(place, seconds, fps)
    hidden = PosedSource(source, [None] * len(source.records), "none")
    length_m = sum(a.distance_to(b) for a, b in pairwise(true_poses(source))) if images else None
    started, cpu = time.perf_counter(), time.process_time()
    with progress_bar() as progress:
        options = WriteOptions(overwrite=True, resume=False, length_m=length_m)
        facts = build_scene(hidden, "all", config_from_dict(MapConfig, {}), out, None, options, progress)
    print(f"poses from {facts['training']['ground_truth']}")
    print(f"mapped in {time.perf_counter() - started:.0f} s, {time.process_time() - cpu:.0f} s of CPU")
    scene = MapScene.open(out)
    truth = {record.name: record.T_map_cam for record in source.records}
    keyframes = [SE3.from_matrix(T) for T in scene.point_map.T_map_refined]
    expected = [T for name in scene.point_map.names if (T := truth[name]) is not None]
    everything = range(len(keyframes))
    fitted, rms_m = fit_similarity(keyframes, everything, expected)
    rms_deg = np.sqrt(np.mean(errors(fitted, expected)[:, 1] ** 2))
    print(f"{len(keyframes)} keyframes: {1e3 * rms_m:.1f} mm, {rms_deg:.3f} deg RMS")
    second = drive(place, seconds, fps, 1)
    localizer = HierarchicalLocalizer(scene, SearchConfig())
    asked = np.unique(np.linspace(0, len(second.records) - 1, _QUERIES).astype(int))
    answers = [(i, localizer.localize(second.read(int(i)), None).answer) for i in asked]
    answered = [(true_poses(second)[i], answer.T_map_cam) for i, answer in answers if answer is not None]
    carried, _ = fit_similarity([*keyframes, *(T for _, T in answered)], everything, expected)
    median = np.median(errors(carried[len(keyframes) :], [T for T, _ in answered]), axis=0)
    print(
        f"second drive: {len(answered)} of {len(asked)} answered, median {median[0]:.1f} mm, {median[1]:.3f} deg"
    )


def measure_length(out: Path, metres: float, fps: float) -> None:
    """Map a hall and a room of some metres, and track in the hall."""
    seconds = 0.5 * metres / _SPEED
    room = ShiftedSource(drive("room", seconds, fps, 1), _BESIDE)
    source = JoinedSource([drive("hall", seconds, fps), room])
    length_m = sum(
        a.distance_to(b)
        for part in (drive("hall", seconds, fps), room)
        for a, b in pairwise(true_poses(part))
    )
    started, cpu = time.perf_counter(), time.process_time()
    with progress_bar() as progress:
        options = WriteOptions(overwrite=True, resume=False)
        facts = build_scene(source, "all", config_from_dict(MapConfig, {}), out, None, options, progress)
    wall_s, cpu_s = time.perf_counter() - started, time.process_time() - cpu
    made = facts["map"]
    print(f"{length_m:.0f} m, {made['images']} keyframes, {made['bytes'] / 1e6:.1f} MB")
    print(f"each 100 m: {100 * wall_s / length_m:.1f} s, {100 * cpu_s / length_m:.1f} s of CPU")
    print(f"stages: {made['stage_seconds']}")
    # The beginning of the path, which lies in a map of any length, between the frames that were mapped, in less light.
    again = drive("hall", 20.0, 13.0, light=0.6)
    localizer = open_localizer(out, RunConfig())
    taken = []
    for i in range(60, 60 + _TRACKED):
        frame = again.read(i)
        cpu = time.process_time()
        if localizer.process(frame).status is Status.TRACKING:
            taken.append(1e3 * (time.process_time() - cpu))
    localizer.close()
    print(f"{len(taken)} of {_TRACKED} frames tracked, {np.median(taken):.1f} ms of CPU, median")


def measure_hidden(out: Path, recording: Path, split: str) -> None:
    """Find the poses of a recording from its images alone, and compare them with its own."""
    source = open_source(recording).split(split)
    hidden = PosedSource(source, [None] * len(source.records), "none")
    print("\n".join(check_lines(check_recording(hidden), str(recording))))
    started, cpu = time.perf_counter(), time.process_time()
    with progress_bar() as progress:
        facts = run_sfm(hidden, split, StructureConfig(), out, None, False, progress)
    print(f"{facts['placed']} of {len(source.records)} frames placed")
    print(f"in {time.perf_counter() - started:.0f} s, {time.process_time() - cpu:.0f} s of CPU")
    truth = {record.stamp_ns: record.T_map_cam for record in source.records}
    found = Trajectory.read_tum(out / "trajectory.txt")
    pairs = [
        (T, T_true)
        for stamp, T in zip(found.stamps_ns.tolist(), found.poses, strict=True)
        if (T_true := truth[stamp]) is not None
    ]
    known = [T_true for _, T_true in pairs]
    fitted = _turned_by_orientations([T for T, _ in pairs], known)
    rms_m = np.sqrt(np.mean([a.distance_to(b) ** 2 for a, b in zip(fitted, known, strict=True)]))
    length_m = sum(a.distance_to(b) for a, b in pairwise(known))
    turned = errors(fitted, known)[:, 1]
    share, rms_deg = 100.0 * rms_m / length_m, np.sqrt(np.mean(turned**2))
    print(f"{1e3 * rms_m:.1f} mm RMS, {share:.2f} % of a path of {length_m:.1f} m")
    print(f"{rms_deg:.2f} deg RMS, {np.median(turned):.2f} deg median")


def _turned_by_orientations(found: Sequence[SE3], known: Sequence[SE3]) -> list[SE3]:
    """Poses carried by the similarity whose turn fits the orientations, and whose scale and place fit the positions,
    best: a camera that moved by centimetres tells its turn by its orientations alone."""
    u, _, vt = np.linalg.svd(sum(b.R @ a.R.T for a, b in zip(found, known, strict=True)))
    R = u @ np.diag([1.0, 1.0, np.linalg.det(u @ vt)]) @ vt
    a, b = np.stack([R @ T.t for T in found]), np.stack([T.t for T in known])
    a0, b0 = a - a.mean(axis=0), b - b.mean(axis=0)
    t = float((a0 * b0).sum() / (a0**2).sum()) * a0 + b.mean(axis=0)
    return [SE3(R @ T.R, at) for T, at in zip(found, t, strict=True)]


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("poses", "length", "hidden"))
    parser.add_argument("out", type=Path)
    parser.add_argument("--place", default="room")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--metres", type=float, default=30.0)
    parser.add_argument("--fps", type=float, default=0.0)
    parser.add_argument("--from", dest="source", choices=("odometry", "images"), default="odometry")
    parser.add_argument("--recording", type=Path)
    parser.add_argument("--split", default="train")
    options = parser.parse_args()
    if options.what == "hidden":
        if options.recording is None:
            parser.error("hidden needs --recording")
        measure_hidden(options.out, options.recording, options.split)
    elif options.what == "poses":
        images = options.source == "images"
        measure_poses(options.out, options.place, options.seconds, options.fps or 30.0, images)
    else:
        measure_length(options.out, options.metres, options.fps or 10.0)


if __name__ == "__main__":
    main()
