"""Training in two processes of torchrun on a CPU: one scene, the same weights in both, and the map command as it is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from localizer_ros.scene.bundle import Scene

# The command, but for what takes long and has nothing to do with processes: ONNX, its check, the baseline. Each process
# leaves the weights it ended with.
MAP = """
import os, torch
import numpy as np
from pathlib import Path
from localizer_ros.cli import main as cli
from localizer_ros import export
from localizer_ros.training import network_scene as builder

torch.set_num_threads(1)
train = builder.train

def train_and_tell(module, *arguments):
    result = train(module, *arguments)
    torch.save(module.network.state_dict(), f"rank{os.environ['RANK']}.pt")
    return result

builder.train = train_and_tell
builder.check_parity = lambda *_: (0.0, 0.0)
builder._write_baseline = lambda networks, spec, loaded, encoder, data, progress: np.eye(len(data))
export.torch.onnx.export = lambda network, example, path, **_: Path(path).write_bytes(b"")
cli.main()
"""

WORLD = "{duration_s: 3.0, fps: 8.0, width_px: 128, height_px: 96, moving_objects: 0}"
SETTINGS = (
    "network={encoder: mobilenet_v3_small, width_px: 96, height_px: 64, hidden: 16}",
    "training.epochs=3",
    "training.batch_size=8",
    "training.validate_every=1",
    "training.augmentation.virtual_move=0",
)


@pytest.mark.slow
def test_two_processes_make_one_scene_and_end_with_the_same_weights(tmp_path: Path) -> None:
    (tmp_path / "map.py").write_text(MAP)
    (tmp_path / "world.yaml").write_text(WORLD)
    launch = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "map.py",
    ]
    options = [option for setting in SETTINGS for option in ("--set", setting)]
    ended = subprocess.run(
        [*launch, "map", "world.yaml", "--method", "posenet", "--out", "scene", *options],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert ended.stdout.count("posenet scene of 24 frames") == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "map.py",
        "rank0.pt",
        "rank1.pt",
        "scene",
        "world.yaml",
    ]
    scene = Scene.load(tmp_path / "scene")
    first, second = (torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in (0, 1))
    written = load_file(scene.path / "networks" / "posenet.safetensors")
    for name, value in first.items():
        # Bit for bit: both have added up the same gradients in the same order.
        assert torch.equal(value, second[name]) and torch.equal(value, written[name]), name
    assert (scene.path / "training.csv").read_text().count("\n") == 4
