"""ROS parameters: declared from the config structs, read back, refused when wrong, and written to the file."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import rclpy
import yaml
from rclpy.lifecycle import LifecycleNode
from rclpy.node import Node
from rclpy.parameter import Parameter

from localizer_ros.core.config.runtime import RunConfig
from localizer_ros.core.types import ConfigError
from localizer_ros.ros.parameters import (
    NodeArguments,
    check_change,
    declare_parameters,
    parameter_file,
    parameter_specs,
    read_parameters,
    settings_from_values,
)

FILE = Path(__file__).resolve().parents[2] / "config" / "localizer.param.yaml"


@pytest.fixture
def context() -> Iterator[rclpy.Context]:
    context = rclpy.Context()
    rclpy.init(args=[], context=context)
    yield context
    rclpy.try_shutdown(context=context)


def node_with(context: rclpy.Context, *arguments: str) -> Node:
    return LifecycleNode("localizer", context=context, cli_args=["--ros-args", *arguments])


def test_committed_file_is_the_generated_one() -> None:
    assert FILE.read_text(encoding="utf-8") == parameter_file(), (
        "regenerate: python -m localizer_ros.ros.parameters > config/localizer.param.yaml"
    )


def test_file_has_every_parameter_with_a_meaning_and_its_default(context: rclpy.Context) -> None:
    node = node_with(context, "--params-file", str(FILE))
    declare_parameters(node)
    settings = read_parameters(node)
    assert settings.run == RunConfig() and settings.arguments == NodeArguments()
    values = yaml.safe_load(FILE.read_text(encoding="utf-8"))["/**/localizer"]["ros__parameters"]

    def leaves(tree: dict[str, object], prefix: str = "") -> Iterator[str]:
        for key, value in tree.items():
            yield from leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else [f"{prefix}{key}"]

    assert sorted(leaves(values)) == sorted(spec.name for spec in parameter_specs())
    without = [spec.name for spec in parameter_specs() if not spec.description]
    assert not without, f"without a description: {without}"


def test_names_of_the_contract() -> None:
    names = {spec.name for spec in parameter_specs()}
    contract = {"odom_frame", "base_frame", "publish_tf", "transform_tolerance", "image_transport"}
    assert contract | {"smoother.lag_s"} <= names


def test_declared_defaults_and_ranges(context: rclpy.Context) -> None:
    node = node_with(context)
    declare_parameters(node)
    assert read_parameters(node).run == RunConfig()
    descriptor = node.describe_parameter("smoother.lag_s")
    assert descriptor.floating_point_range[0].to_value == 60.0
    assert "s" in descriptor.additional_constraints and descriptor.description
    assert node.describe_parameter("path_length").integer_range[0].from_value == 2


def test_overrides_are_read_back(context: rclpy.Context) -> None:
    node = node_with(
        context,
        *("-p", "scene:=/a/b", "-p", "smoother.lag_s:=2.5", "-p", "smoother.kind:=none"),
        *("-p", "transform_tolerance:=0.1", "-p", "publish_tf:=false", "-p", "path_length:=7"),
    )
    declare_parameters(node)
    settings = read_parameters(node)
    assert settings.arguments.scene == "/a/b"
    assert settings.run.smoother.lag_s == 2.5
    assert settings.run.smoother.kind == "none"
    assert settings.run.transform_tolerance == 0.1
    assert not settings.run.publish_tf and settings.run.path_length == 7


def test_a_whole_number_is_good_for_a_real_one(context: rclpy.Context) -> None:
    node = node_with(context, "-p", "smoother.lag_s:=2")
    declare_parameters(node)
    assert read_parameters(node).run.smoother.lag_s == 2.0


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("localizer.smother.lag_s:=2.0", "unknown localizer.smother.lag_s"),
        ("odomframe:=odom", "unknown odomframe"),
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
    settings = settings_from_values({"gate.probability": 0.99})
    assert settings.run.gate.probability == 0.99
    assert settings.run.smoother == RunConfig().smoother
