"""The ``localizer`` command: parse first, import late, one line for each known error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from localizer_ros.cli import measure, recordings, robot, scenes, settings

app = typer.Typer(
    name="localizer",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)

COMMANDS: dict[str, Callable[..., None]] = {
    "info": recordings.info,
    "check": recordings.check,
    "settings": settings.settings,
    "simulate": recordings.simulate,
    "convert": recordings.convert,
    "sfm": recordings.sfm,
    "map": scenes.map_scene,
    "eval": measure.evaluate_scene,
    "compare": measure.compare,
    "replay": measure.replay,
    "bench": measure.bench,
    "view": measure.view,
    "export": scenes.export,
    "scenario": robot.scenario,
    "play": robot.play,
    "run": robot.run,
}
HANDS_ARGUMENTS_TO_ROS = ("play", "run")


@app.callback(invoke_without_command=True)
def main_options(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    """Visual localization for robots: drive a place once, then know where the camera is."""
    if version:
        from localizer_ros import __version__

        print(f"localizer {__version__}")
        raise typer.Exit


for _name, _command in COMMANDS.items():
    _to_ros = _name in HANDS_ARGUMENTS_TO_ROS
    app.command(
        _name,
        context_settings={"allow_extra_args": True, "ignore_unknown_options": True} if _to_ros else None,
    )(_command)


def main() -> None:
    """Run the command that the process was called with."""
    app()


if __name__ == "__main__":
    main()
