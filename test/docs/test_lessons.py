"""Each lesson names what shows that it was learnt, and that exists."""

import re
from pathlib import Path

import pytest
from documents import DOCS, REPOSITORY

from localizer_ros.ros.scenario.schema import load_scenarios

PAGE = DOCS / "reference" / "lessons.md"
TESTS = REPOSITORY / "test"


def rows() -> list[list[str]]:
    """The cells of the table, without its head."""
    lines = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if re.match(r"\| \d", line)]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def shown_by(row: list[str]) -> list[str]:
    return re.findall(r"`([^`]+)`", row[-1])


def test_there_are_thirty_five_and_each_is_shown_by_something() -> None:
    assert [int(row[0]) for row in rows()] == list(range(1, 36))
    assert all(len(row) == 4 and shown_by(row) for row in rows())


@pytest.mark.parametrize("name", sorted({name for row in rows() for name in shown_by(row)}))
def test_what_shows_it_exists(name: str) -> None:
    if name.startswith("scenario "):
        found = {each for path in (TESTS / "scenarios").glob("*.yaml") for each in load_scenarios(path)}
        assert name.removeprefix("scenario ") in found
        return
    file, _, function = name.partition("::")
    path: Path = TESTS / file
    assert path.is_file() and f"\ndef {function}(" in path.read_text(encoding="utf-8")
