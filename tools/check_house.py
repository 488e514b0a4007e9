"""Whether the code keeps to its floors and sizes; run by ``make lint``.

Imports go down or sideways, never up and never in a circle; ROS, torch and GTSAM are imported in their own rooms only;
files, classes, functions and argument lists stay small enough to be read at once. What may be larger stands in
``EXCEPTIONS`` with its reason. Prints one line for each fault and exits with 1 when there is any.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGE = "localizer_ros"

# From the ground up. A room may import its own floor and those below; what is not listed stands on the top floor.
FLOORS = (
    ("core",),
    ("geometry", "networks"),
    ("inference", "datasets", "smoothing"),
    ("features",),
    ("scene",),
    ("localization",),
    ("training", "evaluation", "export"),
    ("mapping",),
    ("ros",),
    ("cli", "demo"),
)
ROS = re.compile(r"(rclpy|launch(_ros)?|cv_bridge|tf2_ros|[a-z0-9_]+_msgs|builtin_interfaces|std_srvs)(\.|$)")
TORCH = re.compile(rf"(torch|lightning_fabric|safetensors\.torch|{PACKAGE}\.networks)(\.|$)")
GTSAM = re.compile(r"gtsam(\.|$)")
# What is imported, and the modules that may.
ONLY_IN = (
    (ROS, re.compile(rf"{PACKAGE}\.ros(\.|$)")),
    (GTSAM, re.compile(rf"{PACKAGE}\.smoothing\.(gtsam_smoother|odometry_graph)$")),
    (TORCH, re.compile(rf"{PACKAGE}\.(networks|training|export|inference\.torch_backend)(\.|$)")),
)

MOST = {"file": 350, "class": 250, "function": 60, "arguments": 7}
# "kind place" -> why it may be larger.
EXCEPTIONS: dict[str, str] = {}
# A parameter that typer reads from the command line is an option of the command, not an argument somebody passes.
COMMAND_DECORATOR = "command"


@dataclass(frozen=True)
class Fault:
    """One line to print: where, and what is wrong."""

    place: str
    text: str

    def __str__(self) -> str:
        return f"{self.place}: {self.text}"


def modules(root: Path) -> dict[str, Path]:
    """Dotted name of every module of the package, and its file."""
    files = sorted((root / PACKAGE).rglob("*.py"))
    return {_name(root, path): path for path in files}


def _name(root: Path, path: Path) -> str:
    return ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")


def imports(root: Path, path: Path, tree: ast.AST) -> Iterator[str]:
    """Every module or member that a file imports, at its top or inside a function."""
    package = path.relative_to(root).parent.parts
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = [*package[: len(package) - node.level + 1]] if node.level else []
            module = ".".join([*base, node.module] if node.module else base)
            yield from (f"{module}.{alias.name}" for alias in node.names)


def floor(module: str) -> int:
    """How high a module stands."""
    room = module.partition(".")[2].partition(".")[0]
    return next((height for height, rooms in enumerate(FLOORS) if room in rooms), len(FLOORS))


def misplaced_imports(root: Path) -> Iterator[Fault]:
    """Imports that go up, or that belong to another room."""
    for name, path in modules(root).items():
        for imported in imports(root, path, ast.parse(path.read_text(encoding="utf-8"))):
            # The package itself holds nothing but its version, which everything may ask for.
            inside = imported.startswith(f"{PACKAGE}.") and imported != f"{PACKAGE}.__version__"
            if inside and floor(imported) > floor(name):
                yield Fault(name, f"imports {imported}, which stands above it")
            for what, where in ONLY_IN:
                if what.match(imported) and not where.match(name):
                    yield Fault(name, f"imports {imported}, which belongs elsewhere ({where.pattern})")


def circles(root: Path) -> Iterator[Fault]:
    """Rooms, and modules, that import each other in a circle."""
    files = modules(root)
    between_modules: dict[str, set[str]] = {name: set() for name in files}
    for name, path in files.items():
        for imported in imports(root, path, ast.parse(path.read_text(encoding="utf-8"))):
            target = imported if imported in files else imported.rpartition(".")[0]
            if target in files and target not in (name, PACKAGE):
                between_modules[name].add(target)
    between_rooms: dict[str, set[str]] = {}
    for name, targets in between_modules.items():
        for target in targets:
            if _room(name) != _room(target):
                between_rooms.setdefault(_room(name), set()).add(_room(target))
    for graph in (between_rooms, between_modules):
        for circle in _strongly_connected(graph):
            yield Fault(circle[0], f"imports itself in a circle: {' -> '.join(circle)}")


def _room(module: str) -> str:
    return ".".join(module.split(".")[:2])


def _strongly_connected(graph: dict[str, set[str]]) -> list[list[str]]:
    """Groups of more than one node that reach each other, sorted."""

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        waiting = [start]
        while waiting:
            for target in graph.get(waiting.pop(), ()):
                if target not in seen:
                    seen.add(target)
                    waiting.append(target)
        return seen

    reach = {node: reached(node) for node in graph}
    groups = {
        tuple(sorted(other for other in reach[node] if node in reach.get(other, set())))
        for node in graph
        if node in reach[node]
    }
    return [list(group) for group in sorted(groups) if len(group) > 1]


def oversized(root: Path, folders: tuple[str, ...] = (PACKAGE, "tools", "launch")) -> Iterator[Fault]:
    """Files, classes, functions and argument lists larger than ``MOST`` that no exception names."""
    for path in sorted(file for folder in folders for file in (root / folder).rglob("*.py")):
        place = str(path.relative_to(root))
        text = path.read_text(encoding="utf-8")
        yield from _too_many("file", place, len(text.splitlines()))
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ClassDef):
                yield from _too_many("class", f"{place}:{node.name}", _lines(node))
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield from _too_many("function", f"{place}:{node.name}", _lines(node))
                if not _is_command(node):
                    yield from _too_many("arguments", f"{place}:{node.name}", _arguments(node))


def _lines(node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    assert node.end_lineno is not None
    return node.end_lineno - node.lineno + 1


def _arguments(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    return len([argument for argument in given if argument.arg not in ("self", "cls")])


def _is_command(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return any(COMMAND_DECORATOR in ast.unparse(decorator) for decorator in node.decorator_list)


def _too_many(kind: str, place: str, count: int) -> Iterator[Fault]:
    if count > MOST[kind] and f"{kind} {place}" not in EXCEPTIONS:
        unit = "" if kind == "arguments" else " lines"
        yield Fault(place, f"{kind} has {count}{unit}, at most {MOST[kind]}")


def unused_exceptions(root: Path) -> Iterator[Fault]:
    """Exceptions that nothing needs any more."""
    for entry in EXCEPTIONS:
        kind, _, place = entry.partition(" ")
        path, _, name = place.partition(":")
        if not (root / path).exists() or (kind != "file" and not name):
            yield Fault(place, "stands in EXCEPTIONS and is not there")


def faults(root: Path = REPOSITORY) -> list[Fault]:
    """Everything that is wrong."""
    return [*misplaced_imports(root), *circles(root), *oversized(root), *unused_exceptions(root)]


def main() -> int:
    """Print the faults; 1 when there are any."""
    found = faults()
    for fault in found:
        print(fault)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
