"""Global descriptors: one vector for an image, such that images of the same place have similar ones.

Built from the image's local descriptors with visual words that ``mapping.index_images`` trains on the scene
(:class:`WordsDescriptor`), or from its pixels by a network (``features.onnx_descriptor``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from localizer_ros.core.types import Float32, Index, UInt8

WORDS_FILE = "words.npz"
WORD_ARRAYS = ("kind", "words", "word_weight", "mean", "projection")

# Multiplications up to which OpenBLAS does a product in one thread.
_UNSHARED_PRODUCT = 262_144


class GlobalDescriptor(Protocol):
    """Describes an image by one vector."""

    @property
    def summary(self) -> str:
        """What it is, for people."""
        ...

    def __call__(self, image: UInt8, local: Float32) -> Float32:
        """(G,) float32 of unit length; zeros for an image that has nothing to describe.

        Args:
            image: (H, W) grey or (H, W, 3) RGB uint8.
            local: (N, D) local descriptors of the image, of unit length.

        Raises:
            BackendError: its network fails.
        """
        ...

    def save(self, folder: Path) -> int:
        """Write to a folder, which is made where it is missing; returns the bytes written."""
        ...


@dataclass(frozen=True, eq=False)
class WordsDescriptor:
    """Implements ``GlobalDescriptor`` with visual words that are trained on a scene.

    VLAD (Jegou et al. 2010) sums residuals of local descriptors to the words; a bag of words (Sivic and Zisserman 2003)
    counts them, rarer words counting more.

    Attributes:
        kind: ``vlad`` or ``bow`` (bag of words).
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

    @property
    def summary(self) -> str:
        """See :class:`GlobalDescriptor`."""
        return f"{self.kind}, {len(self.words)} words"

    def __call__(self, image: UInt8, local: Float32) -> Float32:
        """See :class:`GlobalDescriptor`; the image itself is not used."""
        return self.of(local)

    def of(self, local: Float32) -> Float32:
        """(G,) float32 of unit length of (N, D) local descriptors; zeros where there are none."""
        full = self.unprojected(local)
        if self.projection.size == 0:
            return full
        if not np.any(full):
            return np.zeros(self.projection.shape[1], dtype=np.float32)
        # Not a BLAS product, for the reason given in _nearest_words.
        return _unit(np.einsum("f,fg->g", full - self.mean, self.projection))

    def of_many(self, images: Sequence[Float32]) -> Float32:
        """(I, G) of the local descriptors of I images at once: one product with the projection instead of I."""
        full = np.stack([self.unprojected(local) for local in images])
        if self.projection.size == 0:
            return full
        projected = (full - self.mean) @ self.projection
        projected[~full.any(axis=1)] = 0.0
        norm = np.linalg.norm(projected, axis=1, keepdims=True)
        return np.asarray(projected / np.maximum(norm, 1e-12), dtype=np.float32)

    def unprojected(self, local: Float32) -> Float32:
        """(F,) float32 of unit length before the projection."""
        W, D = self.words.shape
        if len(local) == 0:
            return np.zeros(W if self.kind == "bow" else W * D, dtype=np.float32)
        word = self._nearest_words(local)
        count = np.bincount(word, minlength=W).astype(np.float32)
        if self.kind == "bow":
            # A square root keeps a repeated texture from drowning the rest.
            return _unit(np.sqrt(count) * self.word_weight)
        order = np.argsort(word, kind="stable")
        used = np.nonzero(count)[0]
        residual = np.zeros((W, D), dtype=np.float32)
        residual[used] = np.add.reduceat(local[order], np.searchsorted(word[order], used), axis=0)
        residual -= count[:, None] * self.words
        residual /= np.maximum(np.linalg.norm(residual, axis=1, keepdims=True), 1e-9)
        flat = residual.reshape(-1)
        return _unit(np.sign(flat) * np.sqrt(np.abs(flat)))

    def _nearest_words(self, local: Float32) -> Index:
        # argmin |d - w|^2 = argmax d.w - |w|^2 / 2. In slices so small that BLAS does not share them between threads:
        # on a busy machine its threads wait for each other for a whole time slice, which was 35 ms instead of 1.
        half = 0.5 * np.einsum("wd,wd->w", self.words, self.words)
        step = max(1, _UNSHARED_PRODUCT // self.words.size)
        return np.concatenate(
            [
                (local[at : at + step] @ self.words.T - half).argmax(axis=1)
                for at in range(0, len(local), step)
            ]
        )

    def save(self, folder: Path) -> int:
        """See :class:`GlobalDescriptor`."""
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

    @staticmethod
    def from_arrays(arrays: Mapping[str, NDArray[Any]]) -> WordsDescriptor:
        """What :meth:`save` has written, read. Raises ValueError where it is something else."""
        kind = str(arrays["kind"])
        if kind not in ("vlad", "bow"):
            raise ValueError(f"kind {kind!r} is not known")
        return WordsDescriptor(
            "vlad" if kind == "vlad" else "bow",
            arrays["words"],
            arrays["word_weight"],
            arrays["mean"],
            arrays["projection"].astype(np.float32),
        )


def _unit(vector: Float32) -> Float32:
    norm = float(np.linalg.norm(vector))
    return (vector / norm if norm > 0.0 else vector).astype(np.float32)
