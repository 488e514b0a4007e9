"""Scenarios: faults on the streams of a robot, and what the node must say and publish meanwhile."""
