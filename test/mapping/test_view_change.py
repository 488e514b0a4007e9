"""Keyframes of images without poses: as many as the view changes, whatever the frame rate."""

from __future__ import annotations

from localizer_ros.core.config.schema import config_from_dict
from localizer_ros.core.progress import no_progress
from localizer_ros.datasets.simulated import SimulatedSource, WorldConfig
from localizer_ros.mapping.view_change import changed_frames


def drive(fps: float, duration_s: float = 3.0) -> SimulatedSource:
    world = {"duration_s": duration_s, "fps": fps, "width_px": 160, "height_px": 120, "moving_objects": 0}
    return SimulatedSource(config_from_dict(WorldConfig, world))


def test_a_higher_frame_rate_is_no_more_keyframes() -> None:
    slow, fast = (changed_frames(drive(fps), no_progress) for fps in (10.0, 30.0))
    assert slow[0] == fast[0] == 0 and slow == sorted(set(slow))
    assert 4 <= len(slow) <= 20
    assert abs(len(fast) - len(slow)) <= 1 + 0.25 * len(slow)


def test_a_camera_that_stands_adds_nothing() -> None:
    # The drive begins with a stop.
    assert changed_frames(drive(30.0, 0.3), no_progress) == [0]
