"""Localization in a map: search in full, track, and follow by optical flow."""
