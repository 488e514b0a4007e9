"""Times for frames whose data has none: evenly spaced in a sequence, sequences too far apart to look continuous."""

from __future__ import annotations

from collections.abc import Sequence

# Of a usual camera; where a recording's stamps are invented, nothing may depend on it.
USUAL_PERIOD_NS = 1e9 / 30.0
# Nearly three hours: longer than any sequence.
BETWEEN_SEQUENCES_NS = 10_000_000_000_000
# Numbers of sequences up to here leave room in 64 bits.
_HIGHEST = 100_000


def invented_ns(index: int, sequence: int = 0, period_ns: float = USUAL_PERIOD_NS) -> int:
    """Stamp of a frame.

    Args:
        index: of the frame in its sequence, from zero.
        sequence: number of the sequence.
        period_ns: from one frame to the next.
    """
    return sequence * BETWEEN_SEQUENCES_NS + round(index * period_ns)


def sequence_numbers(named: Sequence[int]) -> Sequence[int]:
    """Numbers of sequences, ascending, for their stamps: those they are called by, so that a sequence has the same
    stamps alone and among others; their places where a name is a date or the like."""
    return named if max(named, default=0) < _HIGHEST else range(len(named))
