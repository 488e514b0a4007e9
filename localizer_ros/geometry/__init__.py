"""Geometry of cameras and points: rays, triangulation, and poses from matches."""
