"""Settings: loaded, described and written down. The structs beside this module are the only source of defaults.

A setting has one name, in YAML, with ``--set`` and in ROS: ``smoother.lag_s``. Loading is strict: an unknown name, a
value outside its range or two settings that contradict each other are errors that name them. What a struct says of a
setting (:func:`describe`) declares the ROS parameters, and is what ``localizer settings`` and the generated pages show.
"""

from __future__ import annotations

import contextlib
import difflib
import inspect
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import msgspec
import yaml
from msgspec import Meta

from localizer_ros.core.files import parse_yaml, read_yaml
from localizer_ros.core.types import ConfigError

Tier = Literal["user", "expert", "research"]
TIERS: tuple[Tier, ...] = get_args(Tier)
# For ``Meta(extra=...)``; a setting that says nothing is for experts.
USER: dict[str, str] = {"tier": "user"}
RESEARCH: dict[str, str] = {"tier": "research"}

# The unit of a setting stands in its name; what has another says so in ``Meta(extra={"unit": ...})``.
_UNITS = {
    "_deg_s": "deg/s",
    "_m_s": "m/s",
    "_deg": "deg",
    "_rad": "rad",
    "_px": "px",
    "_min": "min",
    "_ms": "ms",
    "_ns": "ns",
    "_m": "m",
    "_s": "s",
    "_megabytes": "MB",
}
# A name this like a mistyped one is suggested.
_ALIKE = 0.7


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of all settings.

    A struct whose settings depend on each other raises ConfigError in ``__post_init__``, naming both of them.
    """


C = TypeVar("C", bound=Config)
Value = bool | int | float | str

# --- description ---


@dataclass(frozen=True, slots=True)
class SettingSpec:
    """What is known of one setting.

    Attributes:
        name: dotted, e.g. ``smoother.lag_s``.
        default: its value where nobody sets it.
        type: of its value.
        unit: empty where it has none.
        low: smallest value and whether it is allowed itself, or None.
        high: largest value and whether it is allowed itself, or None.
        multiple_of: what a value is a whole multiple of, or None.
        choices: allowed words; empty where it is no choice.
        meaning: in words.
        tier: whom it is for.
    """

    name: str
    default: Value
    type: type[Value]
    unit: str
    low: tuple[float, bool] | None
    high: tuple[float, bool] | None
    multiple_of: int | None
    choices: tuple[str, ...]
    meaning: str
    tier: Tier

    @property
    def group(self) -> str:
        """The name without its last part; empty at the top."""
        return self.name.rpartition(".")[0]

    def range(self) -> str:
        """The values it may have, e.g. ``> 0, <= 60`` or ``mutual | lightglue``; empty where any is allowed."""
        parts = [" | ".join(self.choices)] if self.choices else []
        if self.low is not None:
            parts.append(f"{'>=' if self.low[1] else '>'} {self.low[0]:g}")
        if self.high is not None:
            parts.append(f"{'<=' if self.high[1] else '<'} {self.high[0]:g}")
        if self.multiple_of is not None:
            parts.append(f"a multiple of {self.multiple_of}")
        return ", ".join(parts)

    def expected(self) -> str:
        """What a value must be, for the message about a wrong one."""
        kinds = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
        if self.type is str and self.choices:
            return self.range()
        unit = f" ({self.unit})" if self.unit else ""
        return f"{kinds[self.type]}{' ' if self.range() else ''}{self.range()}{unit}"


def describe(kind: type[Config]) -> list[SettingSpec]:
    """Every setting of a tree: those at the top first, then group by group."""
    return list(_described(kind, ""))


def setting_values(config: Config) -> dict[str, Value]:
    """The value of every setting by its dotted name."""
    return dict(_leaves(config_to_dict(config), ""))


def _described(kind: type[Config], prefix: str) -> Iterator[SettingSpec]:
    # Outermost class first: what only the node needs stands before what every localizer needs.
    names = [
        name for base in kind.__mro__ if issubclass(base, Config) for name in inspect.get_annotations(base)
    ]
    types = {field.name: field.type for field in msgspec.structs.fields(kind)}
    defaults = kind()
    for name in sorted(names, key=lambda name: _is_group(types[name])):
        if _is_group(types[name]):
            yield from _described(types[name], f"{prefix}{name}.")
        else:
            yield _spec(f"{prefix}{name}", getattr(defaults, name), types[name])


def _is_group(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Config)


def _spec(name: str, default: Value, kind: Any) -> SettingSpec:
    meta = Meta()
    if get_origin(kind) is Annotated:
        kind, meta = get_args(kind)
    parts = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    choices = tuple(word for part in parts if get_origin(part) is Literal for word in get_args(part))
    plain = [part for part in parts if get_origin(part) is not Literal] or [str]
    if plain[0] not in (bool, int, float, str):
        raise TypeError(f"{name}: a {plain[0]} cannot be a setting")
    extra = meta.extra or {}
    unit = next((unit for suffix, unit in _UNITS.items() if name.endswith(suffix)), "")
    return SettingSpec(
        name,
        default,
        plain[0],
        extra.get("unit", unit),
        _bound(meta.ge, meta.gt),
        _bound(meta.le, meta.lt),
        None if meta.multiple_of is None else int(meta.multiple_of),
        choices,
        meta.description or "",
        extra.get("tier", "expert"),
    )


def _bound(allowed: float | None, excluded: float | None) -> tuple[float, bool] | None:
    if allowed is not None:
        return float(allowed), True
    return None if excluded is None else (float(excluded), False)


def _leaves(values: dict[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


# --- loading ---


def load_config(kind: type[C], path: Path | None = None, overrides: Iterable[str] = ()) -> C:
    """A config from a YAML file and ``name=value`` overrides, both optional.

    Raises:
        ConfigError: unreadable file, unknown name, wrong type, value out of range, or settings that contradict each
            other; names the file and the settings.
    """
    values: Any = {}
    if path is not None:
        values = read_yaml(path, ConfigError)
        # Before overrides: what they are laid over must be right by itself.
        config_from_dict(kind, values, str(path))
    for override in overrides:
        values = with_setting(values, *_override(override))
    return config_from_dict(kind, values)


def config_from_dict(kind: type[C], values: Any, where: str = "settings") -> C:
    """A config from plain values.

    Args:
        kind: of the config.
        values: nested as the config is; what is left out has its default.
        where: begins the message of an error.

    Raises:
        ConfigError: as of :func:`load_config`.
    """
    _, unknown = without_unknown(kind, values)
    if unknown:
        known = [spec.name for spec in describe(kind)]
        said = ", ".join(f"{name}{suggestion(name, known)}" for name in unknown)
        raise ConfigError(f"{where}: unknown setting {said}")
    try:
        # YAML writes 3 where 3.0 is meant; anything else must have its own type.
        return msgspec.convert(values, kind, strict=True)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{where}: {_in_words(kind, values, str(error))}") from error
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error


def with_setting(values: Any, name: str, value: Any) -> dict[str, Any]:
    """Nested plain values with one setting, given by its dotted name, laid over them."""
    updated: dict[str, Any] = dict(values) if isinstance(values, dict) else {}
    node = updated
    *groups, last = name.split(".")
    for group in groups:
        inner = node.get(group)
        node[group] = dict(inner) if isinstance(inner, dict) else {}
        node = node[group]
    node[last] = value
    return updated


def without_unknown(kind: type[Config], values: Any, prefix: str = "") -> tuple[Any, list[str]]:
    """Values without the settings that ``kind`` does not have (any more), and the names of those; for what was written
    by another version. What the user writes is read by :func:`config_from_dict` alone, where they are an error.
    """
    if not isinstance(values, dict):
        return values, []
    types = {field.name: field.type for field in msgspec.structs.fields(kind)}
    known: dict[str, Any] = {}
    unknown: list[str] = []
    for key, value in values.items():
        if key not in types:
            inside = _leaves(value, f"{prefix}{key}.") if isinstance(value, dict) and value else ()
            unknown.extend([name for name, _ in inside] or [f"{prefix}{key}"])
            continue
        if _is_group(types[key]):
            value, deeper = without_unknown(types[key], value, f"{prefix}{key}.")
            unknown.extend(deeper)
        known[key] = value
    return known, unknown


def _override(text: str) -> tuple[str, Any]:
    name, separator, written = text.partition("=")
    if not separator or not name.strip():
        raise ConfigError(f"--set {text}: expected name=value, e.g. smoother.lag_s=2.0")
    # Nothing is the empty text, as for a frame that is not to be set.
    value = parse_yaml(written, f"--set {text}", ConfigError) if written.strip() else ""
    # YAML 1.1 reads 1e-3 as a string.
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            value = float(value)
    return name.strip(), value


def suggestion(name: str, known: Sequence[str]) -> str:
    """The known name that was probably meant, in brackets; empty when none is like it."""
    last = name.rpartition(".")[2]
    same_last = [other for other in known if other.rpartition(".")[2] == last]
    near = difflib.get_close_matches(name, same_last, 1, 0.0) or difflib.get_close_matches(
        name, known, 1, _ALIKE
    )
    return f" (did you mean {near[0]}?)" if near else ""


def _in_words(kind: type[Config], values: Any, error: str) -> str:
    """What msgspec says of a wrong value, with the setting's name and what was expected and given."""
    found = re.search(r" - at `\$\.(.+)`$", error)
    name = found[1] if found else ""
    given = values
    for key in name.split(".") if name else ():
        given = given[key]
    for spec in describe(kind):
        if spec.name == name:
            return f"{name}: expected {spec.expected()}, got {given!r}"
    subject = f"{name}: " if name else ""
    return f"{subject}expected settings by name, got {given!r}"


# --- writing ---


def config_to_dict(config: Config) -> dict[str, Any]:
    """Plain values of the whole tree, for YAML and JSON."""
    values: dict[str, Any] = msgspec.to_builtins(config)
    return values


def dump_yaml(config: Config) -> str:
    """The whole tree as YAML, defaults included, in the order of definition."""
    return yaml.safe_dump(config_to_dict(config), sort_keys=False)
