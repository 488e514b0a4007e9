"""Verdicts on records that are made up: each promise, kept and broken."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from localizer_ros.core.se3 import SE3
from localizer_ros.datasets.source import FrameNames
from localizer_ros.ros.scenario.packets import SECOND_NS, Packet, Robot, Timeline
from localizer_ros.ros.scenario.record import Answer, Record, Said
from localizer_ros.ros.scenario.schema import Fault, Scenario
from localizer_ros.ros.scenario.verdict import judge

BLACK = Fault(stream="image", fault="black", from_s=2.0, to_s=4.0)
SCENARIO = Scenario(about="Black for two seconds.", faults=(BLACK,), says="dark")
PERIOD_NS = SECOND_NS // 10


def truth(at_ns: int) -> SE3:
    return SE3(np.eye(3), np.array([at_ns / SECOND_NS, 0.0, 0.0]))


def good(silent_from: float = 2.0, silent_to: float = 4.0) -> tuple[Timeline, Record]:
    """Six seconds of a node that keeps every promise: while it is dark it says so and is silent."""
    record = Record("map", state="active")
    for at_ns in range(0, 6 * SECOND_NS, PERIOD_NS):
        record.images.append(Packet("image", at_ns, at_ns, T_map_base=truth(at_ns)))
        if not silent_from <= at_ns / SECOND_NS < silent_to:
            answer = Answer("pose_with_covariance", at_ns, at_ns, truth(at_ns), 1e-4 * np.eye(6))
            record.answers += [replace(answer, topic="pose", covariance=None), answer]
            record.transforms.append((at_ns, at_ns, "base_link", truth(at_ns)))
    record.said = [
        Said(0, "OK", "TRACKING", {"status": "TRACKING"}),
        Said(round(2.4 * SECOND_NS), "ERROR", "LOST: it is dark", {"status": "LOST"}),
        Said(round(4.0 * SECOND_NS), "OK", "TRACKING", {"status": "TRACKING"}),
    ]
    robot = Robot(FrameNames(), SE3.identity(), None)
    return Timeline(robot, 0, 6 * SECOND_NS), record


def broken(record: Record, timeline: Timeline, scenario: Scenario = SCENARIO) -> list[str]:
    return [check.name for check in judge(scenario, timeline, record).broken]


def test_a_node_that_keeps_every_promise_holds() -> None:
    timeline, record = good()
    verdict = judge(SCENARIO, timeline, record)
    assert verdict.held, verdict.broken
    assert verdict.figures["named_s"] == pytest.approx(0.4) and verdict.figures["recovered_s"] == 0.0
    assert verdict.figures["worst_m"] == 0.0 and verdict.figures["answered"] == 40


def test_silence_about_the_fault_is_broken_and_so_is_speaking_too_late_or_with_level_ok() -> None:
    timeline, record = good()
    for said in (
        Said(round(2.7 * SECOND_NS), "ERROR", "LOST: it is dark", {"status": "LOST"}),
        Said(round(2.3 * SECOND_NS), "OK", "it is dark", {}),
        Said(round(2.3 * SECOND_NS), "ERROR", "LOST", {"status": "LOST"}),
    ):
        record.said[1] = said
        assert "says 'dark' within 0.5 s" in broken(record, timeline)


def test_a_wrong_pose_is_broken_unless_its_covariance_covers_it() -> None:
    timeline, record = good()
    at_ns = 5 * SECOND_NS
    wrong = truth(at_ns) @ SE3(np.eye(3), np.array([0.0, 0.6, 0.0]))
    for sigma_m, expected in ((0.1, ["no pose is wrong beyond its own 3 sigma"]), (0.3, [])):
        S = np.diag([1e-4, 1e-4, 1e-4, 1e-4, sigma_m**2, 1e-4])
        record.answers = [
            replace(a, T_map_base=wrong, covariance=None if a.covariance is None else S)
            if a.stamp_ns == at_ns
            else a
            for a in record.answers
        ]
        assert broken(record, timeline) == expected
    # Sure of the direction in which it is wrong, not sure of another.
    S = np.diag([1e-4, 1e-4, 1e-4, 9.0, 1e-4, 9.0])
    record.answers = [replace(a, covariance=S) if a.covariance is not None else a for a in record.answers]
    assert broken(record, timeline) == ["no pose is wrong beyond its own 3 sigma"]


def test_a_wrong_transform_is_broken_too() -> None:
    timeline, record = good()
    at_ns, stamp_ns, child, T = record.transforms[-1]
    record.transforms[-1] = (at_ns, stamp_ns, child, T @ SE3.exp([0.0, 0.0, 0.5, 0.0, 0.0, 0.0]))
    assert broken(record, timeline) == ["no pose is wrong beyond its own 3 sigma"]


def test_recovery_must_come_in_time_and_be_right() -> None:
    timeline, record = good(silent_to=5.3)
    record.said[2] = Said(round(5.3 * SECOND_NS), "OK", "TRACKING", {"status": "TRACKING"})
    assert "right again within 1 s" in broken(record, timeline)
    assert broken(record, timeline, Scenario(about="x", faults=(BLACK,), says="dark", recovers=2.0)) == []


def test_a_drive_that_ends_before_it_could_recover_proves_nothing() -> None:
    timeline, record = good()
    late = Fault(stream="image", fault="black", from_s=2.0, to_s=5.5)
    assert "right again within 1 s" in broken(record, timeline, Scenario(about="x", faults=(late,)))


def test_transforms_while_lost_and_an_ok_without_transforms_are_dishonest() -> None:
    timeline, record = good()
    at_ns = 3 * SECOND_NS
    record.transforms.insert(20, (at_ns, at_ns, "base_link", truth(at_ns)))
    assert broken(record, timeline) == ["no transform while LOST"]
    timeline, record = good()
    record.said[1] = Said(round(2.4 * SECOND_NS), "WARN", "it is dark", {"status": "TRACKING"})
    record.said.insert(2, Said(3 * SECOND_NS, "OK", "TRACKING", {"status": "TRACKING"}))
    assert broken(record, timeline) == ["never OK while transforms are silent"]


def test_a_crash_and_a_dead_node_are_broken() -> None:
    timeline, record = good()
    record.crashes.append((SECOND_NS, "Traceback ...\nZeroDivisionError: a bug"))
    record.state = ""
    assert broken(record, timeline) == ["the node lives", "no unexpected error"]


def test_frames_outside_of_the_fault_must_be_answered_and_none_in_it_where_silence_is_asked_for() -> None:
    timeline, record = good(silent_from=4.5, silent_to=5.5)
    asked = Scenario(about="x", faults=(BLACK,), silent=True)
    assert "no pose during the fault" in broken(record, timeline, asked)
    timeline, record = good(silent_from=0.5, silent_to=4.0)
    assert "at least 80% answered outside of the fault" in broken(record, timeline)
