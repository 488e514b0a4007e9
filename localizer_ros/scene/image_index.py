"""Image retrieval: an index of the global descriptors of mapping images, with the poses of those."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from zipfile import BadZipFile

import faiss
import numpy as np
from numpy.typing import NDArray

from localizer_ros.core.types import Array, ConfigError, Float32, SceneError
from localizer_ros.features.global_descriptor import WORDS_FILE, GlobalDescriptor, WordsDescriptor
from localizer_ros.features.onnx_descriptor import NetworkDescriptor

IMAGES_FILE = "images.npz"
GRAPH_FILE = "graph.faiss"

# Up to here an exact search takes less than a millisecond.
_EXACT_UP_TO = 10_000


@contextmanager
def one_thread() -> Iterator[None]:
    """Let faiss work in the calling thread alone.

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

    def __init__(self, dimensions: int, kind: Literal["auto", "flat", "hnsw", "ivf"] = "auto") -> None:
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
        outgrown = kind == "ivf" and len(self) > 4 * self._trained_on
        if kind != self._wanted(before) or outgrown:
            self._build(kind)
        else:
            self._index.add(new)

    def search(self, descriptor: Float32, k: int) -> tuple[NDArray[np.intp], Float32]:
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

    def save(
        self, folder: Path, T_map_cam: Array, names: tuple[str, ...], keyframe: NDArray[np.int32]
    ) -> int:
        """Write the index with what its images are; returns the bytes written.

        Args:
            folder: where to.
            T_map_cam: (N, 4, 4) poses of the images.
            names: N frame names.
            keyframe: (N,) number of the image among the map's keyframes, -1 for the others.
        """
        folder.mkdir(parents=True, exist_ok=True)
        np.savez(
            folder / IMAGES_FILE,
            kind=np.array(self.kind),
            # Half precision moves a cosine by 1e-4 at most and halves the file.
            descriptors=self._descriptors.astype(np.float16),
            T_map_cam=T_map_cam[:, :3],
            names=np.array(names, dtype=np.str_),
            keyframe=keyframe.astype(np.int32),
        )
        written = (folder / IMAGES_FILE).stat().st_size
        if self._wanted(len(self)) == "hnsw":
            # Building the graph of 100 000 images takes a minute; the rest is rebuilt in no time.
            faiss.write_index(self._index, str(folder / GRAPH_FILE))
            written += (folder / GRAPH_FILE).stat().st_size
        return written

    def _wanted(self, count: int) -> str:
        if self.kind == "auto":
            return "flat" if count <= _EXACT_UP_TO else "hnsw"
        # Both need some data to be built from.
        return self.kind if count >= 256 else "flat"

    def _build(self, kind: str) -> None:
        G = self._descriptors.shape[1]
        index: faiss.Index = faiss.IndexFlatIP(G)
        if kind == "hnsw":
            graph = faiss.IndexHNSWFlat(G, 32, faiss.METRIC_INNER_PRODUCT)
            graph.hnsw.efConstruction = 80
            graph.hnsw.efSearch = 128
            index = graph
        elif kind == "ivf":
            cells = max(4, int(np.sqrt(len(self))))
            # The Python object of the quantizer must live as long as the index that points to it.
            self._quantizer = faiss.IndexFlatIP(G)
            lists = faiss.IndexIVFFlat(self._quantizer, G, cells, faiss.METRIC_INNER_PRODUCT)
            lists.cp.min_points_per_centroid = 1
            lists.train(self._descriptors)
            lists.nprobe = max(4, cells // 12)
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
        """Write descriptor and index to ``folder``; returns the bytes written."""
        return self.descriptor.save(folder) + self.index.save(
            folder, self.T_map_cam, self.names, self.keyframe
        )

    @staticmethod
    def load(folder: Path) -> ImageDatabase:
        """Read an index.

        Raises:
            SceneError: a file is missing or damaged.
            BackendError: its network cannot be used.
        """
        path = folder / IMAGES_FILE
        descriptor = _open_descriptor(folder)
        try:
            with np.load(path, allow_pickle=False) as data:
                kind = str(data["kind"])
                descriptors = data["descriptors"].astype(np.float32)
                poses, names, keyframe = data["T_map_cam"], data["names"], data["keyframe"]
            if kind not in ("auto", "flat", "hnsw", "ivf"):
                raise ValueError(f"kind {kind!r} is not known")
            if not len(descriptors) == len(poses) == len(names) == len(keyframe):
                raise ValueError("array shapes do not fit together")
        except (OSError, KeyError, ValueError, BadZipFile) as error:
            raise SceneError(f"{path}: cannot be read ({error})") from error
        index = ImageIndex(descriptors.shape[1], kind)  # type: ignore[arg-type]
        graph = folder / GRAPH_FILE
        if graph.is_file():
            try:
                index._index = faiss.read_index(str(graph))
            except RuntimeError as error:
                raise SceneError(f"{graph}: cannot be read ({str(error).splitlines()[0]})") from error
            index._descriptors = descriptors
            if index._index.ntotal != len(descriptors):
                raise SceneError(f"{graph}: expected {len(descriptors)} images, got {index._index.ntotal}")
        else:
            index.add(descriptors)
        T = np.tile(np.eye(4), (len(poses), 1, 1))
        T[:, :3] = poses
        return ImageDatabase(index, descriptor, T, tuple(str(name) for name in names), keyframe)


def _open_descriptor(folder: Path) -> GlobalDescriptor:
    network = NetworkDescriptor.load(folder)
    if network is not None:
        return network
    path = folder / WORDS_FILE
    try:
        with np.load(path, allow_pickle=False) as data:
            return WordsDescriptor.from_arrays(data)
    except (OSError, KeyError, ValueError, BadZipFile) as error:
        raise SceneError(f"{path}: cannot be read ({error})") from error
