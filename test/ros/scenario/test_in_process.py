"""Scenarios played to the real node in simulated time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from std_srvs.srv import Trigger

from localizer_ros.core.types import ConfigError
from localizer_ros.datasets.source import FrameSource
from localizer_ros.ros.scenario.faults import apply_faults
from localizer_ros.ros.scenario.in_process import InProcess
from localizer_ros.ros.scenario.packets import recorded
from localizer_ros.ros.scenario.record import Record
from localizer_ros.ros.scenario.run import run
from localizer_ros.ros.scenario.schema import Fault, Scenario

QUIET = Scenario(about="All is well.", answers=0.9)
WRONG_ENCODING = Scenario(
    about="A second of images in an encoding that does not exist.",
    faults=(Fault(stream="image", fault="encoding", from_s=1.5, to_s=2.5),),
    says="encoding",
)


@pytest.fixture(scope="module")
def player(tiny_map: Path, tiny_source: FrameSource):
    made = InProcess(tiny_map, tiny_source)
    yield made
    made.close()


def numbers(record: Record) -> list[object]:
    """All that the node published, to the last bit; times of the machine itself are another each time."""
    poses = [(a.topic, a.at_ns, a.stamp_ns, a.T_map_base.matrix().tobytes()) for a in record.answers]
    covariances = [a.covariance.tobytes() for a in record.answers if a.covariance is not None]
    transforms = [(at, stamp, child, T.matrix().tobytes()) for at, stamp, child, T in record.transforms]
    return [poses, covariances, transforms, [(s.at_ns, s.level, s.text) for s in record.said]]


def test_a_drive_without_faults_holds_and_a_fault_is_named(tiny_map: Path, tiny_source: FrameSource) -> None:
    results = list(run(tiny_map, tiny_source, {"quiet": QUIET, "wrong_encoding": WRONG_ENCODING}))
    assert [result.outcome for result in results] == ["held", "held"], [r.verdict.broken for r in results]
    assert [result.to_dict()["frames"] for result in results] == [32, 32]


def test_the_same_scenario_gives_the_same_messages_bit_for_bit(player: InProcess) -> None:
    first, second = (player.play(WRONG_ENCODING)[0] for _ in range(2))
    assert len(first.answers) > 30 and numbers(first) == numbers(second)


def test_time_of_the_scenario_is_the_nodes_own(player: InProcess) -> None:
    # Two frames of a second each: the node is busy for most of the drive, and takes the newest when it is free.
    slow = Scenario(about="x", processing=1.0)
    record, _ = player.play(slow)
    stamps = np.array(sorted({a.stamp_ns for a in record.answers}))
    assert len(stamps) <= 5 and np.all(np.diff(stamps) >= 1e9 - 125e6)
    assert all(a.at_ns >= 1e9 for a in record.answers)


def test_calls_reach_the_node_and_what_it_refuses_is_recorded(player: InProcess) -> None:
    calls = (("pause", 1.0), ("resume", 1.5), ("configure", 2.0), ("deactivate", 2.2), ("activate", 2.4))
    faults = tuple(Fault(stream="call", fault="call", text=text, from_s=at) for text, at in calls)
    record, _ = player.play(Scenario(about="x", faults=faults))
    assert [(name, answered) for _, name, answered in record.calls] == [
        *(("pause", True), ("resume", True), ("configure", False), ("deactivate", True), ("activate", True))
    ]
    assert record.state == "active" and not record.crashes
    assert not [a for a in record.answers if 1.1e9 < a.at_ns < 1.5e9]


def test_a_bug_in_the_node_is_found(player: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("localizer_ros.ros.outputs.Outputs.publish", fail)
    record, _ = player.play(QUIET)
    assert record.crashes and "ZeroDivisionError: a bug" in record.crashes[0][1]


def test_parameters_of_a_scenario_that_the_node_refuses_are_an_error(player: InProcess) -> None:
    with pytest.raises(ConfigError, match="path_lenght"):
        player.play(Scenario(about="x", parameters={"path_lenght": 3}))


def asked(
    player: InProcess, *at_s: float, faults: tuple[Fault, ...] = (), **changes: object
) -> list[tuple[bool, str]]:
    """What ~/health answers at some times of a scenario."""
    scenario = Scenario(about="x", faults=faults, **changes)  # type: ignore[arg-type]
    timeline = recorded(player._source, scenario)
    apply_faults(timeline, scenario)
    answers = []
    with player.node(scenario, timeline) as play:
        play.feed(timeline.packets)
        for time_s in at_s:
            play.run(round(time_s * 1e9))
            response = play.wire.services["/localizer/health"](Trigger.Request(), Trigger.Response())
            answers.append((response.success, response.message))
    return answers


def test_health_says_whether_the_pose_may_be_used_and_what_would_help(player: InProcess) -> None:
    before, well = asked(player, -0.1, 1.2)
    assert not before[0] and before[1].startswith("INITIALIZING: ")
    assert well == (True, "TRACKING")
    # What was seen is gone; without odometry the pose is soon worth nothing.
    black = Fault(stream="image", fault="black", from_s=1.5)
    ok, dark, lost = asked(player, 1.2, 1.8, 3.9, faults=(black,), odometry=False)
    assert ok[0] and dark[1].startswith("DEGRADED: ") and dark[0]
    assert not lost[0] and lost[1].startswith("LOST: ") and "bring the camera to a mapped place" in lost[1]


def test_health_is_not_good_while_what_a_robot_needs_of_the_pose_is_missing(player: InProcess) -> None:
    silent = Fault(stream="tf", fault="drop", from_s=1.0, to_s=2.5)
    (ok, told), (again, _) = asked(player, 2.0, 3.5, faults=(silent,))
    assert not ok and told.startswith("DEGRADED: no TF for ") and again
    calls = tuple(Fault(stream="call", fault="call", text=text, from_s=at) for text, at in
                  (("pause", 1.0), ("resume", 1.5), ("deactivate", 2.2)))  # fmt: skip
    paused, on, inactive = asked(player, 1.2, 2.0, 2.4, faults=calls)
    assert paused == (False, "TRACKING: paused: call ~/pause with false to go on")
    assert on[0] and not inactive[0] and inactive[1].startswith("INITIALIZING: inactive: activate")
