"""What a check of a recording finds, and the word that follows from it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

Severity = Literal["note", "doubtful", "bad"]
Word = Literal["good", "doubtful", "bad"]


@dataclass(frozen=True, slots=True)
class Finding:
    """Something about a recording that its map will show.

    Attributes:
        check: short stable name to count by, e.g. ``time_offset``.
        severity: ``note`` leaves the verdict alone, ``doubtful`` costs accuracy or coverage, ``bad`` makes the map
            useless.
        text: what is wrong and how much, one sentence.
        advice: what to do about it, where possible a command.
        where: the frame it is first seen at, None where it concerns the whole recording.
    """

    check: str
    severity: Severity
    text: str
    advice: str
    where: str | None = None

    def __str__(self) -> str:
        at = f" (first at {self.where})" if self.where is not None else ""
        return f"{self.text}{at}: {self.advice}"

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def word_for(findings: Iterable[Finding]) -> Word:
    """The worst that any finding gives; notes give nothing."""
    severities = {finding.severity for finding in findings}
    return "bad" if "bad" in severities else "doubtful" if "doubtful" in severities else "good"


def graded(value: float, doubtful: float, bad: float) -> Severity | None:
    """How bad a value is that should be small; None where it is small enough."""
    return "bad" if value > bad else "doubtful" if value > doubtful else None
