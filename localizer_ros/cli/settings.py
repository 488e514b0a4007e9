"""The command that prints settings: settings."""

from __future__ import annotations

import shutil
import textwrap
from typing import TYPE_CHECKING, Annotated

import typer

from localizer_ros.cli import console
from localizer_ros.cli.options import one_of

if TYPE_CHECKING:
    from localizer_ros.core.config.schema import SettingSpec

_WIDEST = 100


@console.command
def settings(
    tree: Annotated[
        str | None,
        typer.Argument(metavar="map|run", help="Settings of mapping or of running; both by default."),
    ] = None,
    tier: Annotated[
        str,
        typer.Option(
            "--tier", help="Whom they are for: user, expert (and user), or research (which is all there are)."
        ),
    ] = "user",
) -> None:
    """Print settings with default, unit, range and meaning: what YAML, `--set` and ROS parameters accept.

    Example: `localizer settings run --tier expert`
    """
    from localizer_ros.core.config.reference import TREES, settings_up_to
    from localizer_ros.core.config.schema import TIERS

    wanted = one_of("--tier", tier, TIERS)
    trees = tuple(TREES) if tree is None else (one_of("settings", tree, tuple(TREES)),)
    for name in trees:
        print(f"# {name}")
        for spec in settings_up_to(TREES[name], wanted):
            print_setting(spec)
    for higher in TIERS[TIERS.index(wanted) + 1 :]:
        more = sum(spec.tier == higher for name in trees for spec in settings_up_to(TREES[name], higher))
        console.say(f"{more} more of tier {higher}: --tier {higher}")


def print_setting(spec: SettingSpec) -> None:
    """One setting on standard output: what it is set to, within what limits, and below that its meaning."""
    from localizer_ros.core.config.reference import default_as_yaml

    limits = ", ".join(filter(None, (spec.unit, spec.range())))
    print(f"{spec.name}: {default_as_yaml(spec)}  [{'; '.join(filter(None, (limits, spec.tier)))}]")
    width = min(_WIDEST, shutil.get_terminal_size().columns)
    print(textwrap.fill(spec.meaning, width, initial_indent="    ", subsequent_indent="    "))
