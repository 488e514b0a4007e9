"""A network in training: losses of a batch, and its answers on held-out frames."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from localizer_ros.core.se3 import SE3
from localizer_ros.localization.learned.scene_coordinates import RefinedCamera
from localizer_ros.networks.descriptor import pooled
from localizer_ros.networks.encoders.layers import Features
from localizer_ros.networks.losses import sigma_loss
from localizer_ros.networks.motion import MotionHead
from localizer_ros.networks.poses import Pose
from localizer_ros.training.data import PosedImages, drive_bounds, motion_vector
from localizer_ros.training.objectives import Objective, Observed

# Radians and metres: beyond this a motion is lost, and its error says nothing more in the training log.
LOST_MOTION = 0.1
# One in so many sequences is aligned while training: depth, which has labels, is what the motion head has to learn.
MOTION_SHARE = 4


class NetworkTraining(nn.Module):
    """Network and losses in one module, so that data-parallel wrapping sees one forward.

    Args:
        network: with an ``encoder``, and a ``motion`` head of :class:`MotionHead`, which LsG may have as None.
        objective: what its absolute branch is trained for.
        mean: RGB mean of the 0..1 input.
        std: RGB standard deviation of the 0..1 input.
    """

    def __init__(
        self,
        network: nn.Module,
        objective: Objective,
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
    ) -> None:
        super().__init__()
        self.network, self.objective = network, objective
        self.normalize = Normalize(mean, std)

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Losses by name of a batch of ``ViewSequences`` or ``StoredSequences``; ``total`` is the one to minimise."""
        frames = self.objective.frames or batch["t"].shape[1]
        true = Pose(batch["t"][:, -frames:], batch["q"][:, -frames:])
        if "images" in batch:
            images = self.normalize(batch["images"][:, -frames:].flatten(0, 1))
            features = self.network.encoder(images)
            last = Features(*(x.unflatten(0, (-1, frames))[:, -1] for x in features))
        else:
            fine, coarse = batch["fine"].float(), batch["coarse"][:, -frames:].float()
            features, last = Features(fine, coarse.flatten(0, 1)), Features(fine, coarse[:, -1])
        true_inverse_depth = batch["inverse_depth"].float()
        # Of depth a percent is enough, but poses need more digits than half precision has; their heads are small.
        inverse_depth = None
        if isinstance(self.network.motion, MotionHead):
            inverse_depth = self.network.motion.inverse_depth(*last).float()
        with torch.autocast(true.t.device.type, enabled=False):
            features = Features(*(x.float() for x in features))
            losses = self.objective.losses(self.network, Observed(features, true_inverse_depth, true))
            if inverse_depth is not None:
                losses.update(
                    self._motion_losses(self.network.motion, inverse_depth, true_inverse_depth, batch)
                )
                losses["total"] = losses["total"] + losses["motion"]
        return losses

    def _motion_losses(
        self, head: MotionHead, inverse_depth: Tensor, true_inverse_depth: Tensor, batch: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        known = true_inverse_depth > 0
        ratio = inverse_depth / torch.where(known, true_inverse_depth, head.inverse_depth_scale)
        depth = (ratio.log().abs() * known).sum() / known.sum().clamp_min(1)
        if "images" not in batch or batch["images"].shape[1] < 2:
            return {"motion": depth, "depth": depth}
        some = slice(None, None, MOTION_SHARE)
        images = self.normalize(batch["images"][some, -2:].flatten(0, 1)).unflatten(0, (-1, 2))
        # Depth has labels to learn from. What an alignment says of it is fifty times as loud and mostly noise, and
        # would reach the encoder, which the poses need: alignments only learn how far off they are.
        rel, log_sigma, *_ = head(
            head.features(images[:, 0]), head.features(images[:, 1]), inverse_depth[some].detach(), finest=4
        )
        error = rel.detach() - batch["rel"][some]
        rotation, translation = error.abs().clamp_max(LOST_MOTION).unflatten(1, (2, 3)).sum(2).mean(0)
        return {
            "motion": depth + sigma_loss(error, log_sigma),
            "depth": depth,
            "rel_rotation": rotation,
            "rel_translation": translation,
        }


class Normalize(nn.Module):
    """uint8 images (B, 3, h, w) to network input."""

    def __init__(self, mean: tuple[float, float, float], std: tuple[float, float, float]) -> None:
        super().__init__()
        self.register_buffer("mean", 255.0 * torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", 255.0 * torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def forward(self, image_B3HW: Tensor) -> Tensor:
        return ((image_B3HW.float() - self.mean) / self.std).contiguous(memory_format=torch.channels_last)


def optics_of(data: PosedImages) -> RefinedCamera:
    """How the images were taken, as far as a map of points has found out."""
    if data.depth is None:
        return RefinedCamera(data.camera.K, SE3.identity())
    return RefinedCamera(data.depth.K, data.depth.T_cam_refined)


def initialize_motion(head: MotionHead, data: PosedImages) -> None:
    """Tell the motion head the camera and the scene's depth."""
    refined_camera = optics_of(data)
    mounting = Pose(
        torch.from_numpy(refined_camera.T_cam_refined.t.copy()),
        torch.from_numpy(refined_camera.T_cam_refined.quaternion_xyzw()),
    )
    head.set_camera(torch.from_numpy(refined_camera.K.copy()), mounting)
    if data.depth is not None:
        head.inverse_depth_scale.fill_(1.0 / data.depth.median_m)


def position_scale(data: PosedImages) -> tuple[NDArray[np.float64], float]:
    """Mean position (3,) and spread of the positions, metres."""
    t = np.stack([T.t for T in data.poses])
    return t.mean(0), max(1e-3, float(np.sqrt(t.var(0).mean())))


def motion_scale(data: PosedImages, stride: int) -> NDArray[np.float64]:
    """(6,) typical size of motions over ``stride`` frames, one for rotation and one for translation."""
    motions = [
        motion_vector(data.poses[i], data.poses[i + stride])
        for i in range(0, len(data) - stride)
        if data.sequences[i] == data.sequences[i + stride]
    ]
    spread = np.sqrt(np.mean(np.square(motions), axis=0)) if motions else np.ones(6)
    return np.maximum(np.repeat([np.linalg.norm(spread[:3]), np.linalg.norm(spread[3:])], 3), 1e-4)


@torch.no_grad()
def predict(training: NetworkTraining, data: PosedImages, batch_size: int = 32) -> dict[str, np.ndarray]:
    """Outputs on the frames of each drive in order, as a stream gives them.

    Returns arrays ``t`` (N, 3), NaN without an answer, ``q`` (N, 4), ``log_sigma`` (N, 6), ``rel`` (N, 6) and
    ``rel_log_sigma`` (N, 6) of the motion from the frame before, without meaning for the first frame of a drive, and
    ``descriptor`` (N, C) of unit length.
    """
    network, device = training.network, next(training.parameters()).device
    was_training = training.training
    training.eval()
    names = ("t", "q", "log_sigma", "rel", "rel_log_sigma", "descriptor")
    rows: dict[str, list[np.ndarray]] = {name: [] for name in names}
    first, last = drive_bounds(data.sequences)
    for start, end in sorted(set(zip(first.tolist(), last.tolist(), strict=True))):
        parts, motions, before = [], [], None
        for at in range(start, end + 1, batch_size):
            images = torch.from_numpy(data.images[at : min(at + batch_size, end + 1)]).permute(0, 3, 1, 2)
            normalized = training.normalize(images.to(device))
            parts.append(network.encoder(normalized))
            if isinstance(network.motion, MotionHead):
                texture = network.motion.features(normalized)
                before = torch.zeros_like(texture[:1]) if before is None else before
                motions.append(
                    network.motion(
                        torch.cat([before, texture[:-1]]), texture, network.motion.inverse_depth(*parts[-1])
                    )
                )
                before = texture[-1:]
        features = Features(*(torch.cat(x) for x in zip(*parts, strict=True)))
        answers = training.objective.answers(network, features)
        descriptor = pooled(features.coarse).float().cpu().numpy()
        rel, rel_log_sigma = answers.rel, answers.rel_log_sigma
        if rel is None or rel_log_sigma is None:
            rel, rel_log_sigma, *_ = (
                torch.cat(x).float().cpu().numpy().astype(np.float64) for x in zip(*motions, strict=True)
            )
        for key, value in zip(
            rows, (answers.t, answers.q, answers.log_sigma, rel, rel_log_sigma, descriptor), strict=True
        ):
            rows[key].append(value)
    training.train(was_training)
    return {key: np.concatenate(value) for key, value in rows.items()}


@dataclass(frozen=True, eq=False)
class Residuals:
    """Errors on known frames, [rotation (rad), translation (m)].

    Attributes:
        absolute_N6: of the absolute poses, in the tangent of each; NaN without an answer.
        motion_M6: of the motions between successive frames of one drive.
        motion_rows: (M,) the later frame of each motion.
    """

    absolute_N6: NDArray[np.float64]
    motion_M6: NDArray[np.float64]
    motion_rows: NDArray[np.int64]


def residuals(outputs: dict[str, np.ndarray], data: PosedImages) -> Residuals:
    """Errors of :func:`predict` on frames with known poses."""
    absolute = [
        (SE3.from_quaternion(t, q).inverse() @ T).log() if np.all(np.isfinite(t)) else np.full(6, np.nan)
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
