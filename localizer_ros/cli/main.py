"""The ``localizer`` command: parse first, import late, one line for each known error."""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ParamSpec

import typer

if TYPE_CHECKING:
    from localizer_ros.core.config.runtime import RunConfig
    from localizer_ros.core.progress import Progress
    from localizer_ros.datasets.source import FrameSource
    from localizer_ros.evaluation.compare import Table

P = ParamSpec("P")

app = typer.Typer(
    name="localizer",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="Visual localization for robots: drive a place once, then know where the camera is.",
)

SourceArgument = Annotated[
    Path,
    typer.Argument(
        metavar="SOURCE",
        help="Recording: folder of 7-Scenes, Cambridge, TUM RGB-D, KITTI, kapture or COLMAP, a ROS 1/2 bag, or a "
        "simulated world.yaml.",
    ),
]
SceneArgument = Annotated[Path, typer.Argument(metavar="SCENE", help="Scene folder made by `localizer map`.")]
FormatOption = Annotated[
    str | None, typer.Option("--format", help="Format of SOURCE; recognised from the files by default.")
]
TopicOption = Annotated[
    list[str] | None,
    typer.Option(
        "--topic",
        metavar="PURPOSE=TOPIC",
        help="Of a bag, where it has several: image, camera_info, ground_truth, ground_truth_frame or odometry; "
        "none switches one off. Repeatable.",
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Override one setting, e.g. training.epochs=20. Repeatable."
    ),
]
ConfigOption = Annotated[
    Path | None, typer.Option("--config", help="YAML file of settings; unknown keys are errors.")
]
ResumeOption = Annotated[bool, typer.Option("--resume", help="Go on where an interrupted call stopped.")]
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
VerboseOption = Annotated[bool, typer.Option("--verbose", "-v", help="Log what is done.")]


def command(function: Callable[P, None]) -> Callable[P, None]:
    """Known errors become one line on standard error and exit code 1."""

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        from localizer_ros.core.types import LocalizerError

        try:
            function(*args, **kwargs)
        except LocalizerError as error:
            print(f"localizer: {' '.join(str(error).split())}", file=sys.stderr)
            raise typer.Exit(1) from error
        except BrokenPipeError:
            raise typer.Exit(1) from None
        except OSError as error:
            # Whatever cannot be read or written and was not foreseen nearer to it: a full disk, a folder of others.
            where = f"{error.filename}: " if error.filename is not None else ""
            taken = isinstance(error, FileExistsError)
            why = "is a file, expected a folder" if taken else error.strerror or str(error)
            print(f"localizer: {where}{why}", file=sys.stderr)
            raise typer.Exit(1) from error
        except KeyboardInterrupt:
            print("localizer: interrupted", file=sys.stderr)
            raise typer.Exit(130) from None

    return run


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """A bar on a terminal, a plain line every few seconds elsewhere; on standard error."""
    import time

    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    if console.is_terminal:
        with Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
        ) as bar:
            tasks: dict[str, Any] = {}

            def draw(stage: str, done: int, total: int) -> None:
                if stage not in tasks:
                    tasks[stage] = bar.add_task(stage, total=total or None)
                bar.update(tasks[stage], completed=done, total=total or None)

            yield draw
        return
    last = {"stage": "", "at": time.monotonic()}

    def tell(stage: str, done: int, total: int) -> None:
        now = time.monotonic()
        if now - float(last["at"]) >= 5.0 or (stage != last["stage"] and now - float(last["at"]) >= 2.0):
            print(f"{stage}: {done}/{total}" if total else f"{stage}: {done}", file=sys.stderr, flush=True)
            last.update(stage=stage, at=now)

    yield tell


def _set_up_logging(verbose: bool) -> None:
    logging.basicConfig(
        level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr, force=True
    )
    logging.getLogger("localizer_ros").setLevel(logging.INFO if verbose else logging.WARNING)


def _run_config(path: Path | None, overrides: list[str] | None, smoothing: bool = True) -> RunConfig:
    from localizer_ros.core.config.runtime import RunConfig
    from localizer_ros.core.config.schema import load_config

    extra = [] if smoothing else ["smoother.kind=none"]
    return load_config(RunConfig, path, [*(overrides or []), *extra])


def _open_source(path: Path, format: str | None, topics: list[str] | None = None) -> FrameSource:
    from localizer_ros.core.types import ConfigError, SourceError
    from localizer_ros.datasets.source import open_source, recognise

    if not topics:
        return open_source(path, format)
    chosen: dict[str, str] = {}
    for topic in topics:
        purpose, separator, name = topic.partition("=")
        if not (separator and name):
            raise ConfigError(f"--topic {topic}: expected e.g. image=/left/image_raw")
        chosen[purpose] = name
    if path.exists() and (format or recognise(path)) != "rosbag":
        raise SourceError(f"{path}: not a bag, so --topic means nothing")
    return open_source(path, format, topics=chosen)


def _make_room(json_file: Path | None, report: Path | None = None) -> None:
    """Make the folders results go to before the work: a mistyped path must not cost its result."""
    if report is not None:
        report.mkdir(parents=True, exist_ok=True)
    if json_file is not None and str(json_file) != "-":
        json_file.parent.mkdir(parents=True, exist_ok=True)
        if json_file.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(json_file))


def _write_json(target: Path | None, text: str) -> None:
    if target is None:
        return
    if str(target) == "-":
        print(text.rstrip("\n"))
    else:
        target.write_text(text.rstrip("\n") + "\n")


@app.callback(invoke_without_command=True)
def main_options(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    """Visual localization for robots: drive a place once, then know where the camera is."""
    if version:
        from localizer_ros import __version__

        print(f"localizer {__version__}")
        raise typer.Exit


@app.command()
@command
def info(
    path: Annotated[Path, typer.Argument(metavar="SOURCE|SCENE", help="A recording or a scene.")],
    format: FormatOption = None,
    topics: TopicOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """What is in a recording or a scene.

    Example: `localizer info ../shared/data/redkitchen`
    """
    from localizer_ros.scene.bundle import is_scene

    if is_scene(path):
        from localizer_ros.scene.info import scene_info

        facts = scene_info(path)
    else:
        from localizer_ros.datasets.info import info as source_info

        facts = {"kind": "recording", **source_info(_open_source(path, format, topics))}
    if as_json:
        print(json.dumps(facts, indent=2))
    else:
        _print_facts(facts)


def _print_facts(facts: dict[str, Any], indent: str = "") -> None:
    for key, value in facts.items():
        if isinstance(value, dict):
            print(f"{indent}{key}:")
            _print_facts(value, indent + "  ")
        elif isinstance(value, float):
            print(f"{indent}{key}: {value:.6g}")
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            print(f"{indent}{key}:")
            for row in value:
                cells = (f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items())
                print(f"{indent}  {', '.join(cells)}")
        elif isinstance(value, list) and len(value) > 12:
            print(f"{indent}{key}: {', '.join(str(v) for v in value[:12])}, ... ({len(value)})")
        elif isinstance(value, list):
            print(f"{indent}{key}: {', '.join(str(v) for v in value) or 'none'}")
        else:
            print(f"{indent}{key}: {value}")


@app.command("map")
@command
def map_command(
    source: SourceArgument,
    out: Annotated[Path, typer.Option("--out", help="Folder of the new scene.")],
    method: Annotated[
        str | None,
        typer.Option(
            "--method",
            help="How to localise in it: hierarchical (default), direct, relative, local or retrieval by matching; "
            "posenet, lsg, anchors or scene_coords by a network trained for the place.",
        ),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option("--split", help="Part to map; train where the recording has one, else everything."),
    ] = None,
    poses: Annotated[
        Path | None,
        typer.Option(
            "--poses", help="TUM trajectory of camera poses to use, e.g. trajectory.txt of `localizer sfm`."
        ),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option("--weights", help="Encoder weights, safetensors in torchvision's key names."),
    ] = None,
    config: ConfigOption = None,
    settings: SetOption = None,
    map_frame: Annotated[str, typer.Option("--map-frame", help="Name of the frame of all poses.")] = "map",
    time_budget: Annotated[
        str | None,
        typer.Option(
            "--time-budget",
            help="Time to train a network, e.g. 10min, 90s or 0.5h; the best model on the validation part is kept.",
        ),
    ] = None,
    resume: ResumeOption = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the scene at --out.")] = False,
    format: FormatOption = None,
    topics: TopicOption = None,
    verbose: VerboseOption = False,
) -> None:
    """Make a scene from a recording with poses.

    Example: `localizer map ../shared/data/redkitchen --out scenes/kitchen`

    A network, in ten minutes: `localizer map ../shared/data/redkitchen --method posenet --time-budget 10min --weights
    ../shared/weights/mobilenet_v2_imagenet.safetensors --out scenes/kitchen_posenet`
    """
    _set_up_logging(verbose)
    from localizer_ros.core.config.mapping import MapConfig
    from localizer_ros.core.config.schema import load_config
    from localizer_ros.core.types import ConfigError
    from localizer_ros.datasets.info import info as source_info
    from localizer_ros.mapping.build import build_scene, trains_network

    overrides = list(settings or [])
    if method is not None:
        overrides.append(f"method={method}")
    if time_budget is not None:
        overrides.append(f"training.time_budget_min={_minutes(time_budget)}")
    map_config = load_config(MapConfig, config, overrides)
    if time_budget is not None and not trains_network(map_config.method):
        raise ConfigError(f"a {map_config.method} scene trains no network; leave --time-budget out")
    recording = _open_source(source, format, topics)
    if poses is not None:
        from localizer_ros.core.trajectory import Trajectory
        from localizer_ros.datasets.derived import SourceWithPoses

        recording = SourceWithPoses(recording, Trajectory.read_tum(poses), poses.name)
    part = split or ("train" if "train" in recording.splits else "all")
    mapped = recording.split(part)
    # What is wrong with a recording shows in its map as well, but not what it is.
    for problem in source_info(mapped)["problems"]:
        print(f"recording: {problem}", file=sys.stderr)
    with progress_bar() as progress:
        facts = build_scene(
            mapped,
            part,
            map_config,
            out,
            weights=weights,
            map_frame=map_frame,
            overwrite=overwrite,
            resume=resume,
            progress=progress,
        )
    if not facts:  # a process of torchrun that trained along
        return
    print(
        f"{out}: {facts['method']} scene of {facts['training']['frames']} frames in {facts['minutes']:.1f} min"
    )
    _print_facts({k: facts[k] for k in ("accuracy", "learning", "map") if k in facts}, "  ")


@app.command()
@command
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
    resume: ResumeOption = False,
    config: ConfigOption = None,
    settings: SetOption = None,
    format: FormatOption = None,
    topics: TopicOption = None,
    verbose: VerboseOption = False,
) -> None:
    """Find camera poses from images alone; map the recording with them by `localizer map --poses`.

    Example: `localizer sfm ../shared/data/kitti_00 --limit 60 --out sfm`
    """
    _set_up_logging(verbose)
    from localizer_ros.core.config.mapping import MapConfig
    from localizer_ros.core.config.schema import load_config
    from localizer_ros.mapping.reconstruction import reference_poses, run_sfm

    map_config = load_config(MapConfig, config, settings or ())
    part = _open_source(source, format, topics).split(split)
    kind = _one_of("--align", align, ("auto", "ground_truth", "odometry", "none"))
    reference, reference_is = ({}, "") if length is not None else reference_poses(part, kind)
    with progress_bar() as progress:
        facts = run_sfm(
            part, split, map_config.structure, out, limit, reference, reference_is, length, resume, progress
        )
    _print_facts(facts)


def _counts(option: str, text: str) -> list[int]:
    from localizer_ros.core.types import ConfigError

    try:
        counts = [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        counts = [0]
    if any(count < 1 for count in counts):
        raise ConfigError(f"{option}: expected numbers such as 1000,10000, got {text!r}")
    return counts


def _minutes(text: str) -> float:
    """Minutes of ``10min``, ``90s`` or ``0.5h``; a bare number is minutes."""
    from localizer_ros.core.types import ConfigError

    found = re.fullmatch(r"\s*(\d+\.?\d*|\.\d+)\s*(s|min|h|)\s*", text)
    minutes = float(found[1]) * {"s": 1.0 / 60.0, "min": 1.0, "": 1.0, "h": 60.0}[found[2]] if found else 0.0
    if minutes <= 0.0:
        raise ConfigError(f"--time-budget: expected e.g. 10min, 90s or 0.5h, got {text!r}")
    return minutes


@app.command("eval")
@command
def eval_command(
    scene: SceneArgument,
    source: SourceArgument,
    split: TestSplitOption = None,
    json_file: JsonOption = None,
    report: Annotated[
        Path | None, typer.Option("--report", help="Folder for an HTML report with plots.")
    ] = None,
    no_smoothing: Annotated[bool, typer.Option("--no-smoothing", help="Raw absolute poses only.")] = False,
    geometric_vo: GeometricVoOption = False,
    limit: LimitOption = None,
    config: ConfigOption = None,
    settings: SetOption = None,
    format: FormatOption = None,
    topics: TopicOption = None,
    verbose: VerboseOption = False,
) -> None:
    """Localise a recording in a scene and measure the answers against its ground truth.

    Example: `localizer eval scenes/kitchen ../shared/data/redkitchen --split test --report report`
    """
    _set_up_logging(verbose)
    from localizer_ros.evaluation.evaluate import evaluate
    from localizer_ros.evaluation.geometric_vo import GeometricVo
    from localizer_ros.localization.localizer import open_localizer
    from localizer_ros.scene.bundle import Scene
    from localizer_ros.scene.nearest_image import open_baseline

    run_config = _run_config(config, settings, not no_smoothing)
    opened = Scene.load(scene)
    recording = _open_source(source, format, topics)
    _make_room(json_file, report)
    part = split or ("test" if "test" in recording.splits else "all")
    localizer = open_localizer(scene, run_config, recording.T_base_cam)
    baseline = open_baseline(scene, run_config.backend)
    try:
        with progress_bar() as progress:
            evaluation = evaluate(
                localizer,
                opened,
                recording,
                part,
                config=run_config,
                limit=limit,
                baseline=baseline,
                geometric=GeometricVo() if geometric_vo else None,
                progress=progress,
            )
    finally:
        localizer.close()
    text = evaluation.to_json()
    if report is not None:
        from localizer_ros.evaluation.report import write_report

        page = write_report(evaluation, report)
        print(f"report: {page}", file=sys.stderr)
    _write_json(json_file, text)
    if json_file is None or str(json_file) != "-":
        _print_facts({k: v for k, v in json.loads(text).items() if k not in ("config", "versions")})


@app.command()
@command
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
    settings: SetOption = None,
    format: FormatOption = None,
    topics: TopicOption = None,
    verbose: VerboseOption = False,
) -> None:
    """Localise a recording in several scenes and put the results in one table; exit code 0 only if all could be run.

    Example: `localizer compare scenes/kitchen scenes/kitchen_map ../shared/data/redkitchen --out kitchen.md`
    """
    _set_up_logging(verbose)
    from localizer_ros.evaluation.compare import compare as run_compare

    run_config = _run_config(config, settings)
    recording = _open_source(source, format, topics)
    _make_room(json_file)
    _make_room(out)
    part = split or ("test" if "test" in recording.splits else "all")
    with progress_bar() as progress:
        result = run_compare(
            scenes,
            recording,
            part,
            run_config,
            limit=limit,
            geometric_vo=geometric_vo,
            progress=progress,
        )
    options = [
        *(("--split", part) if split else ()),
        *(("--limit", str(limit)) if limit else ()),
        *(("--geometric-vo",) if geometric_vo else ()),
        *(("--config", str(config)) if config else ()),
        *(word for setting in settings or () for word in ("--set", setting)),
        *(("--format", format) if format else ()),
        *(word for topic in topics or () for word in ("--topic", topic)),
    ]
    made_by = shlex.join(["localizer", "compare", *map(str, scenes), str(source), *options])
    if out is not None:
        out.write_text(result.markdown(made_by))
    _write_json(json_file, result.to_json(made_by))
    if json_file is None or str(json_file) != "-":
        _print_tables(result.tables(), result.markdown(made_by))
    if result.failed:
        print(f"localizer: {len(result.failed)} of {len(scenes)} scenes could not be run", file=sys.stderr)
        raise typer.Exit(1)


def _print_tables(tables: list[Table], otherwise: str) -> None:
    """Tables with lines on a terminal, elsewhere this text."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    console = Console()
    if not console.is_terminal:
        print(otherwise, end="")
        return
    for table in tables:
        drawn = RichTable(title=table.title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
        for name in table.columns:
            drawn.add_column(Text(name.replace(", ", "\n")), overflow="fold")
        for row in table.rows:
            # Raw above smoothed: a terminal has little width.
            drawn.add_row(*(Text(cell.replace(" -> ", "\n")) for cell in row))
        console.print(drawn)


@app.command()
@command
def replay(
    scene: SceneArgument,
    bag: SourceArgument,
    out: Annotated[Path, typer.Option("--out", help="Folder of the new bag.")],
    config: ConfigOption = None,
    settings: SetOption = None,
    format: FormatOption = None,
    topics: TopicOption = None,
    verbose: VerboseOption = False,
) -> None:
    """Localise a recorded bag as the node would, without ROS; writes pose, tf, path and diagnostics.

    Example: `localizer replay scenes/room drive.bag --out answers.bag`
    """
    _set_up_logging(verbose)
    from localizer_ros.evaluation.replay import replay as run_replay
    from localizer_ros.localization.localizer import open_localizer
    from localizer_ros.scene.bundle import Scene

    run_config = _run_config(config, settings)
    recording = _open_source(bag, format, topics)
    localizer = open_localizer(scene, run_config, recording.T_base_cam)
    try:
        with progress_bar() as progress:
            summary = run_replay(localizer, Scene.load(scene), recording, out, run_config, progress)
    finally:
        localizer.close()
    _print_facts({"bag": str(out), **summary})


@app.command()
@command
def simulate(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder of the new bag.")],
    world: Annotated[
        Path | None,
        typer.Option("--world", help="YAML file of the world and the drive; all settings have defaults."),
    ] = None,
    settings: SetOption = None,
    storage: Annotated[str, typer.Option("--storage", help="mcap or sqlite3.")] = "mcap",
    compression: Annotated[str, typer.Option("--compression", help="none, jpeg or png.")] = "none",
) -> None:
    """Record a drive through a simulated place, with exact ground truth and drifting odometry, as a rosbag2.

    Example: `localizer simulate drive1 --set drive=1 --set duration_s=20`
    """
    from localizer_ros.core.config.schema import load_config
    from localizer_ros.datasets.convert import write_bag
    from localizer_ros.datasets.simulated import SimulatedSource, WorldConfig

    storage = _one_of("--storage", storage, ("mcap", "sqlite3"))
    compression = _one_of("--compression", compression, ("none", "jpeg", "png"))
    source = SimulatedSource(load_config(WorldConfig, world, settings or ()))
    with progress_bar() as progress:
        write_bag(source, out, storage, compression, lambda done, total: progress("simulating", done, total))
    print(f"{out}: {len(source.records)} frames, {len(source.records) / source.config.fps:.1f} s")


def _one_of(option: str, value: str, known: tuple[str, ...]) -> Any:
    from localizer_ros.core.types import ConfigError

    if value not in known:
        raise ConfigError(f"{option}: expected {', '.join(known)}, got {value!r}")
    return value


@app.command()
@command
def convert(
    source: SourceArgument,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The new folder.")],
    to: Annotated[str, typer.Option("--to", help="bag, tum or kapture.")],
    split: Annotated[str, typer.Option("--split", help="Part to convert.")] = "all",
    storage: Annotated[str, typer.Option("--storage", help="Of a bag: mcap or sqlite3.")] = "mcap",
    compression: Annotated[str, typer.Option("--compression", help="Of a bag: none, jpeg or png.")] = "none",
    format: FormatOption = None,
    topics: TopicOption = None,
) -> None:
    """Write a recording in another format.

    Example: `localizer convert ../shared/data/redkitchen kitchen.bag --to bag --split test`
    """
    from localizer_ros.datasets.convert import write_bag, write_kapture, write_tum

    part = _open_source(source, format, topics).split(split)
    _one_of("--to", to, ("bag", "tum", "kapture"))
    with progress_bar() as progress:

        def told(done: int, total: int) -> None:
            progress("converting", done, total)

        if to == "bag":
            storage = _one_of("--storage", storage, ("mcap", "sqlite3"))
            compression = _one_of("--compression", compression, ("none", "jpeg", "png"))
            write_bag(part, out, storage, compression, told)
        elif to == "tum":
            write_tum(part, out, told)
        else:
            write_kapture(part, out, told)
    print(f"{out}: {len(part.records)} frames")
    if to != "bag" and part.odometry is not None:
        print(f"left out: odometry and the camera's mounting, which {to} has no place for", file=sys.stderr)


@app.command()
@command
def export(
    scene: SceneArgument,
    backend: Annotated[str, typer.Option("--backend", help="openvino, tensorrt, torch or onnx.")],
    precision: Annotated[str, typer.Option("--precision", help="fp32, fp16, bf16 or int8.")] = "fp32",
    source: Annotated[
        Path | None,
        typer.Option("--source", help="Recording whose images check the engine; random ones otherwise."),
    ] = None,
) -> None:
    """Build the engine of a back end for a scene and check it against PyTorch, in metres and degrees.

    Example: `localizer export scenes/kitchen --backend openvino --precision fp16`
    """
    from localizer_ros.core.config.runtime import BackendConfig
    from localizer_ros.core.config.schema import config_from_dict
    from localizer_ros.export import export_scene
    from localizer_ros.scene.bundle import Scene

    kind = {"onnx": "openvino"}.get(backend, backend)
    config = config_from_dict(BackendConfig, {"kind": kind, "precision": precision}, "export")
    opened = Scene.load(scene)
    result = export_scene(opened, config, None if source is None else _open_source(source, None))
    print(
        f"{backend} {precision}: differs from torch by {result.t_m:.6f} m and {result.r_deg:.5f} deg at most"
    )
    for path in result.files:
        print(f"  {path.name}  {path.stat().st_size / 1e6:.1f} MB")


@app.command()
@command
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
    json_file: JsonOption = None,
    config: ConfigOption = None,
    settings: SetOption = None,
    format: FormatOption = None,
    topics: TopicOption = None,
) -> None:
    """Latency, throughput and memory of every stage, for every back end of this machine.

    Example: `localizer bench scenes/kitchen ../shared/data/redkitchen`
    """
    _set_up_logging(False)
    from localizer_ros.evaluation.benchmark import bench as run_bench

    sizes = _counts("--index-images", index_images)
    run_config = _run_config(config, settings)
    recording = _open_source(source, format, topics)
    _make_room(json_file)
    part = split or ("test" if "test" in recording.splits else "all")
    with progress_bar() as progress:
        result = run_bench(
            scene,
            recording.split(part),
            run_config,
            limit=limit,
            smoother_frames=smoother_frames,
            index_images=sizes,
            progress=progress,
        )
    _write_json(json_file, json.dumps(result, indent=2))
    if json_file is None or str(json_file) != "-":
        _print_facts(result)


@app.command()
@command
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
    """Trajectory, frames and map in a viewer, or in a file.

    Example: `localizer view answers.bag --out answers.png`
    """
    from localizer_ros.evaluation.view import view as run_view

    written = run_view(result, out, scene)
    if written is not None:
        print(written)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
@command
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
    format: FormatOption = None,
    topics: TopicOption = None,
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
    recording = _open_source(source, format, topics).split(split)
    names = ["image" if image_format == "raw" else "image/compressed", "camera_info", "/clock"]
    if recording.odometry is not None:
        names += ["odom", "/tf"]
    if recording.T_base_cam is not None:
        names.append("/tf_static")
    print(f"playing {len(recording.records)} frames on {', '.join(names)}", file=sys.stderr)
    with progress_bar() as progress:
        report = run_play(recording, options, progress)
    print(f"{report.frames} frames in {report.wall_s:.1f} s, at most {1e3 * report.latest_s:.0f} ms late")


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
@command
def run(context: typer.Context, scene: SceneArgument) -> None:
    """Run the ROS 2 node without ros2 launch; everything after SCENE goes to ROS.

    Example: `localizer run scenes/room -r image:=/camera/image_raw -r camera_info:=/camera/camera_info`
    """
    from localizer_ros.ros.node import run_scene

    raise typer.Exit(run_scene(scene, context.args))


def main() -> None:
    """Entry point."""
    app()


if __name__ == "__main__":
    main()
