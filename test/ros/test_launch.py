"""The launch file and what it refers to; the parts that need the launch packages skip without them."""

import ast
import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
LAUNCH_FILE = REPOSITORY / "launch" / "localizer.launch.py"
NEEDS_LAUNCH = pytest.mark.skipif(
    importlib.util.find_spec("launch") is None or importlib.util.find_spec("launch_ros") is None,
    reason="needs the launch and launch_ros packages of a ROS distribution; they have no wheel",
)
CONTRACT = {"scene", "image", "bag", "rviz"}


def tree() -> ast.Module:
    return ast.parse(LAUNCH_FILE.read_text(encoding="utf-8"), str(LAUNCH_FILE))


def declared_arguments() -> dict[str, tuple[str | None, str]]:
    """The table of arguments, read without the launch packages."""
    for node in tree().body:
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "ARGUMENTS":
            assert node.value is not None
            table = ast.literal_eval(node.value)
            assert isinstance(table, dict)
            return table
    raise AssertionError("no table of arguments")


def test_launch_file_compiles_and_has_what_ros2_launch_calls() -> None:
    compile(tree(), str(LAUNCH_FILE), "exec")
    names = [node.name for node in tree().body if isinstance(node, ast.FunctionDef)]
    assert "generate_launch_description" in names


def test_every_launch_argument_is_used_and_described() -> None:
    arguments = declared_arguments()
    assert set(arguments) >= CONTRACT
    text = LAUNCH_FILE.read_text(encoding="utf-8")
    for name, (default, description) in arguments.items():
        assert description, name
        assert default is None or isinstance(default, str), name
        assert re.search(rf'value\[["\']{name}["\']\]|for name in \([^)]*"{name}"', text, re.S), (
            f"{name} is not used"
        )


def test_files_and_executables_that_the_launch_file_names_exist() -> None:
    text = LAUNCH_FILE.read_text(encoding="utf-8")
    files = re.findall(r'in_config\("([^"]+)"\)', text)
    assert set(files) == {"localizer.param.yaml", "localizer.rviz", "fastdds.xml"}
    for name in files:
        assert (REPOSITORY / "config" / name).is_file(), name
    setup = (REPOSITORY / "setup.py").read_text(encoding="utf-8")
    for name in re.findall(r'executable="(\w+)"', text):
        assert name == "rviz2" or f'"{name} = ' in setup, name


def test_rviz_config_shows_topics_that_the_node_publishes() -> None:
    view = yaml.safe_load((REPOSITORY / "config" / "localizer.rviz").read_text(encoding="utf-8"))
    displays = view["Visualization Manager"]["Displays"]
    topics = {display["Topic"]["Value"] for display in displays if "Topic" in display}
    folder = REPOSITORY / "localizer_ros" / "ros"
    sources = "".join((folder / name).read_text(encoding="utf-8") for name in ("outputs.py", "display.py"))
    for topic in topics:
        assert topic.startswith("/localizer/") and f'"{topic.removeprefix("/localizer/")}"' in sources, topic
    kinds = {display["Class"].rpartition("/")[2] for display in displays}
    assert kinds >= {"Path", "TF", "PoseWithCovariance", "Image", "MarkerArray"}


def find_package(name: str) -> bool:
    from ament_index_python.packages import PackageNotFoundError, get_package_prefix

    try:
        get_package_prefix(name)
    except PackageNotFoundError:
        return False
    return True


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("localizer_launch", LAUNCH_FILE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@NEEDS_LAUNCH
def test_launch_description_declares_every_argument() -> None:
    declared = load().generate_launch_description().get_launch_arguments()
    assert {argument.name for argument in declared} == set(declared_arguments())
    assert all(argument.description for argument in declared)


@NEEDS_LAUNCH
@pytest.mark.parametrize(
    "given", [{}, {"bag": "/a/bag", "loop": "true", "image": "/cam/image"}, {"rviz": "true"}]
)
def test_launch_entities_can_be_made(given: dict[str, str]) -> None:
    from launch import LaunchContext

    context = LaunchContext()
    values = {name: default or "" for name, (default, _) in declared_arguments().items()}
    context.launch_configurations.update(values | {"scene": "/a/scene"} | given)
    entities = load().entities(context)
    kinds = [type(entity).__name__ for entity in entities]
    # What fails when it is started would leave those before it running.
    assert kinds.count("LogInfo") == (given.get("rviz") == "true" and not find_package("rviz2"))
    assert kinds.count("LifecycleNode") == 1
    assert kinds.count("ExecuteProcess") == ("bag" in given)


@NEEDS_LAUNCH
@pytest.mark.parametrize(("codes", "starts"), [("1 1 1 1", 3), ("1 1 139 1 1 1 1", 6)])
def test_a_node_that_cannot_start_is_given_up_after_three_times(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, codes: str, starts: int
) -> None:
    from launch.actions import ExecuteProcess

    from launch import LaunchDescription, LaunchService

    script = tmp_path / "node.sh"
    script.write_text(
        f"""cd {tmp_path}
echo start >> starts
echo "cannot configure: no such scene"
set -- {codes}
shift $(($(wc -l < starts) - 1))
exit $1
"""
    )
    node = ExecuteProcess(cmd=["sh", str(script)], respawn=True, respawn_delay=0.05)
    player = ExecuteProcess(cmd=["sleep", "60"])
    service = LaunchService(noninteractive=True)
    handlers = load().Starts(node, [player]).handlers()
    service.include_launch_description(LaunchDescription([*handlers, node, player]))
    assert service.run() == 0
    assert len((tmp_path / "starts").read_text().splitlines()) == starts
    said = caplog.text
    assert "is given up: cannot configure: no such scene" in said
