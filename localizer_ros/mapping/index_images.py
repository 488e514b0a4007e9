"""Training of global descriptors on a scene's own images, and the index of these."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import faiss
import numpy as np

from localizer_ros.core.config.mapping import RetrievalConfig, StructureConfig
from localizer_ros.core.progress import Progress
from localizer_ros.core.types import Array, Float32, Index, SourceError, UInt8
from localizer_ros.datasets.source import FrameSource
from localizer_ros.features.global_descriptor import GlobalDescriptor, WordsDescriptor
from localizer_ros.features.onnx_descriptor import open_network_descriptor
from localizer_ros.mapping.feature_store import FeatureStore
from localizer_ros.mapping.keyframes import Keyframes
from localizer_ros.scene.image_index import ImageDatabase, ImageIndex, one_thread

# Descriptors that words are trained on: enough for a few hundred words; more only takes time.
_SAMPLE = 60_000


def train_global_descriptor(
    descriptors: Sequence[Float32], config: RetrievalConfig, seed: int
) -> WordsDescriptor:
    """Visual words and projection, trained on the local descriptors of the keyframes.

    Args:
        descriptors: for each image (N, D) float32 unit vectors.
        config: which kind (``vlad`` or ``bow``), how many words and dimensions.
        seed: of sampling and clustering.

    Raises:
        SourceError: fewer descriptors than words.
    """
    kind: Literal["vlad", "bow"] = "bow" if config.kind == "bow" else "vlad"
    rng = np.random.default_rng(seed)
    everything = np.concatenate(list(descriptors)) if descriptors else np.zeros((0, 1), np.float32)
    if len(everything) < config.words:
        raise SourceError(
            f"retrieval: {len(everything)} features in all mapping images, expected at least {config.words}"
        )
    if len(everything) > _SAMPLE:
        everything = everything[rng.choice(len(everything), _SAMPLE, replace=False)]
    kmeans = faiss.Kmeans(
        everything.shape[1], config.words, niter=15, seed=seed, min_points_per_centroid=1, verbose=False
    )
    with one_thread():
        kmeans.train(np.ascontiguousarray(everything))
    words = np.asarray(kmeans.centroids, dtype=np.float32).reshape(config.words, -1)
    none = np.zeros(0, dtype=np.float32)
    describe = WordsDescriptor(kind, words, np.ones(config.words, np.float32), none, none)
    full = np.stack([describe.unprojected(d) for d in descriptors])
    if kind == "bow":
        frequency = np.count_nonzero(full, axis=0)
        weight = np.log((1.0 + len(full)) / (1.0 + frequency)).astype(np.float32) + 0.1
        describe = WordsDescriptor("bow", words, weight, none, none)
        full = np.stack([describe.unprojected(d) for d in descriptors])
    dimensions = min(config.dimensions, len(full) - 1)
    if config.dimensions == 0 or dimensions < 8 or dimensions >= full.shape[1]:
        return describe
    mean = full.mean(axis=0)
    _, _, axes = np.linalg.svd(full - mean, full_matrices=False)
    return WordsDescriptor(kind, words, describe.word_weight, mean, np.ascontiguousarray(axes[:dimensions].T))


def describe_images(
    descriptors: Sequence[Float32],
    read: Callable[[int], UInt8],
    training: Index,
    config: RetrievalConfig,
    seed: int,
) -> tuple[GlobalDescriptor, Float32]:
    """A global descriptor, trained where it is to be trained, and those of all images.

    Args:
        descriptors: for each image (N, D) float32 unit vectors.
        read: the k-th image itself, for a network.
        training: the images that visual words are trained on.
        config: which kind.
        seed: of sampling and clustering.

    Raises:
        ConfigError: kind onnx without a card.
        BackendError: its network cannot be used.
        SourceError: fewer descriptors than words.
    """
    if config.kind == "onnx":
        network = open_network_descriptor(config.card)
        return network, np.stack([network.of(read(k)) for k in range(len(descriptors))])
    describe = train_global_descriptor([descriptors[k] for k in training], config, seed)
    return describe, describe.of_many(descriptors)


def index_recording(
    source: FrameSource,
    store: FeatureStore,
    keyframes: Keyframes,
    config: StructureConfig,
    fine: bool,
    progress: Progress,
) -> ImageDatabase:
    """The index of the views of a recording; see :func:`index_images`.

    Args:
        source: the recording.
        store: of its features.
        keyframes: its views, and the keyframes among them.
        config: kind of descriptor and index, and the seed.
        fine: the features of keyframes are fine ones, of which the coarse ones are taken.
        progress: told as it goes.
    """
    views = keyframes.views
    images = [keyframes.posed[k] for k in views]
    progress("retrieval", 0, len(images))
    chosen = set(keyframes.images)
    coarse = [store.features(i, fine and i in chosen) for i in images]
    return index_images(
        [f.descriptors[f.coarse] for f in coarse],
        lambda k: source.read(images[k]).image,
        keyframes.T_map_cam[views],
        tuple(keyframes.names[k] for k in views),
        np.searchsorted(views, keyframes.chosen),
        config.retrieval,
        config.seed,
    )


def index_images(
    descriptors: Sequence[Float32],
    read: Callable[[int], UInt8],
    T_map_cam: Array,
    names: tuple[str, ...],
    keyframes: Index,
    config: RetrievalConfig,
    seed: int,
) -> ImageDatabase:
    """The index of images, its words trained on the keyframes among them.

    Args:
        descriptors: for each image (N, D) float32 unit vectors.
        read: the k-th image itself, for a network.
        T_map_cam: (I, 4, 4) given poses.
        names: I frame names.
        keyframes: which of them are keyframes, ascending; they are numbered in this order.
        config: kind of descriptor and index.
        seed: of sampling and clustering.

    Raises:
        ConfigError, BackendError, SourceError: see :func:`describe_images`.
    """
    describe, vectors = describe_images(descriptors, read, keyframes, config, seed)
    index = ImageIndex(vectors.shape[1], config.index)
    index.add(vectors)
    keyframe = np.full(len(descriptors), -1, dtype=np.int32)
    keyframe[keyframes] = np.arange(len(keyframes))
    return ImageDatabase(index, describe, T_map_cam, names, keyframe)
