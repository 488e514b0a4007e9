"""Runs a trained network, never trains one."""
