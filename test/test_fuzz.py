"""A few of the damages that ``tools/fuzz_readers.py`` does: each is read, or refused in one line that names a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fuzz_cases import READERS
from fuzz_changes import changed
from fuzz_readers import Fuzz, attempt

from localizer_ros.core.types import SourceError
from localizer_ros.datasets.source import FORMATS


@pytest.mark.parametrize("reader", READERS)
def test_damage_is_read_or_refused_in_one_line(reader: str, tmp_path: Path) -> None:
    case = Fuzz(reader, tmp_path, attempt)
    for seed in range(4):
        damage, result = case.run(seed)
        assert result.kind in ("read", "refused"), (
            f"--reader {reader} --seed {seed}: {damage}: {result.detail}"
        )


def test_every_format_is_damaged() -> None:
    # A bag of any storage is one format; several recordings are what each of them is.
    known = {name.split("-")[0].rstrip("12") for name in READERS} | {"several"}
    assert set(FORMATS) <= known


def test_the_same_seed_does_the_same_damage(tmp_path: Path) -> None:
    results = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "times.txt").write_text("0.0\n0.1\n0.2\n")
        file, damage = changed(np.random.default_rng(7), tmp_path / name)
        results.append((damage, file.read_bytes() if file.is_file() else None))
    assert results[0] == results[1]


def test_faults_are_told_from_refusals() -> None:
    def work(error: Exception) -> tuple[dict[str, object], list[str]]:
        raise error

    kinds = {
        "refused": SourceError("/drive/rgb.txt:3: expected a stamp"),
        "line": SourceError("expected a stamp"),
        "traceback": ValueError("expected a stamp"),
        "memory": MemoryError(),
    }
    assert {kind: attempt(lambda error=error: work(error)).kind for kind, error in kinds.items()} == {
        kind: kind for kind in kinds
    }
