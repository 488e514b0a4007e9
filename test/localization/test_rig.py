"""Several cameras, one robot, one graph: two cameras back to back in a simulated room."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from two_cameras import Robot, as_it_is, covered, drive, map_room

from localizer_ros.core.config.mapping import MapConfig
from localizer_ros.core.config.runtime import LocalizerConfig
from localizer_ros.core.config.schema import config_from_dict
from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import ConfigError, Frame, FrameRejected, LocalizerOutput, Status, UInt8
from localizer_ros.localization.localizer import open_localizer
from localizer_ros.localization.rig import Rig, open_rig
from localizer_ros.mapping.build import build_scene

pytestmark = pytest.mark.slow
# The camera's time to find itself in the beginning.
FOUND_S = 0.5


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    scene = tmp_path_factory.mktemp("scenes") / "room"
    map_room(scene)
    return scene


@pytest.fixture(scope="module")
def robot() -> Robot:
    return Robot.made()


@dataclass
class Answer:
    """What became of a frame: the answer, or why there was none."""

    camera: str
    time_s: float
    output: LocalizerOutput | None
    left_out: str
    error_m: float
    error_deg: float


def opened(room: Path, odometry: bool = True) -> Rig:
    return open_rig(room, config_from_dict(LocalizerConfig, {"odometry": {"use": odometry}}))


def driven(rig: Any, robot: Robot, frames: Iterator[Frame]) -> list[Answer]:
    """What becomes of frames and of the odometry between them."""
    odometry = robot.sources["front"].odometry
    assert odometry is not None
    began_ns, fed = robot.sources["front"].records[0].stamp_ns, 0
    answers = []
    for frame in frames:
        while fed < len(odometry) and odometry.stamps_ns[fed] <= frame.stamp_ns:
            rig.add_odometry(int(odometry.stamps_ns[fed]), odometry.poses[fed])
            fed += 1
        camera, time_s = frame.name.partition("/")[0], (frame.stamp_ns - began_ns) * 1e-9
        try:
            output = rig.process(frame)
        except FrameRejected as error:
            answers.append(Answer(camera, time_s, None, error.kind, np.nan, np.nan))
            continue
        error_m = error_deg = np.nan
        if output.estimate is not None:
            T, truth = output.estimate.T_map_cam, robot.truth(frame)
            error_m, error_deg = T.distance_to(truth), float(np.degrees(T.angle_to(truth)))
        answers.append(Answer(camera, time_s, output, "", error_m, error_deg))
    rig.close()
    return answers


def statuses(answers: list[Answer], since_s: float = FOUND_S) -> Counter[Status]:
    return Counter(a.output.status for a in answers if a.output is not None and a.time_s > since_s)


@pytest.mark.parametrize("odometry", [True, False], ids=["odometry", "no odometry"])
@pytest.mark.parametrize("together", [True, False], ids=["together", "in turn"])
def test_while_one_camera_is_covered_the_other_goes_on_and_no_pose_is_wrong(
    room: Path, robot: Robot, together: bool, odometry: bool
) -> None:
    change = covered(front=(1.2, 2.8), rear=(3.4, 4.6))
    answers = driven(opened(room, odometry), robot, robot.frames(together, change))
    assert set(statuses(answers)) == {Status.TRACKING}
    for name, (begin_s, end_s) in {"front": (1.2, 2.8), "rear": (3.4, 4.6)}.items():
        during = [a for a in answers if begin_s <= a.time_s < end_s]
        blind, seeing = ([a for a in during if (a.camera == name) == same] for same in (True, False))
        # All of the other camera's frames are answered; of two at the same time it is the one that sees.
        assert len(seeing) >= 10 and all(a.output is not None for a in seeing[1:])
        assert {a.left_out for a in blind} <= {"blind", "other_camera"}
    errors = np.array(
        [(a.error_m, a.error_deg) for a in answers if a.output is not None and a.time_s > FOUND_S]
    )
    assert np.all(errors < (0.02, 0.5)), errors.max(axis=0)
    gaps_s = np.diff([a.time_s for a in answers if a.output is not None])
    assert gaps_s.max() <= 0.15


def test_a_rig_of_one_camera_says_what_that_camera_alone_would(room: Path, robot: Robot) -> None:
    frames = [robot.frame("front", index, as_it_is) for index in range(0, 60, 2)]
    alone = driven(
        open_localizer(room, LocalizerConfig()), robot, iter(replace(frame, mount=None) for frame in frames)
    )
    rig = driven(opened(room), robot, iter(frames))
    for a, b in zip(alone, rig, strict=True):
        assert a.output is not None and b.output is not None and a.output.status is b.output.status
        if a.output.estimate is not None and b.output.estimate is not None:
            T_a, T_b = a.output.estimate.T_map_cam, b.output.estimate.T_map_cam
            assert T_a.distance_to(T_b) < 1e-3 and T_a.angle_to(T_b) < 1e-3
            S_a, S_b = a.output.estimate.covariance, b.output.estimate.covariance
            np.testing.assert_allclose(np.diag(S_a), np.diag(S_b), rtol=0.1)
        if a.output.relative is not None and b.output.relative is not None:
            T_a, T_b = a.output.relative.T_prev_cur, b.output.relative.T_prev_cur
            np.testing.assert_allclose(T_a.matrix(), T_b.matrix(), atol=1e-6)


def turning(robot: Robot, frames: Iterator[Frame]) -> Iterator[Frame]:
    """The frames of a robot whose own frame turns to and fro beneath its cameras; that of its odometry does not."""
    began_ns = robot.sources["front"].records[0].stamp_ns
    for frame in frames:
        assert frame.mount is not None
        angle = 0.4 * np.sin(1e-9 * (frame.stamp_ns - began_ns))
        T_robot_cam = SE3.exp([0.0, 0.0, angle, 0.0, 0.0, 0.0]) @ frame.mount.T_robot_cam
        yield replace(frame, mount=replace(frame.mount, T_robot_cam=T_robot_cam))


@pytest.mark.parametrize("odometry", [True, False], ids=["odometry", "no odometry"])
def test_each_frame_has_the_place_of_its_camera_at_its_own_time(
    room: Path, robot: Robot, odometry: bool
) -> None:
    frames = turning(robot, robot.frames(False, covered(front=(2.0, 3.0))))
    answers = driven(opened(room, odometry), robot, frames)
    assert set(statuses(answers)) == {Status.TRACKING}
    assert max(a.error_m for a in answers if a.output is not None and a.time_s > FOUND_S) < 0.03


def test_a_camera_whose_image_freezes_is_left_out_while_the_other_sees(room: Path, robot: Robot) -> None:
    kept: dict[str, UInt8] = {}

    def freeze(name: str, time_s: float, image: UInt8) -> UInt8:
        if name != "front" or time_s < 2.0:
            return image
        return kept.setdefault(name, image)

    answers = driven(opened(room, odometry=False), robot, robot.frames(False, freeze))
    late = [a for a in answers if a.time_s > 2.2]
    assert {a.left_out for a in late if a.camera == "front"} == {"repeats"}
    assert set(statuses(late)) == {Status.TRACKING}
    assert max(a.error_m for a in late if a.output is not None) < 0.02


def test_where_all_are_covered_that_is_said_and_the_first_that_sees_again_finds_the_robot(
    room: Path, robot: Robot
) -> None:
    change = covered(front=(1.5, 6.0), rear=(1.5, 4.5))
    answers = driven(opened(room, odometry=False), robot, robot.frames(True, change))
    dark = [a for a in answers if 2.0 < a.time_s < 4.4 and a.output is not None]
    assert {a.output.status for a in dark if a.output is not None} <= {Status.DEGRADED, Status.LOST}
    assert dark[-1].output is not None and dark[-1].output.status is Status.LOST
    again = [a for a in answers if a.time_s > 5.2 and a.output is not None]
    assert {a.camera for a in again} == {"rear"} and set(statuses(again)) == {Status.TRACKING}
    assert max(a.error_m for a in again) < 0.03


def test_frames_behind_one_of_another_camera_are_left_out_and_of_the_same_one_refused(
    room: Path, robot: Robot
) -> None:
    order: list[tuple[str, int]] = [
        ("front", 4),
        ("rear", 4),
        ("rear", 2),
        ("front", 4),
        ("rear", 6),
        ("front", 5),
    ]
    answers = driven(opened(room), robot, (robot.frame(name, index, as_it_is) for name, index in order))
    assert [a.left_out for a in answers] == [
        "",
        "other_camera",
        "stamp_goes_back",
        "stamp_repeats",
        "",
        "other_camera",
    ]


def test_a_frame_of_no_camera_is_refused_and_a_scene_that_follows_one_camera_too(
    room: Path, robot: Robot, tmp_path: Path
) -> None:
    rig = opened(room)
    with pytest.raises(FrameRejected) as refused:
        rig.process(replace(robot.frame("front", 0, as_it_is), mount=None))
    assert refused.value.kind == "no_mount"
    rig.close()
    build_scene(
        drive(fps=2.0), "all", config_from_dict(MapConfig, {"method": "retrieval"}), tmp_path / "posed"
    )
    with pytest.raises(ConfigError, match="several cameras need a map of points"):
        open_rig(tmp_path / "posed", LocalizerConfig())
