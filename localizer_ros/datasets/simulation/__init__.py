"""The simulated world: places, what is painted on them, how a camera sees them, and how a robot drives
there."""
