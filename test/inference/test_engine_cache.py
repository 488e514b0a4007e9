"""Compiled engines on disk."""

from __future__ import annotations

from pathlib import Path

from localizer_ros.inference.engine_cache import cached_engine, engine_key


def test_engines_are_rebuilt_when_anything_they_depend_on_changes(tmp_path: Path) -> None:
    keys = {
        engine_key("a" * 64, gpu, library, precision)
        for gpu in ("Orin sm_87", "RTX 4090 sm_89")
        for library in ("tensorrt 10.3", "tensorrt 10.7")
        for precision in ("fp16", "fp32")
    }
    assert len(keys) == 8 and engine_key("b" * 64, "Orin sm_87", "tensorrt 10.3", "fp16") not in keys
    builds = []

    def build() -> bytes:
        builds.append(1)
        return b"engine"

    first, second = sorted(keys)[:2]
    for key in (first, first, second, second):
        assert cached_engine(tmp_path, "posenet", key, build) == b"engine"
    assert len(builds) == 2
    assert [p.name for p in tmp_path.iterdir()] == [f"posenet-{second}.engine"]


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "engines").write_text("a file where the folder should be")
    assert cached_engine(tmp_path / "engines", "posenet", "key", lambda: b"engine") == b"engine"
