"""Transitions of the node, possible and impossible ones."""

from __future__ import annotations

import re
import threading
from pathlib import Path

import pytest
from fake_robot import (
    SECOND,
    TIMEOUT_S,
    Robot,
    parameters,
)
from lifecycle_msgs.msg import Transition

from localizer_ros.core.config.runtime import LocalizerConfig
from localizer_ros.core.types import (
    SceneError,
)
from localizer_ros.ros.online_localizer import OpenedScene

pytestmark = pytest.mark.ros


def test_every_transition_and_back(robot: Robot) -> None:
    robot.start(activate=False)
    assert robot.state() == "unconfigured"
    for round_ in range(2):
        assert robot.change(Transition.TRANSITION_CONFIGURE)
        assert robot.state() == "inactive"
        for _ in range(2):
            assert robot.change(Transition.TRANSITION_ACTIVATE)
            assert robot.state() == "active"
            assert robot.change(Transition.TRANSITION_DEACTIVATE)
            assert robot.state() == "inactive"
        assert robot.change(Transition.TRANSITION_CLEANUP)
        assert robot.state() == "unconfigured"
        assert robot.fake.calls.count("close") == round_ + 1
    assert robot.change(Transition.TRANSITION_UNCONFIGURED_SHUTDOWN)
    assert robot.state() == "finalized"


def test_frames_flow_again_after_deactivation_and_not_during_it(robot: Robot) -> None:
    robot.start().ready()
    robot.image(SECOND)
    robot.answered(1)
    assert robot.change(Transition.TRANSITION_DEACTIVATE)
    assert robot.robot.count_subscribers("/image") == 0
    assert robot.change(Transition.TRANSITION_ACTIVATE)
    robot.until(lambda: robot._publishers["/image"].get_subscription_count() > 0, "no subscription")
    robot.until(lambda: robot.node.health.image_publishers > 0, "the node does not see the publisher")
    robot.image(2 * SECOND)
    robot.answered(2)


def test_a_missing_scene_is_a_failure_with_a_reason_and_can_be_tried_again(robot: Robot) -> None:
    def missing(path: Path, config: LocalizerConfig) -> OpenedScene:
        raise SceneError(f"{path}: no such scene")

    good, robot.opener = robot.opener, missing
    robot.start(activate=False)
    assert not robot.change(Transition.TRANSITION_CONFIGURE)
    assert robot.node.failure == "somewhere: no such scene"
    assert robot.state() == "unconfigured"
    robot.opener = good
    assert robot.change(Transition.TRANSITION_CONFIGURE)
    assert robot.state() == "inactive"


@pytest.mark.parametrize("robot", [parameters("base_frame:=base_link", "odom_frame:=/map")], indirect=True)
def test_the_frame_of_the_odometry_cannot_be_that_of_the_scenes_map(robot: Robot) -> None:
    robot.start(activate=False)
    assert not robot.change(Transition.TRANSITION_CONFIGURE)
    assert robot.node.failure == "map_frame and odom_frame: expected two frames, got map for both"
    assert robot.fake.calls == ["close"]


def test_the_node_answers_while_its_scene_is_opened(robot: Robot) -> None:
    may_open, good, answers = threading.Event(), robot.opener, []

    def slow(path: Path, config: LocalizerConfig) -> OpenedScene:
        may_open.wait(TIMEOUT_S)
        return good(path, config)

    def configure() -> None:
        answers.append(robot.change(Transition.TRANSITION_CONFIGURE))

    robot.opener = slow
    robot.start(activate=False)
    # Two managers, who do not know of each other.
    managers = [threading.Thread(target=configure) for _ in range(2)]
    for manager in managers:
        manager.start()
    robot.until(lambda: hasattr(robot.node, "health") and robot.node.health.opening, "opening has not begun")
    message = robot.node.health.diagnose().message
    assert re.fullmatch(r"opening the scene somewhere: \d\.\d s so far", message)
    assert robot.state() == "unconfigured" and not answers
    assert not robot.change(Transition.TRANSITION_ACTIVATE)
    may_open.set()
    for manager in managers:
        manager.join(TIMEOUT_S)
    assert sorted(answers) == [False, True] and robot.state() == "inactive"
    assert robot.change(Transition.TRANSITION_ACTIVATE)
    assert "opening" not in robot.node.health.diagnose().message


def test_an_unexpected_error_while_configuring_leaves_an_unconfigured_node(robot: Robot) -> None:
    def broken(path: Path, config: LocalizerConfig) -> OpenedScene:
        raise ZeroDivisionError("a bug")

    robot.opener = broken
    robot.start(activate=False)
    assert not robot.change(Transition.TRANSITION_CONFIGURE)
    assert robot.state() == "unconfigured"


ILLEGAL = {
    "unconfigured": ("cleanup", "activate", "deactivate", "inactive_shutdown", "active_shutdown"),
    "inactive": ("configure", "deactivate", "unconfigured_shutdown", "active_shutdown"),
    "active": ("configure", "cleanup", "activate", "unconfigured_shutdown", "inactive_shutdown"),
    "finalized": ("configure", "cleanup", "activate", "deactivate", "unconfigured_shutdown"),
}
WAY = {
    "unconfigured": (),
    "inactive": ("configure",),
    "active": ("configure", "activate"),
    "finalized": ("unconfigured_shutdown",),
}


def transition(name: str) -> int:
    return int(getattr(Transition, f"TRANSITION_{name.upper()}"))


@pytest.mark.parametrize("state", ILLEGAL)
def test_an_impossible_transition_answers_false_and_changes_nothing(robot: Robot, state: str) -> None:
    robot.start(activate=False)
    for name in WAY[state]:
        assert robot.change(transition(name))
    for name in ILLEGAL[state]:
        assert not robot.change(transition(name)), name
        assert robot.state() == state, name
    # Neither a number nor a label that no transition has.
    assert not robot.change(200)
    assert not robot.change_by_label("make_coffee")
    assert robot.state() == state


def test_an_active_node_goes_on_after_impossible_transitions(robot: Robot) -> None:
    robot.start().ready()
    robot.image(SECOND)
    robot.answered(1)
    for name in ILLEGAL["active"]:
        assert not robot.change(transition(name))
    robot.image(2 * SECOND)
    robot.answered(2)
    assert robot.change(Transition.TRANSITION_DEACTIVATE)
    assert robot.change(Transition.TRANSITION_CLEANUP)
    assert robot.change_by_label("configure")
    assert robot.state() == "inactive"


def test_shutdown_of_an_active_node_closes_the_localizer_and_publishes_no_more(robot: Robot) -> None:
    robot.start().ready()
    robot.image(SECOND)
    robot.answered(1)
    assert robot.change(Transition.TRANSITION_ACTIVE_SHUTDOWN)
    assert robot.state() == "finalized"
    assert robot.fake.calls == ["close"]
    assert robot.robot.count_subscribers("/image") == 0
    assert robot.robot.count_publishers("/localizer/pose") == 0
