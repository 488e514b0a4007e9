"""Which scenarios are run, and what is told of them together."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from localizer_ros.core.types import ConfigError
from localizer_ros.core.words import did_you_mean
from localizer_ros.evaluation.environment import versions
from localizer_ros.ros.scenario.run import Result
from localizer_ros.ros.scenario.schema import Scenario, load_scenarios


def chosen(files: Sequence[Path], only: Sequence[str]) -> dict[str, Scenario]:
    """The scenarios of some files by their names.

    Args:
        files: YAML files.
        only: names of those that are wanted; empty takes all.

    Raises:
        ConfigError: a file is not as it should be, two scenarios have one name, or a wanted one is not there.
    """
    scenarios: dict[str, Scenario] = {}
    for file in files:
        for name, scenario in load_scenarios(file).items():
            if name in scenarios:
                raise ConfigError(f"{file}: {name}: another file has a scenario of that name")
            scenarios[name] = scenario
    for name in only:
        if name not in scenarios:
            raise ConfigError(f"no scenario {name!r}{did_you_mean(name, scenarios)}")
    return {name: scenario for name, scenario in scenarios.items() if not only or name in only}


def total(results: Sequence[Result]) -> str:
    """One line of all of them."""
    counts = Counter(result.outcome for result in results)
    parts = [f"{len(results)} scenarios: {counts['held']} held"]
    for outcome, words in (
        ("broken", "did not hold"),
        ("known", "are known not to hold"),
        ("mended", "were expected not to hold and do: remove their mark"),
    ):
        if counts[outcome]:
            parts.append(f"{counts[outcome]} {words}")
    return ", ".join(parts)


def to_json(scene: Path, bag: Path, results: Sequence[Result]) -> str:
    """All of it."""
    return json.dumps(
        {
            "scene": scene.name,
            "bag": bag.name,
            "scenarios": [result.to_dict() for result in results],
            **{
                name: sum(r.outcome == name for r in results)
                for name in ("held", "broken", "known", "mended")
            },
            "versions": versions(),
        },
        indent=2,
    )
