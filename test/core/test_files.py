"""Folders that appear whole, YAML whose every failure is one line, names in their natural order."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import localizer_ros
from localizer_ros.core.files import natural_key, new_folder, parse_yaml, read_yaml
from localizer_ros.core.types import ConfigError, LocalizerError, SceneError, SourceError


def test_a_new_folder_appears_whole(tmp_path: Path) -> None:
    with new_folder(tmp_path / "deep" / "out") as folder:
        (folder / "file").write_text("content")
        assert not (tmp_path / "deep" / "out").exists()
    assert (tmp_path / "deep" / "out" / "file").read_text() == "content"
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["out"]


def test_a_new_folder_vanishes_after_an_error_and_never_replaces_one(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), new_folder(tmp_path / "out") as folder:
        (folder / "file").write_text("half")
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "out").mkdir()
    with pytest.raises(SourceError, match="exists already"), new_folder(tmp_path / "out"):
        pass


def test_yaml_is_read(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("a: 1\nb: {c: [2, ü]}\n", encoding="utf-8")
    assert read_yaml(file, ConfigError) == {"a": 1, "b": {"c": [2, "ü"]}}
    for empty in ("", "# only a comment\n", "---\n", "null\n"):
        file.write_text(empty)
        assert read_yaml(file, ConfigError) == {}
    assert parse_yaml("[1, x]", "here", ConfigError) == [1, "x"]


@pytest.mark.parametrize("error", [ConfigError, SourceError, SceneError])
@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"a: [1, 2", "cannot be read as YAML"),
        (b"a: b: c", "cannot be read as YAML"),
        (b"a: \x00", "cannot be read as YAML"),
        (b"\xff\xfe\x00\x01binary", "not UTF-8"),
        (b"\x89PNG\r\n\x1a\n\x00\x00", "not UTF-8"),
        (b"[" * 20_000, "nested too deeply"),
        (b"a: " + b"{a: " * 20_000, "nested too deeply"),
        (b"- 1\n- 2\n", "expected a mapping (lines of 'key: value'), got a list"),
        (b"just words", "expected a mapping"),
        (b"5", "expected a mapping"),
        (b"a: !!python/object/apply:os.system [id]", "cannot be read as YAML"),
        (b"a: " + b"9" * 5_000, "cannot be read as YAML"),
        (b"a: 2024-99-99", "cannot be read as YAML"),
        (b"a: !!int ''", "cannot be read as YAML"),
        (b"a: !!timestamp soon", "cannot be read as YAML"),
        (b"? {a: 1}\n: 2", "cannot be read as YAML"),
        (b"a: *nobody", "cannot be read as YAML"),
    ],
)
def test_every_failure_of_yaml_is_one_line_of_the_given_kind(
    content: bytes, says: str, error: type[LocalizerError], tmp_path: Path
) -> None:
    file = tmp_path / "settings.yaml"
    file.write_bytes(content)
    with pytest.raises(error) as caught:
        read_yaml(file, error)
    message = str(caught.value)
    assert message.startswith(f"{file}: ") and says in message and "\n" not in message


def test_what_is_no_file_is_named_and_not_waited_for(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: cannot be read \(No such file"):
        read_yaml(tmp_path / "nowhere.yaml", ConfigError)
    with pytest.raises(ConfigError, match="not a regular file"):
        read_yaml(tmp_path, ConfigError)
    os.mkfifo(tmp_path / "pipe.yaml")
    with pytest.raises(ConfigError, match="not a regular file"):
        read_yaml(tmp_path / "pipe.yaml", ConfigError)


def test_names_are_in_natural_order() -> None:
    ordered = [
        "",
        "0",
        "1",
        "1a",
        "02",
        "2",
        "10",
        "9" * 5_000,
        "a",
        "a1",
        "a2.png",
        "a10.png",
        "a10b2",
        "a10b11",
    ]
    ordered += ["b", "b²", "b٣"]
    assert sorted(reversed(ordered), key=natural_key) == ordered
    assert sorted([Path("seq10/1.png"), Path("seq2/10.png"), Path("seq2/9.png")], key=natural_key) == [
        Path("seq2/9.png"),
        Path("seq2/10.png"),
        Path("seq10/1.png"),
    ]


def test_nothing_else_reads_yaml() -> None:
    package = Path(localizer_ros.__file__).parent
    readers = [file.relative_to(package) for file in package.rglob("*.py") if "safe_load" in file.read_text()]
    assert readers == [Path("core/files.py")]
