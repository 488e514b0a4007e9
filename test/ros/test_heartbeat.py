"""The bond with a lifecycle manager, as bondcpp on the other side sees it."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
from fake_robot import Robot, parameters
from lifecycle_msgs.msg import Transition

from localizer_ros.datasets.source import FrameSource
from localizer_ros.ros import heartbeat
from localizer_ros.ros.scenario.faults import apply_faults
from localizer_ros.ros.scenario.in_process import InProcess
from localizer_ros.ros.scenario.packets import recorded
from localizer_ros.ros.scenario.schema import Fault, Scenario


def driven(
    scene: Path, source: FrameSource, *calls: tuple[str, float], **settings: Any
) -> tuple[list[Any], list[str]]:
    """What goes out on the bond's topic, as (time s, message), and what is logged, while transitions happen."""
    faults = tuple(Fault(stream="call", fault="call", text=text, from_s=at) for text, at in calls)
    scenario = Scenario(about="x", faults=faults, parameters=settings)
    timeline = recorded(source, scenario)
    apply_faults(timeline, scenario)
    player = InProcess(scene, source)
    heard: list[Any] = []
    with player.node(scenario, timeline) as play:

        def hear(topic: str, message: Any) -> None:
            if topic == "/bond":
                heard.append((play.simulation.now_ns * 1e-9, message))

        play.wire.heard = hear
        log = [text for _, _, text in play.wire.log]
        play.feed(packet for packet in timeline.packets if packet.stream == "call")
        play.run(timeline.end_ns)
    player.close()
    return heard, log


def test_it_beats_while_the_node_is_active_says_when_the_end_is_meant_and_is_another_one_each_time(
    tiny_map: Path, tiny_source: FrameSource
) -> None:
    pytest.importorskip("bond.msg", reason="needs the messages of bond")
    heard, _ = driven(tiny_map, tiny_source, ("deactivate", 1.05), ("activate", 2.05))
    assert all(message.id == "localizer" for _, message in heard)
    alive = [at for at, message in heard if message.active]
    ends = [at for at, message in heard if not message.active]
    # At least twenty times within the time in which Nav2 misses it.
    assert max(b - a for a, b in itertools.pairwise(alive) if not a < 1.05 < b) < heartbeat.TIMEOUT_S / 20
    assert ends[0] == pytest.approx(1.05) and not [at for at in alive if 1.05 < at < 2.05]
    first, second = ({m.instance_id for at, m in heard if (at < 1.1) == early} for early in (True, False))
    assert len(first) == len(second) == 1 and "" not in first | second and first != second


def test_without_its_message_the_node_runs_and_says_so_to_whoever_would_wait_for_it(
    tiny_map: Path, tiny_source: FrameSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeat, "Status", None)
    heard, log = driven(tiny_map, tiny_source, autostart=False)
    assert not heard and heartbeat.MISSING in log
    assert heartbeat.MISSING not in driven(tiny_map, tiny_source)[1]


@pytest.mark.ros
@pytest.mark.parametrize("robot", [parameters("autostart:=false")], indirect=True)
def test_a_manager_hears_it_after_activation_and_hears_the_end(robot: Robot) -> None:
    bond = pytest.importorskip("bond.msg", reason="needs the messages of bond")
    robot.start()
    heard = robot.listen(bond.Status, "/bond")
    robot.until(lambda: heard, "no heartbeat")
    assert heard[-1].active and heard[-1].id == robot.node.get_name()
    assert robot.change(Transition.TRANSITION_DEACTIVATE)
    robot.until(lambda: not heard[-1].active, "the end is not told")
