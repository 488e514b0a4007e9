"""What a network answers to frames with known poses, how far off it is, and one score of that."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray

from localizer_ros.core.se3 import SE3
from localizer_ros.networks.descriptor import pooled
from localizer_ros.networks.encoders.layers import Features
from localizer_ros.networks.motion import MotionHead
from localizer_ros.training.data import PosedImages, motion_vector, whole_sequences
from localizer_ros.training.module import NetworkTraining

# What an unanswered frame of the validation part counts as: far off, but not so far that one decides.
FAR_M, FAR_DEG = 2.0, 60.0


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a network answers to N frames, those of each sequence in order, as a stream gives them.

    Attributes:
        t: (N, 3) metres; NaN without an answer.
        q: (N, 4) xyzw, not normalised.
        log_sigma: (N, 6) of [rotation (rad), translation (m)].
        rel: (N, 6) motion from the frame before, without meaning for the first frame of a sequence.
        rel_log_sigma: (N, 6) of the same.
        descriptor: (N, C) of unit length.
    """

    t: NDArray[np.float64]
    q: NDArray[np.float64]
    log_sigma: NDArray[np.float64]
    rel: NDArray[np.float64]
    rel_log_sigma: NDArray[np.float64]
    descriptor: NDArray[np.float32]


@torch.no_grad()
def predict(training: NetworkTraining, data: PosedImages, batch_size: int = 32) -> Predictions:
    """Answers to all frames of ``data``."""
    was_training = training.training
    training.eval()
    parts = [
        _predict_sequence(training, data, *bounds, batch_size) for bounds in whole_sequences(data.sequences)
    ]
    training.train(was_training)
    names = [field.name for field in fields(Predictions)]
    return Predictions(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def _predict_sequence(
    training: NetworkTraining, data: PosedImages, start: int, end: int, batch_size: int
) -> Predictions:
    network, device = training.network, next(training.parameters()).device
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
    return Predictions(answers.t, answers.q, answers.log_sigma, rel, rel_log_sigma, descriptor)


@dataclass(frozen=True, eq=False)
class Residuals:
    """Errors on known frames, [rotation (rad), translation (m)].

    Attributes:
        absolute_N6: of the absolute poses, in the tangent of each; NaN without an answer.
        motion_M6: of the motions between successive frames of one sequence.
        motion_rows: (M,) the later frame of each motion.
    """

    absolute_N6: NDArray[np.float64]
    motion_M6: NDArray[np.float64]
    motion_rows: NDArray[np.int64]


def residuals(predicted: Predictions, data: PosedImages) -> Residuals:
    """Errors of :func:`predict` on frames with known poses."""
    absolute = [
        (SE3.from_quaternion(t, q).inverse() @ T).log() if np.all(np.isfinite(t)) else np.full(6, np.nan)
        for t, q, T in zip(predicted.t, predicted.q, data.poses, strict=True)
    ]
    rows = np.flatnonzero(np.diff(data.sequences) == 0) + 1
    motions = [motion_vector(data.poses[row - 1], data.poses[row]) - predicted.rel[row] for row in rows]
    return Residuals(np.array(absolute), np.array(motions).reshape(-1, 6), rows)


def added_motions(
    rel_N6: NDArray[np.float64], rel_log_sigma_N6: NDArray[np.float64], data: PosedImages, window: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Errors of motions added up over ``window`` frames, and their variances added up as if independent; (W, 6) each.

    Windows do not overlap by more than half; a sequence shorter than the window counts as one.
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
                w, v = rel_N6[row, :3], rel_N6[row, 3:]
                T = T @ SE3(SE3.exp(np.concatenate([w, np.zeros(3)])).R, v)
            true = motion_vector(data.poses[first], data.poses[first + length])
            errors.append(true - motion_vector(SE3.identity(), T))
            variances.append(np.exp(2.0 * rel_log_sigma_N6[first + 1 : first + length + 1]).sum(0))
    return np.array(errors).reshape(-1, 6), np.array(variances).reshape(-1, 6)


def accuracy(predicted: Predictions, data: PosedImages) -> dict[str, float]:
    """Figures of :func:`predict` on frames with known poses: ``answered``, a share, ``median_t_m``, ``median_r_deg``,
    and, where there are motions, ``vo_t_m`` and ``vo_r_deg``, their mean errors; ``score`` is smaller where the
    network is better."""
    errors = residuals(predicted, data)
    errors_m = np.linalg.norm(errors.absolute_N6[:, 3:], axis=1)
    errors_deg = np.degrees(np.linalg.norm(errors.absolute_N6[:, :3], axis=1))
    answered = np.isfinite(errors_m)
    # No answer counts as far off, so that a network is not kept for saying little.
    errors_m, errors_deg = np.where(answered, errors_m, FAR_M), np.where(answered, errors_deg, FAR_DEG)
    figures = {
        "answered": float(answered.mean()),
        "median_t_m": float(np.median(errors_m)),
        "median_r_deg": float(np.median(errors_deg)),
        # Twice as good in one of the two counts the same, whatever the scene's size. Means, as the median of a small
        # validation part jumps from one epoch to the next.
        "score": float(np.log(np.mean(errors_m)) + np.log(np.mean(errors_deg))),
    }
    if len(errors.motion_M6):
        figures["vo_t_m"] = float(np.mean(np.linalg.norm(errors.motion_M6[:, 3:], axis=1)))
        figures["vo_r_deg"] = float(np.degrees(np.mean(np.linalg.norm(errors.motion_M6[:, :3], axis=1))))
    return figures
