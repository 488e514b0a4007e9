"""A drive's odometry and what its images say of pairs of views, in one pose graph: where loops close, drift is spread.

Two images tell how the camera turned between them and in which direction it moved, not how far; odometry tells how far.
A view that was recognised wrongly contradicts all others: a Cauchy kernel that is narrowed step by step lets it go.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import gtsam
import numpy as np

from localizer_ros.core.se3 import SE3

# Odometry between two views: shares of the way and of the turn, and what a moving robot sways beside (m, rad).
_WAY_SHARE, _TURN_SHARE = 0.03, 0.03
_SWAY_M, _SWAY_RAD = 0.003, np.radians(0.3)
# Widths of the kernel in sigmas, from what a drift of minutes makes of a right loop down to what noise makes of it.
_KERNELS = (300.0, 60.0, 15.0, 4.0)
# A graph of thousands of poses takes seconds an iteration and needs few.
_ITERATIONS = 30
_FIXED = 1e-6


@dataclass(frozen=True, slots=True, eq=False)
class SeenMove:
    """What two images say of the move between them.

    Attributes:
        a, b: numbers of the views.
        T_a_b: pose of b in a, its translation of length one.
        sigma_rad: of the rotation.
        direction_sigma_rad: of the direction of the translation; large where the views hardly moved apart.
    """

    a: int
    b: int
    T_a_b: SE3
    sigma_rad: float
    direction_sigma_rad: float


def optimised(odometry: Sequence[SE3], seen: Sequence[SeenMove]) -> list[SE3]:
    """Poses of all views that agree best with odometry from each to the next and with the moves that were seen.

    Args:
        odometry: pose of each view by odometry, in order of time; the first one stays.
        seen: moves between them.
    """
    values = gtsam.Values()
    for i, T in enumerate(odometry):
        values.insert(i, _pose(T))
    fixed = gtsam.noiseModel.Isotropic.Sigma(6, _FIXED)
    for kernel in _KERNELS:
        graph = gtsam.NonlinearFactorGraph()
        graph.add(gtsam.PriorFactorPose3(0, _pose(odometry[0]), fixed))
        for i, (T_a, T_b) in enumerate(itertools.pairwise(odometry)):
            graph.add(_driven(i, T_a.inverse() @ T_b))
        for move in seen:
            graph.add(_constraint(move, kernel))
        parameters = gtsam.LevenbergMarquardtParams()
        parameters.setMaxIterations(_ITERATIONS)
        parameters.setRelativeErrorTol(1e-4)
        values = gtsam.LevenbergMarquardtOptimizer(graph, values, parameters).optimize()
    return [SE3.from_matrix(values.atPose3(i).matrix()) for i in range(len(odometry))]


def _driven(i: int, T_a_b: SE3) -> gtsam.BetweenFactorPose3:
    turn, way = float(np.linalg.norm(T_a_b.log()[:3])), float(np.linalg.norm(T_a_b.t))
    sigma_rad, sigma_m = np.hypot(_SWAY_RAD, _TURN_SHARE * turn), np.hypot(_SWAY_M, _WAY_SHARE * way)
    noise = gtsam.noiseModel.Diagonal.Sigmas(np.array([sigma_rad] * 3 + [sigma_m] * 3))
    return gtsam.BetweenFactorPose3(i, i + 1, _pose(T_a_b), noise)


def _constraint(move: SeenMove, kernel: float) -> gtsam.EssentialMatrixConstraint:
    sigmas = np.array([move.sigma_rad] * 3 + [move.direction_sigma_rad] * 2)
    noise = gtsam.noiseModel.Robust.Create(
        gtsam.noiseModel.mEstimator.Cauchy.Create(kernel), gtsam.noiseModel.Diagonal.Sigmas(sigmas)
    )
    essential = gtsam.EssentialMatrix(gtsam.Rot3(move.T_a_b.R), gtsam.Unit3(move.T_a_b.t))
    return gtsam.EssentialMatrixConstraint(move.a, move.b, essential, noise)


def _pose(T: SE3) -> gtsam.Pose3:
    return gtsam.Pose3(T.matrix())
