"""The command ``scenario``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from command_line import localizer, one_line
from conftest import TINY_WORLD

HOLDS = {"about": "All is well.", "live": True}
SAYS = {
    "about": "Images in an encoding that does not exist.",
    "faults": [{"stream": "image", "fault": "encoding", "from": 1.5, "to": 2.5}],
}


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """The recording of the small map, and two scenarios."""
    recording, scenarios = tmp_path / "tiny.yaml", tmp_path / "faults.yaml"
    recording.write_text(yaml.safe_dump(TINY_WORLD))
    scenarios.write_text(
        yaml.safe_dump(
            {"scenarios": {"holds": HOLDS, "breaks": SAYS | {"says": "all is well"}}}, sort_keys=False
        )
    )
    return recording, scenarios


def test_what_does_not_hold_is_told_and_makes_the_exit_code_1(
    tiny_map: Path, files: tuple[Path, Path]
) -> None:
    ran = localizer("scenario", tiny_map, *files)
    lines = ran.stdout.splitlines()
    assert ran.exit_code == 1, ran.output
    assert lines[0].split()[:2] == ["holds", "held"] and lines[1].split()[:2] == ["breaks", "broken"]
    assert lines[2].startswith("    says 'all is well' within 0.5 s: it says") and "encoding" in lines[2]
    assert lines[-1] == "2 scenarios: 1 held, 1 did not hold"


def test_one_that_holds_is_exit_code_0_and_json_is_one_object(
    tiny_map: Path, files: tuple[Path, Path]
) -> None:
    ran = localizer("scenario", tiny_map, *files, "--only", "holds", "--json", "-")
    assert ran.exit_code == 0, ran.output
    told = json.loads(ran.stdout)
    assert (
        told["held"] == 1 and told["scenarios"][0]["name"] == "holds" and told["scenarios"][0]["broken"] == []
    )


def test_a_failure_that_is_known_is_no_error_and_one_that_is_no_more_is(
    tiny_map: Path, files: tuple[Path, Path]
) -> None:
    marked = {"known": SAYS | {"says": "all is well", "fails": "why"}, "mended": HOLDS | {"fails": "why"}}
    files[1].write_text(yaml.safe_dump({"scenarios": marked}, sort_keys=False))
    assert localizer("scenario", tiny_map, *files, "--only", "known").exit_code == 0
    ran = localizer("scenario", tiny_map, *files, "--only", "mended")
    assert ran.exit_code == 1 and "remove their mark" in ran.stdout


def test_mistakes_are_one_line(tiny_map: Path, files: tuple[Path, Path], tmp_path: Path) -> None:
    assert "no scenario 'hold'; did you mean holds?" in one_line(
        localizer("scenario", tiny_map, *files, "--only", "hold")
    )
    assert "another file has a scenario" in one_line(localizer("scenario", tiny_map, *files, files[1]))
    assert "does not exist" in one_line(localizer("scenario", tiny_map, tmp_path / "none", files[1]))
