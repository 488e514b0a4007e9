"""Errors of a method's answers to the frames of a recording."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from localizer_ros.core.config.map_based import SearchConfig
from localizer_ros.core.config.runtime import LocalizerConfig
from localizer_ros.core.config.schema import config_from_dict
from localizer_ros.datasets.source import FrameSource
from localizer_ros.localization.map_based.front_end import open_map_front_end


def answer_errors(
    scene: Path, method: str, queries: FrameSource, **settings: object
) -> list[tuple[float, float]]:
    """Metres and degrees of every answered frame, each for itself."""
    config = LocalizerConfig(search=config_from_dict(SearchConfig, settings))
    front_end = open_map_front_end(scene, method, config)
    found = []
    for index, record in enumerate(queries.records):
        observation = front_end.observe(queries.read(index), None)
        answer, truth = observation.absolute, record.T_map_cam
        assert answer is not None or observation.reason
        if answer is not None and truth is not None:
            assert answer.source == method and answer.covariance is not None
            assert np.linalg.eigvalsh(answer.covariance)[0] > 0.0
            found.append(
                (truth.distance_to(answer.T_map_cam), float(np.degrees(truth.angle_to(answer.T_map_cam))))
            )
    return found
