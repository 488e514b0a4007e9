"""Limits that the whole package keeps to."""

from __future__ import annotations

LARGEST_IMAGE_PX = 100_000_000
"""No camera of a robot has so many pixels: a larger image is a damaged one."""
