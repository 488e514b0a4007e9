"""Global descriptors and the image index."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import yaml
from onnx import TensorProto, helper

from localizer_ros.core.config.mapping import RetrievalConfig
from localizer_ros.core.types import BackendError, ConfigError, SceneError, SourceError
from localizer_ros.features.global_descriptor import WordsDescriptor
from localizer_ros.features.onnx_descriptor import NetworkDescriptor
from localizer_ros.mapping.index_images import index_images, train_global_descriptor
from localizer_ros.scene.image_index import ImageDatabase, ImageIndex


def unit(values: np.ndarray) -> np.ndarray:
    return (values / np.linalg.norm(values, axis=-1, keepdims=True)).astype(np.float32)


def images(rng: np.random.Generator, count: int = 40) -> list[np.ndarray]:
    return [unit(np.abs(rng.normal(size=(120, 32)))) for _ in range(count)]


@pytest.mark.parametrize("kind", ["vlad", "bow"])
def test_an_image_with_other_keypoints_missing_is_still_found(rng: np.random.Generator, kind: str) -> None:
    mapped = images(rng)
    describe = train_global_descriptor(mapped, RetrievalConfig(kind=kind, words=32, dimensions=0), 0)
    index = ImageIndex(len(describe.of(mapped[0])))
    index.add(np.stack([describe.of(d) for d in mapped]))
    for i in (0, 7, 31):
        found, similarity = index.search(describe.of(mapped[i][:80]), 3)
        assert found[0] == i
        assert similarity[0] == similarity.max()
    assert not describe.of(mapped[0][:0]).any()


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
def test_searching_leaves_the_threads_of_pytorch_alone(rng: np.random.Generator, kind: str) -> None:
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
    assert isinstance(describe, WordsDescriptor)
    vectors = np.stack([describe.of(d) for d in mapped])
    assert np.allclose(describe.of_many([*mapped[:3], mapped[0][:0]])[:3], vectors[:3], atol=1e-6)
    for nothing in (describe.of_many([mapped[0][:0]])[0], describe.of(mapped[0][:0])):
        assert nothing.shape == (24,) and not nothing.any()
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


def test_errors_name_what_was_expected(rng: np.random.Generator) -> None:
    with pytest.raises(SourceError, match="expected at least 64"):
        train_global_descriptor([images(rng, 1)[0][:10]], RetrievalConfig(words=64), 0)
    with pytest.raises(ConfigError, match="length 8, got 9"):
        ImageIndex(8).add(np.zeros((1, 9), np.float32))


def network_descriptor(folder: Path, **changes: object) -> Path:
    """A network that averages each colour over the image, minus one half, with its card."""
    graph = helper.make_graph(
        [
            helper.make_node("GlobalAveragePool", ["image"], ["pooled"]),
            helper.make_node("Flatten", ["pooled"], ["descriptor"]),
        ],
        "small",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, "h", "w"])],
        [helper.make_tensor_value_info("descriptor", TensorProto.FLOAT, [1, 3])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(model, folder / "colour.onnx")
    card = {"network": "colour.onnx", "input": "image", "width": 8, "height": 6, "mean": [0.5] * 3}
    card |= {"descriptor": "descriptor", "dimensions": 3, **changes}
    (folder / "card.yaml").write_text(yaml.safe_dump({k: v for k, v in card.items() if v is not None}))
    return folder / "card.yaml"


def test_a_network_describes_images_and_goes_with_the_index(tmp_path: Path) -> None:
    card = network_descriptor(tmp_path / "mine")
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


def test_a_wrong_card_of_a_descriptor_is_named(tmp_path: Path) -> None:
    image = np.zeros((12, 16, 3), np.uint8)
    for changes, message in (
        ({"width": None}, "width and height are needed"),
        ({"mean": 0.5}, "expected three numbers"),
        ({"dimensions": 4}, "length 3, the card says 4"),
        ({"descriptor": "other"}, "other"),
    ):
        with pytest.raises(BackendError, match=message):
            NetworkDescriptor(network_descriptor(tmp_path, **changes)).of(image)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="needs a model card"):
        index_images(
            [], lambda _: image, np.zeros((0, 4, 4)), (), np.arange(0), RetrievalConfig(kind="onnx"), 0
        )


def test_a_graph_is_stored_and_goes_on_growing(rng: np.random.Generator, tmp_path: Path) -> None:
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
