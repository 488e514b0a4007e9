"""Folders that appear whole, YAML whose every failure is one line, names in their natural order."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path
from typing import Any

import pytest

import localizer_ros
from localizer_ros.core.files import (
    check_regular,
    inside_name,
    is_there,
    like_it,
    natural_key,
    new_folder,
    parse_yaml,
    read_text,
    read_yaml,
)
from localizer_ros.core.types import ConfigError, LocalizerError, SceneError, SourceError


def test_a_new_folder_appears_whole(tmp_path: Path) -> None:
    with new_folder(tmp_path / "deep" / "out") as folder:
        (folder / "file").write_text("content")
        assert not (tmp_path / "deep" / "out").exists()
    assert (tmp_path / "deep" / "out" / "file").read_text() == "content"
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["out"]


def test_a_misspelt_name_is_one_that_is_to_be_seen(tmp_path: Path) -> None:
    (tmp_path / ".scene.work").mkdir()
    assert like_it(tmp_path / "scene") == ""
    (tmp_path / "scene1").mkdir()
    assert like_it(tmp_path / "scene") == "; did you mean scene1?"
    assert like_it(tmp_path / "none" / "scene") == ""


def test_a_new_folder_vanishes_after_an_error_and_never_replaces_one(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), new_folder(tmp_path / "out") as folder:
        (folder / "file").write_text("half")
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "out").mkdir()
    with pytest.raises(SourceError, match="exists already"), new_folder(tmp_path / "out"):
        pass


def test_an_interruption_says_that_nothing_was_written(tmp_path: Path) -> None:
    with (
        pytest.raises(KeyboardInterrupt, match=r"nothing was written to .*out"),
        new_folder(tmp_path / "out"),
    ):
        raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt, match=r"^half is kept$"), new_folder(tmp_path / "out"):
        raise KeyboardInterrupt("half is kept")


@pytest.mark.parametrize("name", ["x" * 5000, "."])
def test_what_cannot_be_looked_at_is_one_line(tmp_path: Path, name: str) -> None:
    for look in (
        is_there,
        lambda path: check_regular(path, SourceError),
        lambda path: read_yaml(path, SourceError),
    ):
        with pytest.raises(SourceError, match="cannot be read"):
            look(tmp_path / name)


def test_a_text_with_zeros_in_it_is_damaged(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes(b"# heading\nseq1/0.png\0\0\0 1 2\n")
    with pytest.raises(SourceError, match=r"list\.txt: cannot be read \(not text: a zero at byte 20\)"):
        read_text(tmp_path / "list.txt", SourceError)


def test_yaml_is_read(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("a: 1\nb: {c: [2, ü]}\n", encoding="utf-8")
    assert read_yaml(file, ConfigError) == {"a": 1, "b": {"c": [2, "ü"]}}
    for empty in ("", "# only a comment\n", "---\n", "null\n"):
        file.write_text(empty)
        assert read_yaml(file, ConfigError) == {}
    assert parse_yaml("[1, x]", "here", ConfigError) == [1, "x"]


# Each line stands for ten times the values of the one before.
BOMB = b"a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + b"".join(
    b"%c: &%c [%s]\n" % (98 + i, 98 + i, b", ".join([b"*%c" % (97 + i)] * 10)) for i in range(8)
)


@pytest.mark.parametrize("error", [ConfigError, SourceError, SceneError])
@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"a: [1, 2", "cannot be read as YAML"),
        (b"a: b: c", "cannot be read as YAML"),
        (b"a: \x00", "not text: a zero at byte 3"),
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
        (b"a: &a [*a]", "a value that holds itself"),
        (BOMB, "aliases that stand for too many values"),
        (b"#" * (5 << 20), "5 MB, expected at most 4"),
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


def test_an_alias_is_read_and_the_mark_of_windows_is_not(tmp_path: Path) -> None:
    (tmp_path / "settings.yaml").write_bytes(b"\xef\xbb\xbfa: &x [1]\nb: *x\n")
    assert read_yaml(tmp_path / "settings.yaml", ConfigError) == {"a": [1], "b": [1]}


@pytest.mark.parametrize("name", ["../a", "/a", "a", "./a", "..\\a", "../../a", "x/../a", "a\0"])
def test_no_name_leads_out_of_its_folder(name: str, tmp_path: Path) -> None:
    assert (tmp_path / inside_name(name)).resolve().is_relative_to(tmp_path.resolve())
    assert inside_name(name).endswith("a")


def test_a_name_of_nothing_is_one_all_the_same() -> None:
    assert [inside_name(name) for name in ("", "..", "/", "a/b.png")] == ["unnamed"] * 3 + ["a/b.png"]


def _fill(out: Path, begun: Any, go_on: Any) -> None:
    with new_folder(out) as folder:
        (folder / "first").write_text("")
        begun.set()
        go_on.wait(20.0)


def test_two_do_not_write_one_folder(tmp_path: Path) -> None:
    processes = multiprocessing.get_context("fork")
    begun, go_on = processes.Event(), processes.Event()
    first = processes.Process(target=_fill, args=(tmp_path / "out", begun, go_on))
    first.start()
    assert begun.wait(20.0)
    with pytest.raises(SourceError, match="out: another process is writing it"), new_folder(tmp_path / "out"):
        pass
    go_on.set()
    first.join(20.0)
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["first"]
    # A process that was killed holds nothing.
    begun.clear()
    go_on.clear()
    killed = processes.Process(target=_fill, args=(tmp_path / "other", begun, go_on))
    killed.start()
    assert begun.wait(20.0)
    killed.kill()
    killed.join(20.0)
    with new_folder(tmp_path / "other") as folder:
        assert list(folder.iterdir()) == []


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
