"""ROS parameters of the node: every setting of ``NodeConfig`` under its own name, declared and read back."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter

from localizer_ros.core.config.live import is_live
from localizer_ros.core.config.node import NodeConfig
from localizer_ros.core.config.schema import (
    SettingSpec,
    config_from_dict,
    describe,
    setting_values,
    suggestion,
    with_setting,
)
from localizer_ros.core.files import read_yaml
from localizer_ros.core.types import ConfigError

# What rclpy declares by itself.
_FOREIGN = ("use_sim_time", "qos_overrides.", "start_type_description_service")


def declare_parameters(node: Node, arguments: Sequence[str] = ()) -> None:
    """Declare every parameter with its description and range.

    Args:
        node: gets them.
        arguments: ROS arguments of the process, where they name parameter files.

    Raises:
        ConfigError: an override that no parameter has, one of a wrong type or out of range, or parameters that
            contradict each other; names them. What a parameter file says to every node (``/**``) may be meant for
            another: a name there that is not known is only logged.
    """
    # rclpy has no public way to list overrides of parameters that were not declared: those are the misspelt.
    overrides: Mapping[str, Parameter] = getattr(node, "_parameter_overrides", {})
    given = {name: override.value for name, override in overrides.items() if not name.startswith(_FOREIGN)}
    specs = describe(NodeConfig)
    known = [spec.name for spec in specs]
    foreign = [name for name in given.keys() & said_to_all(arguments) if name not in known]
    for name in foreign:
        del given[name]
    if foreign:
        said = ", ".join(f"{name}{suggestion(name, known)}" for name in sorted(foreign))
        node.get_logger().info(f"said to every node, and no parameter of this one: {said}")
    values = setting_values(config_from_parameters(given))
    for spec in specs:
        node.declare_parameter(spec.name, values[spec.name], _descriptor(spec), ignore_override=True)


def said_to_all(arguments: Sequence[str]) -> set[str]:
    """Names of parameters that parameter files give to nodes of any name (``/**``), and nobody to this one alone."""
    to_all: set[str] = set()
    to_one: set[str] = set()
    for option, value in pairwise(arguments):
        if option in ("-p", "--param"):
            to_one.add(value.partition(":=")[0].rpartition(":")[2])
        elif option == "--params-file":
            try:
                sections = read_yaml(Path(value), ConfigError)
            except ConfigError:
                # ROS has read it, from a pipe perhaps: then all that it says is for this node.
                continue
            for node_name, section in sections.items():
                anybody = str(node_name).rpartition("/")[2] in ("*", "**")
                (to_all if anybody else to_one).update(_names(section))
    return to_all - to_one


def _names(section: Any, prefix: str = "") -> Iterator[str]:
    """Dotted names of the parameters in a section of a parameter file, however many parts the node's name has there."""
    for key, value in section.items() if isinstance(section, dict) else ():
        if key == "ros__parameters":
            yield from _names(value)
        elif isinstance(value, dict):
            yield from _names(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def read_parameters(node: Node) -> NodeConfig:
    """The settings that the parameters have now. Raises ConfigError as of :func:`config_from_parameters`."""
    return config_from_parameters(_current(node))


def config_from_parameters(values: Mapping[str, Any]) -> NodeConfig:
    """Settings from values of parameters by their names; what is left out has its default.

    Raises:
        ConfigError: an unknown name, a wrong type, a value out of range, or parameters that contradict each other;
            names them.
    """
    tree: dict[str, Any] = {}
    for name, value in values.items():
        tree = with_setting(tree, name, value)
    return config_from_dict(NodeConfig, tree, "parameters")


def check_change(node: Node, changes: list[Parameter], locked: bool) -> SetParametersResult:
    """Whether parameters may be set now: only values that fit, and once the node is configured only what may change
    while it runs.

    Args:
        node: that declared them.
        changes: asked for.
        locked: the node is configured.
    """
    current = _current(node)
    ours = {change.name: change.value for change in changes if change.name in current}
    if not ours:
        return SetParametersResult(successful=True)
    if locked and (late := [name for name in ours if not is_live(name)]):
        set_state = f"ros2 lifecycle set {node.get_fully_qualified_name()}"
        return SetParametersResult(
            successful=False,
            reason=f"{', '.join(late)}: read when the node is configured; clean it up first ({set_state} deactivate, "
            f"{set_state} cleanup), then set it and configure and activate again",
        )
    try:
        config_from_parameters(current | ours)
    except ConfigError as error:
        return SetParametersResult(successful=False, reason=str(error))
    return SetParametersResult(successful=True)


def _current(node: Node) -> dict[str, Any]:
    return {spec.name: node.get_parameter(spec.name).value for spec in describe(NodeConfig)}


def _descriptor(spec: SettingSpec) -> ParameterDescriptor:
    """For ``declare_parameter``; whether an end of a range is allowed itself is left to the settings' own check."""
    facts = {"Unit": spec.unit, "Range": spec.range(), "Default": str(spec.default), "For": f"{spec.tier}s"}
    when = "May change while the node runs" if is_live(spec.name) else "Read when the node is configured"
    said = [*(f"{name}: {fact}" for name, fact in facts.items() if fact), when]
    descriptor = ParameterDescriptor(
        name=spec.name, description=f"{spec.meaning}.", additional_constraints=f"{'. '.join(said)}."
    )
    if spec.low is None and spec.high is None:
        return descriptor
    if spec.type is int:
        descriptor.integer_range = [
            IntegerRange(
                from_value=int(spec.low[0]) if spec.low is not None else -(2**63),
                to_value=int(spec.high[0]) if spec.high is not None else 2**63 - 1,
            )
        ]
    else:
        descriptor.floating_point_range = [
            FloatingPointRange(
                from_value=spec.low[0] if spec.low is not None else -sys.float_info.max,
                to_value=spec.high[0] if spec.high is not None else sys.float_info.max,
            )
        ]
    return descriptor
