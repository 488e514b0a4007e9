"""The refined camera survives a model card, and says when that is malformed."""

from __future__ import annotations

import numpy as np
import pytest

from localizer_ros.core.se3 import SE3
from localizer_ros.geometry.refined_camera import RefinedCamera

K = np.array([[210.0, 0.3, 126.0], [0.0, 208.0, 97.0], [0.0, 0.0, 1.0]])


def test_a_refined_camera_survives_its_plain_values(rng: np.random.Generator) -> None:
    camera = RefinedCamera(K, SE3.exp(rng.normal(0.0, 0.3, 6)))
    again = RefinedCamera.from_dict(camera.to_dict())
    np.testing.assert_array_equal(again.K, K)
    np.testing.assert_allclose(again.T_cam_refined.matrix(), camera.T_cam_refined.matrix(), atol=1e-15)


@pytest.mark.parametrize(("name", "error"), [("K", ValueError), ("t_cam_refined", ValueError)])
def test_malformed_values_are_an_error(name: str, error: type[Exception]) -> None:
    values = RefinedCamera(K, SE3.identity()).to_dict()
    with pytest.raises(error):
        RefinedCamera.from_dict({**values, name: [1.0]})
    with pytest.raises(KeyError, match=name):
        RefinedCamera.from_dict({key: value for key, value in values.items() if key != name})
