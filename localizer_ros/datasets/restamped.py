"""Times for a recording that has none: so many frames a second, or those of a file."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from localizer_ros.core.trajectory import NANOSECONDS, seconds_to_ns, whole_ns
from localizer_ros.core.types import Frame, SourceError
from localizer_ros.datasets.derived import SomeFrames
from localizer_ros.datasets.folder import read_lines
from localizer_ros.datasets.invented_times import BETWEEN_SEQUENCES_NS
from localizer_ros.datasets.source import FrameRecord, FrameSource, check_order


class RestampedSource(SomeFrames):
    """The frames of a recording at other times; a ``FrameSource``. Frames without a time are left out.

    Args:
        source: the recording.
        stamps_ns: of its frames, by name.
        problems: what is wrong with these times, one line each.

    Raises:
        SourceError: times do not increase, or no frame has one.
    """

    def __init__(
        self, source: FrameSource, stamps_ns: Mapping[str, int], problems: Sequence[str] = ()
    ) -> None:
        kept = [i for i, record in enumerate(source.records) if record.name in stamps_ns]
        records = [replace(source.records[i], stamp_ns=stamps_ns[source.records[i].name]) for i in kept]
        check_order(source.path, records)
        super().__init__(source, kept, records)
        self.stamps = "recorded"
        self.problems = [*self.problems, *problems]
        self._stamps_ns = stamps_ns

    def read(self, index: int) -> Frame:
        """See ``FrameSource``."""
        return replace(super().read(index), stamp_ns=self.records[index].stamp_ns)

    def split(self, name: str) -> FrameSource:
        """See ``FrameSource``."""
        return RestampedSource(self._source.split(name), self._stamps_ns)


def with_rate(source: FrameSource, fps: float) -> FrameSource:
    """A recording without times as frames that follow each other, so many a second, in every sequence.

    Raises:
        SourceError: it has times of its own.
    """
    _refuse_recorded(source, "--fps")
    stamps: dict[str, int] = {}
    start_ns, index, previous = 0, 0, None
    for record in source.records:
        if previous is not None and record.sequence != previous.sequence:
            start_ns += round(index * 1e9 / fps) + BETWEEN_SEQUENCES_NS
            index = 0
        stamps[record.name] = start_ns + round(index * 1e9 / fps)
        index, previous = index + 1, record
    return RestampedSource(source, stamps)


def with_stamps(source: FrameSource, file: Path) -> FrameSource:
    """A recording without times, with those of a text file.

    Each line has a stamp and the name of an image in any order, divided by blanks or commas; or a stamp alone, for the
    images in their order. Seconds, or nanoseconds where they can be nothing else.

    Raises:
        SourceError: it has times of its own; a malformed line (file and line are named), another number of stamps than
            of images, or names of which it has none. Of names some of which it has, the others are a problem of it.
    """
    _refuse_recorded(source, "--stamps")
    rows = [(number, re.split(r"[,\s]+", line.strip(", \t"))) for number, line in read_lines(file)]
    # Some tools write a heading of words without a #.
    if rows and not any(_is_number(field) for field in rows[0][1]):
        rows = rows[1:]
    alone = all(len(fields) == 1 for _, fields in rows)
    if alone and len(rows) != len(source.records):
        raise SourceError(
            f"{file}: {len(rows)} stamps for {len(source.records)} images; expected one for each, or 'stamp name' lines"
        )
    if alone:
        named = [(n, record.name, row[0]) for record, (n, row) in zip(source.records, rows, strict=True)]
    else:
        named = [(n, *_stamp_and_name(file, n, fields)) for n, fields in rows]
    stamps = _by_name(file, named)
    return RestampedSource(source, *_known(file, stamps, source.records))


def _refuse_recorded(source: FrameSource, option: str) -> None:
    if source.stamps == "recorded":
        raise SourceError(f"{source.path}: has times of its own ({source.format}); leave {option} out")


def _stamp_and_name(file: Path, number: int, fields: Sequence[str]) -> tuple[str, str]:
    """(name, stamp) of a line of two."""
    if len(fields) != 2:
        raise SourceError(f"{file}:{number}: expected 'stamp name', got {' '.join(fields)[:80]!r}")
    first, second = fields
    # A name may be a number too (1403636579763555584.png is none, 000001 is): then the stamp comes first.
    return (second, first) if _is_number(first) else (first, second)


def _by_name(file: Path, rows: Sequence[tuple[int, str, str]]) -> dict[str, int]:
    stamps: dict[str, int] = {}
    nanoseconds: bool | None = None
    for number, name, text in rows:
        try:
            if nanoseconds is None:
                nanoseconds = abs(float(text)) >= NANOSECONDS
            stamp_ns = whole_ns(text) if nanoseconds else seconds_to_ns(text)
        except ValueError as error:
            raise SourceError(f"{file}:{number}: expected a stamp, got {text[:40]!r}") from error
        if name in stamps:
            raise SourceError(f"{file}:{number}: image {name!r} is listed twice")
        stamps[name] = stamp_ns
    return stamps


def _known(
    file: Path, stamps: Mapping[str, int], records: Sequence[FrameRecord]
) -> tuple[dict[str, int], list[str]]:
    """The stamps by the full names of the recording, and what does not go together.

    A file may name images without their folder or ending.
    """
    found: dict[str, int] = {}
    used: set[str] = set()
    for record in records:
        plain = record.name.rpartition("/")[2]
        for name in (record.name, plain, record.name.rpartition(".")[0], plain.rpartition(".")[0]):
            if name in stamps:
                found[record.name] = stamps[name]
                used.add(name)
                break
    if not found:
        has = next(iter(stamps), "none")
        raise SourceError(
            f"{file}: names none of the {len(records)} images, e.g. {records[0].name}; it has {has}"
        )
    problems = []
    if unknown := [name for name in stamps if name not in used]:
        problems.append(
            f"{file}: {len(unknown)} of its {len(stamps)} names are of no image here, the first is {unknown[0]}"
        )
    if without := [record.name for record in records if record.name not in found]:
        problems.append(
            f"{file}: {len(without)} of {len(records)} images have no stamp and are left out, the first is {without[0]}"
        )
    return found, problems


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
