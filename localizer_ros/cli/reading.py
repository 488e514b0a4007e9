"""How SOURCE is read: the options that every command with a recording has, and the recording that they give."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from localizer_ros.cli import console

if TYPE_CHECKING:
    from localizer_ros.datasets.source import FrameSource


@dataclass(frozen=True)
class Reading:
    """The options; a field is one, its name the name of the option."""

    format: Annotated[
        str | None, typer.Option("--format", help="Format of SOURCE; recognised from the files by default.")
    ] = None
    topics: Annotated[
        list[str] | None,
        typer.Option(
            "--topic",
            metavar="PURPOSE=TOPIC",
            help="What to use where a recording has several: camera=NAME in any format, e.g. camera=cam0; of a bag "
            "also image, camera_info, ground_truth, ground_truth_frame or odometry; none switches one off. Repeatable.",
        ),
    ] = None
    fps: Annotated[
        float | None,
        typer.Option(
            "--fps",
            min=1e-3,
            help="Frames a second of a recording without times (images, COLMAP, transforms.json): makes them one "
            "continuous drive; without it each frame stands for itself.",
        ),
    ] = None
    stamps: Annotated[
        Path | None,
        typer.Option(
            "--stamps",
            help="Text file of the times of a recording without: 'stamp name' or a stamp on each line.",
        ),
    ] = None
    camera_convention: Annotated[
        str | None,
        typer.Option(
            "--camera-convention",
            help="Axes of the camera frame whose poses are given: optical (z forward), forward (x forward, z up) or "
            "opengl (z back). Without it that of the setting camera_convention, which is optical.",
        ),
    ] = None

    def open(self, *paths: Path, convention: str = "optical") -> FrameSource:
        """The recording at a path, or those at several as one.

        Args:
            paths: of the recordings.
            convention: of their camera frames, where the option does not say it.

        Raises:
            SourceError: no recording, a damaged one, or an option that means nothing for it.
            ConfigError: an option is not what it should be.
        """
        from localizer_ros.datasets.derived import turned
        from localizer_ros.datasets.restamped import with_rate, with_stamps
        from localizer_ros.datasets.several import JoinedSource

        opened = [self._open_one(path) for path in paths]
        source = opened[0] if len(opened) == 1 else JoinedSource(opened)
        if self.stamps is not None:
            source = with_stamps(source, self.stamps)
        if self.fps is not None:
            source = with_rate(source, self.fps)
        return turned(source, self.camera_convention or convention)

    def words(self) -> list[str]:
        """The arguments that say the same again."""
        return [
            *(("--format", self.format) if self.format else ()),
            *(word for topic in self.topics or () for word in ("--topic", topic)),
            *(("--fps", f"{self.fps:g}") if self.fps else ()),
            *(("--stamps", str(self.stamps)) if self.stamps else ()),
            *(("--camera-convention", self.camera_convention) if self.camera_convention else ()),
        ]

    def _open_one(self, path: Path) -> FrameSource:
        from localizer_ros.core.types import ConfigError
        from localizer_ros.datasets.several import open_chosen

        chosen: dict[str, str] = {}
        for topic in self.topics or ():
            purpose, separator, name = topic.partition("=")
            if not (separator and name):
                raise ConfigError(f"--topic {topic}: expected e.g. image=/left/image_raw or camera=cam0")
            chosen[purpose] = name
        with console.progress_bar() as progress:
            return open_chosen(path, self.format, chosen, progress)


def reads_recordings(function: Callable[..., None]) -> Callable[..., None]:
    """The command with an option for every field of ``Reading`` in place of its parameter ``reading``."""
    own = inspect.signature(function).parameters
    hints = {**get_type_hints(function, include_extras=True)}
    options = get_type_hints(Reading, include_extras=True)
    names = [field.name for field in fields(Reading)]

    @wraps(function)
    def command(*args: Any, **kwargs: Any) -> None:
        chosen = {name: kwargs.pop(name) for name in names if name in kwargs}
        function(*args, reading=Reading(**chosen), **kwargs)

    parameters = [
        p.replace(annotation=hints[p.name], kind=p.KEYWORD_ONLY) for p in own.values() if p.name != "reading"
    ]
    parameters += [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=field.default,
            annotation=options[field.name],
        )
        for field in fields(Reading)
    ]
    command.__signature__ = inspect.Signature(_ordered(parameters))  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    del command.__wrapped__  # type: ignore[attr-defined]
    return command


def _ordered(parameters: Sequence[inspect.Parameter]) -> list[inspect.Parameter]:
    """The options behind the command's own, ``verbose`` last of all."""
    return sorted(parameters, key=lambda p: p.name == "verbose")
