"""Types of arrays, by what their values are. ``core.types`` offers them to everyone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Float32 = NDArray[np.float32]
UInt8 = NDArray[np.uint8]
Index = NDArray[np.intp]
"""Positions in another array."""
Mask = NDArray[np.bool_]
