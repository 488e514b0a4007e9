"""What the package promises as a whole: its install and its pinned requirements."""

import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGE = "localizer_ros"
BUILD_INPUTS = [
    "package.xml",
    "setup.py",
    "setup.cfg",
    "pyproject.toml",
    "resource",
    "launch",
    "config",
    PACKAGE,
]


# --- install ---


def files_in(folder: str) -> list[str]:
    return [path.name for path in (REPOSITORY / folder).glob("*") if path.is_file() and path.name[0] != "."]


@pytest.fixture(scope="session")
def install(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package, built and installed by colcon from a copy of its sources; returns the install folder."""
    workspace = tmp_path_factory.mktemp("workspace")
    source = workspace / "src" / PACKAGE
    source.mkdir(parents=True)
    for name in BUILD_INPUTS:
        path = REPOSITORY / name
        if path.is_dir():
            shutil.copytree(path, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif path.exists():
            shutil.copy(path, source / name)
    build = subprocess.run(
        [sys.executable, "-m", "colcon", "build"], cwd=workspace, capture_output=True, text=True, timeout=300
    )
    assert build.returncode == 0, build.stdout + build.stderr
    return workspace / "install"


def run_installed(install: Path, *command: str) -> str:
    """Run a command as a user does after sourcing the workspace; returns its standard output."""
    script = f'source "{install}/local_setup.bash" && exec "$@"'
    done = subprocess.run(
        ["bash", "-c", script, "bash", *command],
        cwd=install,  # not the repository: its package folder must not be found by accident
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_colcon_installs_what_ros2_looks_for(install: Path) -> None:
    prefix = install / PACKAGE
    assert (prefix / "share/ament_index/resource_index/packages" / PACKAGE).is_file()
    share = prefix / "share" / PACKAGE
    assert (share / "package.xml").is_file()
    for folder in ("launch", "config", "config/nav2", "config/robot_localization"):
        assert files_in(folder), f"{folder}/ is empty in the repository"
        missing = [name for name in files_in(folder) if not (share / folder / name).is_file()]
        assert not missing, f"not installed from {folder}/: {missing}"
    for name in ("localizer", "localizer_node"):
        assert os.access(prefix / "lib" / PACKAGE / name, os.X_OK), (
            f"lib/{PACKAGE}/{name} is not an executable"
        )


def test_sourced_workspace_finds_the_installed_package(install: Path) -> None:
    code = (
        "import ament_index_python as index, localizer_ros; "
        "print(index.get_package_share_directory('localizer_ros')); print(localizer_ros.__file__)"
    )
    share, module = run_installed(install, sys.executable, "-c", code).split()
    assert Path(share) == install / PACKAGE / "share" / PACKAGE
    assert Path(module).is_relative_to(install)


def test_installed_package_has_its_data_files(install: Path) -> None:
    data = [
        str(path.relative_to(REPOSITORY))
        for path in (REPOSITORY / PACKAGE).rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc")
    ]
    assert f"{PACKAGE}/evaluation/report.html.jinja" in data
    code = "import localizer_ros, pathlib; print(pathlib.Path(localizer_ros.__file__).parents[1])"
    installed = Path(run_installed(install, sys.executable, "-c", code).strip())
    assert not [name for name in data if not (installed / name).is_file()]


def test_installed_command_starts(install: Path) -> None:
    executable = install / PACKAGE / "lib" / PACKAGE / "localizer"
    assert "simulate" in run_installed(install, str(executable), "--help")


def test_installed_node_resolves_and_ros_initialises(install: Path) -> None:
    code = (
        "from importlib.metadata import entry_points; import rclpy; "
        "point, = entry_points(group='console_scripts', name='localizer_node'); "
        "assert callable(point.load()); rclpy.init(); rclpy.create_node('probe'); print('ok')"
    )
    assert run_installed(install, sys.executable, "-c", code).split()[-1] == "ok"


# --- requirements ---


@pytest.mark.parametrize("name", ["base.txt", "dev.txt", "ros.txt", "torch.txt"])
def test_requirements_are_pinned_and_name_no_host(name: str) -> None:
    # A requirement and its checksums are one logical line.
    text = (REPOSITORY / "requirements" / name).read_text(encoding="utf-8").replace("\\\n", "")
    entries = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert entries
    # Which build of torch there is depends on the index.
    checksums = "" if name == "torch.txt" else r"(\s+--hash=sha256:[0-9a-f]{64})+"
    for entry in entries:
        assert re.fullmatch(rf"[a-z0-9-]+==[\w.+!]+( ; .+?)?{checksums}\s*", entry), (
            f"not pinned: {entry[:80]}"
        )
        assert not re.match(r"nvidia-|cuda-|triton", entry), f"a GPU library: {entry}"


def test_what_pip_installs_is_what_is_locked(monkeypatch: pytest.MonkeyPatch) -> None:
    declared: dict[str, Any] = {}
    monkeypatch.setattr("setuptools.setup", declared.update)
    monkeypatch.chdir(REPOSITORY)
    runpy.run_path("setup.py")
    wanted = {*declared["install_requires"]}
    for name in ("train", "learned", "view"):
        wanted |= {*declared["extras_require"][name]}
    text = (REPOSITORY / "requirements" / "base.in").read_text(encoding="utf-8")
    direct = text.split("# The dependencies of the CPU build of torch")[0]
    listed = {line.split("#")[0].strip() for line in direct.splitlines()} - {""}
    assert listed == wanted - {"torch"}
    ros = (REPOSITORY / "requirements" / "ros.in").read_text(encoding="utf-8").split("\n\n")[0]
    assert {line for line in ros.splitlines() if line[0] not in "-#"} == {*declared["extras_require"]["ros"]}


def test_the_licence_of_every_dependency_is_told() -> None:
    page = (REPOSITORY / "docs" / "reference" / "dependencies.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"(?m)^\| `([a-z0-9-]+)` \| [A-Z]", page))
    text = (REPOSITORY / "requirements" / "base.in").read_text(encoding="utf-8")
    direct = text.split("# The dependencies of the CPU build of torch")[0]
    names = re.findall(r"(?m)^[a-z0-9-]+", direct)
    assert listed == {*names, "torch"}


def test_the_image_is_made_of_files_that_are_there() -> None:
    lines = (REPOSITORY / "Dockerfile").read_text(encoding="utf-8").splitlines()
    copied = [
        word for line in lines if line.startswith("COPY ") for word in line.split()[1:-1] if word[0] != "-"
    ]
    here = [word for word in copied if not word.startswith("/opt")]
    assert here and not [word for word in here if not (REPOSITORY / word).exists()]
    ignored = (REPOSITORY / ".dockerignore").read_text(encoding="utf-8").split()
    assert not set(ignored) & {word.split("/")[0] for word in here}


def test_lock_files_agree_with_each_other() -> None:
    versions: dict[str, set[str]] = {}
    # The bindings of two TensorRTs are meant to differ: each is checked in an environment of its own.
    for path in sorted((REPOSITORY / "requirements").glob("*.txt")):
        if path.name.startswith("tensorrt-"):
            continue
        for name, version in re.findall(r"(?m)^([a-z0-9-]+)==([\w.+!]+)", path.read_text(encoding="utf-8")):
            versions.setdefault(name, set()).add(version)
    assert not {name: found for name, found in versions.items() if len(found) > 1}
