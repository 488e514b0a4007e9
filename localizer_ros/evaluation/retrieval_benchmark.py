"""How retrieval grows with the number of images: the index of a scene among synthetic distractors.

Distractors are drawn from the Gaussian of the scene's own global descriptors, so that they lie where those lie. What is
timed is what a full search does: local features to a global descriptor, and that to the nearest images. Features
themselves are timed apart, as they do not depend on the map.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from localizer_ros.core.config.map_based import SearchConfig
from localizer_ros.core.progress import Progress, no_progress
from localizer_ros.core.types import Array, ConfigError, Float32, FrameRejected, SourceError
from localizer_ros.datasets.source import FrameSource
from localizer_ros.evaluation.answers import percentiles
from localizer_ros.features.global_descriptor import WordsDescriptor
from localizer_ros.scene.bundle import INDEX_FOLDER
from localizer_ros.scene.image_index import ImageIndex
from localizer_ros.scene.map_scene import MapScene

R = TypeVar("R")

INDEX_IMAGES = (1_000, 10_000, 100_000)
QUERIES = 100
# Neighbours whose agreement with exact search is counted.
_COMPARED = 10
_REPEATS = 5
_SEED = 11


class _Query(NamedTuple):
    """An image to look for: its local descriptors, and its global one."""

    features: Float32
    vector: Float32


def retrieval_benchmark(
    scene_path: Path,
    source: FrameSource,
    sizes: Sequence[int] = INDEX_IMAGES,
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """Times of retrieval, and neighbours lost, as the index grows.

    Args:
        scene_path: a scene with an image index.
        source: frames to look for, evenly spaced ones, ``QUERIES`` at most.
        sizes: images in the index; the scene's own are among them.
        progress: told of every size.

    Returns:
        ``queries``; ``features_ms`` of an image; ``sizes``, one row each with ``images``, ``kind`` of index,
        ``build_s``, ``retrieval_p50_ms`` and ``retrieval_p99_ms`` (global descriptor and search together),
        the same as ``retrieval_cpu_p50_ms`` and ``retrieval_cpu_p99_ms``, and of it ``search_cpu_p50_ms`` (computing
        time of the thread, which other programs on this machine do not lengthen), ``recall`` (share of the exact ten
        nearest that were found), ``first`` (share of queries whose nearest is the exact one); and ``growth`` of
        ``retrieval_cpu_p50_ms`` from the smallest size to the largest.

    Raises:
        ConfigError: the scene has no index, or a size is below the number of its images.
        SourceError: no frame can be read.
    """
    if not (scene_path / INDEX_FOLDER).is_dir():
        raise ConfigError(f"{scene_path}: has no image index, so retrieval cannot be timed")
    scene = MapScene.open(scene_path)
    own = scene.database.index.descriptors
    if min(sizes) < len(own):
        raise ConfigError(f"index images: expected at least the {len(own)} of the scene, got {min(sizes)}")
    features_ms, local = _features(scene, source)
    describe = scene.database.descriptor
    if not isinstance(describe, WordsDescriptor):
        raise ConfigError(
            f"{scene_path}: global descriptors are by {describe.summary}; those of words are timed"
        )
    queries = [_Query(features, describe.of(features)) for features in local]
    distractors = synthetic_descriptors(own, max(sizes) - len(own), np.random.default_rng(_SEED))
    rows: list[dict[str, Any]] = []
    for done, images in enumerate(sorted(sizes)):
        progress("index sizes", done, len(sizes))
        vectors = np.concatenate([own, distractors[: images - len(own)]])
        rows.append(_row(vectors, scene.database.index, describe, queries))
    progress("index sizes", len(sizes), len(sizes))
    medians = [float(row["retrieval_cpu_p50_ms"]) for row in rows]
    return {
        "queries": len(queries),
        "features_ms": percentiles(features_ms, 50, 99),
        "sizes": rows,
        "growth": medians[-1] / medians[0],
    }


def _row(
    vectors: Float32, like: ImageIndex, describe: WordsDescriptor, queries: Sequence[_Query]
) -> dict[str, Any]:
    """What :func:`retrieval_benchmark` tells of an index of (N, G) vectors, of the kind of another one."""
    exact = ImageIndex(vectors.shape[1], "flat")
    exact.add(vectors)
    index = ImageIndex(vectors.shape[1], like.kind)
    began = time.perf_counter()
    index.add(vectors)
    build_s = time.perf_counter() - began
    agree, first = [], []
    for query in queries:
        expected, found = (each.search(query.vector, _COMPARED)[0] for each in (exact, index))
        agree.append(len(set(expected.tolist()) & set(found.tolist())) / len(expected))
        first.append(len(found) > 0 and found[0] == expected[0])
    whole, search = _timed(index, describe, queries)
    return {
        "images": len(vectors),
        "kind": index.search_kind,
        "build_s": round(build_s, 2),
        "retrieval_p50_ms": float(np.median(whole[0])),
        "retrieval_p99_ms": float(np.percentile(whole[0], 99)),
        "retrieval_cpu_p50_ms": float(np.median(whole[1])),
        "retrieval_cpu_p99_ms": float(np.percentile(whole[1], 99)),
        "search_cpu_p50_ms": float(np.median(search[1])),
        "recall": float(np.mean(agree)),
        "first": float(np.mean(first)),
    }


def synthetic_descriptors(own: Float32, count: int, rng: np.random.Generator) -> Float32:
    """(count, G) unit vectors with the mean and the covariance of (N, G) real ones."""
    mean = own.mean(axis=0)
    # Of fewer images than dimensions the covariance is singular; its square root is all that is needed.
    deviations = (own - mean) / np.sqrt(max(len(own) - 1, 1))
    made = np.empty((count, own.shape[1]), dtype=np.float32)
    for at in range(0, count, 10_000):
        part = made[at : at + 10_000]
        part[:] = mean + rng.standard_normal((len(part), len(own)), dtype=np.float32) @ deviations
        part /= np.maximum(np.linalg.norm(part, axis=1, keepdims=True), 1e-9)
    return made


def _features(scene: MapScene, source: FrameSource) -> tuple[list[float], list[Float32]]:
    """Milliseconds of extraction, and local descriptors, as a full search takes them first, of some frames."""
    limit = scene.point_map.settings.features.max_keypoints
    count = len(source.records)
    times_ms, found = [], []
    for i in np.unique(np.linspace(0, count - 1, min(count, QUERIES)).astype(int)).tolist():
        try:
            image = source.read(i).image
        except (FrameRejected, SourceError):
            continue
        features, spent = _clocked(partial(scene.extractor.extract, image, limit, False))
        times_ms.append(spent[0])
        found.append(features.only(features.coarse).descriptors)
    if not found:
        raise SourceError(f"{source.path}: no frame can be read")
    return times_ms, found


def _timed(index: ImageIndex, describe: WordsDescriptor, queries: Sequence[_Query]) -> tuple[Array, Array]:
    """(2, M) milliseconds, wall and computing, of descriptor and search together, and of the search alone."""
    neighbours = SearchConfig().neighbours

    def retrieve(features: Float32) -> object:
        return index.search(describe.of(features), neighbours)

    whole, search = [], []
    for _ in range(_REPEATS):
        for query in queries:
            whole.append(_clocked(partial(retrieve, query.features))[1])
            search.append(_clocked(partial(index.search, query.vector, neighbours))[1])
    return np.array(whole).T, np.array(search).T


def _clocked(work: Callable[[], R]) -> tuple[R, tuple[float, float]]:
    """Result, and wall and computing milliseconds of this thread."""
    began, cpu_began = time.perf_counter(), time.thread_time()
    result = work()
    cpu_ms = (time.thread_time() - cpu_began) * 1e3
    return result, ((time.perf_counter() - began) * 1e3, cpu_ms)
