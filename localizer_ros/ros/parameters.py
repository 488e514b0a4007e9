"""ROS parameters from the config structs: names, defaults, ranges and meanings, declared and read back.

A setting has one name, in YAML, with ``--set`` and in ROS: ``smoother.lag_s``.
``python -m localizer_ros.ros.parameters`` prints ``config/localizer.param.yaml``.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec
import yaml
from msgspec import Meta
from msgspec.inspect import BoolType, FloatType, IntType, LiteralType, Metadata, StrType, StructType
from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter

from localizer_ros.core.config.runtime import RunConfig
from localizer_ros.core.config.schema import Config, config_from_dict
from localizer_ros.core.types import ConfigError

_UNITS = {
    "_deg_s": "deg/s",
    "_m_s": "m/s",
    "_deg": "deg",
    "_rad": "rad",
    "_px": "pixels",
    "_min": "min",
    "_ms": "ms",
    "_ns": "ns",
    "_m": "m",
    "_s": "s",
}
# What rclpy declares by itself.
_FOREIGN = ("use_sim_time", "qos_overrides.", "start_type_description_service")


class NodeArguments(Config):
    """What only the node's process needs, beside ``RunConfig``."""

    scene: Annotated[str, Meta(description="folder of the scene bundle, made by `localizer map`")] = ""
    autostart: Annotated[
        bool,
        Meta(description="configure and activate at the start; false leaves it to a lifecycle manager"),
    ] = True


@dataclass(frozen=True, slots=True)
class ParameterSpec:
    """One parameter.

    Attributes:
        name: in ROS.
        path: in the config tree, ``RunConfig`` or ``NodeArguments``.
        default: a bool, int, float or str.
        description: its meaning.
        unit: empty where it has none.
        low: smallest value and whether it is allowed itself, or None.
        high: largest value and whether it is allowed itself, or None.
        choices: allowed strings; empty when not an enumeration.
    """

    name: str
    path: tuple[str, ...]
    default: bool | int | float | str
    description: str
    unit: str
    low: tuple[float, bool] | None = None
    high: tuple[float, bool] | None = None
    choices: tuple[str, ...] = ()

    def constraints(self) -> str:
        """Unit, range and choices in words."""
        parts = [self.unit] if self.unit else []
        if self.choices:
            parts.append(" | ".join(self.choices))
        if self.low is not None:
            parts.append(f"{'>=' if self.low[1] else '>'} {self.low[0]:g}")
        if self.high is not None:
            parts.append(f"{'<=' if self.high[1] else '<'} {self.high[0]:g}")
        return ", ".join(parts)

    def descriptor(self) -> ParameterDescriptor:
        """For ``declare_parameter``; an open end of a range is left to :func:`read_parameters`."""
        descriptor = ParameterDescriptor(
            name=self.name, description=self.description, additional_constraints=self.constraints()
        )
        if self.low is None and self.high is None:
            return descriptor
        if isinstance(self.default, int):
            descriptor.integer_range = [
                IntegerRange(
                    from_value=int(self.low[0]) if self.low is not None else -(2**63),
                    to_value=int(self.high[0]) if self.high is not None else 2**63 - 1,
                )
            ]
        else:
            descriptor.floating_point_range = [
                FloatingPointRange(
                    from_value=float(self.low[0]) if self.low is not None else -sys.float_info.max,
                    to_value=float(self.high[0]) if self.high is not None else sys.float_info.max,
                )
            ]
        return descriptor


@dataclass(frozen=True, slots=True)
class Settings:
    """What the parameters say.

    Attributes:
        arguments: of the process.
        run: of the localizer and the node around it.
    """

    arguments: NodeArguments
    run: RunConfig


def parameter_specs() -> list[ParameterSpec]:
    """Every parameter of the node, in the order of definition."""
    return [*_specs(NodeArguments(), ()), *_specs(RunConfig(), ())]


def declare_parameters(node: Node) -> None:
    """Declare every parameter with its description and range.

    Raises:
        ConfigError: an override that no parameter has, or whose type or range is wrong; names the parameter.
    """
    # rclpy has no public way to list overrides of parameters that were not declared: those are the misspelt.
    overrides: Mapping[str, Parameter] = getattr(node, "_parameter_overrides", {})
    specs = {spec.name: spec for spec in parameter_specs()}
    unknown = [name for name in overrides if name not in specs and not name.startswith(_FOREIGN)]
    if unknown:
        raise ConfigError(
            f"parameters: unknown {', '.join(sorted(unknown))}; "
            "config/localizer.param.yaml lists all there are"
        )
    given = {name: _widened(specs[name], overrides[name].value) for name in specs if name in overrides}
    settings_from_values(given)
    for spec in specs.values():
        value = given.get(spec.name, spec.default)
        node.declare_parameter(spec.name, value, spec.descriptor(), ignore_override=True)


def read_parameters(node: Node) -> Settings:
    """The values the parameters have now. Raises ConfigError naming a parameter out of its range."""
    return settings_from_values(
        {spec.name: node.get_parameter(spec.name).value for spec in parameter_specs()}
    )


def settings_from_values(values: Mapping[str, Any]) -> Settings:
    """Settings from parameter values; what is left out has its default.

    Raises:
        ConfigError: a wrong type or a value out of range; names the parameter.
    """
    trees: dict[str, dict[str, Any]] = {"arguments": {}, "run": {}}
    arguments = {field.name for field in msgspec.structs.fields(NodeArguments)}
    for spec in parameter_specs():
        if spec.name not in values:
            continue
        tree = trees["arguments" if spec.path[0] in arguments else "run"]
        for key in spec.path[:-1]:
            tree = tree.setdefault(key, {})
        tree[spec.path[-1]] = values[spec.name]
    return Settings(
        config_from_dict(NodeArguments, trees["arguments"], "parameters"),
        config_from_dict(RunConfig, trees["run"], "parameters"),
    )


def check_change(node: Node, changes: list[Parameter], locked: bool) -> SetParametersResult:
    """Whether parameters may be set at run time: only values that fit, and only before configuring.

    Args:
        node: that declared them.
        changes: asked for.
        locked: the node has read its parameters already.
    """
    names = {spec.name for spec in parameter_specs()}
    ours = {change.name: change.value for change in changes if change.name in names}
    if not ours:
        return SetParametersResult(successful=True)
    if locked:
        return SetParametersResult(
            successful=False, reason="parameters are read when the node is configured: clean it up first"
        )
    try:
        current = {name: node.get_parameter(name).value for name in names if name not in ours}
        settings_from_values(current | ours)
    except ConfigError as error:
        return SetParametersResult(successful=False, reason=str(error))
    return SetParametersResult(successful=True)


def parameter_file() -> str:
    """Text of ``config/localizer.param.yaml``: every parameter with unit, default and meaning."""
    lines = [
        "# Every parameter of the node `localizer` at its default, with unit, range and meaning.",
        "# Generated from the config structs; after a change there:",
        "#   python -m localizer_ros.ros.parameters > config/localizer.param.yaml",
        "# Copy what you change, and pass the copy: --ros-args --params-file my.yaml",
        "/**/localizer:",
        "  ros__parameters:",
    ]
    previous: tuple[str, ...] = ()
    for spec in parameter_specs():
        keys = tuple(spec.name.split("."))
        for depth, key in enumerate(keys[:-1]):
            if previous[: depth + 1] != keys[: depth + 1]:
                lines.append(f"{'  ' * (depth + 2)}{key}:")
        indent = "  " * (len(keys) + 1)
        meaning = f"{spec.description} [{spec.constraints()}]" if spec.constraints() else spec.description
        lines += textwrap.wrap(meaning, 100, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# ")
        value = yaml.safe_dump(spec.default, default_flow_style=True).splitlines()[0]
        lines.append(f"{indent}{keys[-1]}: {value}")
        previous = keys[:-1]
    return "\n".join(lines) + "\n"


def write_parameter_file(path: Path) -> None:
    """Write :func:`parameter_file`."""
    path.write_text(parameter_file(), encoding="utf-8")


def _specs(config: Config, path: tuple[str, ...]) -> Iterator[ParameterSpec]:
    kind = msgspec.inspect.type_info(type(config))
    assert isinstance(kind, StructType)
    for field in kind.fields:
        value = getattr(config, field.name)
        here = (*path, field.name)
        if isinstance(value, Config):
            yield from _specs(value, here)
        else:
            yield _spec(here, value, field.type)


def _spec(path: tuple[str, ...], default: Any, kind: msgspec.inspect.Type) -> ParameterSpec:
    description = ""
    if isinstance(kind, Metadata):
        description = str((kind.extra_json_schema or {}).get("description", ""))
        kind = kind.type
    dotted = ".".join(path)
    unit = next((unit for suffix, unit in _UNITS.items() if path[-1].endswith(suffix)), "")
    low = high = None
    choices: tuple[str, ...] = ()
    if isinstance(kind, (FloatType, IntType)):
        low = (float(kind.ge), True) if kind.ge is not None else None
        low = (float(kind.gt), False) if kind.gt is not None else low
        high = (float(kind.le), True) if kind.le is not None else None
        high = (float(kind.lt), False) if kind.lt is not None else high
    elif isinstance(kind, LiteralType):
        choices = tuple(str(value) for value in kind.values)
    elif not isinstance(kind, (BoolType, StrType)):
        raise TypeError(f"{dotted}: a {type(kind).__name__} cannot be a ROS parameter")
    return ParameterSpec(dotted, path, default, description, unit, low, high, choices)


def _widened(spec: ParameterSpec, value: Any) -> Any:
    """YAML writes 3 where 3.0 is meant; ROS would call it another type."""
    is_int = isinstance(value, int) and not isinstance(value, bool)
    return float(value) if is_int and isinstance(spec.default, float) else value


if __name__ == "__main__":
    sys.stdout.write(parameter_file())
