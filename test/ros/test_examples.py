"""The example files for Nav2 and robot_localization: they parse, agree with each other, and keep REP-105.

Neither package has a wheel: what is checked here is all that can be without them. A recorded drive is played to
the node with these files, and what it publishes is what the others' files name.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rclpy
import yaml
from fake_robot import Robot
from geometry_msgs.msg import PoseWithCovarianceStamped, TransformStamped

from localizer_ros.core.config.node import NodeConfig
from localizer_ros.core.se3 import SE3
from localizer_ros.core.trajectory import Trajectory
from localizer_ros.datasets.source import FrameSource
from localizer_ros.ros import conversions as convert
from localizer_ros.ros.parameters import config_from_parameters
from localizer_ros.ros.scenario.in_process import InProcess
from localizer_ros.ros.scenario.packets import Timeline, recorded
from localizer_ros.ros.scenario.record import Record
from localizer_ros.ros.scenario.schema import Scenario

CONFIG = Path(__file__).resolve().parents[2] / "config"
# Of Nav2's list of nodes (nav2_tree_nodes.xml) and BehaviorTree.CPP's own, with the ports that are used here.
TREE_NODES = {
    "root": {"BTCPP_format", "main_tree_to_execute"},
    "BehaviorTree": {"ID"},
    "Sequence": {"name"},
    "Fallback": {"name"},
    "ReactiveFallback": {"name"},
    "PipelineSequence": {"name"},
    "RecoveryNode": {"name", "number_of_retries"},
    "RateController": {"hz"},
    "ComputePathToPose": {"goal", "path", "planner_id", "error_code_id"},
    "FollowPath": {"path", "controller_id", "error_code_id"},
    "GoalUpdated": set(),
    "AreErrorCodesPresent": {"error_code", "error_codes_to_check"},
    "Wait": {"wait_duration"},
    "ClearEntireCostmap": {"name", "service_name"},
}
X, Y, YAW, VX, VY, VYAW = 0, 1, 5, 6, 7, 11


def parameters(name: str) -> dict[str, Any]:
    """Sections of a parameter file by the node's name."""
    sections = yaml.safe_load((CONFIG / name).read_text(encoding="utf-8"))
    assert isinstance(sections, dict)
    return sections


def values(name: str) -> dict[str, Any]:
    """Settings in a parameter file for the localizer, by their full names."""
    flat: dict[str, Any] = {}

    def flatten(values: dict[str, Any], prefix: str) -> None:
        for key, value in values.items():
            if isinstance(value, dict):
                flatten(value, f"{prefix}{key}.")
            else:
                flat[prefix + key] = value

    flatten(parameters(name)["/**/localizer"]["ros__parameters"], "")
    return flat


def settings(name: str) -> NodeConfig:
    """Of a parameter file for the localizer."""
    return config_from_parameters(values(name))


@dataclass
class Drive:
    """A recorded drive, played to the node with a parameter file.

    Attributes:
        heard: all that the node published, by topic.
        listens: topics that it subscribed to.
        timeline: the drive.
        record: what came of it.
    """

    heard: dict[str, list[Any]]
    listens: set[str]
    timeline: Timeline
    record: Record

    def edges(self) -> list[TransformStamped]:
        """The transforms that the node published."""
        return [transform for message in self.heard.get("/tf", []) for transform in message.transforms]

    def T_map_base(self, stamp_ns: int) -> SE3:
        """The true pose of the robot at the stamp of an image."""
        truth = {p.stamp_ns: p.T_map_base for p in self.timeline.packets if p.stream == "image"}
        found = truth[stamp_ns]
        assert found is not None
        return found


@pytest.fixture(scope="module")
def player(tiny_map: Path, tiny_source: FrameSource) -> Iterator[InProcess]:
    made = InProcess(tiny_map, tiny_source)
    yield made
    made.close()


def driven(player: InProcess, source: FrameSource, name: str) -> Drive:
    """The drive of ``source``, with the file as the only settings."""
    given = {"base_frame": "", "odom_frame": "", **values(name)}
    scenario = Scenario(about="An example on the road.", parameters=given)
    timeline = recorded(source, scenario)
    heard: dict[str, list[Any]] = {}
    with player.node(scenario, timeline) as play:
        wire, record = play.wire, play.wire.heard

        def hear(topic: str, message: Any) -> None:
            heard.setdefault(topic, []).append(message)
            record(topic, message)

        wire.heard = hear
        play.feed(timeline.packets)
        play.run(timeline.end_ns)
        listens = {subscription.topic_name for subscription in wire.subscriptions}
    assert not play.record.crashes
    return Drive(heard, listens, timeline, play.record)


@pytest.mark.ros
@pytest.mark.parametrize("name", ["nav2/nav2.yaml", "robot_localization/ekf.yaml"])
def test_ros_reads_the_file(name: str) -> None:
    context = rclpy.Context()
    node = next(iter(parameters(name)))
    rclpy.init(args=["--ros-args", "--params-file", str(CONFIG / name)], context=context)
    try:
        made = rclpy.create_node(node, context=context, automatically_declare_parameters_from_overrides=True)
        assert len(made._parameters) > 3
        made.destroy_node()
    finally:
        rclpy.try_shutdown(context=context)


def test_nav2_gets_map_to_odom_from_the_localizer_and_from_nobody_else() -> None:
    ours, theirs = settings("nav2/localizer.yaml"), parameters("nav2/nav2.yaml")
    assert ours.publish_tf and ours.odom_frame and ours.base_frame
    assert "amcl" not in theirs
    assert theirs["lifecycle_manager_localization"]["ros__parameters"]["node_names"] == ["map_server"]
    costmap = {name: theirs[name][name]["ros__parameters"] for name in ("local_costmap", "global_costmap")}
    behaviours = theirs["behavior_server"]["ros__parameters"]
    assert costmap["local_costmap"]["global_frame"] == behaviours["global_frame"] == ours.odom_frame
    navigator = theirs["bt_navigator"]["ros__parameters"]
    assert costmap["global_costmap"]["global_frame"] == navigator["global_frame"] == "map"
    bases = {part["robot_base_frame"] for part in (*costmap.values(), behaviours, navigator)}
    assert bases == {ours.base_frame}
    tree = navigator["default_nav_to_pose_bt_xml"].replace("$(find-pkg-share localizer_ros)/config/", "")
    assert (CONFIG / tree).is_file()


def test_the_tree_waits_while_there_is_no_transform_and_moves_for_no_recovery() -> None:
    root = ElementTree.parse(CONFIG / "nav2" / "stop_when_lost.xml").getroot()
    for node in root.iter():
        assert node.tag in TREE_NODES, node.tag
        assert set(node.attrib) <= TREE_NODES[node.tag], node.tag
    assert root.attrib["main_tree_to_execute"] in {tree.attrib["ID"] for tree in root.iter("BehaviorTree")}
    lost = next(node for node in root.iter("Sequence") if node.attrib["name"] == "Lost")
    checked = {node.attrib["error_code"]: node.attrib["error_codes_to_check"] for node in lost.iter()
               if node.tag == "AreErrorCodesPresent"}  # fmt: skip
    # TF_ERROR of nav2_msgs' FollowPath and ComputePathToPose.
    assert checked == {"{follow_error}": "102", "{plan_error}": "202"}
    assert lost[-1].tag == "Wait"
    # What is checked is what the two actions write.
    written = {node.attrib["error_code_id"] for node in root.iter() if "error_code_id" in node.attrib}
    assert written == set(checked)


def used(row: list[bool]) -> set[int]:
    return {index for index, taken in enumerate(row) if taken}


def test_two_filters_as_rep_105_has_them_and_nothing_goes_into_one_twice() -> None:
    filters = {
        name: section["ros__parameters"]
        for name, section in parameters("robot_localization/ekf.yaml").items()
    }
    odom, map_ = filters["ekf_odom"], filters["ekf_map"]
    assert odom["world_frame"] == odom["odom_frame"] and map_["world_frame"] == map_["map_frame"]
    for values in filters.values():
        assert len({values[name] for name in ("map_frame", "odom_frame", "base_link_frame")}) == 3
        rows = {name: row for name, row in values.items() if name.endswith("_config")}
        assert all(len(row) == 15 and all(isinstance(taken, bool) for taken in row) for row in rows.values())
        # Wheels measure velocities. As poses they would be the filter's own integral, once more.
        assert used(rows["odom0_config"]) == {VX, VY, VYAW} and used(rows["imu0_config"]) == {VYAW}
    # A pose of the map in the filter of the odometry would make it jump.
    assert not [name for name in odom if name.startswith("pose")]
    assert map_["pose0"] == "localizer/pose_with_covariance" and used(map_["pose0_config"]) == {X, Y, YAW}
    # Differences of poses would drift.
    assert map_["pose0_differential"] is False and map_["pose0_relative"] is False
    ours = settings("robot_localization/localizer.yaml")
    assert not ours.publish_tf and not ours.odometry.use and ours.smoother.kind == "none"
    assert ours.base_frame == map_["base_link_frame"]


@pytest.mark.ros
@pytest.mark.parametrize(
    "robot", [["--params-file", str(CONFIG / "robot_localization" / "localizer.yaml")]], indirect=True
)
def test_the_filter_alone_publishes_the_transform_of_the_map(robot: Robot) -> None:
    robot.start()
    assert robot.node.count_publishers("/tf") == 0 and robot.node.count_subscribers("/odom") == 0
    assert robot.node.count_publishers("/localizer/pose_with_covariance") == 1


def test_nav2_gets_the_frames_that_its_parameters_name_from_a_drive(
    player: InProcess, tiny_source: FrameSource
) -> None:
    drive, theirs = driven(player, tiny_source, "nav2/localizer.yaml"), parameters("nav2/nav2.yaml")
    global_frame, local_frame = (
        theirs[name][name]["ros__parameters"]["global_frame"] for name in ("global_costmap", "local_costmap")
    )
    base_frame = theirs["bt_navigator"]["ros__parameters"]["robot_base_frame"]
    edges = drive.edges()
    # One edge, the one between the two costmaps' frames; what is below it the robot publishes.
    assert {(t.header.frame_id, t.child_frame_id) for t in edges} == {(global_frame, local_frame)}
    names = drive.timeline.robot.names
    assert (names.odom, names.base) == (local_frame, base_frame)
    assert f"/{theirs['bt_navigator']['ros__parameters']['odom_topic']}" in drive.listens
    # With the odometry of the image's own time it is the robot in the map, dated ahead by less than Nav2 tolerates.
    ahead_ns = round(values("nav2/localizer.yaml")["transform_tolerance"] * 1e9)
    odometry = Trajectory.from_items(sorted(drive.record.odometry.items()))
    assert len(edges) > 20
    for edge in edges:
        stamp_ns = convert.stamp_ns(edge.header.stamp) - ahead_ns
        T_odom_base = odometry.at(stamp_ns)
        assert T_odom_base is not None
        T_map_base = convert.transform_from_msg(edge) @ T_odom_base
        assert T_map_base.distance_to(drive.T_map_base(stamp_ns)) < 0.1
    tolerances = [theirs["controller_server"]["ros__parameters"]["FollowPath"]["transform_tolerance"],
                  theirs["behavior_server"]["ros__parameters"]["transform_tolerance"]]  # fmt: skip
    assert all(ahead_ns <= round(tolerance_s * 1e9) for tolerance_s in tolerances)


def test_the_filter_gets_from_a_drive_what_its_parameters_say(
    player: InProcess, tiny_source: FrameSource
) -> None:
    drive = driven(player, tiny_source, "robot_localization/localizer.yaml")
    filter_ = parameters("robot_localization/ekf.yaml")["ekf_map"]["ros__parameters"]
    poses, raw = drive.heard[f"/{filter_['pose0']}"], drive.heard["/localizer/global_pose"]
    # robot_localization takes this one type as pose0, and only in frames that it can bring into its own.
    assert {type(message) for message in poses} == {PoseWithCovarianceStamped} and len(poses) > 20
    assert {message.header.frame_id for message in poses} == {filter_["world_frame"]}
    # The filter alone joins the map to the odometry, and what it takes of the odometry comes to it but once.
    assert not drive.edges() and "/odom" not in drive.listens
    stamps = [convert.stamp_ns(message.header.stamp) for message in poses]
    assert stamps == sorted(set(stamps))
    arrived_ns = {a.stamp_ns: a.at_ns for a in drive.record.answers if a.topic == "pose_with_covariance"}
    began_ns = drive.timeline.begin_ns
    # The filter remembers so far back.
    assert max(at - (stamp - began_ns) for stamp, at in arrived_ns.items()) < 1e9 * filter_["history_length"]
    alone = {convert.stamp_ns(message.header.stamp): message.pose.pose for message in raw}
    for stamp_ns, message in zip(stamps, poses, strict=True):
        # What the image alone says: nothing of the poses before is counted again.
        assert message.pose.pose == alone[stamp_ns]
        S = np.reshape(message.pose.covariance, (6, 6))
        np.testing.assert_allclose(S, S.T, atol=1e-12)
        assert np.all(np.linalg.eigvalsh(S) > 0.0)
        assert convert.pose_from_msg(message.pose.pose).distance_to(drive.T_map_base(stamp_ns)) < 0.1


@pytest.mark.parametrize("page", ["nav2", "robot-localization"])
def test_the_page_shows_the_files(page: str) -> None:
    text = (CONFIG.parent / "docs" / "howto" / f"{page}.md").read_text(encoding="utf-8")
    folder = page.replace("-", "_")
    linked = set(re.findall(rf"\(\.\./\.\./config/{folder}/([\w.]+)\)", text))
    assert linked == {path.name for path in (CONFIG / folder).iterdir()}
