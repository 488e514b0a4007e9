"""Every setting of the project, its default, unit, range and meaning: the only source of defaults.

Strict: an unknown key or a value outside its range is an error that names its path. The same metadata declares the ROS
parameters (``ros/parameters.py``) and writes ``config/localizer.param.yaml``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import yaml

from localizer_ros.core.types import ConfigError


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of all settings."""


# --- reading and writing ---

C = TypeVar("C", bound=Config)


def load_config(kind: type[C], path: Path | None = None, overrides: Iterable[str] = ()) -> C:
    """A config from a YAML file and ``key.path=value`` overrides, both optional.

    Raises:
        ConfigError: unreadable file, unknown key, wrong type or value out of range; names file and key path.
    """
    values: Any = {}
    if path is not None:
        try:
            values = yaml.safe_load(path.read_text())
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise ConfigError(f"{path}: cannot be read ({' '.join(str(error).split())})") from error
        if values is None:
            values = {}
        # Before overrides: what they are laid over must be right by itself.
        config_from_dict(kind, values, str(path))
    for override in overrides:
        values = _with_override(values, override)
    return config_from_dict(kind, values, "settings")


def config_from_dict(kind: type[C], values: Any, where: str = "settings") -> C:
    """A config from plain values; ``where`` begins the message of a ConfigError."""
    try:
        # YAML writes 3 where 3.0 is meant; anything else must have its own type.
        return msgspec.convert(values, kind, strict=True)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{where}: {error}") from error


def without_unknown(kind: type[Config], values: Any, at: str = "") -> tuple[Any, list[str]]:
    """Values without the keys that ``kind`` does not have (any more), and the paths of those; for what was written by
    another version. What the user writes is read by :func:`config_from_dict` alone, where such a key is an error.
    """
    if not isinstance(values, dict):
        return values, []
    fields = {field.encode_name: field.type for field in msgspec.structs.fields(kind)}
    known: dict[str, Any] = {}
    unknown: list[str] = []
    for key, value in values.items():
        if key not in fields:
            unknown.append(f"{at}{key}")
            continue
        inner = fields[key]
        if isinstance(inner, type) and issubclass(inner, Config):
            value, deeper = without_unknown(inner, value, f"{at}{key}.")
            unknown.extend(deeper)
        known[key] = value
    return known, unknown


def config_to_dict(config: Config) -> dict[str, Any]:
    """Plain values of the whole tree, for YAML and JSON."""
    values: dict[str, Any] = msgspec.to_builtins(config)
    return values


def dump_yaml(config: Config) -> str:
    """The whole tree as YAML, defaults included, in the order of definition."""
    return yaml.safe_dump(config_to_dict(config), sort_keys=False)


def _with_override(values: Any, override: str) -> dict[str, Any]:
    key, separator, text = override.partition("=")
    if not separator or not key.strip():
        raise ConfigError(f"--set {override}: expected key.path=value")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {override}: the value is not YAML") from error
    # YAML 1.1 reads 1e-3 as a string.
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            value = float(value)
    updated: dict[str, Any] = dict(values) if isinstance(values, dict) else {}
    node = updated
    *parents, last = key.strip().split(".")
    for parent in parents:
        child = node.get(parent)
        node[parent] = dict(child) if isinstance(child, dict) else {}
        node = node[parent]
    node[last] = value
    return updated
