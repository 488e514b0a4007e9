"""Every setting that a message of the sources names is one that YAML, ``--set`` and ROS accept."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from localizer_ros.core.config.mapping import MapConfig
from localizer_ros.core.config.node import NodeConfig
from localizer_ros.core.config.reference import default_as_yaml
from localizer_ros.core.config.runtime import RunConfig
from localizer_ros.core.config.schema import Config, describe, load_config

REPOSITORY = Path(__file__).resolve().parents[2]
SOURCES = [*(REPOSITORY / "localizer_ros").rglob("*.py"), *(REPOSITORY / "launch").rglob("*.py")]
TREES: tuple[type[Config], ...] = (MapConfig, RunConfig)
KNOWN = {spec.name: kind for kind in TREES for spec in describe(kind)}
# What settings stand in: a dotted word that begins like this is meant as one. The last two were groups once.
GROUPS = {group for name in KNOWN for group in name.split(".")[:-1]} | {"localizer", "node"}
WORD = re.compile(r"(?<![\w./-])([a-z][a-z0-9_]*(?:\.[a-z][a-z0-9_]*)+)(?:=(\w+(?:\.\w+)?))?")
OVERRIDE = re.compile(r"--set +([a-z][\w.]*)(?:=(\w+(?:\.\w+)?))?")
# A setting's last part alone, where that says what is meant: lag_s instead of smoother.lag_s.
SHORT = re.compile(r"(?<![\w.{])([a-z]+(?:_[a-z0-9]+)+)(?![\w.(])")
LAST_PARTS = {name.rpartition(".")[2] for name in KNOWN} - set(KNOWN)
FILE_ENDINGS = {"csv", "json", "npy", "npz", "onnx", "param", "rviz", "safetensors", "txt", "yaml"}


def messages(path: Path) -> Iterator[tuple[int, str]]:
    """Line and text of every string in a file that is no docstring; of an f-string, what stands between the values."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = list(ast.walk(tree))
    docstrings = {
        id(node.body[0].value)
        for node in nodes
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and isinstance(node.body[0], ast.Expr)
    }
    for node in nodes:
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.lineno, node.value


def advised() -> Iterator[tuple[str, str, str | None]]:
    """Place, name and value (where one is given) of every setting that a message names."""
    for path in SOURCES:
        for line, text in messages(path):
            place = f"{path.relative_to(REPOSITORY)}:{line}"
            for name, value in OVERRIDE.findall(text):
                yield place, name, value or None
            if " " in text:
                yield from ((place, name, None) for name in SHORT.findall(text) if name in LAST_PARTS)
            for name, value in WORD.findall(text):
                parts = name.split(".")
                if parts[0] in GROUPS and parts[-1] not in FILE_ENDINGS:
                    yield place, name, value or None


ADVISED = sorted(set(advised()), key=str)


def test_messages_name_settings_at_all() -> None:
    names = {name for _, name, _ in ADVISED}
    assert {"search.latency_s", "smoother.lag_s", "structure.matcher.card", "backend.kind"} <= names


@pytest.mark.parametrize(("place", "name", "value"), ADVISED)
def test_an_advised_setting_is_accepted(place: str, name: str, value: str | None) -> None:
    assert name in KNOWN, f"{place} names {name}, which is no setting"
    kind = KNOWN[name]
    default = next(default_as_yaml(spec) for spec in describe(kind) if spec.name == name)
    load_config(kind, overrides=[f"{name}={default if value is None else value}"])
    if kind is RunConfig:
        assert name in {spec.name for spec in describe(NodeConfig)}
