"""The linear systems of bundle adjustment: points eliminated, images sparse, what all images share as a border.

Two images are coupled where they see a point in common. On a long drive few are, and a sparse factorization takes time
in proportion to the drive; where nearly all are, as in a small room, a dense one is faster.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg
import scipy.sparse
import scipy.sparse.linalg

from localizer_ros.core.types import Array, Index

# Fewer unknowns, or a larger share of coupled pairs, are solved as a dense system.
_DENSE_UNKNOWNS, _DENSE_SHARE = 900, 0.3


class Pattern:
    """Which image sees which point: what stays the same from step to step.

    Args:
        image: (N,) of each observation.
        point: (N,) of each observation.
        images: C.
        points: P.
    """

    def __init__(self, image: Index, point: Index, images: int, points: int) -> None:
        self.image, self.point, self.images, self.points = image, point, images, points
        self._by_image, self._by_point = _sums(image, images), _sums(point, points)
        self._order = np.lexsort((point, image))
        start = np.searchsorted(image[self._order], np.arange(images + 1))
        self._layout = point[self._order].astype(np.int32), start.astype(np.int32)

    def by_image(self, values: Array) -> Array:
        """(C, ...) sums over the observations of each image of (N, ...)."""
        return _summed(self._by_image, values)

    def by_point(self, values: Array) -> Array:
        """(P, ...) sums over the observations of each point of (N, ...)."""
        return _summed(self._by_point, values)

    def matrix(self, blocks: Array) -> scipy.sparse.bsr_array:
        """(6 C, 3 P) sparse of a block (6, 3) of each observation."""
        shape = (6 * self.images, 3 * self.points)
        return scipy.sparse.bsr_array((blocks[self._order], *self._layout), shape=shape)


@dataclass(frozen=True, eq=False)
class Bordered:
    """Normal equations ``[[A, B], [B^T, D]] x = right``.

    Attributes:
        A: (6 C, 6 C) sparse, of the images.
        B: (6 C, K) of the images with what they share.
        D: (K, K) of what they share.
    """

    A: scipy.sparse.bsr_array
    B: Array
    D: Array

    def solved(self, right: Array, damping: float) -> Array:
        """The solution with a diagonal that is larger by a share. Raises LinAlgError when it is singular."""
        n, size = len(self.B), len(right)
        diagonal = np.concatenate([self.A.diagonal(), np.diag(self.D)])
        # Fixed unknowns have huge diagonals; scaling by the diagonal keeps the system well conditioned.
        scale = 1.0 / np.sqrt(np.maximum(diagonal * (1.0 + damping), 1e-12))
        B, D = self.B * scale[:n, None] * scale[n:], self.D * scale[n:, None] * scale[n:]
        D[np.diag_indices(size - n)] = 1.0
        A = scipy.sparse.csc_array(self.A)
        A.data *= scale[A.indices] * np.repeat(scale[:n], np.diff(A.indptr))
        A.setdiag(1.0)
        if n <= _DENSE_UNKNOWNS or A.nnz > _DENSE_SHARE * n * n:
            whole = np.block([[A.toarray(), B], [B.T, D]])
            return np.asarray(scale * scipy.linalg.solve(whole, right * scale, assume_a="pos"))
        return np.asarray(scale * _solved_sparse(A, B, D, right * scale))


def _solved_sparse(A: scipy.sparse.csc_array, B: Array, D: Array, right: Array) -> Array:
    n = len(B)
    try:
        factors = scipy.sparse.linalg.splu(
            A, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True}
        )
    except RuntimeError as error:
        raise np.linalg.LinAlgError(str(error)) from error
    solved = factors.solve(np.column_stack([B, right[:n]]))
    border, own = solved[:, :-1], solved[:, -1]
    shared = scipy.linalg.solve(D - B.T @ border, right[n:] - B.T @ own, assume_a="sym")
    return np.concatenate([own - border @ shared, shared])


def block_diagonal(blocks: Array) -> scipy.sparse.bsr_array:
    """(6 C, 6 C) sparse of (C, 6, 6)."""
    count = len(blocks)
    layout = np.arange(count, dtype=np.int32), np.arange(count + 1, dtype=np.int32)
    return scipy.sparse.bsr_array((blocks, *layout), shape=(6 * count,) * 2)


def _sums(label: Index, count: int) -> scipy.sparse.csr_array:
    """(count, N) sparse: its product with values by observation is their sum by label."""
    ones = np.ones(len(label))
    return scipy.sparse.csr_array((ones, (label, np.arange(len(label)))), shape=(count, len(label)))


def _summed(sums: scipy.sparse.csr_array, values: Array) -> Array:
    return np.asarray(sums @ values.reshape(len(values), -1)).reshape(-1, *values.shape[1:])
