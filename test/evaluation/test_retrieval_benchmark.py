"""Retrieval among synthetic images: what it must count right, and how it may grow."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from localizer_ros.core.types import ConfigError
from localizer_ros.datasets.source import FrameSource
from localizer_ros.evaluation.retrieval_benchmark import retrieval_benchmark, synthetic_descriptors
from localizer_ros.scene.image_index import ImageIndex


def test_synthetic_descriptors_have_mean_and_covariance_of_real_ones(rng: np.random.Generator) -> None:
    real = rng.normal(size=(40, 24)) * np.linspace(0.1, 1.0, 24) + np.linspace(0.0, 1.0, 24)
    real = (real / np.linalg.norm(real, axis=1, keepdims=True)).astype(np.float32)
    made = synthetic_descriptors(real, 20_000, rng)
    assert made.shape == (20_000, 24) and np.allclose(np.linalg.norm(made, axis=1), 1.0, atol=1e-5)
    # The norm takes away a part of the spread; 5 % of one is the error of the mean of 40.
    assert np.abs(made.mean(axis=0) - real.mean(axis=0)).max() < 0.05
    assert np.corrcoef(made.std(axis=0), real.std(axis=0))[0, 1] > 0.98
    # As alike to a real one as real ones are among themselves.
    alike = np.percentile(real[:1] @ made.T, 90), np.percentile(real[:1] @ real[1:].T, 90)
    assert abs(alike[0] - alike[1]) < 0.15


def test_rows_tell_size_kind_and_recall_of_each_index(tiny_map: Path, tiny_source: FrameSource) -> None:
    told: list[tuple[int, int]] = []
    found = retrieval_benchmark(
        tiny_map, tiny_source, (12_000, 1_000), lambda stage, done, total: told.append((done, total))
    )
    small, large = found["sizes"]
    assert (small["images"], small["kind"], large["images"], large["kind"]) == (1_000, "flat", 12_000, "hnsw")
    assert small["recall"] == small["first"] == 1.0
    assert 0.8 < large["recall"] <= 1.0 and large["first"] > 0.9
    for row in (small, large):
        assert 0.0 < row["search_cpu_p50_ms"] < row["retrieval_cpu_p50_ms"]
    assert found["growth"] == pytest.approx(large["retrieval_cpu_p50_ms"] / small["retrieval_cpu_p50_ms"])
    assert found["queries"] == len(tiny_source.records) and told[-1] == (2, 2)


def test_recall_falls_when_an_index_loses_neighbours(
    tiny_map: Path, tiny_source: FrameSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = ImageIndex.search

    def forgetful(self: ImageIndex, descriptor: np.ndarray, k: int) -> object:
        found, similarity = search(self, descriptor, k)
        return (found, similarity) if self.kind == "flat" else (found[1:], similarity[1:])

    monkeypatch.setattr(ImageIndex, "search", forgetful)
    (row,) = retrieval_benchmark(tiny_map, tiny_source, (500,))["sizes"]
    assert row["recall"] == pytest.approx(0.9) and row["first"] == 0.0


def test_scenes_without_index_and_too_small_sizes_are_errors(
    tiny_map: Path, tiny_source: FrameSource, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="no image index"):
        retrieval_benchmark(tmp_path, tiny_source)
    with pytest.raises(ConfigError, match=r"at least the \d+ of the scene, got 10"):
        retrieval_benchmark(tiny_map, tiny_source, (10, 1_000))
