"""Commands that localise a recording in a scene and look at the answers: eval, compare, bench, replay, view."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Annotated

import typer

from localizer_ros.cli import console
from localizer_ros.cli.options import (
    ConfigOption,
    GeometricVoOption,
    IndependentOption,
    JsonOption,
    LimitOption,
    RunSetOption,
    SceneArgument,
    SourceArgument,
    TestSplitOption,
    VerboseOption,
    as_recorded,
    counts,
    part_of,
    run_config,
)
from localizer_ros.cli.reading import Reading, reads_recordings


@console.localizing_command
@reads_recordings
def evaluate_scene(
    scene: SceneArgument,
    source: SourceArgument,
    split: TestSplitOption = None,
    json_file: JsonOption = None,
    report: Annotated[
        Path | None, typer.Option("--report", help="Folder for an HTML report with plots.")
    ] = None,
    no_smoothing: Annotated[bool, typer.Option("--no-smoothing", help="Raw absolute poses only.")] = False,
    no_refine: Annotated[
        bool, typer.Option("--no-refine", help="Poses of a network as it gives them, without the map.")
    ] = False,
    independent: IndependentOption = False,
    geometric_vo: GeometricVoOption = False,
    limit: LimitOption = None,
    config: ConfigOption = None,
    settings: RunSetOption = None,
    verbose: VerboseOption = False,
    *,
    reading: Reading,
) -> None:
    """Localise a recording in a scene and measure the answers against its ground truth.

    Example: `localizer eval scenes/kitchen recordings/redkitchen --split test --report report`
    """
    console.set_up_logging(verbose)
    from localizer_ros.evaluation.evaluate import evaluate
    from localizer_ros.evaluation.geometric_vo import GeometricVo
    from localizer_ros.evaluation.open_scene import open_scene, with_camera_of
    from localizer_ros.evaluation.summary import summary_lines
    from localizer_ros.scene.bundle import manifest_file

    chosen = run_config(config, settings, smoothing=not no_smoothing, refining=not no_refine)
    manifest_file(scene)  # before a recording is read for nothing
    console.make_room(json_file, report)
    recording = with_camera_of(scene, reading.open(source, convention=chosen.camera_convention))
    chosen = as_recorded(chosen, recording, independent)
    part = part_of(recording, split, "test")
    with open_scene(scene, chosen) as opened, console.progress_bar() as progress:
        evaluation = evaluate(
            opened,
            recording,
            part,
            limit=limit,
            geometric=GeometricVo() if geometric_vo else None,
            progress=progress,
        )
    text = evaluation.to_json()
    for_people = console.write_json(json_file, text)
    if report is not None:
        from localizer_ros.evaluation.report import write_report

        console.say(f"report: {write_report(evaluation, report)}")
    if for_people:
        if verbose:
            figures = json.loads(text)
            console.print_facts({k: v for k, v in figures.items() if k not in ("config", "versions")})
        for line in summary_lines(evaluation):
            print(line)


@console.localizing_command
@reads_recordings
def compare(
    scenes: Annotated[
        list[Path], typer.Argument(metavar="SCENE", help="Scene folders made by `localizer map`.")
    ],
    source: SourceArgument,
    split: TestSplitOption = None,
    json_file: JsonOption = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Also write the table, as Markdown, to this file.")
    ] = None,
    limit: LimitOption = None,
    geometric_vo: GeometricVoOption = False,
    config: ConfigOption = None,
    settings: RunSetOption = None,
    verbose: VerboseOption = False,
    *,
    reading: Reading,
) -> None:
    """Localise a recording in several scenes and put the results in one table; exit code 0 only if all could be run.

    Example: `localizer compare scenes/kitchen scenes/kitchen_map recordings/redkitchen --out kitchen.md`
    """
    console.set_up_logging(verbose)
    from localizer_ros.evaluation.compare import compare as run_compare
    from localizer_ros.evaluation.comparison_tables import comparison_markdown, comparison_tables
    from localizer_ros.evaluation.open_scene import with_camera_of

    chosen = run_config(config, settings)
    recording = with_camera_of(scenes[0], reading.open(source, convention=chosen.camera_convention))
    chosen = as_recorded(chosen, recording)
    for file in (json_file, out):
        console.make_room(file)
    part = part_of(recording, split, "test")
    with console.progress_bar() as progress:
        result = run_compare(
            scenes, recording, part, chosen, limit=limit, geometric_vo=geometric_vo, progress=progress
        )
    options = [
        *(("--split", part) if split else ()),
        *(("--limit", str(limit)) if limit else ()),
        *(("--geometric-vo",) if geometric_vo else ()),
        *(("--config", str(config)) if config else ()),
        *(word for setting in settings or () for word in ("--set", setting)),
        *reading.words(),
    ]
    made_by = shlex.join(["localizer", "compare", *map(str, scenes), str(source), *options])
    markdown = comparison_markdown(result, made_by)
    if out is not None:
        out.write_text(markdown)
    if console.write_json(json_file, result.to_json(made_by)):
        console.print_tables(comparison_tables(result), markdown)
    if result.failed:
        console.say(f"localizer: {len(result.failed)} of {len(scenes)} scenes could not be run")
        raise typer.Exit(1)


@console.localizing_command
@reads_recordings
def bench(
    scene: SceneArgument,
    source: SourceArgument,
    split: Annotated[str | None, typer.Option("--split", help="Part to run.")] = None,
    limit: Annotated[
        int, typer.Option("--limit", min=4, help="Frames per back end; the first three are the warm-up.")
    ] = 200,
    smoother_frames: Annotated[
        int,
        typer.Option("--smoother-frames", min=0, help="Also run the smoother alone over this many frames."),
    ] = 0,
    index_images: Annotated[
        str,
        typer.Option(
            "--index-images",
            help="Also time retrieval with the scene's index grown by synthetic images, e.g. 1000,10000,100000.",
        ),
    ] = "",
    limits: Annotated[
        bool,
        typer.Option(
            "--limits", help="Also measure what this machine could do, beside what stages reach of it."
        ),
    ] = False,
    json_file: JsonOption = None,
    config: ConfigOption = None,
    settings: RunSetOption = None,
    *,
    reading: Reading,
) -> None:
    """Measure latency, throughput and memory of every stage, for every back end of this machine.

    Example: `localizer bench scenes/kitchen recordings/redkitchen`
    """
    console.set_up_logging(False)
    from localizer_ros.evaluation.benchmark import bench as run_bench
    from localizer_ros.evaluation.open_scene import with_camera_of

    sizes = counts("--index-images", index_images)
    chosen = run_config(config, settings)
    recording = with_camera_of(scene, reading.open(source, convention=chosen.camera_convention))
    chosen = as_recorded(chosen, recording)
    console.make_room(json_file)
    part = recording.split(part_of(recording, split, "test"))
    with console.progress_bar() as progress:
        result = run_bench(
            scene,
            part,
            chosen,
            limit=limit,
            smoother_frames=smoother_frames,
            index_images=sizes,
            progress=progress,
        )
    if limits:
        from localizer_ros.evaluation.limits import limits as measured_limits

        result["limits"] = measured_limits(result, part, chosen)
    if console.write_json(json_file, json.dumps(result, indent=2)):
        console.print_facts({k: v for k, v in result.items() if k not in ("config", "versions")})


@console.localizing_command
@reads_recordings
def replay(
    scene: SceneArgument,
    bag: SourceArgument,
    out: Annotated[Path, typer.Option("--out", help="Folder of the new bag.")],
    config: ConfigOption = None,
    settings: RunSetOption = None,
    verbose: VerboseOption = False,
    *,
    reading: Reading,
) -> None:
    """Localise a recorded bag as the node would, without ROS; writes pose, tf, path and diagnostics.

    Example: `localizer replay scenes/room drive.bag --out answers.bag`
    """
    console.set_up_logging(verbose)
    from localizer_ros.evaluation.open_scene import with_camera_of
    from localizer_ros.evaluation.replay import replay as run_replay
    from localizer_ros.localization.localizer import open_localizer
    from localizer_ros.scene.bundle import Scene

    chosen = run_config(config, settings)
    console.make_room(new=out)
    recording = with_camera_of(scene, reading.open(bag, convention=chosen.camera_convention))
    chosen = as_recorded(chosen, recording)
    localizer = open_localizer(scene, chosen)
    try:
        with console.progress_bar() as progress:
            summary = run_replay(localizer, Scene.load(scene), recording, out, chosen, progress)
    finally:
        localizer.close()
    console.print_facts({"bag": str(out), **summary})


@console.command
def view(
    result: Annotated[
        Path,
        typer.Argument(
            metavar="RESULT", help="A scene, the folder of a report, a replayed bag, or a TUM trajectory."
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="File to write: .png or .rrd (rerun); without it a viewer opens, or NAME.png is written where there "
            "is no display.",
        ),
    ] = None,
    scene: Annotated[
        Path | None,
        typer.Option("--scene", help="Scene whose map to show; reports and replayed bags name theirs."),
    ] = None,
) -> None:
    """Show trajectory, frames and map in a viewer, or draw them into a file.

    Example: `localizer view answers.bag --out answers.png`
    """
    from localizer_ros.evaluation.view import view as run_view

    console.make_room(out)
    written = run_view(result, out, scene)
    if written is not None:
        print(written)
