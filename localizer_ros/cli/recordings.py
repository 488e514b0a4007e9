"""Commands about recordings: info, check, simulate, convert, sfm."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from localizer_ros.cli import console
from localizer_ros.cli.options import (
    COMPRESSIONS,
    STORAGES,
    CompressionOption,
    ConfigOption,
    MapSetOption,
    ResumeOption,
    SourceArgument,
    StorageOption,
    VerboseOption,
    one_of,
)
from localizer_ros.cli.reading import Reading, reads_recordings


@console.command
@reads_recordings
def info(
    path: Annotated[Path, typer.Argument(metavar="SOURCE|SCENE", help="A recording or a scene.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    *,
    reading: Reading,
) -> None:
    """Tell what is in a recording or a scene.

    Example: `localizer info recordings/redkitchen`
    """
    from localizer_ros.scene.bundle import is_scene

    if is_scene(path):
        from localizer_ros.scene.info import scene_info

        facts = scene_info(path)
    else:
        from localizer_ros.evaluation.recording_check import recording_facts

        facts = {"kind": "recording", **recording_facts(reading.open(path))}
    if as_json:
        console.print_json(facts)
    else:
        console.print_facts(facts)


@console.command
@reads_recordings
def check(
    source: SourceArgument,
    split: Annotated[str, typer.Option("--split", help="Part to check.")] = "all",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    *,
    reading: Reading,
) -> None:
    """Tell whether a recording can be mapped: good, doubtful or bad, why, and what to do; exit code 3 when bad.

    Example: `localizer check recordings/redkitchen`
    """
    from localizer_ros.evaluation.recording_check import check_lines, check_recording

    recording = reading.open(source).split(split)
    with console.progress_bar() as progress:
        found = check_recording(recording, progress)
    if as_json:
        console.print_json(found.to_dict(recording))
    else:
        for line in check_lines(found, str(source)):
            print(line)
    if found.word == "bad":
        raise typer.Exit(3)


@console.command
def simulate(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder of the new bag.")],
    world: Annotated[
        Path | None,
        typer.Option("--world", help="YAML file of the world and the drive; all settings have defaults."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Override one setting, e.g. duration_s=20. Repeatable."
        ),
    ] = None,
    storage: StorageOption = "mcap",
    compression: CompressionOption = "none",
) -> None:
    """Record a drive through a simulated place, with exact ground truth and drifting odometry, as a rosbag2.

    Example: `localizer simulate drive1 --set drive=1 --set duration_s=20`
    """
    from localizer_ros.core.config.schema import load_config
    from localizer_ros.datasets.convert import write_bag
    from localizer_ros.datasets.simulated import SimulatedSource, WorldConfig

    bag = one_of("--storage", storage, STORAGES), one_of("--compression", compression, COMPRESSIONS)
    source = SimulatedSource(load_config(WorldConfig, world, settings or ()))
    with console.progress_bar() as progress:
        write_bag(source, out, *bag, lambda done, total: progress("simulating", done, total))
    print(f"{out}: {len(source.records)} frames, {len(source.records) / source.config.fps:.1f} s")


@console.command
@reads_recordings
def convert(
    source: SourceArgument,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The new folder.")],
    to: Annotated[str, typer.Option("--to", help="Format to write: bag, tum or kapture.")],
    split: Annotated[str, typer.Option("--split", help="Part to convert.")] = "all",
    storage: StorageOption = "mcap",
    compression: CompressionOption = "none",
    *,
    reading: Reading,
) -> None:
    """Write a recording in another format.

    Example: `localizer convert recordings/redkitchen kitchen.bag --to bag --split test`
    """
    from localizer_ros.datasets.convert import write_bag, write_kapture, write_tum

    one_of("--to", to, ("bag", "tum", "kapture"))
    bag = one_of("--storage", storage, STORAGES), one_of("--compression", compression, COMPRESSIONS)
    part = reading.open(source).split(split)
    with console.progress_bar() as progress:

        def told(done: int, total: int) -> None:
            progress("converting", done, total)

        if to == "bag":
            write_bag(part, out, *bag, told)
        elif to == "tum":
            write_tum(part, out, told)
        else:
            write_kapture(part, out, told)
    print(f"{out}: {len(part.records)} frames")
    if to != "bag" and part.odometry is not None:
        console.say(f"left out: odometry and the extrinsics of the camera, which {to} has no place for")


@console.command
@reads_recordings
def sfm(
    source: SourceArgument,
    out: Annotated[Path, typer.Option("--out", help="Folder for trajectory.txt (TUM) and the COLMAP model.")],
    split: Annotated[str, typer.Option("--split", help="Part to reconstruct.")] = "all",
    limit: Annotated[int | None, typer.Option("--limit", min=3, help="At most this many frames.")] = None,
    align: Annotated[
        str,
        typer.Option(
            "--align",
            help="What gives place and scale: ground_truth, odometry or none; auto takes the first there is.",
        ),
    ] = "auto",
    length: Annotated[
        float | None,
        typer.Option("--length", min=1e-6, help="Length of the path in metres: gives the scale."),
    ] = None,
    resume: ResumeOption = True,
    config: ConfigOption = None,
    settings: MapSetOption = None,
    verbose: VerboseOption = False,
    *,
    reading: Reading,
) -> None:
    """Find camera poses from images alone; map the recording with them by `localizer map --poses`.

    Example: `localizer sfm recordings/kitti_00 --limit 60 --out sfm`
    """
    console.set_up_logging(verbose)
    from localizer_ros.core.config.mapping import MapConfig
    from localizer_ros.core.config.schema import load_config
    from localizer_ros.datasets.derived import FirstFrames
    from localizer_ros.mapping.alignment import reference_poses
    from localizer_ros.mapping.sfm import run_sfm

    map_config = load_config(MapConfig, config, settings or ())
    kind = one_of("--align", align, ("auto", "ground_truth", "odometry", "none"))
    console.make_room(new=out)
    part = reading.open(source).split(split)
    world = reference_poses(part, kind) if length is None else length
    if limit is not None:
        part = FirstFrames(part, limit)
    with console.going_on(out, resume), console.progress_bar() as progress:
        facts = run_sfm(part, split, map_config.structure, out, world, resume, progress)
    console.print_facts(facts)
