"""The walks of an image and of a value in docs/explanation/pipeline.md name functions that exist."""

import importlib
import re
from typing import Any

import pytest
from documents import DOCS, REPOSITORY, prose

PACKAGE = "localizer_ros"
PAGE = DOCS / "explanation" / "pipeline.md"
MOST_STOPS = 12
ROOMS = sorted(path.name for path in (REPOSITORY / PACKAGE).iterdir() if (path / "__init__.py").is_file())
NAME = re.compile(rf"(?:{'|'.join(ROOMS)})(?:\.\w+)+")


def walk(heading: str) -> list[str]:
    """The stops of a walk, in order."""
    part = re.search(rf"(?m)^## {heading}\n(.*?)(?=^## |\Z)", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert part, f"{PAGE}: no heading {heading}"
    return [stop for _, stop in re.findall(r"(?ms)^(\d+)\. (.*?)(?=^\d+\. |\Z)", part[1])]


def named(text: str) -> list[str]:
    """What the text names in code and in the package."""
    return [
        span for span in re.findall(r"`([^`]+)`", text) if NAME.fullmatch(span) and not span.endswith(".yaml")
    ]


def found(name: str) -> Any:
    """The module, class or function of a dotted name in the package. Raises LookupError."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            thing: Any = importlib.import_module(".".join([PACKAGE, *parts[:length]]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            if not hasattr(thing, part):
                raise LookupError(f"{name}: no {part}")
            thing = getattr(thing, part)
        return thing
    raise LookupError(name)


@pytest.mark.parametrize("heading", ["The walk of an image", "The walk of a value"])
def test_a_walk_has_at_most_twelve_stops_each_with_its_place_in_the_code(heading: str) -> None:
    stops = walk(heading)
    assert 0 < len(stops) <= MOST_STOPS
    for stop in stops:
        assert named(stop) or "config/robot.param.yaml" in stop, f"{stop} names nothing in the code"


@pytest.mark.parametrize("name", sorted(set(named(prose(PAGE)))))
def test_what_the_page_names_exists(name: str) -> None:
    found(name)


def test_a_name_that_is_gone_is_found_out() -> None:
    with pytest.raises(LookupError):
        found("localization.localizer.Localizer.localise")
    with pytest.raises(LookupError):
        found("localization.no_such_module.f")
