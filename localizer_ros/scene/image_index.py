"""Image retrieval: one global descriptor an image, and an index of those of the mapping images.

Global descriptors are built from local ones with visual words that are trained on the scene (``mapping.retrieval``):
VLAD sums residuals to the words, bag of words counts them, rarer words counting more.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from zipfile import BadZipFile

import faiss
import numpy as np
from numpy.typing import NDArray

from localizer_ros.core.types import Array, ConfigError, Float32, SceneError, UInt8
from localizer_ros.features.onnx_descriptor import NetworkDescriptor

WORDS_FILE = "words.npz"
IMAGES_FILE = "images.npz"
GRAPH_FILE = "graph.faiss"

# Up to here an exact search takes less than a millisecond.
_EXACT_UP_TO = 10_000
# Multiplications up to which OpenBLAS does a product in one thread.
_UNSHARED_PRODUCT = 262_144


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


@dataclass(frozen=True, eq=False)
class GlobalDescriptor:
    """Local descriptors of an image to one vector.

    Attributes:
        kind: ``vlad`` or ``bow``.
        words: (W, D) float32 visual words.
        word_weight: (W,) float32 inverse document frequencies of ``bow``; ones for ``vlad``.
        mean: (F,) float32 subtracted before the projection; empty without projection.
        projection: (F, G) float32; empty without projection.
    """

    kind: Literal["vlad", "bow"]
    words: Float32
    word_weight: Float32
    mean: Float32
    projection: Float32

    def __call__(self, descriptors: Float32) -> Float32:
        """(G,) float32 of unit length; zeros for an image without features."""
        full = self.unprojected(descriptors)
        if self.projection.size == 0:
            return full
        if not np.any(full):
            return np.zeros(self.projection.shape[1], dtype=np.float32)
        # Not a BLAS product, for the reason given in _nearest_words.
        return _unit(np.einsum("f,fg->g", full - self.mean, self.projection))

    def many(self, descriptors: Sequence[Float32]) -> Float32:
        """(N, G) of N images at once: one product with the projection instead of N."""
        full = np.stack([self.unprojected(d) for d in descriptors])
        if self.projection.size == 0:
            return full
        projected = (full - self.mean) @ self.projection
        projected[~full.any(axis=1)] = 0.0
        norm = np.linalg.norm(projected, axis=1, keepdims=True)
        return np.asarray(projected / np.maximum(norm, 1e-12), dtype=np.float32)

    def unprojected(self, descriptors: Float32) -> Float32:
        """(F,) float32 of unit length before the projection."""
        W, D = self.words.shape
        if len(descriptors) == 0:
            return np.zeros(W if self.kind == "bow" else W * D, dtype=np.float32)
        word = self._nearest_words(descriptors)
        count = np.bincount(word, minlength=W).astype(np.float32)
        if self.kind == "bow":
            # A square root keeps a repeated texture from drowning the rest.
            return _unit(np.sqrt(count) * self.word_weight)
        order = np.argsort(word, kind="stable")
        used = np.nonzero(count)[0]
        residual = np.zeros((W, D), dtype=np.float32)
        residual[used] = np.add.reduceat(descriptors[order], np.searchsorted(word[order], used), axis=0)
        residual -= count[:, None] * self.words
        residual /= np.maximum(np.linalg.norm(residual, axis=1, keepdims=True), 1e-9)
        flat = residual.reshape(-1)
        return _unit(np.sign(flat) * np.sqrt(np.abs(flat)))

    def _nearest_words(self, descriptors: Float32) -> NDArray[np.intp]:
        # argmin |d - w|^2 = argmax d.w - |w|^2 / 2. In slices so small that BLAS does not share them between threads:
        # on a busy machine its threads wait for each other for a whole time slice, which was 35 ms instead of 1.
        half = 0.5 * np.einsum("wd,wd->w", self.words, self.words)
        step = max(1, _UNSHARED_PRODUCT // self.words.size)
        return np.concatenate(
            [
                (descriptors[at : at + step] @ self.words.T - half).argmax(axis=1)
                for at in range(0, len(descriptors), step)
            ]
        )

    def save(self, folder: Path) -> int:
        """Write to ``folder``; returns the bytes written."""
        folder.mkdir(parents=True, exist_ok=True)
        np.savez(
            folder / WORDS_FILE,
            kind=np.array(self.kind),
            words=self.words,
            word_weight=self.word_weight,
            mean=self.mean,
            projection=self.projection.astype(np.float16),
        )
        return (folder / WORDS_FILE).stat().st_size

    @property
    def summary(self) -> str:
        """For people."""
        return f"{self.kind}, {len(self.words)} words"

    @staticmethod
    def load(folder: Path) -> GlobalDescriptor:
        """Read words and projection. Raises SceneError when they are missing or damaged."""
        path = folder / WORDS_FILE
        try:
            with np.load(path, allow_pickle=False) as data:
                kind = str(data["kind"])
                if kind not in ("vlad", "bow"):
                    raise ValueError(f"kind {kind!r} is not known")
                return GlobalDescriptor(
                    "vlad" if kind == "vlad" else "bow",
                    data["words"],
                    data["word_weight"],
                    data["mean"],
                    data["projection"].astype(np.float32),
                )
        except (OSError, KeyError, ValueError, BadZipFile) as error:
            raise SceneError(f"{path}: cannot be read ({error})") from error


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
        describe: the global descriptor, of local ones or of the image.
        T_map_cam: (N, 4, 4) given poses.
        names: N frame names.
        keyframe: (N,) number of the image among the map's keyframes, -1 for the others.
    """

    index: ImageIndex
    describe: GlobalDescriptor | NetworkDescriptor
    T_map_cam: Array
    names: tuple[str, ...]
    keyframe: NDArray[np.int32]

    def global_descriptor(self, image: UInt8, descriptors: Float32) -> Float32:
        """(G,) float32 of an image and its local (N, D) descriptors; zeros when it has nothing to describe."""
        if isinstance(self.describe, GlobalDescriptor):
            return self.describe(descriptors)
        return self.describe(image)

    def save(self, folder: Path) -> int:
        """Write descriptor and index to ``folder``; returns the bytes written."""
        return self.describe.save(folder) + self.index.save(folder, self.T_map_cam, self.names, self.keyframe)

    @staticmethod
    def load(folder: Path) -> ImageDatabase:
        """Read an index.

        Raises:
            SceneError: a file is missing or damaged.
            BackendError: its network cannot be used.
        """
        path = folder / IMAGES_FILE
        describe = NetworkDescriptor.load(folder) or GlobalDescriptor.load(folder)
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
        return ImageDatabase(index, describe, T, tuple(str(name) for name in names), keyframe)


def _unit(vector: Float32) -> Float32:
    norm = float(np.linalg.norm(vector))
    return (vector / norm if norm > 0.0 else vector).astype(np.float32)
