"""Reference pages say what the code does: each is compared with the code it describes."""

import fnmatch
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import check_house
import command_reference
import pytest
import rclpy
import yaml
from documents import DOCS, REPOSITORY, blocks, code_spans, pages

from localizer_ros.core.config.mapping import MapConfig
from localizer_ros.core.config.runtime import RunConfig
from localizer_ros.core.config.schema import config_to_dict
from localizer_ros.core.methods import METHODS
from localizer_ros.core.types import Status
from localizer_ros.datasets.calibration import read_camera_yaml
from localizer_ros.datasets.source import FORMATS
from localizer_ros.features.matchers import MatcherCard
from localizer_ros.features.onnx_descriptor import DescriptorCard
from localizer_ros.features.onnx_extractor import ExtractorCard
from localizer_ros.inference.model_card import Card, read_card
from localizer_ros.networks.encoders.build import ENCODERS
from localizer_ros.ros import heartbeat
from localizer_ros.ros.scenario.fault_kinds import FAULTS, STREAMS
from localizer_ros.ros.scenario.schema import Fault, Scenario, load_scenarios
from localizer_ros.scene.bundle import FORMAT_VERSION

REFERENCE = DOCS / "reference"


def tables(page: Path, heading: str) -> list[list[str]]:
    """Rows of the first table behind a heading, without its head."""
    text = page.read_text(encoding="utf-8")
    part = re.search(rf"(?m)^#+ {re.escape(heading)}\n(.*?)(?=^#|\Z)", text, re.DOTALL)
    assert part, f"{page}: no heading {heading}"
    lines = [line for line in part[1].splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines[2:]]


def spans(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def test_the_page_of_commands_is_the_generated_one() -> None:
    assert (REFERENCE / "commands.md").read_text(encoding="utf-8") == command_reference.page(), (
        "generate again: python tools/command_reference.py > docs/reference/commands.md"
    )


def test_every_format_of_a_recording_is_described_and_no_other() -> None:
    described = [spans(row[0])[0] for row in tables(REFERENCE / "file-formats.md", "Recordings")]
    assert sorted(described) == sorted(FORMATS)


@pytest.mark.parametrize(
    ("first_key", "kind"), [("xfeat", ExtractorCard), ("lighter", MatcherCard), ("mobile", DescriptorCard)]
)
def test_the_examples_of_model_cards_are_read(first_key: str, kind: type[Card], tmp_path: Path) -> None:
    (example,) = [
        b for b in blocks(REFERENCE / "file-formats.md") if b.text.startswith(f"network: {first_key}")
    ]
    (tmp_path / "card.yaml").write_text(example.text)
    assert read_card(tmp_path / "card.yaml", kind).network.startswith(first_key)


def test_the_example_of_a_calibration_is_read(tmp_path: Path) -> None:
    (example,) = [b for b in blocks(DOCS / "howto" / "calibrate-camera.md") if b.language == "yaml"]
    (tmp_path / "camera.yaml").write_text(example.text)
    assert read_camera_yaml(tmp_path / "camera.yaml").width_px == 640


def test_every_status_is_described() -> None:
    described = [spans(row[0])[0] for row in tables(REFERENCE / "topics.md", "Status")]
    assert described == [status.value for status in Status]


def test_the_rooms_that_contributors_read_of_are_the_floors_of_the_house() -> None:
    rows = tables(REPOSITORY / "CONTRIBUTING.md", "Where does a line belong")
    assert [tuple(spans(row[0])) for row in rows] == list(check_house.FLOORS)


def test_every_encoder_whose_weights_are_taken_is_named() -> None:
    text = (REPOSITORY / "models" / "README.md").read_text(encoding="utf-8")
    assert not [name for name in ENCODERS if f"`{name}`" not in text]


def test_every_method_is_in_the_how_to() -> None:
    rows = tables(DOCS / "howto" / "choose-a-method.md", "Choose a method")
    assert {name for row in rows for name in spans(row[1])} == set(METHODS)


def test_every_kind_of_dropped_frame_is_described_and_no_other() -> None:
    raised = re.compile(r'(?:FrameRejected|frame_dropped)\(\s*"(\w+)"')
    kinds = {
        kind
        for path in (REPOSITORY / "localizer_ros").rglob("*.py")
        for kind in raised.findall(path.read_text(encoding="utf-8"))
    }
    described = {k for row in tables(REFERENCE / "topics.md", "Dropped frames") for k in spans(row[0])}
    assert described == kinds


def test_reasons_that_the_how_to_explains_are_given_by_the_code() -> None:
    sources = "".join(
        path.read_text(encoding="utf-8") for path in (REPOSITORY / "localizer_ros").rglob("*.py")
    )
    page = DOCS / "howto" / "it-is-lost.md"
    for row in tables(page, "3. Frames arrive and are not recognised"):
        assert spans(row[0])[0] in sources, f"{page}: {row[0]} is said nowhere"
    for row in tables(page, "2. Frames do not arrive"):
        assert spans(row[0])[0].removeprefix("dropped ") in sources, f"{page}: {row[0]} is said nowhere"


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_settings_named_in_sentences_exist(page: Path) -> None:
    if "explanation" in page.parts or page.name in ("lab-notes.md", "CHANGELOG.md"):
        pytest.skip("names modules and settings of other versions, too")
    known = {**config_to_dict(MapConfig()), **config_to_dict(RunConfig())}
    name = re.compile(rf"({'|'.join(known)})(\.[a-z_]+)+(?<!\.csv)")
    unknown = [span for span in code_spans(page) if name.fullmatch(span) and not _has(known, span)]
    assert not unknown, f"{page}: {', '.join(unknown)}"


def _has(values: Any, key: str) -> bool:
    for part in key.split("."):
        if not isinstance(values, dict) or part not in values:
            return False
        values = values[part]
    return True


# --- scenes ---


@pytest.mark.slow
def test_every_file_of_a_scene_is_described(tiny_scene: Path, tiny_map: Path) -> None:
    page = REFERENCE / "scene-format.md"
    patterns = [name for row in tables(page, "Scene format") for name in spans(row[0])]
    for scene in (tiny_scene, tiny_map):
        files = [str(file.relative_to(scene)) for file in scene.rglob("*") if file.is_file()]
        unknown = [f for f in files if not any(fnmatch.fnmatch(f, pattern) for pattern in patterns)]
        assert not unknown, f"{page}: {', '.join(unknown)}"


@pytest.mark.slow
def test_every_key_of_the_manifest_is_described(tiny_scene: Path, tiny_map: Path) -> None:
    rows = tables(REFERENCE / "scene-format.md", "scene.yaml")
    described = {key: row[1] for row in rows for key in spans(row[0])}
    assert described["format_version"] == str(FORMAT_VERSION)
    for scene in (tiny_scene, tiny_map):
        assert set(yaml.safe_load((scene / "scene.yaml").read_text())) <= set(described)


# --- the node ---


@pytest.fixture
def node(tiny_map: Path) -> Iterator[Any]:
    """The node with every topic it may have, active."""
    from rclpy.parameter import Parameter

    from localizer_ros.ros.node import LocalizerNode

    context = rclpy.Context()
    rclpy.init(args=[], context=context)
    frames = {"odom_frame": "odom", "base_frame": "base_link", "scene": str(tiny_map)}
    node = LocalizerNode(
        context=context, parameter_overrides=[Parameter(name, value=value) for name, value in frames.items()]
    )
    node.trigger_configure()
    node.trigger_activate()
    yield node
    node.destroy_node()
    rclpy.try_shutdown(context=context)


@pytest.mark.slow
@pytest.mark.ros
def test_topics_and_services_are_those_of_the_node(node: Any) -> None:
    page = REFERENCE / "topics.md"
    # What rclpy gives every (lifecycle) node.
    own = re.compile(
        r"/(rosout|parameter_events)$|transition_event|parameter|type_description|change_state|get_|set_"
    )

    def named(pairs: list[tuple[str, list[str]]]) -> set[tuple[str, str]]:
        return {(name, kind) for name, kinds in pairs if not own.search(name) for kind in kinds}

    def described(heading: str) -> set[tuple[str, str]]:
        found = set()
        for row in tables(page, heading):
            name = spans(row[0])[0]
            name = f"/localizer/{name[2:]}" if name.startswith("~/") else f"/{name.lstrip('/')}"
            found.add((name, spans(row[1])[0]))
        return found

    name, namespace = node.get_name(), node.get_namespace()
    # What needs a package that is not everywhere.
    absent = {("/bond", "bond/msg/Status")} if heartbeat.Status is None else set()
    assert described("Published") - absent == named(
        node.get_publisher_names_and_types_by_node(name, namespace)
    )
    subscribed = named(node.get_subscriber_names_and_types_by_node(name, namespace))
    assert described("Subscribed") - {("/image/compressed", "sensor_msgs/msg/CompressedImage")} == subscribed
    assert described("Services") == named(node.get_service_names_and_types_by_node(name, namespace))


def test_the_page_of_scenarios_has_every_entry_stream_and_fault_and_no_other() -> None:
    page = REFERENCE / "scenarios.md"

    def described(heading: str) -> list[str]:
        return [spans(row[0])[0] for row in tables(page, heading)]

    assert sorted(described("Entries of a scenario")) == sorted(Scenario.__struct_encode_fields__)
    assert sorted(described("Entries of a fault")) == sorted(Fault.__struct_encode_fields__)
    assert {row[0]: row[1] for row in tables(page, "Streams")} == {
        f"`{n}`": text for n, text in STREAMS.items()
    }
    for row, (name, kind) in zip(tables(page, "Faults"), FAULTS.items(), strict=True):
        assert (spans(row[0]), spans(row[1]), row[2]) == (
            [name],
            list(kind.streams),
            kind.meaning.replace("|", "\\|"),
        )
        assert row[3] == (f"{kind.value} ({kind.default:g})" if kind.value else "")


def test_the_example_on_the_page_of_scenarios_is_read(tmp_path: Path) -> None:
    example = next(block for block in blocks(REFERENCE / "scenarios.md") if block.language == "yaml")
    (tmp_path / "faults.yaml").write_text(example.text)
    assert list(load_scenarios(tmp_path / "faults.yaml")) == ["frozen"]
