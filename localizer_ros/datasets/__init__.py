"""Recordings: every format read through one interface, a simulated world, and writers."""
