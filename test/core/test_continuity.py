"""Whether a stream of poses goes on, or has jumped."""

from __future__ import annotations

import numpy as np
import pytest

from localizer_ros.core.continuity import jump
from localizer_ros.core.se3 import SE3


def samples(step: SE3, period_s: float, count: int, jitter_s: float = 0.0) -> list[tuple[int, SE3]]:
    rng = np.random.default_rng(1)
    T, made = SE3.exp([0.0, 0.0, 1.0, 5.0, 2.0, 0.0]), []
    for index in range(count):
        made.append((round(1e9 * (index * period_s + rng.uniform(0.0, jitter_s))), T))
        T = T @ step
    return made


@pytest.mark.parametrize("period_s", [0.005, 0.02, 0.1])
@pytest.mark.parametrize("speed", [[0, 0, 0.0, 0, 0, 0], [0, 0, 2.0, 1.5, 0, 0], [0.5, 0, 0, 15.0, 0, 0]])
def test_what_moves_evenly_never_jumps_also_when_stamps_jitter(period_s: float, speed: list[float]) -> None:
    step = SE3.exp(np.multiply(speed, period_s))
    made = samples(step, period_s, 100, jitter_s=0.2 * period_s)
    assert [i for i in range(100) if jump(made[:i], *made[i])] == []


def test_hard_braking_is_no_jump() -> None:
    made = samples(SE3.exp([0, 0, 0, 0.04, 0, 0]), 0.02, 20)  # 2 m/s
    stands = made[-1][1]
    assert jump(made, made[-1][0] + 20_000_000, stands) is None


@pytest.mark.parametrize("to", [[0, 0, 0, 0.3, 0, 0], [0, 0, 0.5, 0, 0, 0], [0, 0, 0, -5.0, 2.0, 0]])
def test_a_step_that_no_robot_can_make_is_a_jump(to: list[float]) -> None:
    made = samples(SE3.exp([0, 0, 0, 0.01, 0, 0]), 0.02, 20)
    T = made[-1][1] @ SE3.exp([0, 0, 0, 0.01, 0, 0])
    found = jump(made, made[-1][0] + 20_000_000, T @ SE3.exp(to))
    assert found is not None
    assert found[0] == pytest.approx(np.linalg.norm(SE3.exp(to).t), abs=1e-6)


def test_a_first_sample_is_no_jump() -> None:
    assert jump([], 5, SE3.identity()) is None
