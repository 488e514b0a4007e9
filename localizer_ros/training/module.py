"""A network in training: the losses of a batch."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from localizer_ros.networks.encoders.layers import IMAGENET_MEAN, IMAGENET_STD, Encoder, Features
from localizer_ros.networks.losses import sigma_loss
from localizer_ros.networks.motion import MotionHead
from localizer_ros.networks.poses import Pose
from localizer_ros.networks.scene_network import SceneNetwork
from localizer_ros.training.objectives import Objective, Observed
from localizer_ros.training.train import Trainee

# Radians and metres: beyond this a motion is lost, and its error says nothing more in the training log.
LOST_MOTION = 0.1
# One in so many sequences is aligned while training: depth, which has labels, is what the motion head has to learn.
MOTION_SHARE = 4


class NetworkTraining(Trainee):
    """Network and losses in one module, so that data-parallel wrapping sees one forward.

    Args:
        network: what is trained.
        objective: what its absolute branch is trained for.
    """

    def __init__(self, network: SceneNetwork, objective: Objective) -> None:
        super().__init__()
        self.network, self.objective = network, objective
        self.normalize = Normalize(IMAGENET_MEAN, IMAGENET_STD)

    @property
    def encoder(self) -> Encoder:
        """The network's encoder."""
        return self.network.encoder

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
        head = self.network.motion
        # Of depth a percent is enough, but poses need more digits than half precision has; their heads are small.
        inverse_depth = None if head is None else head.inverse_depth(*last).float()
        with torch.autocast(true.t.device.type, enabled=False):
            features = Features(*(x.float() for x in features))
            losses = self.objective.losses(self.network, Observed(features, true_inverse_depth, true))
            if head is not None and inverse_depth is not None:
                losses.update(self._motion_losses(head, inverse_depth, true_inverse_depth, batch))
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
    """uint8 images (B, 3, h, w) to network input.

    Args:
        mean: RGB mean of the 0..1 input.
        std: RGB standard deviation of the 0..1 input.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: tuple[float, float, float], std: tuple[float, float, float]) -> None:
        super().__init__()
        self.register_buffer("mean", 255.0 * torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", 255.0 * torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def forward(self, image_B3HW: Tensor) -> Tensor:
        return ((image_B3HW.float() - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
