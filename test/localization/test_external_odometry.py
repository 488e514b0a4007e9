"""Visual and external odometry fused in the simulated world: better than either alone where no absolute pose is had."""

from __future__ import annotations

import numpy as np

from localizer_ros.core.config.runtime import LocalizerConfig, OdometryConfig, StatusConfig
from localizer_ros.core.config.schema import config_from_dict
from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import Camera, Frame, PoseEstimate, RelativePose
from localizer_ros.datasets.simulated import SimulatedSource, WorldConfig
from localizer_ros.evaluation.run_localizer import OdometryFeed
from localizer_ros.localization.front_end import Observation
from localizer_ros.localization.localizer import Localizer
from localizer_ros.smoothing import open_smoother

LIGHT_S, DARK_S, FPS = 0.5, 4.0, 15.0
# Errors of a motion between frames: rotation (rad), translation (m).
VISUAL = np.repeat([np.radians(0.06), 0.003], 3)
SHARP = np.diag(np.repeat([np.radians(0.2) ** 2, 0.005**2], 3))


class Scripted:
    """Absolute poses at first, then none; motions with white noise, or none."""

    def __init__(self, drive: SimulatedSource, visual: bool, rng: np.random.Generator) -> None:
        self.drive, self.visual, self.rng = drive, visual, rng
        self.index = -1

    def observe(self, frame: Frame, prior: PoseEstimate | None) -> Observation:
        self.index += 1
        record = self.drive.records[self.index]
        relative = absolute = None
        error = SE3.exp(self.rng.normal(0.0, VISUAL))
        assert record.T_map_cam is not None
        if self.index < LIGHT_S * FPS:
            absolute = PoseEstimate(record.stamp_ns, record.T_map_cam, SHARP, "test")
        if self.visual and self.index > 0:
            before = self.drive.records[self.index - 1]
            assert before.T_map_cam is not None
            T_prev_cur = before.T_map_cam.inverse() @ record.T_map_cam @ error
            relative = RelativePose(before.stamp_ns, record.stamp_ns, T_prev_cur, np.diag(VISUAL**2), "vo")
        return Observation(absolute=absolute, relative=relative)

    def lost(self) -> None:
        raise AssertionError("lost")

    def reset(self) -> None: ...

    def close(self) -> None:
        pass


def end_error(drive: SimulatedSource, visual: bool, wheels: bool, seed: int) -> tuple[float, float]:
    """Metres and degrees by which the localizer is off after a time without absolute poses."""
    status = StatusConfig(lost_after_s=60.0)
    config = LocalizerConfig(odometry=OdometryConfig(use=wheels), status=status)
    front_end = Scripted(drive, visual, np.random.default_rng(seed))
    localizer = Localizer(front_end, open_smoother(config.smoother), config, drive.T_base_cam)
    camera = Camera.pinhole(8, 6, 5.0, 5.0, 3.5, 2.5)
    feed = OdometryFeed(drive)
    for record in drive.records:
        feed.feed(localizer, record.stamp_ns)
        output = localizer.process(Frame(record.stamp_ns, np.zeros((6, 8), np.uint8), camera))
    assert {m.source for m in output.motions} == {*(["vo"] * visual), *(["odom"] * wheels)}
    assert output.estimate is not None and record.T_map_cam is not None
    found, true = output.estimate.T_map_cam, record.T_map_cam
    return true.distance_to(found), float(np.degrees(true.angle_to(found)))


def test_fused_motions_are_better_than_either_alone() -> None:
    drives = [
        SimulatedSource(
            config_from_dict(WorldConfig, {"drive": n, "duration_s": LIGHT_S + DARK_S, "fps": FPS})
        )
        for n in range(10)
    ]
    errors = {
        name: np.sqrt(
            np.mean([np.square(end_error(d, *which, seed)) for seed, d in enumerate(drives)], axis=0)
        )
        for name, which in {"visual": (True, False), "wheels": (False, True), "fused": (True, True)}.items()
    }

    # Of two errors alike in size and independent, the mean has 0.7 of each.
    assert np.all(errors["fused"] < 0.9 * np.minimum(errors["visual"], errors["wheels"]))
