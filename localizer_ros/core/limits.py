"""Limits that the whole package keeps to."""

from __future__ import annotations

LARGEST_IMAGE_PX = 100_000_000
"""No camera of a robot has so many pixels: a larger image is a damaged one."""

WRONG_M, WRONG_DEG = 0.5, 10.0
"""A pose further off than either is wrong: it would have been better to give none."""
