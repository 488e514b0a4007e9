"""Commands of the documentation: those of the tutorial and the how-tos are run, all others must at least parse."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from documents import DOCS, REPOSITORY, Block, blocks, code_spans, pages
from page_runner import RUN, run_page

from localizer_ros.cli.main import app
from localizer_ros.core.config.mapping import MapConfig
from localizer_ros.core.config.runtime import RunConfig
from localizer_ros.core.config.schema import load_config
from localizer_ros.datasets.simulated import WorldConfig
from localizer_ros.ros.parameters import config_from_parameters

TUTORIAL = DOCS / "tutorial.md"
HOWTOS = sorted((DOCS / "howto").glob("*.md"))
# Begins with what people have in their hands instead of the tutorial's drives: test_your_recording.py runs it.
OWN_RECORDINGS = DOCS / "howto" / "your-recording.md"
# What a command may need that a test has not: the only reasons not to run it.
NEEDS = {
    "a ROS 2 distribution",
    "a robot",
    "a network connection",
    "an NVIDIA GPU",
    "a Jetson",
    "the 7-Scenes recording",
}
SETTINGS = {
    **dict.fromkeys(("map", "sfm"), MapConfig),
    **dict.fromkeys(("eval", "compare", "replay", "bench"), RunConfig),
    "simulate": WorldConfig,
}
PLACEHOLDER = re.compile(r"\.\.\.|[<>|\[\]]")


# --- run ---


@pytest.fixture(scope="module")
def tutorial_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder in which the tutorial was followed."""
    folder = tmp_path_factory.mktemp("tutorial")
    run_page(TUTORIAL, folder)
    yield folder


@pytest.mark.slow
@pytest.mark.ros
def test_the_tutorial_works_as_it_is_written(tutorial_folder: Path) -> None:
    assert (tutorial_folder / "report" / "report.html").is_file()


@pytest.mark.slow
@pytest.mark.ros
@pytest.mark.parametrize("page", [p for p in HOWTOS if p != OWN_RECORDINGS], ids=lambda page: page.stem)
def test_a_how_to_works_as_it_is_written(page: Path, tutorial_folder: Path, tmp_path: Path) -> None:
    # How-tos go on where the tutorial ends.
    for made in tutorial_folder.iterdir():
        if not made.name.startswith("."):
            (tmp_path / made.name).symlink_to(made)
    run_page(page, tmp_path)


@pytest.mark.parametrize("page", [TUTORIAL, *HOWTOS], ids=lambda page: page.stem)
def test_every_command_is_run_or_says_what_it_needs(page: Path) -> None:
    for block in blocks(page):
        if block.language in RUN:
            assert block.markers.get("needs", next(iter(NEEDS))) in NEEDS, (
                f"{block.place} needs {block.markers['needs']!r}; expected one of {', '.join(sorted(NEEDS))}"
            )
        else:
            assert block.language in ("yaml", "text", "xml", "mermaid", "dockerfile"), (
                f"{block.place}: a block is sh or python, which are run, or yaml, text or xml; got {block.language!r}"
            )


# --- parse ---


def fenced_commands() -> Iterator[tuple[str, str]]:
    """Place and text of every localizer command in a fenced block, with the variables set there."""
    for page in pages():
        for block in blocks(page):
            if block.language != "sh":
                continue
            text = block.text.replace("\\\n", " ")
            for name, quoted, bare in re.findall(r'(?m)\b([A-Z]\w*)=(?:"([^"]*)"|(\S+))', text):
                text = re.sub(rf"\$\{{?{name}\b\}}?", quoted or bare, text)
            for part in re.split(r"\n|\s+(?:&&|;|\|)\s+|\s&$", text):
                if part.strip().startswith(("localizer ", ".venv/bin/localizer ")):
                    words = re.sub(r"\$\{?\w+\}?", "given", part.strip())
                    yield block.place, words.removeprefix(".venv/bin/")


def named_commands() -> Iterator[tuple[str, str]]:
    """Page and text of every localizer command named in a sentence, perhaps with some of its options only."""
    for page in pages():
        if page.name == "lab-notes.md":
            continue
        for span in code_spans(page):
            if span.startswith("localizer ") and not PLACEHOLDER.search(span):
                yield str(page.relative_to(REPOSITORY)), span


def group() -> Any:
    """The command line."""
    return typer.main.get_command(app)


@pytest.mark.parametrize(("place", "text"), sorted(set(fenced_commands())))
def test_a_fenced_command_parses(place: str, text: str) -> None:
    _, name, *arguments = shlex.split(text, comments=True)
    assert name in group().commands, f"{place}: no command {name}"
    context = group().commands[name].make_context(name, arguments)
    if context.params.get("settings"):
        load_config(SETTINGS[name], None, context.params["settings"])
    given = dict(re.findall(r"-p ([\w.]+):=(\S+)", text))
    given.pop("use_sim_time", None)
    config_from_parameters({name: yaml.safe_load(value) for name, value in given.items()})


@pytest.mark.parametrize(("place", "text"), sorted(set(named_commands())))
def test_a_command_in_a_sentence_exists_with_its_options(place: str, text: str) -> None:
    _, name, *arguments = shlex.split(text)
    if name == "COMMAND" or name.startswith("--"):
        return
    assert name in group().commands, f"{place}: no command {name}"
    command = group().commands[name]
    known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
    unknown = {word for word in arguments if word.startswith("--")} - known
    assert not unknown or command.context_settings.get("ignore_unknown_options"), f"{place}: {unknown}"
    settings = [value for key, value in pairwise(arguments) if key == "--set"]
    if settings:
        load_config(SETTINGS[name], None, settings)


@pytest.mark.parametrize(
    "block",
    [block for page in pages() for block in blocks(page) if block.language == "yaml"],
    ids=lambda block: block.place,
)
def test_yaml_parses_and_names_only_parameters_that_exist(block: Block) -> None:
    values = yaml.safe_load(block.text)
    for name, node in values.items() if isinstance(values, dict) else ():
        if name.strip("/*") == "localizer":
            config_from_parameters(dict(_flat(node["ros__parameters"])))


def _flat(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value
