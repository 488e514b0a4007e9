"""Offline: a recording to a scene on disk."""
