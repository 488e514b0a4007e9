"""The options that several commands share, and what their values mean."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from localizer_ros.core.words import did_you_mean

if TYPE_CHECKING:
    from localizer_ros.core.config.runtime import RunConfig
    from localizer_ros.datasets.bag_writer import Compression, Storage
    from localizer_ros.datasets.source import FrameSource

# --- declared ---

SourceArgument = Annotated[
    Path,
    typer.Argument(
        metavar="SOURCE",
        help="Recording: folder of 7-Scenes, Cambridge, TUM RGB-D, KITTI, EuRoC, kapture or COLMAP, a ROS 1/2 bag, "
        "transforms.json, a video, a folder of images, a simulated world.yaml, or a folder of recordings.",
    ),
]
SceneArgument = Annotated[Path, typer.Argument(metavar="SCENE", help="Scene folder made by `localizer map`.")]
MapSetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override one setting, e.g. structure.keyframes.max_images=200. Repeatable.",
    ),
]
RunSetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Override one setting, e.g. backend.kind=openvino. Repeatable."
    ),
]
ConfigOption = Annotated[
    Path | None, typer.Option("--config", help="YAML file of settings; `localizer settings` lists them.")
]
ResumeOption = Annotated[
    bool,
    typer.Option(
        "--resume/--no-resume",
        help="Go on where an interrupted call of the same settings stopped, or start over.",
    ),
]
JsonOption = Annotated[
    Path | None, typer.Option("--json", help="Also write the result as JSON to this file, - = stdout.")
]
TestSplitOption = Annotated[
    str | None,
    typer.Option("--split", help="Part to localise; test where there is one, else everything."),
]
LimitOption = Annotated[int | None, typer.Option("--limit", min=1, help="At most this many frames.")]
GeometricVoOption = Annotated[
    bool,
    typer.Option("--geometric-vo", help="Also run visual odometry from feature tracks, as a yardstick."),
]
IndependentOption = Annotated[
    bool, typer.Option("--independent", help="Each frame for itself, as with recordings that have no times.")
]
StorageOption = Annotated[str, typer.Option("--storage", help="Storage of a bag: mcap or sqlite3.")]
CompressionOption = Annotated[
    str, typer.Option("--compression", help="Compression of a bag's images: none, jpeg or png.")
]
VerboseOption = Annotated[bool, typer.Option("--verbose", "-v", help="Log what is done.")]

STORAGES: tuple[Storage, ...] = ("mcap", "sqlite3")
COMPRESSIONS: tuple[Compression, ...] = ("none", "jpeg", "png")

Choice = TypeVar("Choice", bound=str)


# --- read ---


def part_of(recording: FrameSource, wanted: str | None, usual: str) -> str:
    """The name of the part that ``--split`` asks for, else the usual one where the recording has it, else ``all``."""
    return wanted or (usual if usual in recording.splits else "all")


def run_config(
    path: Path | None, overrides: list[str] | None, *, smoothing: bool = True, refining: bool = True
) -> RunConfig:
    """The settings of localization from ``--config`` and ``--set``; without smoothing or refinement where that is asked
    for.

    Raises:
        ConfigError: as of ``load_config``.
    """
    from localizer_ros.core.config.runtime import RunConfig
    from localizer_ros.core.config.schema import load_config

    extra = [] if smoothing else ["smoother.kind=none"]
    extra += [] if refining else ["refine=none"]
    return load_config(RunConfig, path, [*(overrides or []), *extra])


def as_recorded(config: RunConfig, recording: FrameSource, independent: bool = False) -> RunConfig:
    """The settings for a recording: without times of its own it has no motion, and each frame stands for itself."""
    from msgspec.structs import replace

    return replace(config, independent=True) if independent or recording.stamps == "invented" else config


def one_of(option: str, value: str, known: tuple[Choice, ...]) -> Choice:
    """The one of the known values that an option was given.

    Raises:
        ConfigError: it was given another.
    """
    from localizer_ros.core.types import ConfigError

    for choice in known:
        if value == choice:
            return choice
    raise ConfigError(f"{option}: expected {', '.join(known)}, got {value!r}{did_you_mean(value, known)}")


def counts(option: str, text: str) -> list[int]:
    """Positive numbers, separated by commas.

    Raises:
        ConfigError: anything else.
    """
    from localizer_ros.core.types import ConfigError

    try:
        numbers = [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        numbers = [0]
    if any(number < 1 for number in numbers):
        raise ConfigError(f"{option}: expected numbers such as 1000,10000, got {text!r}")
    return numbers


def minutes(text: str) -> float:
    """Minutes of ``10min``, ``90s`` or ``0.5h``; a bare number is minutes.

    Raises:
        ConfigError: anything else, or no time at all.
    """
    from localizer_ros.core.types import ConfigError

    found = re.fullmatch(r"\s*(\d+\.?\d*|\.\d+)\s*(s|min|h|)\s*", text)
    value = float(found[1]) * {"s": 1.0 / 60.0, "min": 1.0, "": 1.0, "h": 60.0}[found[2]] if found else 0.0
    if value <= 0.0:
        raise ConfigError(f"--time-budget: expected e.g. 10min, 90s or 0.5h, got {text!r}")
    return value
