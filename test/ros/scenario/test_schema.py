"""Reading scenarios: what is wrong with a file is named."""

from pathlib import Path

import pytest

from localizer_ros.core.types import ConfigError
from localizer_ros.ros.scenario.fault_kinds import FAULTS, STREAMS
from localizer_ros.ros.scenario.schema import load_scenarios

SCENARIOS = sorted((Path(__file__).parents[2] / "scenarios").glob("*.yaml"))


def written(folder: Path, text: str) -> Path:
    path = folder / "faults.yaml"
    path.write_text(text)
    return path


def test_the_scenarios_of_this_package_are_read_and_use_every_stream_and_nearly_every_fault() -> None:
    scenarios = {name: scenario for path in SCENARIOS for name, scenario in load_scenarios(path).items()}
    assert len(scenarios) >= 45
    assert len(scenarios) == sum(len(load_scenarios(path)) for path in SCENARIOS), "two have one name"
    faults = [fault for scenario in scenarios.values() for fault in scenario.faults]
    assert {fault.stream for fault in faults} == set(STREAMS)
    assert not set(FAULTS) - {fault.fault for fault in faults}


def test_what_is_left_out_has_its_default_and_defaults_are_laid_under(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        """
defaults: {transport: jpeg, parameters: {publish_tf: false}}
scenarios:
  one: {about: A., parameters: {path_length: 5}, faults: [{stream: image, fault: black, from: 2, to: 3}], says: dark}
  two: {about: B., transport: png}
""",
    )
    one, two = load_scenarios(path).values()
    assert (one.transport, two.transport) == ("jpeg", "png")
    assert one.parameters == {"publish_tf": False, "path_length": 5} and two.parameters == {
        "publish_tf": False
    }
    assert (one.first_s, one.last_s) == (2.0, 3.0) and (two.first_s, two.last_s) == (0.0, 0.0)
    assert [(saying.text, saying.within) for saying in one.sayings] == [("dark", 0.5)]


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("{}", "missing required field about"),
        ("{about: x, fault: []}", "unknown entry 'fault'; did you mean faults?"),
        ("{about: x, worst_m: wide}", "worst_m: expected float, got str"),
        (
            "{about: x, faults: [{stream: image, fault: blak}]}",
            "faults[0]: image has no fault 'blak'; did you mean black?",
        ),
        ("{about: x, faults: [{stream: odom, fault: black}]}", "odom has no fault 'black'"),
        ("{about: x, faults: [{stream: imge, fault: black}]}", "unknown stream 'imge'; did you mean image?"),
        (
            "{about: x, faults: [{stream: image, fault: black, form: 3}]}",
            "faults[0]: object contains unknown field form",
        ),
        (
            "{about: x, faults: [{stream: image, fault: black, from: 3, to: 2}]}",
            "to: expected more than from = 3, got 2",
        ),
        ("{about: x, faults: [{stream: call, fault: call, text: sing}]}", "text: expected relocalize, reset"),
        (
            "{about: x, faults: [{stream: drive, fault: loop, from: 1, to: 2}]}",
            "loop happens at once, it has no 'to'",
        ),
        ("{about: x, says: '('}", "'(' is no regular expression"),
        ("[]", "expected a mapping"),
    ],
)
def test_a_mistake_is_named_with_its_place(tmp_path: Path, entry: str, expected: str) -> None:
    path = written(tmp_path, f"scenarios:\n  mine: {entry}\n")
    with pytest.raises(ConfigError) as raised:
        load_scenarios(path)
    assert str(raised.value).startswith(f"{path}: mine: ") and expected in str(raised.value)


@pytest.mark.parametrize(
    "text", ["", "scenarios: {}", "scenario: {}", "defaults: 3\nscenarios: {a: {about: b}}"]
)
def test_a_file_that_holds_no_scenarios_says_so(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match="expected"):
        load_scenarios(written(tmp_path, text))
