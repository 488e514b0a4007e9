"""Global descriptors of visual words."""

import numpy as np
import pytest

from localizer_ros.core.config.mapping import RetrievalConfig
from localizer_ros.core.types import SourceError
from localizer_ros.features.global_descriptor import WordsDescriptor
from localizer_ros.mapping.index_images import train_global_descriptor
from localizer_ros.scene.image_index import ImageIndex


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


@pytest.mark.parametrize("dimensions", [0, 24])
def test_many_images_are_described_as_each_by_itself(rng: np.random.Generator, dimensions: int) -> None:
    mapped = images(rng)
    describe = train_global_descriptor(mapped, RetrievalConfig(words=16, dimensions=dimensions), 0)
    assert isinstance(describe, WordsDescriptor) and "16 words" in describe.summary
    each = np.stack([describe.of(local) for local in mapped[:3]])
    assert np.allclose(describe.of_many([*mapped[:3], mapped[0][:0]])[:3], each, atol=1e-6)
    for nothing in (describe.of_many([mapped[0][:0]])[0], describe.of(mapped[0][:0])):
        assert nothing.shape == each[0].shape and not nothing.any()
    assert np.array_equal(describe(np.zeros((4, 4), np.uint8), mapped[0]), each[0])


def test_fewer_features_than_words_are_an_error(rng: np.random.Generator) -> None:
    with pytest.raises(SourceError, match="expected at least 64"):
        train_global_descriptor([images(rng, 1)[0][:10]], RetrievalConfig(words=64), 0)
