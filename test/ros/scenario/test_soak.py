"""The node for a while, as fast as it goes."""

from pathlib import Path

import pytest

from localizer_ros.datasets.source import FrameSource
from localizer_ros.ros.scenario.cycles import IMPOSSIBLE, cycle
from localizer_ros.ros.scenario.soak import soak


def test_nothing_grows_and_no_pose_is_wrong_while_a_drive_is_driven_to_and_fro(
    tiny_map: Path, tiny_source: FrameSource
) -> None:
    found = soak(tiny_map, tiny_source, 150)
    assert found.state == "active" and not found.crashes
    # 32 frames in a lap; where it turns, the last is the first of the next.
    assert found.frames == 32 + 4 * 31 and found.answered >= 0.9 * found.frames
    assert found.wrong == 0 and found.worst_m < 0.3, found.lines()
    assert found.threads[-1] == found.threads[1] and found.descriptors[-1] == found.descriptors[1]
    # A hundred frames of images are seven megabytes: they are not kept.
    assert found.memory_mb[-1] - found.memory_mb[1] < 10.0, found.memory_mb


@pytest.mark.slow
@pytest.mark.ros
def test_the_lifecycle_again_and_again_leaves_no_trace(tiny_map: Path, tiny_source: FrameSource) -> None:
    found = cycle(tiny_map, tiny_source, 2)
    assert found.cycles == 2 and not found.wrong, found
    assert found.refused >= 2 * sum(
        len(IMPOSSIBLE[state]) for state in ("unconfigured", "inactive", "active")
    )
    assert min(found.answered) >= 5
