"""Global descriptors and the image index."""

from pathlib import Path

import numpy as np
import pytest

from localizer_ros.core.config import RetrievalConfig
from localizer_ros.core.types import ConfigError, SceneError, SourceError
from localizer_ros.localization.retrieval import GlobalDescriptor, ImageDatabase, ImageIndex
from localizer_ros.mapping.retrieval import train_global_descriptor


def unit(values: np.ndarray) -> np.ndarray:
    return (values / np.linalg.norm(values, axis=-1, keepdims=True)).astype(np.float32)


def images(rng: np.random.Generator, count: int = 40) -> list[np.ndarray]:
    return [unit(np.abs(rng.normal(size=(120, 32)))) for _ in range(count)]


@pytest.mark.parametrize("kind", ["vlad", "bow"])
def test_an_image_with_other_keypoints_missing_is_still_found(rng: np.random.Generator, kind: str) -> None:
    mapped = images(rng)
    describe = train_global_descriptor(mapped, RetrievalConfig(kind=kind, words=32, dimensions=0), 0)
    index = ImageIndex(len(describe(mapped[0])))
    index.add(np.stack([describe(d) for d in mapped]))
    for i in (0, 7, 31):
        found, similarity = index.search(describe(mapped[i][:80]), 3)
        assert found[0] == i
        assert similarity[0] == similarity.max()
    assert not describe(mapped[0][:0]).any()


@pytest.mark.parametrize("kind", ["hnsw", "ivf"])
def test_approximate_indices_agree_with_exact_search(rng: np.random.Generator, kind: str) -> None:
    centres = unit(rng.normal(size=(100, 64)))
    vectors = unit(np.repeat(centres, 20, axis=0) + 0.05 * rng.normal(size=(2000, 64)))
    exact, approximate = ImageIndex(64, "flat"), ImageIndex(64, kind)
    for part in np.array_split(vectors, 5):  # inserted bit by bit
        exact.add(part)
        approximate.add(part)
    agree = 0
    for query in unit(centres[:50] + 0.05 * rng.normal(size=(50, 64))):
        agree += len(set(exact.search(query, 10)[0]) & set(approximate.search(query, 10)[0]))
    assert agree > 0.85 * 500


def test_auto_changes_to_a_graph_when_it_grows(rng: np.random.Generator) -> None:
    index = ImageIndex(16, "auto")
    first = unit(rng.normal(size=(5_000, 16)))
    index.add(first)
    assert type(index._index).__name__ == "IndexFlatIP"
    index.add(unit(rng.normal(size=(5_500, 16))))
    assert "HNSW" in type(index._index).__name__
    assert index.search(first[17], 1)[0][0] == 17


def test_database_round_trip_and_damage(rng: np.random.Generator, tmp_path: Path) -> None:
    mapped = images(rng)
    describe = train_global_descriptor(mapped, RetrievalConfig(words=16, dimensions=24), 0)
    assert isinstance(describe, GlobalDescriptor)
    vectors = np.stack([describe(d) for d in mapped])
    assert np.allclose(describe.many([*mapped[:3], mapped[0][:0]])[:3], vectors[:3], atol=1e-6)
    for nothing in (describe.many([mapped[0][:0]])[0], describe(mapped[0][:0])):
        assert nothing.shape == (24,) and not nothing.any()
    index = ImageIndex(24)
    index.add(vectors)
    describe.save(tmp_path)
    index.save(
        tmp_path,
        np.tile(np.eye(4), (40, 1, 1)),
        tuple(f"{i}.png" for i in range(40)),
        np.arange(40, dtype=np.int32),
    )
    database = ImageDatabase.load(tmp_path)
    assert database.names[3] == "3.png"
    assert database.index.search(database.describe(mapped[5]), 1)[0][0] == 5
    (tmp_path / "images.npz").write_bytes(b"nothing")
    with pytest.raises(SceneError, match=r"images\.npz"):
        ImageDatabase.load(tmp_path)


def test_errors_name_what_was_expected(rng: np.random.Generator) -> None:
    with pytest.raises(SourceError, match="expected at least 64"):
        train_global_descriptor([images(rng, 1)[0][:10]], RetrievalConfig(words=64), 0)
    with pytest.raises(ConfigError, match="length 8, got 9"):
        ImageIndex(8).add(np.zeros((1, 9), np.float32))
