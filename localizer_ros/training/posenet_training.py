"""What PoseNet is trained for: losses of a batch, and its absolute answers on held-out frames."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from localizer_ros.core.config import PosenetConfig
from localizer_ros.core.se3 import SE3
from localizer_ros.networks.backbones import Features
from localizer_ros.networks.motion import MotionHead
from localizer_ros.networks.posenet import (
    BalancedLoss,
    BetaLoss,
    PoseNet,
    pose_residual,
    quaternion_distance,
    spread_loss,
)
from localizer_ros.training.data import PosedImages, motion_vector

# Radians and metres: errors of motions count in units of this, that of a hand-held camera in a few frames.
MOTION_SIZE = 0.02


class PosenetTraining(nn.Module):
    """Network and losses in one module, so that data-parallel wrapping sees one forward.

    Args:
        network: the network.
        config: which balance of position and orientation.
        mean: RGB mean of the 0..1 input.
        std: RGB standard deviation of the 0..1 input.
    """

    def __init__(
        self,
        network: PoseNet,
        config: PosenetConfig,
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
    ) -> None:
        super().__init__()
        self.network = network
        self.absolute_loss: nn.Module = BetaLoss(config.beta) if config.loss == "beta" else BalancedLoss()
        # The paper of 2015 has L2 norms, the one of 2017 L1.
        self.order = 2 if config.loss == "beta" else 1
        self.register_buffer("mean", 255.0 * torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", 255.0 * torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def normalize(self, image_B3HW: Tensor) -> Tensor:
        """uint8 images to network input."""
        return ((image_B3HW.float() - self.mean) / self.std).contiguous(memory_format=torch.channels_last)

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Losses by name; ``total`` is the one to minimise."""
        images = self.normalize(torch.cat([batch["image_prev"], batch["image_cur"]]))
        encoder = self.network.encoder
        fine_prev, fine_cur = encoder.fine_layers()(images).chunk(2)
        # The earlier image shows much the same as the later: only its motion is worth the time.
        coarse = encoder.coarse_layers()(fine_cur)
        # Poses need more digits than half precision has; the heads are small.
        with torch.autocast(images.device.type, enabled=False):
            return self._losses(fine_prev.float(), Features(fine_cur.float(), coarse.float()), batch)

    def _losses(self, fine_prev: Tensor, cur: Features, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        network = self.network
        t_true, q_true = batch["t_cur"], batch["q_cur"]
        t, q, log_sigma = network.absolute(cur.coarse)
        position = torch.linalg.vector_norm(t - t_true, ord=self.order, dim=1).mean()
        orientation = quaternion_distance(q, q_true, self.order)
        head = network.motion
        inverse_depth = head.inverse_depth(cur.fine, cur.coarse)
        rel, rel_log_sigma, flow = head(head.features(fine_prev), head.features(cur.fine), inverse_depth)
        flow_loss, depth_loss = _guides(head, flow, inverse_depth, batch)
        rel_rotation, rel_translation = (rel - batch["rel"]).abs().unflatten(1, (2, 3)).sum(2).mean(0)
        with torch.no_grad():
            residual = pose_residual(t, q, t_true, q_true)
        spread = spread_loss(residual, log_sigma)
        rel_spread = spread_loss((rel - batch["rel"]).detach(), rel_log_sigma)
        total = (
            self.absolute_loss(position, orientation)
            + (rel_rotation + rel_translation) / MOTION_SIZE
            + flow_loss
            + depth_loss
            + spread
            + rel_spread
        )
        return {
            "total": total,
            "position": position,
            "orientation": orientation,
            "rel_translation": rel_translation,
            "rel_rotation": rel_rotation,
            "flow": flow_loss,
            "depth": depth_loss,
        }


def _guides(
    head: MotionHead, flow_B2hw: Tensor, inverse_depth_Bhw: Tensor, batch: dict[str, Tensor]
) -> tuple[Tensor, Tensor]:
    """Mean error of flow (cells) and of log depth, where the depth is known; both zero where it is nowhere."""
    true = batch["inverse_depth"]
    known = true > 0
    count = known.sum().clamp_min(1)
    safe = torch.where(known, true, head.inverse_depth_scale)
    depth = ((inverse_depth_Bhw / safe).log().abs() * known).sum() / count
    true_flow = head.true_flow(safe, batch["rel"])
    within = known & (true_flow.abs().amax(1) < head.radius)
    flow = ((flow_B2hw - true_flow).abs().sum(1).clamp_max(2.0) * within).sum() / within.sum().clamp_min(1)
    return flow, depth


def initialize_scale(network: PoseNet, data: PosedImages) -> None:
    """Set the scene's centre, size and depth, and the camera, so that training starts from the mean pose."""
    t = np.stack([T.t for T in data.poses])
    network.absolute.centre.copy_(torch.from_numpy(t.mean(0)))
    network.absolute.scale.fill_(max(1e-3, float(np.sqrt(t.var(0).mean()))))
    K, T_cam_opt = data.camera.K, SE3.identity()
    if data.depth is not None:
        K, T_cam_opt = data.depth.K, data.depth.T_cam_opt
        network.motion.inverse_depth_scale.fill_(1.0 / data.depth.median_m)
    network.motion.set_camera(*(torch.from_numpy(np.array(a)) for a in (K, T_cam_opt.R, T_cam_opt.t)))


@torch.no_grad()
def predict(training: PosenetTraining, data: PosedImages, batch_size: int = 32) -> dict[str, np.ndarray]:
    """Outputs on frames in order, the motion from each frame's predecessor (zero state at the start of a sequence).

    Returns arrays ``t`` (N, 3), ``q`` (N, 4), ``log_sigma`` (N, 6), ``rel`` (N, 6), ``rel_log_sigma`` (N, 6).
    """
    network, device = training.network, next(training.parameters()).device
    was_training = training.training
    training.eval()
    rows: dict[str, list[Tensor]] = {k: [] for k in ("t", "q", "log_sigma", "rel", "rel_log_sigma")}
    carried: Tensor | None = None
    for start in range(0, len(data), batch_size):
        images = torch.from_numpy(data.images[start : start + batch_size]).permute(0, 3, 1, 2).to(device)
        features = network.encoder(training.normalize(images))
        matching = network.motion.features(features.fine)
        first = torch.zeros_like(matching[:1]) if carried is None else carried
        inverse_depth = network.motion.inverse_depth(features.fine, features.coarse)
        rel, rel_log_sigma, _ = network.motion(torch.cat([first, matching[:-1]]), matching, inverse_depth)
        carried = matching[-1:]
        t, q, log_sigma = network.absolute(features.coarse)
        for key, value in (
            ("t", t),
            ("q", q),
            ("log_sigma", log_sigma),
            ("rel", rel),
            ("rel_log_sigma", rel_log_sigma),
        ):
            rows[key].append(value.float().cpu())
    training.train(was_training)
    return {k: torch.cat(v).numpy().astype(np.float64) for k, v in rows.items()}


@dataclass(frozen=True, eq=False)
class Residuals:
    """Errors on known frames, [rotation (rad), translation (m)].

    Attributes:
        absolute_N6: of the absolute poses, in the tangent of each.
        motion_M6: of the motions between successive frames of one drive.
        motion_rows: (M,) the later frame of each motion.
    """

    absolute_N6: NDArray[np.float64]
    motion_M6: NDArray[np.float64]
    motion_rows: NDArray[np.int64]


def residuals(outputs: dict[str, np.ndarray], data: PosedImages) -> Residuals:
    """Errors of :func:`predict` on frames with known poses."""
    absolute = [
        (SE3.from_quaternion(t, q).inverse() @ T).log()
        for t, q, T in zip(outputs["t"], outputs["q"], data.poses, strict=True)
    ]
    rows = np.flatnonzero(np.diff(data.sequences) == 0) + 1
    motions = [motion_vector(data.poses[row - 1], data.poses[row]) - outputs["rel"][row] for row in rows]
    return Residuals(np.array(absolute), np.array(motions).reshape(-1, 6), rows)


def added_motions(
    outputs: dict[str, np.ndarray], data: PosedImages, window: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Errors of motions added up over ``window`` frames, and their variances added up as if independent; (W, 6) each.

    Windows do not overlap by more than half; a drive shorter than the window counts as one.
    """
    errors, variances = [], []
    bounds = [0, *(np.flatnonzero(np.diff(data.sequences)) + 1).tolist(), len(data)]
    for start, end in itertools.pairwise(bounds):
        length = min(window, end - start - 1)
        if length < 1:
            continue
        for first in range(start, end - length, max(1, length // 2)):
            T = SE3.identity()
            for row in range(first + 1, first + length + 1):
                w, v = outputs["rel"][row, :3], outputs["rel"][row, 3:]
                T = T @ SE3(SE3.exp(np.concatenate([w, np.zeros(3)])).R, v)
            true = motion_vector(data.poses[first], data.poses[first + length])
            errors.append(true - motion_vector(SE3.identity(), T))
            variances.append(np.exp(2.0 * outputs["rel_log_sigma"][first + 1 : first + length + 1]).sum(0))
    return np.array(errors).reshape(-1, 6), np.array(variances).reshape(-1, 6)
