"""What the tests of the documentation read out of it: pages, fenced blocks with their markers, links, anchors."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
DOCS = REPOSITORY / "docs"

_FENCE = re.compile(r"^(`{3,})(\S*)\s*$")
_MARKER = re.compile(r"^<!-- (.+) -->$")
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)")
_CODE = re.compile(r"`([^`\n]+)`")


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        page: where it stands.
        line: of its opening fence, from 1.
        language: what the fence says, e.g. ``sh``.
        text: its lines.
        markers: what the comment on the line before says, by key, e.g. ``{"needs": "a robot"}``; a word without a value
            has an empty one.
    """

    page: Path
    line: int
    language: str
    text: str
    markers: dict[str, str]

    @property
    def place(self) -> str:
        return f"{self.page.relative_to(REPOSITORY)}:{self.line}"


def pages() -> list[Path]:
    """Every page of the documentation."""
    found = [*REPOSITORY.glob("*.md"), *REPOSITORY.glob("models/*.md"), *DOCS.rglob("*.md")]
    return sorted(found)


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    found: list[Block] = []
    fence, start, language, inside, before = "", 0, "", [], ""
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        opened = _FENCE.match(line)
        assert fence or not re.match(r"\s+```", line), (
            f"{page}:{number}: an indented fence is not seen by the tests"
        )
        if not fence and opened:
            fence, language, start, inside = opened[1], opened[2], number, []
        elif fence and line.strip() == fence:
            found.append(Block(page, start, language, "\n".join(inside) + "\n", _markers(before)))
            fence = before = ""
        elif fence:
            inside.append(line)
        else:
            before = line.strip()
    assert not fence, f"{page}: the fence of line {start} is not closed"
    return found


def _markers(line: str) -> dict[str, str]:
    marker = _MARKER.match(line)
    if marker is None:
        return {}
    pairs = (part.partition(":") for part in marker[1].split(";"))
    return {key.strip(): value.strip() for key, _, value in pairs}


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    lines, fence = [], ""
    for line in page.read_text(encoding="utf-8").splitlines():
        opened = _FENCE.match(line)
        if not fence and opened:
            fence = opened[1]
        elif fence and line.strip() == fence:
            fence = ""
        elif not fence:
            lines.append(line)
    return "\n".join(lines)


def code_spans(page: Path) -> list[str]:
    """What stands between single backticks outside fenced blocks; a span may go over a line's end."""
    return [match[1] for match in _CODE.finditer(re.sub(r"(?<=\S)\n(?=\S)", " ", prose(page)))]


def links(page: Path) -> list[str]:
    """Targets of the links and pictures of a page."""
    return [match[1] or match[2] for match in _LINK.finditer(prose(page))]


def anchors(page: Path) -> set[str]:
    """Names that a link may give behind #, as GitHub makes them of headings."""
    found: set[str] = set()
    for line in prose(page).splitlines():
        heading = re.match(r"#+\s+(.*)", line)
        if heading:
            words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading[1]).lower()
            name = re.sub(r"[^\w\- ]", "", words).strip().replace(" ", "-")
            number = 0
            while (name if not number else f"{name}-{number}") in found:
                number += 1
            found.add(name if not number else f"{name}-{number}")
    return found
