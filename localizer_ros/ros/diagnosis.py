"""What the node says of itself: at once to a robot, and in full to whoever looks closer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from localizer_ros.core.types import Status


class Verdict(NamedTuple):
    """What a robot is told at once.

    Attributes:
        level: OK, WARN, ERROR or STALE.
        message: what is the matter and what would help.
        status: how far what the robot consumes can be trusted, poses and transforms alike.
        help: the part of the message that says what would help; empty where nobody knows.
        usable: a robot may act on the pose now: there is one, and nothing that it needs of it is missing.
    """

    level: str
    message: str
    status: Status
    help: str = ""
    usable: bool = False

    @property
    def answer(self) -> str:
        """The status and the message in one line."""
        name = self.status.value
        return self.message if self.message.startswith(name) else f"{name}: {self.message}"


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """One line for the user, and everything for whoever looks closer.

    Attributes:
        level: OK, WARN, ERROR or STALE.
        message: what is the matter and what would help.
        summary: what a program acts on: status, certainty, rates.
        values: details, in order.
    """

    level: str
    message: str
    summary: dict[str, str]
    values: dict[str, str]
