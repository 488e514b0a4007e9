"""How many anchor points a place needs: accuracy against their number, as a table.

Views are put through a frozen encoder once; a head of anchors is then trained on them for each number, with the anchors
discovered (no cross-entropy) and supervised. Errors are of validation frames and of the part --test, raw.

    .venv/bin/python tools/anchor_study.py RECORDING --weights FILE [--every 5 10 20 50 100 400] [--minutes 2]
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from torch import nn

from localizer_ros.cli.console import progress_bar
from localizer_ros.core.config.mapping import MapConfig
from localizer_ros.core.config.schema import config_from_dict
from localizer_ros.core.preprocess import network_camera
from localizer_ros.datasets.source import open_source
from localizer_ros.training.data import PosedImages, ViewSequences, hold_out, load_posed_images
from localizer_ros.training.module import NetworkTraining
from localizer_ros.training.network_setup import set_up_training
from localizer_ros.training.stored_views import StoredSequences, store_views
from localizer_ros.training.train import train
from localizer_ros.training.validation import predict, residuals
from localizer_ros.training.weights import LoadedWeights, load_weights


def medians(module: NetworkTraining, data: PosedImages) -> tuple[float, float]:
    """Median errors, centimetres and degrees."""
    errors = residuals(predict(module, data), data).absolute_N6
    angle, distance = (np.median(np.linalg.norm(errors[:, part], axis=1)) for part in (slice(3), slice(3, 6)))
    return 100.0 * float(distance), float(np.degrees(angle))


def anchor_config(every: int, cross_entropy: float, minutes: float) -> MapConfig:
    """The configuration of one row of the table."""
    return config_from_dict(
        MapConfig,
        {
            "method": "anchors",
            "anchors": {"every": every, "cross_entropy": cross_entropy},
            "training": {
                "epochs": 100_000,
                "time_budget_min": minutes,
                "validate_every": 20,
                "augmentation": {"virtual_move": 0.0},
            },
        },
    )


def untrained(config: MapConfig, loaded: LoadedWeights, data: PosedImages) -> NetworkTraining:
    """A network with the given encoder, frozen."""
    module = set_up_training(config, loaded, data)[1]
    module.network.encoder.requires_grad_(False)
    return module


def main() -> None:
    """Train, measure and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recording", type=Path)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--train", default="train")
    parser.add_argument("--test", default="test")
    parser.add_argument("--every", type=int, nargs="+", default=[5, 10, 20, 50, 100, 400])
    parser.add_argument("--views", type=int, default=8)
    parser.add_argument("--minutes", type=float, default=2.0)
    args = parser.parse_args()
    recording, loaded = open_source(args.recording), load_weights(args.weights, "auto")
    config = anchor_config(args.every[0], 0.0, args.minutes)
    mapped = recording.split(args.train)
    camera = network_camera(mapped.camera, config.network.width_px, config.network.height_px)
    data, test = (load_posed_images(part, camera) for part in (mapped, recording.split(args.test)))
    kept, held = hold_out(len(data), config.training.validation_fraction)
    training, validation = data.subset(kept), data.subset(held)
    first = untrained(config, loaded, training)
    frames = ViewSequences(training, 1, 1, config.training.augmentation, config.training.seed)
    with progress_bar() as progress:
        stored = store_views(first.network.encoder, first.normalize, frames, args.views, progress)
    views = StoredSequences(stored, 1, 1, config.training.seed)

    def validate(module: nn.Module) -> dict[str, float]:
        assert isinstance(module, NetworkTraining)
        return {"score": float(np.log(medians(module, validation)).sum())}

    print("| anchors | relevance | validation | test |\n|---|---|---|---|", flush=True)
    for every in args.every:
        for cross_entropy in (0.0, 1.0):
            config = anchor_config(every, cross_entropy, args.minutes)
            module = untrained(config, loaded, training)
            with tempfile.TemporaryDirectory() as work:
                train(module, views, config.training, Path(work), validate)
            cells = " | ".join(
                f"{cm:.1f} cm / {deg:.2f} deg"
                for cm, deg in (medians(module, part) for part in (validation, test))
            )
            relevance = "supervised" if cross_entropy else "discovered"
            print(f"| {len(training.poses[::every])} | {relevance} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
