"""Weights of retrieved images, by similarity and by apparent motion."""

from pathlib import Path

import numpy as np
import pytest
from answer_errors import answer_errors

from localizer_ros.core.se3 import SE3
from localizer_ros.datasets.simulated import SimulatedSource
from localizer_ros.localization.map_based.pose_interpolation import motion_weights
from localizer_ros.localization.map_based.reranking import MatchedImage


def seen(T: SE3, points: np.ndarray) -> np.ndarray:
    p = T.inverse() @ points
    return np.asarray(p[:, :2] / p[:, 2:])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["nearest", "equal", "cosine", "barycentric"])
@pytest.mark.parametrize("rerank", ["auto", "never"])
def test_every_interpolation_answers(
    posed_scenes: dict[str, Path], queries: SimulatedSource, kind: str, rerank: str
) -> None:
    found = answer_errors(
        posed_scenes["retrieval"],
        "retrieval",
        queries,
        interpolation=kind,
        rerank=rerank,
        interpolation_neighbours=4,
    )
    assert len(found) >= len(queries.records) - 1
    assert np.median([t for t, _ in found]) < 0.5


def test_motion_weights_find_the_query_between_and_beyond_the_images(rng: np.random.Generator) -> None:
    points = rng.uniform(-1, 1, (80, 3)) * [2.0, 1.5, 0.3] + [0.0, 0.0, 3.0]
    along = [0.0, 0.02, 0.05, 0.01, 0.1, 0.0]
    for position in (0.4, 1.6):
        query = seen(SE3.exp(np.multiply(along, position)), points)
        images = [
            MatchedImage(n, query, seen(SE3.exp(np.multiply(along, at)), points))
            for n, at in enumerate((0.0, 1.0))
        ]
        weights = motion_weights(images, np.array([0.7, 0.5]))
        assert weights.sum() == pytest.approx(1.0)
        # Affine motion is a model: it holds to a few percent of the distance here.
        assert weights @ [0.0, 1.0] == pytest.approx(position, abs=0.12)


def test_an_image_with_few_matches_weighs_less(rng: np.random.Generator) -> None:
    points = rng.uniform(-1, 1, (200, 3)) * [2.0, 1.5, 0.3] + [0.0, 0.0, 3.0]
    query, left, right = (seen(SE3.exp([0, 0, 0, x, 0, 0]), points) for x in (0.0, -0.1, 0.1))
    few = motion_weights(
        [MatchedImage(0, query[:4], left[:4]), MatchedImage(1, query, right)], np.array([0.7, 0.5])
    )
    many = motion_weights([MatchedImage(0, query, left), MatchedImage(1, query, right)], np.array([0.7, 0.5]))
    assert few[0] < many[0] == pytest.approx(0.5, abs=0.05)
