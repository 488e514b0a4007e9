"""The linear algebra of direct alignment."""

from __future__ import annotations

import torch

from localizer_ros.networks.alignment import inverse_spd


def test_inverse_of_positive_definite_matrices() -> None:
    torch.manual_seed(0)
    half = torch.randn(10, 6, 9, dtype=torch.float64)
    A = half @ half.transpose(1, 2)
    assert torch.allclose(inverse_spd(A) @ A, torch.eye(6, dtype=torch.float64).expand(10, 6, 6), atol=1e-8)
