"""Cost of one step of the pose networks in OpenVINO, over their bare encoders: multiply-adds, size, time.

    .venv/bin/python tools/network_cost.py [--height 192 --width 256 --threads 1 --runs 50]

All networks of one encoder run in turns, so that their ratio holds on a busy machine too. Weights are random.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from localizer_ros.inference.openvino_library import openvino
from localizer_ros.networks.encoders.build import build_encoder
from localizer_ros.networks.encoders.layers import Encoder
from localizer_ros.networks.heads import NECKS, PoseHead, build_neck
from localizer_ros.networks.lsg import SIZES, Lsg

Network = tuple[nn.Module, tuple[Tensor, ...]]


class Bare(nn.Module):
    """An encoder, and a head behind it if there is one."""

    def __init__(self, encoder: Encoder, head: nn.Module | None = None) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Identity() if head is None else head

    def forward(self, image_B3HW: Tensor) -> Tensor:
        answer: Tensor = self.head(self.encoder(image_B3HW).coarse)
        return answer


def networks_of(name: str, size_hw: tuple[int, int]) -> dict[str, Network]:
    """The bare encoder, and what is built on it."""
    encoder, image = build_encoder(name), torch.randn(1, 3, *size_hw)
    rows: dict[str, Network] = {name: (Bare(encoder), (image,))}
    cells = size_hw[0] * size_hw[1] // 1024
    if name == "mobilenet_v2":
        for neck in NECKS:
            hidden = 1024 if neck == "spatial" else 2048
            head = PoseHead(build_neck(neck, encoder.coarse_channels, cells, hidden), 0.5)
            rows[f"{neck} head, {hidden}"] = Bare(encoder, head), (image,)
    for label, size in SIZES.items():
        if size.encoder == name:
            for memory in (size.memory, 0):
                network = Lsg(encoder, size._replace(memory=memory), size_hw, 0.5, aligned=False)
                states = tuple(0.1 + state for state in network.start(1))
                row = f"LsG {label}" + ("" if memory else ", no augmentation")
                rows[row] = network, (image, *states)
    return rows


def compiled(network: Network, threads: int) -> Callable[[], object]:
    """One step of the network by OpenVINO."""
    module, inputs = network
    with tempfile.TemporaryDirectory() as folder, torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(folder) / "network.onnx"
        torch.onnx.export(
            module.eval(),
            inputs,
            str(path),
            opset_version=18,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": str(threads),
        }
        request = openvino.Core().compile_model(str(path), "CPU", settings).create_infer_request()
    values = [value.numpy() for value in inputs]
    return lambda: request.infer(values)


def multiply_adds(network: Network) -> float:
    """Millions, one step."""
    module, inputs = network
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module.eval()(*inputs)
    return float(counter.get_total_flops()) / 2e6


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, default in (("height", 192), ("width", 256), ("threads", 1), ("runs", 50)):
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parser.parse_args()
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    torch.manual_seed(0)
    print(
        "| network | multiply-adds, M | fp16 MB | median ms | ratio | least ms | ratio |\n|---|---|---|---|---|---|---|"
    )
    for encoder in ("mobilenet_v2", "resnet34", "googlenet"):
        rows = networks_of(encoder, (args.height, args.width))
        steps = {name: compiled(network, args.threads) for name, network in rows.items()}
        times: dict[str, list[float]] = {name: [] for name in rows}
        for run in range(10 + args.runs):
            for name, step in steps.items():
                start = time.perf_counter()
                step()
                if run >= 10:
                    times[name].append(1e3 * (time.perf_counter() - start))
        median, least = np.median(times[encoder]), np.min(times[encoder])
        for name, values in times.items():
            megabytes = 2e-6 * sum(value.numel() for value in rows[name][0].state_dict().values())
            print(
                f"| {name} | {multiply_adds(rows[name]):.0f} | {megabytes:.1f} | {np.median(values):.2f} | "
                f"{np.median(values) / median:.2f} | {np.min(values):.2f} | {np.min(values) / least:.2f} |"
            )


if __name__ == "__main__":
    main()
