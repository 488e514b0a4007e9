"""ROS parameters: declared from the config structs, read back, and refused when wrong."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import rclpy
from rclpy.lifecycle import LifecycleNode
from rclpy.node import Node
from rclpy.parameter import Parameter

from localizer_ros.core.config.live import LIVE, is_live
from localizer_ros.core.config.node import NodeConfig
from localizer_ros.core.config.runtime import RunConfig
from localizer_ros.core.config.schema import describe
from localizer_ros.core.types import ConfigError
from localizer_ros.ros.parameters import (
    check_change,
    config_from_parameters,
    declare_parameters,
    read_parameters,
    said_to_all,
)

CONFIG = Path(__file__).resolve().parents[2] / "config"

pytestmark = pytest.mark.ros


@pytest.fixture
def context() -> Iterator[rclpy.Context]:
    context = rclpy.Context()
    rclpy.init(args=[], context=context)
    yield context
    rclpy.try_shutdown(context=context)


def node_with(context: rclpy.Context, *arguments: str) -> Node:
    return LifecycleNode("localizer", context=context, cli_args=["--ros-args", *arguments])


@pytest.mark.parametrize("name", ["localizer.param.yaml", "robot.param.yaml"])
def test_a_parameter_file_as_it_is_changes_nothing(context: rclpy.Context, name: str) -> None:
    node = node_with(context, "--params-file", str(CONFIG / name))
    declare_parameters(node)
    assert read_parameters(node) == NodeConfig()


def test_names_of_the_contract() -> None:
    names = {spec.name for spec in describe(NodeConfig)}
    contract = {"odom_frame", "base_frame", "publish_tf", "transform_tolerance", "image_transport"}
    assert contract | {"smoother.lag_s"} <= names


def test_declared_defaults_and_ranges(context: rclpy.Context) -> None:
    node = node_with(context)
    declare_parameters(node)
    assert read_parameters(node) == NodeConfig()
    descriptor = node.describe_parameter("smoother.lag_s")
    assert descriptor.floating_point_range[0].to_value == 60.0
    assert descriptor.description == "Time that past poses are kept in the graph."
    assert descriptor.additional_constraints == (
        "Unit: s. Range: > 0, <= 60. Default: 3.0. For: users. Read when the node is configured."
    )
    assert node.describe_parameter("path_length").integer_range[0].from_value == 2


def test_every_parameter_is_described_in_a_sentence_and_says_when_it_is_read(context: rclpy.Context) -> None:
    node = node_with(context)
    declare_parameters(node)
    for spec in describe(NodeConfig):
        descriptor = node.describe_parameter(spec.name)
        assert re.fullmatch(r"[A-Z].*[^.]\.", descriptor.description), spec.name
        assert (
            spec.unit in descriptor.additional_constraints
            and spec.range() in descriptor.additional_constraints
        )
        live = "May change while the node runs." in descriptor.additional_constraints
        assert live == is_live(spec.name), spec.name


def test_every_live_setting_is_one() -> None:
    names = [spec.name for spec in describe(NodeConfig)]
    assert all(any(name.startswith(live) for name in names) for live in LIVE)


def test_overrides_are_read_back(context: rclpy.Context) -> None:
    node = node_with(
        context,
        *("-p", "scene:=/a/b", "-p", "smoother.lag_s:=2.5", "-p", "smoother.kind:=none"),
        *("-p", "transform_tolerance:=0.1", "-p", "publish_tf:=false", "-p", "path_length:=7"),
    )
    declare_parameters(node)
    settings = read_parameters(node)
    assert settings.scene == "/a/b"
    assert settings.smoother.lag_s == 2.5
    assert settings.smoother.kind == "none"
    assert settings.transform_tolerance == 0.1
    assert not settings.publish_tf and settings.path_length == 7


def test_a_whole_number_is_good_for_a_real_one(context: rclpy.Context) -> None:
    node = node_with(context, "-p", "smoother.lag_s:=2")
    declare_parameters(node)
    assert read_parameters(node).smoother.lag_s == 2.0


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("smother.lag_s:=2.0", r"unknown setting smother.lag_s \(did you mean smoother.lag_s\?\)"),
        ("odomframe:=odom", r"unknown setting odomframe \(did you mean odom_frame\?\)"),
        ("odom_frame:=odom", "needs base_frame"),
        ("search.latency_s:=3.0", r"search.latency_s = 3 s.*smoother.lag_s = 3 s"),
        ("smoother:=3", "smoother: expected settings by name, got 3"),
        ("smoother.lag_s:=-1.0", r"lag_s"),
        ("smoother.lag_s:=1000.0", r"lag_s"),
        ("smoother.kind:=magic", r"smoother.kind"),
        ("publish_tf:=3", r"publish_tf"),
        ("path_length:=2.5", r"path_length"),
        ("image_transport:=theora", r"image_transport"),
    ],
)
def test_wrong_overrides_are_named(context: rclpy.Context, override: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        declare_parameters(node_with(context, "-p", override))


def test_foreign_parameters_are_left_alone(context: rclpy.Context) -> None:
    declare_parameters(
        node_with(
            context,
            "-p",
            "use_sim_time:=true",
            "-p",
            "qos_overrides./image.subscription.reliability:=reliable",
        )
    )


SHARED = """
/**:
  ros__parameters:
    use_sim_time: false
    odom_frame_id: odom
    robot: {wheel_radius: 0.1}
    smoother: {lag_s: 2.0, lagg_s: 3.0}
    path_length: 7
"""


def declared(context: rclpy.Context, file: Path, text: str, *arguments: str) -> Node:
    file.write_text(text)
    given = ("--ros-args", "--params-file", str(file), *arguments)
    node = LifecycleNode("localizer", namespace="robot1", context=context, cli_args=given)
    declare_parameters(node, given)
    return node


def test_what_a_file_says_to_every_node_may_be_meant_for_another(
    context: rclpy.Context, tmp_path: Path
) -> None:
    settings = read_parameters(declared(context, tmp_path / "shared.yaml", SHARED))
    assert settings.smoother.lag_s == 2.0 and settings.path_length == 7
    assert said_to_all(["--params-file", str(tmp_path / "shared.yaml"), "-p", "localizer:path_length:=3"]) == {
        "use_sim_time", "odom_frame_id", "robot.wheel_radius", "smoother.lag_s", "smoother.lagg_s",
    }  # fmt: skip


@pytest.mark.parametrize(
    "section", ["/**/localizer", "localizer", "/robot1/localizer", "/robot1: {localizer"]
)
def test_what_it_says_to_this_node_is(context: rclpy.Context, tmp_path: Path, section: str) -> None:
    end = "}" if "{" in section else ""
    text = f"{SHARED}\n{section}: {{ros__parameters: {{odom_frame_id: odom}}}}{end}\n"
    with pytest.raises(ConfigError, match=r"unknown setting odom_frame_id \(did you mean odom_frame\?\)"):
        declared(context, tmp_path / "shared.yaml", text.replace("localizer:", "localizer :"))


def test_a_value_out_of_range_is_wrong_whoever_it_is_said_to(context: rclpy.Context, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="path_length"):
        declared(context, tmp_path / "shared.yaml", SHARED.replace("path_length: 7", "path_length: 1"))


def test_changes_only_before_configuring_and_only_within_range(context: rclpy.Context) -> None:
    node = node_with(context)
    declare_parameters(node)
    change = Parameter("smoother.lag_s", value=5.0)
    assert check_change(node, [change], locked=False).successful
    locked = check_change(node, [change], locked=True)
    assert not locked.successful and "clean it up" in locked.reason
    wrong = check_change(node, [Parameter("smoother.lag_s", value=0.0)], locked=False)
    assert not wrong.successful and re.search("lag_s", wrong.reason)
    assert check_change(node, [Parameter("use_sim_time", value=True)], locked=True).successful


def test_left_out_values_have_their_defaults() -> None:
    settings = config_from_parameters({"gate.probability": 0.99})
    assert settings.gate.probability == 0.99
    assert settings.smoother == RunConfig().smoother
