"""What each family of networks is trained for, and how its answers to a sequence are read: one class a family."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from localizer_ros.core.config.training import AnchorsConfig, PosenetConfig
from localizer_ros.geometry.refined_camera import RefinedCamera
from localizer_ros.localization.learned.scene_coordinates import pose_from_coordinates
from localizer_ros.networks.anchors import AnchorHead, AnchorLoss, anchor_pose
from localizer_ros.networks.encoders.layers import Features
from localizer_ros.networks.losses import (
    BalancedLoss,
    BetaLoss,
    LsgLoss,
    MapNetLoss,
    position_distance,
    quaternion_distance,
    reprojection_loss,
    sigma_loss,
)
from localizer_ros.networks.lsg import Lsg
from localizer_ros.networks.motion import MotionHead
from localizer_ros.networks.posenet import PoseNet
from localizer_ros.networks.poses import (
    Pose,
    compose,
    conjugate,
    motion_of_pose,
    pose_residual,
    relative,
    rotate,
)
from localizer_ros.networks.scene_coords import SceneCoordinates
from localizer_ros.networks.scene_network import SceneNetwork

Losses = dict[str, Tensor]


class Observed(NamedTuple):
    """A batch as objectives see it.

    Attributes:
        features: of all frames, (B T) rows, those of a sequence in order.
        inverse_depth_Bhw: of the last frame of each sequence at stride 8, 1 / metres, zero where unknown.
        true: poses ``T_map_cam``, (B, T, 3) and (B, T, 4).
    """

    features: Features
    inverse_depth_Bhw: Tensor
    true: Pose


class Answers(NamedTuple):
    """Absolute poses of N successive frames of one sequence, and motions where the family has its own.

    Attributes:
        t: (N, 3) metres; NaN where there is no answer.
        q: (N, 4) xyzw, not normalised.
        log_sigma: (N, 6) of [rotation (rad), translation (m)].
        rel: (N, 6) motions since the frame before.
        rel_log_sigma: (N, 6).
    """

    t: NDArray[np.float64]
    q: NDArray[np.float64]
    log_sigma: NDArray[np.float64]
    rel: NDArray[np.float64] | None = None
    rel_log_sigma: NDArray[np.float64] | None = None


class Objective(Protocol):
    """Losses and answers of a family.

    Attributes:
        frames: how many of the last frames of a sequence the losses need, 0 = all.
        calibrated_sigma: its sigmas follow from what agrees in the frame at hand, so that they grow by themselves where
            nothing was trained on, and are used as they are.
    """

    frames: int
    calibrated_sigma: bool

    def losses(self, network: SceneNetwork, observed: Observed) -> Losses:
        """Losses by name; ``total`` is the one to minimise. Called with fp32 features, outside autocast."""
        ...

    def answers(self, network: SceneNetwork, features: Features) -> Answers:
        """Answers to the frames of a sequence, in order, as a stream would give them."""
        ...


# The loss of a fixed beta counts in units of this, metres: else the depth, on the same encoder, drowns it.
BETA_LOSS_SIZE_M = 0.05


class PoseObjective(nn.Module):
    """PoseNet: fixed beta (2015), learned sigma (2017), or MapNet's relative term beside the absolute one (2018).

    Args:
        config: which of them.
        expected_m: see :class:`localizer_ros.networks.losses.BalancedLoss`.
    """

    calibrated_sigma = False

    def __init__(self, config: PosenetConfig, expected_m: float) -> None:
        super().__init__()
        self.mapnet = MapNetLoss(expected_m) if config.loss == "mapnet" else None
        self.balance: nn.Module = BetaLoss(config.beta) if config.loss == "beta" else BalancedLoss(expected_m)
        # The paper of 2015 has L2 norms, the one of 2017 L1.
        self.order = 2 if config.loss == "beta" else 1
        self.frames = 0 if config.loss == "mapnet" else 1

    def losses(self, network: SceneNetwork, observed: Observed) -> Losses:
        """See :class:`Objective`."""
        assert isinstance(network, PoseNet)
        shape = observed.true.t.shape[:2]
        t, q, log_sigma = (x.unflatten(0, shape) for x in network.absolute(observed.features.coarse))
        position = position_distance(t, observed.true.t, self.order)
        orientation = quaternion_distance(q, observed.true.q, self.order)
        if self.mapnet is not None:
            total = self.mapnet(Pose(t, q), observed.true)
        else:
            total = self.balance(position, orientation)
            if isinstance(self.balance, BetaLoss):
                total = total / BETA_LOSS_SIZE_M
        total = total + _sigma_loss(Pose(t, q), observed.true, log_sigma)
        return {"total": total, "position": position, "orientation": orientation}

    def answers(self, network: SceneNetwork, features: Features) -> Answers:
        """See :class:`Objective`."""
        assert isinstance(network, PoseNet)
        return _answers(*network.absolute(features.coarse))


# Reprojection errors count in units of this, as errors of motions do, and at most as the other.
REPROJECTION_SIZE_RAD, REPROJECTION_LIMIT_RAD = 0.02, 0.5


class GeometricObjective(nn.Module):
    """PoseNet's fine-tuning by geometry (2017): how far from where they are the predicted pose sees the scene's points.

    Rotation and position weigh by what they do to the image, nothing has to be balanced. From far off it has no
    gradient, so the network must know its poses roughly.
    """

    frames = 1
    calibrated_sigma = False

    def losses(self, network: SceneNetwork, observed: Observed) -> Losses:
        """See :class:`Objective`."""
        assert isinstance(network, PoseNet)
        motion = network.motion
        t, q, log_sigma = network.absolute(observed.features.coarse)
        predicted, true = Pose(t, F.normalize(q, dim=-1)), Pose(*(x[:, -1] for x in observed.true))
        points_BN3, known_BN = _points(motion, true, observed.inverse_depth_Bhw)
        T_cam_refined = _extrinsics(motion, len(t))
        focal_px = motion.intrinsics_4[:2]
        limit_px = REPROJECTION_LIMIT_RAD * float(focal_px[0])
        reprojection_px = reprojection_loss(
            compose(predicted, T_cam_refined),
            compose(true, T_cam_refined),
            points_BN3,
            known_BN,
            focal_px,
            limit_px,
        )
        return {
            "total": reprojection_px / (REPROJECTION_SIZE_RAD * focal_px[0])
            + _sigma_loss(predicted, true, log_sigma),
            "reprojection_px": reprojection_px,
            "position": position_distance(t, true.t, 1),
            "orientation": quaternion_distance(predicted.q, true.q, 1),
        }

    def answers(self, network: SceneNetwork, features: Features) -> Answers:
        """See :class:`Objective`."""
        assert isinstance(network, PoseNet)
        return _answers(*network.absolute(features.coarse))


class AnchorObjective(nn.Module):
    """Anchor points: discovered relevance, or told by cross-entropy."""

    frames = 1
    calibrated_sigma = False

    def __init__(self, config: AnchorsConfig) -> None:
        super().__init__()
        self.loss = AnchorLoss(config.alpha, config.kappa, config.cross_entropy)

    def losses(self, network: SceneNetwork, observed: Observed) -> Losses:
        """See :class:`Objective`."""
        assert isinstance(network, PoseNet) and isinstance(network.absolute, AnchorHead)
        head = network.absolute
        answers = head.answers(observed.features.coarse)
        true = Pose(observed.true.t[:, -1], observed.true.q[:, -1])
        loss = self.loss(answers, head.anchors_t_N3, true.t, true.q)
        t, q, log_sigma = anchor_pose(answers, head.mean)
        return {
            "total": loss + _sigma_loss(Pose(t, q), true, log_sigma),
            "position": position_distance(t, true.t, 1),
            "orientation": quaternion_distance(q, true.q, 1),
        }

    def answers(self, network: SceneNetwork, features: Features) -> Answers:
        """See :class:`Objective`."""
        assert isinstance(network, PoseNet)
        return _answers(*network.absolute(features.coarse))


class LsgObjective(nn.Module):
    """Local Supports Global: absolute poses, motions, and each absolute pose reached from the one before.

    Args:
        expected_m: see :class:`localizer_ros.networks.losses.BalancedLoss`.
    """

    frames = 0
    calibrated_sigma = False

    def __init__(self, expected_m: float) -> None:
        super().__init__()
        self.loss = LsgLoss(expected_m)

    def losses(self, network: SceneNetwork, observed: Observed) -> Losses:
        """See :class:`Objective`."""
        assert isinstance(network, Lsg)
        true = observed.true
        output, _ = network.sequence(observed.features.coarse.unflatten(0, true.t.shape[:2]))
        parts = self.loss(Pose(output.t, output.q), output.rel, true)
        true_motion = motion_of_pose(
            relative(Pose(true.t[:, :-1], true.q[:, :-1]), Pose(true.t[:, 1:], true.q[:, 1:]))
        )
        motion_error = (output.rel[:, 1:] - true_motion).detach()
        pose_sigma = _sigma_loss(Pose(output.t, output.q), true, output.log_sigma)
        motion_sigma = sigma_loss(motion_error, output.rel_log_sigma[:, 1:])
        return {
            "total": parts.absolute + parts.motion + parts.joint + pose_sigma + motion_sigma,
            "position": position_distance(output.t, true.t, 1),
            "orientation": quaternion_distance(F.normalize(output.q, dim=-1), true.q, 1),
            "fused_rotation": motion_error[..., :3].abs().sum(-1).mean(),
            "fused_translation": motion_error[..., 3:].abs().sum(-1).mean(),
        }

    def answers(self, network: SceneNetwork, features: Features) -> Answers:
        """See :class:`Objective`."""
        assert isinstance(network, Lsg)
        output, _ = network.sequence(features.coarse[None])
        # An aligned head measures motion better than the hidden states do.
        own = output if network.motion is None else output[:3]
        return _answers(*(x[0] for x in own))


# Errors of coordinates count by their logarithm beyond these, so that the cells that can be right become right.
SOFT_M, SOFT_PX = 0.05, 4.0


class CoordinateObjective(nn.Module):
    """Scene coordinates: distance to the point that depth and pose give, and reprojection with the true pose.

    Args:
        refined_camera: how the network's image was taken.
    """

    frames = 1
    calibrated_sigma = True

    def __init__(self, refined_camera: RefinedCamera) -> None:
        super().__init__()
        self.refined_camera = refined_camera

    def losses(self, network: SceneNetwork, observed: Observed) -> Losses:
        """See :class:`Objective`."""
        assert isinstance(network, SceneCoordinates)
        points_B3hw, log_sigma = network.coordinates(*observed.features)
        b, _, h, w = points_B3hw.shape
        motion = network.motion
        T_map_cam = Pose(*(x[:, -1] for x in observed.true))
        true, known = _points(motion, T_map_cam, observed.inverse_depth_Bhw)
        T_map_refined = compose(T_map_cam, _extrinsics(motion, b))
        q_refined, t_refined = (x[:, None].expand(b, h * w, -1) for x in (T_map_refined.q, T_map_refined.t))
        points = points_B3hw.flatten(2).transpose(1, 2)
        rays = motion.rays(h, w)
        error_m = torch.linalg.vector_norm(points - true, dim=2)
        seen = rotate(conjugate(q_refined), points - t_refined)
        ahead = seen[..., 2] > 0.1
        projected = seen[..., :2] / torch.where(ahead, seen[..., 2], 1.0)[..., None]
        error_px = torch.linalg.vector_norm((projected - rays[:, :2]) * motion.intrinsics_4[:2], dim=2)
        distance = (torch.log1p(error_m / SOFT_M) * known).sum() / known.sum().clamp_min(1)
        # Black borders of turned views have no depth either: nothing is to be learned from them.
        counted = ahead & known
        reprojection = (torch.log1p(error_px / SOFT_PX) * counted).sum() / counted.sum().clamp_min(1)
        off = (log_sigma.flatten(1) - error_m.detach().clamp_min(1e-3).log()).abs()
        sigma = (off * known).sum() / known.sum().clamp_min(1)
        return {
            "total": distance + reprojection + sigma,
            "distance": distance,
            "reprojection": reprojection,
        }

    def answers(self, network: SceneNetwork, features: Features) -> Answers:
        """See :class:`Objective`."""
        assert isinstance(network, SceneCoordinates)
        points, log_sigma = (x.float().cpu().numpy() for x in network.coordinates(*features))
        n = len(points)
        t, q, pose_log_sigma = np.full((n, 3), np.nan), np.zeros((n, 4)), np.zeros((n, 6))
        q[:, 3] = 1.0
        for row in range(n):
            found = pose_from_coordinates(points[row], log_sigma[row], self.refined_camera)
            if found is not None:
                t[row], q[row] = found.T_map_cam.t, found.T_map_cam.quaternion_xyzw()
                pose_log_sigma[row] = 0.5 * np.log(np.diagonal(found.covariance))
        return Answers(t, q, pose_log_sigma)


def _extrinsics(motion: MotionHead, count: int) -> Pose:
    """``T_cam_refined``, so many times."""
    return Pose(motion.t_cam_refined.expand(count, 3), motion.q_cam_refined.expand(count, 4))


def _points(motion: MotionHead, T_map_cam: Pose, inverse_depth_Bhw: Tensor) -> tuple[Tensor, Tensor]:
    """Map coordinates (B, N, 3) of what each of N cells shows, and (B, N) which of them are known."""
    b, h, w = inverse_depth_Bhw.shape
    T_map_refined = compose(T_map_cam, _extrinsics(motion, b))
    q_refined, t_refined = (x[:, None].expand(b, h * w, -1) for x in (T_map_refined.q, T_map_refined.t))
    inverse_depth = inverse_depth_Bhw.flatten(1)
    known = inverse_depth > 0
    depth = 1.0 / torch.where(known, inverse_depth, motion.inverse_depth_scale)
    return t_refined + rotate(q_refined, motion.rays(h, w) * depth[..., None]), known


def _sigma_loss(pose: Pose, true: Pose, log_sigma: Tensor) -> Tensor:
    with torch.no_grad():
        residual = pose_residual(pose.t, pose.q, true.t, true.q)
    return sigma_loss(residual, log_sigma)


def _answers(*values: Tensor) -> Answers:
    return Answers(*(v.float().cpu().numpy().astype(np.float64) for v in values))
