"""Commands that make something of a scene: map, export."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from localizer_ros.cli import console
from localizer_ros.cli.options import (
    ConfigOption,
    MapSetOption,
    ResumeOption,
    SceneArgument,
    VerboseOption,
    minutes,
    one_of,
    part_of,
)
from localizer_ros.cli.reading import Reading, reads_recordings
from localizer_ros.core.methods import find_method, method_help

if TYPE_CHECKING:
    from localizer_ros.core.config.mapping import MapConfig
    from localizer_ros.datasets.source import FrameSource

MethodOption = Annotated[
    str | None,
    typer.Option(
        "--method",
        help=f"How to localise in it, hierarchical by default. {method_help()}.",
    ),
]
PosesOption = Annotated[
    Path | None,
    typer.Option(
        "--poses", help="TUM trajectory of camera poses to use, e.g. trajectory.txt of `localizer sfm`."
    ),
]
LengthOption = Annotated[
    float | None,
    typer.Option(
        "--length",
        min=1e-6,
        help="Length of the path in metres: poses are made from images alone, and this gives their scale.",
    ),
]
WeightsOption = Annotated[
    Path | None, typer.Option("--weights", help="Encoder weights, safetensors in torchvision's key names.")
]
TimeBudgetOption = Annotated[
    str | None,
    typer.Option(
        "--time-budget",
        help="Time to train a network, e.g. 10min, 90s or 0.5h; the best model on the validation part is kept.",
    ),
]


@console.command
@reads_recordings
def map_scene(
    sources: Annotated[
        list[Path],
        typer.Argument(metavar="SOURCE", help="Recordings in one map frame, each as for `localizer info`."),
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder of the new scene.")],
    method: MethodOption = None,
    split: Annotated[
        str | None,
        typer.Option("--split", help="Part to map; train where the recording has one, else everything."),
    ] = None,
    poses: PosesOption = None,
    length: LengthOption = None,
    weights: WeightsOption = None,
    config: ConfigOption = None,
    settings: MapSetOption = None,
    map_frame: Annotated[str, typer.Option("--map-frame", help="Name of the frame of all poses.")] = "map",
    time_budget: TimeBudgetOption = None,
    resume: ResumeOption = True,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the scene at --out.")] = False,
    verbose: VerboseOption = False,
    *,
    reading: Reading,
) -> None:
    """Make a scene from recordings: with their poses, with odometry corrected by images, or from images alone.

    Example: `localizer map recordings/redkitchen --out scenes/kitchen`

    A network, in ten minutes: `localizer map recordings/redkitchen --method posenet --time-budget 10min --weights
    mobilenet_v2_imagenet.safetensors --out scenes/kitchen_posenet`
    """
    console.set_up_logging(verbose)
    from localizer_ros.mapping.build import WriteOptions, build_scene
    from localizer_ros.mapping.trial import trial_lines
    from localizer_ros.scene.bundle import check_free

    map_config = _map_config(config, settings, method, time_budget)
    check_free(out, overwrite)
    console.make_room(new=out)
    recording = reading.open(*sources)
    if poses is not None:
        recording = _with_poses(recording, poses)
    part = part_of(recording, split, "train")
    mapped = recording.split(part)
    _tell_problems(mapped)
    options = WriteOptions(map_frame, overwrite, resume, length)
    with console.going_on(out, resume), console.progress_bar() as progress:
        facts = build_scene(mapped, part, map_config, out, weights, options, progress)
    if not facts:  # a process of torchrun that trained along
        return
    print(
        f"{out}: {facts['method']} scene of {facts['training']['frames']} frames in {facts['minutes']:.1f} min"
    )
    print(f"  poses: {facts['training']['ground_truth']}")
    console.print_facts({k: facts[k] for k in ("accuracy", "learning", "map") if k in facts}, "  ")
    mapped_of = shlex.join(map(str, sources))
    # `localizer eval` takes the part named test of a recording that has one.
    has_test = part == "train" and "test" in recording.splits and len(sources) == 1 and poses is None
    for line in trial_lines(facts, str(out), mapped_of, *([mapped_of] if has_test else [])):
        print(line)


def _map_config(
    path: Path | None, settings: list[str] | None, method: str | None, time_budget: str | None
) -> MapConfig:
    """The settings of mapping, what has an option of its own last."""
    from localizer_ros.core.config.mapping import MapConfig
    from localizer_ros.core.config.schema import load_config
    from localizer_ros.core.types import ConfigError

    overrides = list(settings or [])
    if method is not None:
        overrides.append(f"method={method}")
    if time_budget is not None:
        overrides.append(f"training.time_budget_min={minutes(time_budget)}")
    config = load_config(MapConfig, path, overrides)
    if time_budget is not None and not find_method(config.method).trains_network:
        raise ConfigError(f"a {config.method} scene trains no network; leave --time-budget out")
    return config


def _with_poses(recording: FrameSource, poses: Path) -> FrameSource:
    from localizer_ros.core.trajectory import Trajectory, is_of_unknown_scale
    from localizer_ros.datasets.derived import SourceWithPoses

    trajectory, name = Trajectory.read_tum(poses), poses.name
    if is_of_unknown_scale(poses):
        # Stands beside every figure of the scene.
        name += " of unknown scale (its m are units of its own)"
        console.say(
            f"{poses}: scale unknown: every m of this scene is a unit of its own; `localizer sfm --length` gives it"
        )
    return SourceWithPoses(recording, trajectory, name)


def _tell_problems(recording: FrameSource) -> None:
    """Say what is wrong with a recording: that something is shows in its map as well, but not what."""
    from localizer_ros.datasets.info import recording_info
    from localizer_ros.evaluation.recording_check import check_recording

    for problem in recording_info(recording)["problems"]:
        console.say(f"recording: {problem}")
    found = check_recording(recording)
    for finding in found.findings:
        if finding.severity != "note":
            console.say(f"recording: {finding.severity}: {finding}")


@console.command
def export(
    scene: SceneArgument,
    backend: Annotated[str, typer.Option("--backend", help="openvino, tensorrt, torch or onnx.")],
    precision: Annotated[str, typer.Option("--precision", help="fp32, fp16, bf16 or int8.")] = "fp32",
    source: Annotated[
        Path | None,
        typer.Option(
            "--source",
            help="Recording whose images check the engine: in lower precision than fp32 the one that was mapped; for "
            "fp32 any, or random images without one.",
        ),
    ] = None,
    lean: Annotated[
        bool, typer.Option("--lean", help="TensorRT: an engine that its lean runtime alone can run.")
    ] = False,
) -> None:
    """Build the engine of a back end for a scene and check it against PyTorch, in metres and degrees.

    Example: `localizer export scenes/kitchen --backend openvino --precision int8 --source drive1`
    """
    from localizer_ros.core.config.runtime import BackendConfig
    from localizer_ros.core.config.schema import config_from_dict
    from localizer_ros.core.types import ConfigError
    from localizer_ros.inference.open_backend import BACKENDS
    from localizer_ros.scene.bundle import Scene
    from localizer_ros.training.export_scene import export_scene

    one_of("--backend", backend, (*BACKENDS, "onnx"))
    if lean and backend != "tensorrt":
        raise ConfigError(f"--lean: is an engine for TensorRT's lean runtime; --backend is {backend}")
    kind = {"onnx": "openvino"}.get(backend, backend)
    config = config_from_dict(BackendConfig, {"kind": kind, "precision": precision, "lean": lean}, "export")
    opened = Scene.load(scene)
    recording = None if source is None else Reading().open(source)
    with console.progress_bar() as progress:
        result = export_scene(opened, backend, config, recording, progress)
    print(
        f"{backend} {precision}: differs from torch by {result.t_m:.6f} m and {result.r_deg:.5f} deg at most"
    )
    if result.card is not None:
        for name, value in result.card.accuracy.items():
            print(f"  {name.replace('_', ' ')}: {value:g}")
        if result.card.single_precision:
            print(f"  in fp32: {', '.join(result.card.single_precision)}")
    for path in result.files:
        print(f"  {path.name}  {path.stat().st_size / 1e6:.1f} MB")
