"""Commands that need ROS 2: scenario, play, run."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Annotated

import typer

from localizer_ros.cli import console
from localizer_ros.cli.options import JsonOption, SceneArgument, SourceArgument, TestSplitOption, part_of
from localizer_ros.cli.reading import Reading, reads_recordings


@console.ros_command
@reads_recordings
def scenario(
    scene: SceneArgument,
    bag: SourceArgument,
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE.yaml", help="Scenarios: faults, and what must be said.")
    ],
    only: Annotated[
        list[str] | None, typer.Option("--only", metavar="NAME", help="This scenario alone. Repeatable.")
    ] = None,
    live: Annotated[
        bool,
        typer.Option(
            "--live", help="Over DDS, in real time, with the node in a process of its own; those marked live."
        ),
    ] = False,
    split: TestSplitOption = None,
    json_file: JsonOption = None,
    *,
    reading: Reading,
) -> None:
    """Try faults on a robot's streams: what the node says and publishes; exit code 1 when it is not as it should be.

    Example: `localizer scenario scenes/room drive2 faults.yaml`
    """
    from localizer_ros.ros.scenario.report import chosen, to_json, total
    from localizer_ros.ros.scenario.run import run as run_scenarios

    scenarios = chosen(files, only or ())
    recording = reading.open(bag)
    part = recording.split(part_of(recording, split, "test"))
    console.make_room(json_file)
    tell = console.say if str(json_file) == "-" else print
    results = []
    with console.progress_bar() as progress:
        for result in run_scenarios(scene, part, scenarios, live, progress):
            results.append(result)
            for line in result.lines():
                tell(line)
    if console.write_json(json_file, to_json(scene, bag, results)):
        print(total(results))
    if not all(result.as_expected for result in results):
        raise typer.Exit(1)


@console.ros_command
@reads_recordings
def play(
    context: typer.Context,
    source: SourceArgument,
    rate: Annotated[float, typer.Option("--rate", help="Speed, 1 = as recorded.")] = 1.0,
    loop: Annotated[bool, typer.Option("--loop", help="Start again at the end: time jumps back.")] = False,
    image_format: Annotated[str, typer.Option("--image-format", help="raw, jpeg or png.")] = "raw",
    wait_for_subscribers: Annotated[
        int, typer.Option("--wait", min=0, help="Start when this many subscribe to the images.")
    ] = 0,
    split: Annotated[str, typer.Option("--split", help="Part to play.")] = "all",
    *,
    reading: Reading,
) -> None:
    """Publish a recording on ROS 2 topics with /clock, as a robot would; other arguments go to ROS.

    Example: `localizer play drive.bag --rate 0.5`
    """
    from localizer_ros.ros.play import PlayOptions
    from localizer_ros.ros.play import play as run_play

    options = PlayOptions(
        rate=rate,
        loop=loop,
        image_format=image_format,
        wait_for_subscribers=wait_for_subscribers,
        ros_arguments=[argument for argument in context.args if argument != "--ros-args"],
    )
    recording = reading.open(source).split(split)
    names = ["image" if image_format == "raw" else "image/compressed", "camera_info", "/clock"]
    if recording.odometry is not None:
        names += ["odom", "/tf"]
    if recording.T_base_cam is not None:
        names.append("/tf_static")
    if recording.stamps == "invented":
        console.say("the recording has no times: run the node with -p independent:=true, or give --fps")
    console.say(f"playing {len(recording.records)} frames on {', '.join(names)}")
    with console.progress_bar() as progress:
        report = run_play(recording, options, progress)
    print(f"{report.frames} frames in {report.wall_s:.1f} s, at most {1e3 * report.latest_s:.0f} ms late")


@console.ros_command
def run(
    context: typer.Context,
    scene: SceneArgument,
    view: Annotated[
        bool,
        typer.Option(
            "--view",
            help="Serve a viewer for browsers: image, matches, pose and covariance in the map, status.",
        ),
    ] = False,
) -> None:
    """Run the ROS 2 node without ros2 launch; everything after SCENE goes to ROS.

    Example: `localizer run scenes/room -r image:=/camera/image_raw -r camera_info:=/camera/camera_info`
    """
    from localizer_ros.ros.main import run_scene

    if view and importlib.util.find_spec("rerun") is None:
        from localizer_ros.core.types import ConfigError

        raise ConfigError("--view: rerun is not installed: pip install 'localizer_ros[view]'")
    raise typer.Exit(run_scene(scene, context.args, view))
