"""Whether a stream of poses goes on, or has jumped: an odometry that was reset, or whose origin was moved."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from localizer_ros.core.se3 import SE3

# No robot accelerates harder than this, 3 g and a turn from rest to 2 pi rad/s in 60 ms: a stream that does has jumped.
_ACCELERATION_M_S2, _ACCELERATION_RAD_S2 = 30.0, 100.0
# Noise of one sample, and of its stamp: smaller steps are let through, they do little harm.
_NOISE_M, _NOISE_RAD = 0.05, np.radians(5.0)
# Stamps jitter: the motion since the last sample may be off by so much of itself.
_JITTER = 0.5
# Samples over which the velocity is taken: stamps of single ones jitter.
OVER_SAMPLES = 5


def jump(samples: Sequence[tuple[int, SE3]], stamp_ns: int, T: SE3) -> tuple[float, float] | None:
    """Metres and radians between a new pose of a stream and where its motion would have put it; None where the stream
    goes on.

    With fewer than two samples nothing is known of its motion, and it goes on.

    Args:
        samples: stamps and poses so far, oldest first.
        stamp_ns: of the new one, later than all.
        T: the new one.
    """
    if len(samples) < 2:
        return None
    last_ns, T_last = samples[-1]
    first_ns, T_first = samples[-min(OVER_SAMPLES, len(samples))]
    elapsed_s = (stamp_ns - last_ns) * 1e-9
    share = (stamp_ns - last_ns) / max(last_ns - first_ns, 1)
    step = SE3.exp((T_first.inverse() @ T_last).log() * share)
    moved = (T_last @ step).inverse() @ T
    distance_m, angle_rad = float(np.linalg.norm(moved.t)), moved.angle_to(SE3.identity())
    most_m = _NOISE_M + _JITTER * float(np.linalg.norm(step.t)) + 0.5 * _ACCELERATION_M_S2 * elapsed_s**2
    most_rad = (
        _NOISE_RAD + _JITTER * step.angle_to(SE3.identity()) + 0.5 * _ACCELERATION_RAD_S2 * elapsed_s**2
    )
    return (distance_m, angle_rad) if distance_m > most_m or angle_rad > most_rad else None
