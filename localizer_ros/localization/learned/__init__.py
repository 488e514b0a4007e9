"""Localization by a trained network."""
