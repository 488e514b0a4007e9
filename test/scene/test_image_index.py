"""The index of mapping images."""

from pathlib import Path

import numpy as np
import pytest
import torch
from small_networks import small_descriptor

from localizer_ros.core.config.mapping import RetrievalConfig
from localizer_ros.core.types import ConfigError, SceneError
from localizer_ros.features.global_descriptor import WordsDescriptor
from localizer_ros.mapping.index_images import index_images, train_global_descriptor
from localizer_ros.scene.image_index import ImageDatabase, ImageIndex


def unit(values: np.ndarray) -> np.ndarray:
    return (values / np.linalg.norm(values, axis=-1, keepdims=True)).astype(np.float32)


def images(rng: np.random.Generator, count: int = 40) -> list[np.ndarray]:
    return [unit(np.abs(rng.normal(size=(120, 32)))) for _ in range(count)]


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


@pytest.mark.parametrize("kind", ["flat", "hnsw", "ivf"])
def test_searching_does_not_change_the_threads_of_pytorch(rng: np.random.Generator, kind: str) -> None:
    # They share OpenMP: once set for a search, networks of the same process trained on one core.
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        vectors = unit(rng.normal(size=(300, 16)))
        index = ImageIndex(16, kind)
        index.add(vectors)
        assert index.search(vectors[5], 1)[0][0] == 5
        train_global_descriptor(images(rng, 5), RetrievalConfig(words=8), 0)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_auto_becomes_a_graph_beyond_ten_thousand_images(rng: np.random.Generator) -> None:
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
    assert isinstance(describe, WordsDescriptor)
    vectors = np.stack([describe.of(d) for d in mapped])
    index = ImageIndex(24)
    index.add(vectors)
    poses, names = np.tile(np.eye(4), (40, 1, 1)), tuple(f"{i}.png" for i in range(40))
    made = ImageDatabase(index, describe, poses, names, np.arange(40, dtype=np.int32))
    assert made.save(tmp_path) == sum(file.stat().st_size for file in tmp_path.iterdir())
    database = ImageDatabase.load(tmp_path)
    assert database.names[3] == "3.png"
    query = database.descriptor(np.zeros((9, 9), np.uint8), mapped[5])
    assert database.index.search(query, 1)[0][0] == 5
    (tmp_path / "images.npz").write_bytes(b"nothing")
    with pytest.raises(SceneError, match=r"images\.npz"):
        ImageDatabase.load(tmp_path)


def test_a_descriptor_of_another_length_is_an_error() -> None:
    with pytest.raises(ConfigError, match="length 8, got 9"):
        ImageIndex(8).add(np.zeros((1, 9), np.float32))


def test_a_network_describes_images_and_goes_with_the_index(tmp_path: Path) -> None:
    card = small_descriptor(tmp_path / "mine")
    colours = [np.full((12, 16, 3), c, np.uint8) for c in ((250, 10, 10), (10, 250, 10), (10, 10, 250))]
    config = RetrievalConfig(kind="onnx", card=str(card))
    local = [np.zeros((0, 8), np.float32)] * 3
    T = np.tile(np.eye(4), (3, 1, 1))
    index_images(local, colours.__getitem__, T, ("r", "g", "b"), np.arange(2), config, 0).save(
        tmp_path / "index"
    )
    card.unlink()
    database = ImageDatabase.load(tmp_path / "index")
    assert database.keyframe.tolist() == [0, 1, -1]
    assert "colour.onnx" in database.descriptor.summary
    for n, image in enumerate(colours):
        query = database.descriptor(image // 2 + 64, local[0])
        assert np.linalg.norm(query) == pytest.approx(1.0, abs=1e-5)
        assert database.index.search(query, 1)[0][0] == n
    grey = np.full((12, 16), 200, np.uint8)
    assert np.allclose(database.descriptor(grey, local[0]), 1 / np.sqrt(3), atol=1e-3)


def test_a_stored_graph_can_be_added_to(rng: np.random.Generator, tmp_path: Path) -> None:
    vectors = unit(rng.normal(size=(400, 24)))
    index = ImageIndex(24, "hnsw")
    index.add(vectors[:300])
    describe = train_global_descriptor(images(rng), RetrievalConfig(words=16, dimensions=24), 0)
    T, names = np.tile(np.eye(4), (300, 1, 1)), tuple(map(str, range(300)))
    ImageDatabase(index, describe, T, names, np.arange(300, dtype=np.int32)).save(tmp_path)
    assert (tmp_path / "graph.faiss").is_file()
    again = ImageDatabase.load(tmp_path).index
    assert again.search_kind == "hnsw" and len(again) == 300
    again.add(vectors[300:])
    for n in (5, 299, 350, 399):
        assert again.search(vectors[n], 1)[0][0] == n
    graph = tmp_path / "graph.faiss"
    graph.write_bytes(graph.read_bytes()[:100])
    with pytest.raises(SceneError, match=r"graph\.faiss"):
        ImageDatabase.load(tmp_path)
