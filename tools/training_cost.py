"""What a training step of a network costs on one core, part by part, in CPU time.

    .venv/bin/python tools/training_cost.py RECORDING --map SCENE [--method posenet] [--weights FILE] [--set KEY=VALUE]

SCENE has a map of points of RECORDING (`localizer map RECORDING --out SCENE`): virtual views need its depth.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch
from torch.utils.data import default_collate

from localizer_ros.core.config.mapping import MapConfig
from localizer_ros.core.config.schema import load_config
from localizer_ros.core.config.training import TrainingConfig
from localizer_ros.core.preprocess import network_camera
from localizer_ros.datasets.derived import FirstFrames
from localizer_ros.datasets.source import open_source
from localizer_ros.scene.map_scene import MapScene
from localizer_ros.training.data import PosedImages, ViewSequences, load_posed_images
from localizer_ros.training.module import NetworkTraining
from localizer_ros.training.network_setup import set_up_training
from localizer_ros.training.runtime import keep_freed_memory, trains_in_bf16
from localizer_ros.training.train import move_average
from localizer_ros.training.virtual_views import scene_depth
from localizer_ros.training.weights import load_weights


def milliseconds(work: Callable[[], object], runs: int) -> float:
    """CPU time, the median of some runs; the first two are not counted."""
    times = []
    for _ in range(2 + runs):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return 1e3 * float(np.median(times[2:]))


def posed_images(recording: Path, map_scene: Path, config: MapConfig) -> PosedImages:
    """Frames for a few batches, with their depth from the map."""
    n, t = config.network, config.training
    source = open_source(recording)
    source = FirstFrames(source.split("train") if "train" in source.splits else source, 4 * t.batch_size)
    data = load_posed_images(source, network_camera(source.camera, n.width_px, n.height_px))
    return replace(data, depth=scene_depth(MapScene.open(map_scene), data.camera, data.poses))


def step_costs(module: NetworkTraining, data: PosedImages, t: TrainingConfig, runs: int) -> dict[str, float]:
    """Milliseconds of each part of a step."""
    encoder, objective = module.network.encoder, module.objective
    views = ViewSequences(data, max(2, objective.frames or t.sequence), t.stride, t.augmentation, t.seed)
    numbers = iter(range(10**9))
    half = trains_in_bf16(t.precision, torch.device("cpu"))
    batch = default_collate([views[i] for i in range(t.batch_size)])
    average = copy.deepcopy(module).requires_grad_(False)
    module.train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # not in its stubs
    optimizer = torch.optim.AdamW([p for p in module.parameters() if p.requires_grad], 1e-5, fused=True)
    frames = objective.frames or t.sequence
    images = module.normalize(batch["images"][:, -frames:].flatten(0, 1))

    def encode(backward: bool) -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            fine, coarse = encoder(images)
        if backward:
            (fine.float().mean() + coarse.float().mean()).backward()

    def step(backward: bool) -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            total = module(batch)["total"]
        if backward:
            total.backward()

    def update() -> None:
        torch.nn.utils.clip_grad_norm_(module.parameters(), 5.0)
        optimizer.step()

    parts: dict[str, Callable[[], object]] = {
        "render views (in the loader's process)": lambda: [views[next(numbers)] for _ in range(t.batch_size)],
        "encoder, forwards": lambda: encode(False),
        "encoder, forwards and backwards": lambda: encode(True),
        "all, forwards": lambda: step(False),
        "all, forwards and backwards": lambda: step(True),
        "clip and AdamW": update,
        "moving average": lambda: move_average(average, module, 0.99),
    }
    return {name: milliseconds(work, runs) for name, work in parts.items()}


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recording", type=Path)
    parser.add_argument("--map", type=Path, required=True)
    parser.add_argument("--method", default="posenet")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--runs", type=int, default=15)
    args = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    keep_freed_memory()
    config = load_config(MapConfig, None, [*args.set, f"method={args.method}"])
    t = config.training
    data = posed_images(args.recording, args.map, config)
    loaded = None if args.weights is None else load_weights(args.weights, config.network.encoder)
    module = set_up_training(config, loaded, data)[1]
    costs = step_costs(module, data, t, args.runs)
    print(
        f"| batch of {t.batch_size} sequences of {module.objective.frames or t.sequence} frames | ms |\n|---|---|"
    )
    for name, value in costs.items():
        print(f"| {name} | {value:.0f} |")


if __name__ == "__main__":
    main()
