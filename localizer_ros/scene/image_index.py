"""Image retrieval: an index of the global descriptors of mapping images, with the poses of those."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import faiss
import numpy as np
from numpy.typing import NDArray

from localizer_ros.core.types import Array, ConfigError, Float32, Index, SceneError
from localizer_ros.features.global_descriptor import (
    WORD_ARRAYS,
    WORDS_FILE,
    GlobalDescriptor,
    WordsDescriptor,
)
from localizer_ros.features.onnx_descriptor import NetworkDescriptor
from localizer_ros.scene.arrays import full_poses, load_arrays, save_arrays

IMAGES_FILE = "images.npz"
GRAPH_FILE = "graph.faiss"

IndexKind = Literal["auto", "flat", "hnsw", "ivf"]

# Up to here an exact search takes less than a millisecond.
_EXACT_UP_TO = 10_000
# With fewer images there is nothing to build cells or a graph from.
_LEAST_APPROXIMATE = 256
# Of the graph (Malkov and Yashunin 2020): links of an image, and candidates kept while building and while searching.
# With 100 000 images among which those of a scene lie, 99 % of the exact ten nearest are found.
_LINKS, _BUILD_CANDIDATES, _SEARCH_CANDIDATES = 32, 80, 128
# Of the inverted file: the share of its cells that are searched, and how many times as many images as its cells were
# trained on it may hold.
_SEARCHED_CELLS, _OUTGROWN = 12, 4


@contextmanager
def one_thread() -> Iterator[None]:
    """A block in which faiss works in the calling thread alone.

    One query at a time gains nothing from OpenMP's threads, which wait for each other in a loop: on a busy machine a
    search of 0.06 ms took 20 ms. And what several of them build is not the same each time. The number is put back, as
    it holds for all of OpenMP: PyTorch would train on one core ever after.
    """
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(threads)


class ImageIndex:
    """Nearest images by inner product of unit descriptors; images can be added at any time.

    Args:
        dimensions: length G of a descriptor.
        kind: ``flat`` is exact; ``hnsw`` and ``ivf`` are approximate and keep their speed as images grow in number;
            ``auto`` is flat until there are 10 000 images and hnsw from then on.
    """

    def __init__(self, dimensions: int, kind: IndexKind = "auto") -> None:
        self.kind = kind
        self._descriptors = np.zeros((0, dimensions), dtype=np.float32)
        self._index: faiss.Index = faiss.IndexFlatIP(dimensions)
        self._trained_on = 0

    def __len__(self) -> int:
        return len(self._descriptors)

    @property
    def descriptors(self) -> Float32:
        """(N, G) float32."""
        return self._descriptors

    @property
    def search_kind(self) -> str:
        """How it searches now: ``flat``, ``hnsw`` or ``ivf``."""
        return self._wanted(len(self))

    @one_thread()
    def add(self, descriptors: Float32) -> None:
        """Append (N, G) unit descriptors. Raises ConfigError when the length differs."""
        new = np.ascontiguousarray(np.atleast_2d(descriptors), dtype=np.float32)
        if new.shape[1] != self._descriptors.shape[1]:
            raise ConfigError(
                f"index: expected descriptors of length {self._descriptors.shape[1]}, got {new.shape[1]}"
            )
        before, kind = len(self), self._wanted(len(self) + len(new))
        self._descriptors = np.concatenate([self._descriptors, new])
        # An inverted file's cells must be trained anew once it has outgrown them.
        outgrown = kind == "ivf" and len(self) > _OUTGROWN * self._trained_on
        if kind != self._wanted(before) or outgrown:
            self._build(kind)
        else:
            self._index.add(new)

    def search(self, descriptor: Float32, k: int) -> tuple[Index, Float32]:
        """Indices and similarities (cosines) of the k nearest images, nearest first; fewer when there are fewer."""
        k = min(k, len(self))
        if k == 0:
            return np.zeros(0, dtype=np.intp), np.zeros(0, dtype=np.float32)
        with one_thread():
            similarity, found = self._index.search(
                np.ascontiguousarray(descriptor, dtype=np.float32)[None], k
            )
        valid = found[0] >= 0
        return found[0][valid].astype(np.intp), similarity[0][valid]

    def save_graph(self, path: Path) -> int:
        """Bytes written to a file: 0 where there is no graph, as everything else is rebuilt in no time.

        Building the graph of 100 000 images takes a minute.
        """
        if self.search_kind != "hnsw":
            return 0
        faiss.write_index(self._index, str(path))
        return path.stat().st_size

    @staticmethod
    def from_graph(descriptors: Float32, kind: IndexKind, path: Path) -> ImageIndex:
        """An index whose graph was saved.

        Args:
            descriptors: (N, G) of its images.
            kind: as of the index that was saved.
            path: of the graph.

        Raises:
            SceneError: the file is damaged, or is that of other images.
        """
        index = ImageIndex(descriptors.shape[1], kind)
        try:
            index._index = faiss.read_index(str(path))
        except RuntimeError as error:
            raise SceneError(f"{path}: cannot be read ({str(error).splitlines()[0]})") from error
        if index._index.ntotal != len(descriptors):
            raise SceneError(f"{path}: expected {len(descriptors)} images, got {index._index.ntotal}")
        index._descriptors = descriptors
        return index

    def _wanted(self, count: int) -> str:
        if self.kind == "auto":
            return "flat" if count <= _EXACT_UP_TO else "hnsw"
        return self.kind if count >= _LEAST_APPROXIMATE else "flat"

    def _build(self, kind: str) -> None:
        G = self._descriptors.shape[1]
        index: faiss.Index = faiss.IndexFlatIP(G)
        if kind == "hnsw":
            graph = faiss.IndexHNSWFlat(G, _LINKS, faiss.METRIC_INNER_PRODUCT)
            graph.hnsw.efConstruction = _BUILD_CANDIDATES
            graph.hnsw.efSearch = _SEARCH_CANDIDATES
            index = graph
        elif kind == "ivf":
            cells = max(4, int(np.sqrt(len(self))))
            # The Python object of the quantizer must live as long as the index that points to it.
            self._quantizer = faiss.IndexFlatIP(G)
            lists = faiss.IndexIVFFlat(self._quantizer, G, cells, faiss.METRIC_INNER_PRODUCT)
            lists.cp.min_points_per_centroid = 1
            lists.train(self._descriptors)
            lists.nprobe = max(4, cells // _SEARCHED_CELLS)
            self._trained_on = len(self)
            index = lists
        index.add(self._descriptors)
        self._index = index


@dataclass(frozen=True, eq=False)
class ImageDatabase:
    """The index of a scene with its images' poses.

    Attributes:
        index: of global descriptors.
        descriptor: makes the global descriptor of an image.
        T_map_cam: (N, 4, 4) given poses.
        names: N frame names.
        keyframe: (N,) number of the image among the map's keyframes, -1 for the others.
    """

    index: ImageIndex
    descriptor: GlobalDescriptor
    T_map_cam: Array
    names: tuple[str, ...]
    keyframe: NDArray[np.int32]

    def save(self, folder: Path) -> int:
        """Bytes written to a folder, which is made where it is missing."""
        written = self.descriptor.save(folder)
        written += save_arrays(
            folder / IMAGES_FILE,
            kind=np.array(self.index.kind),
            # Half precision moves a cosine by 1e-4 at most and halves the file.
            descriptors=self.index.descriptors.astype(np.float16),
            T_map_cam=self.T_map_cam[:, :3],
            names=np.array(self.names, dtype=np.str_),
            keyframe=self.keyframe.astype(np.int32),
        )
        return written + self.index.save_graph(folder / GRAPH_FILE)

    @staticmethod
    def load(folder: Path) -> ImageDatabase:
        """What :meth:`save` has written.

        Raises:
            SceneError: a file is missing or damaged.
            BackendError: its network cannot be used.
        """
        path = folder / IMAGES_FILE
        descriptor = _open_descriptor(folder)
        arrays = load_arrays(path, ("kind", "descriptors", "T_map_cam", "names", "keyframe"))
        kind: Any = str(arrays["kind"])
        if kind not in get_args(IndexKind):
            raise SceneError(f"{path}: kind {kind!r} is not known")
        descriptors = arrays["descriptors"].astype(np.float32)
        poses, names, keyframe = arrays["T_map_cam"], arrays["names"], arrays["keyframe"]
        count = len(descriptors)
        if descriptors.ndim != 2 or poses.shape != (count, 3, 4) or not count == len(names) == len(keyframe):
            raise SceneError(f"{path}: array shapes do not fit together")
        graph = folder / GRAPH_FILE
        if graph.is_file():
            index = ImageIndex.from_graph(descriptors, kind, graph)
        else:
            index = ImageIndex(descriptors.shape[1], kind)
            index.add(descriptors)
        return ImageDatabase(index, descriptor, full_poses(poses), tuple(map(str, names)), keyframe)


def _open_descriptor(folder: Path) -> GlobalDescriptor:
    network = NetworkDescriptor.load(folder)
    if network is not None:
        return network
    path = folder / WORDS_FILE
    try:
        return WordsDescriptor.from_arrays(load_arrays(path, WORD_ARRAYS))
    except ValueError as error:
        raise SceneError(f"{path}: {error}") from error
