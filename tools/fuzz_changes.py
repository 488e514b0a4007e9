"""Seeded damage to a folder of files, as disks, cables, editors and people do it; see ``fuzz_readers.py``."""

from __future__ import annotations

import os
import re
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np

Change = Callable[[np.random.Generator, bytes], bytes]

ESCAPE = "fuzz-escaped"
"""In every name that leads out of the folder it stands in."""

# What no number of a recording is.
_NUMBERS = (
    "nan", ".nan", "inf", "-.inf", ".inf", "1e400", "-1", "0", "1e-320", "9" * 5000, "0." + "9" * 5000, "-0",
    "9223372036854775807", "9223372036854775808", "-9223372036854775809", "18446744073709551616", "1e308",
    "4294967296", "60000", "1_000", "0x10", "١٢", "", "x", "1,2", "true", "null", "[]", "{}", "2024-99-99",
)  # fmt: skip
_WORDS = (
    f"../{ESCAPE}", f"../../../{ESCAPE}.png", f"/tmp/{ESCAPE}.png", "..", ".", "/dev/zero", "/", "a\0b", "é" * 200,
    "x" * 5000, "\\..\\x", "~", "%s%n", "{0}", "$(id)", "-", "con", "", " ", "\ud7ff", "\U0001f600",
)  # fmt: skip
_BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join('*' + chr(97 + i) for _ in range(10))}]\n" for i in range(9)
)
_TEXTS = (
    "[" * 50_000, "{a: " * 20_000, _BOMB, "a: &a [*a]\n", "a: !!python/object/apply:os.system [id]\n", "\0" * 100,
    "\ufeff", "#" * 100_000 + "\n", "1 " * 100_000 + "\n", "\n" * 10_000,
)  # fmt: skip


def changed(rng: np.random.Generator, root: Path) -> tuple[Path, str]:
    """The file of a folder that was damaged, and how.

    Args:
        rng: decides.
        root: the folder; images are many and alike, so that each is damaged more seldom than another file.
    """
    files = sorted(path for path in root.rglob("*") if path.is_file())
    weight = np.array([0.25 if file.suffix in (".png", ".jpg") else 1.0 for file in files])
    file = files[int(rng.choice(len(files), p=weight / weight.sum()))]
    if rng.random() < 0.12:
        names = list(_OF_FILES)
        name = names[int(rng.integers(len(names)))]
        _OF_FILES[name](file)
        return file, name
    content = file.read_bytes()
    changes = {**_OF_BYTES, **(_OF_LINES if _is_text(content) else {})}
    names = list(changes)
    for _ in range(20):
        name = names[int(rng.integers(len(names)))]
        new = changes[name](rng, content)
        if new != content:
            break
    file.write_bytes(new)
    return file, name


def _is_text(content: bytes) -> bool:
    try:
        return "\0" not in content.decode()
    except UnicodeDecodeError:
        return False


# --- of whole files ---


def _fifo(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def _device(file: Path) -> None:
    file.unlink()
    file.symlink_to("/dev/zero")


def _folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def _loop(file: Path) -> None:
    file.unlink()
    file.symlink_to(file.name)


def _twice(file: Path) -> None:
    shutil.copy(file, file.with_name("9" + file.name))


_OF_FILES: dict[str, Callable[[Path], None]] = {
    "a pipe instead": _fifo,
    "a device instead": _device,
    "a folder instead": _folder,
    "a link to itself": _loop,
    "gone": Path.unlink,
    "twice": _twice,
}


# --- of bytes ---


def _cut(rng: np.random.Generator, content: bytes) -> bytes:
    # Often within the last bytes, which is what only an exact check sees.
    last = int(rng.integers(1, 16)) if rng.random() < 0.4 else int(rng.integers(1, len(content) + 2))
    return content[: max(0, len(content) - last)]


def _flip(rng: np.random.Generator, content: bytes) -> bytes:
    data = bytearray(content)
    for _ in range(int(rng.choice([1, 1, 1, 8, 200]))):
        if data:
            data[_place(rng, len(data))] ^= 1 << int(rng.integers(8))
    return bytes(data)


def _integer(rng: np.random.Generator, content: bytes) -> bytes:
    """A length, count or index that is far off."""
    data = bytearray(content)
    kind = str(rng.choice(["<I", "<Q", ">I", "<H", ">H"]))
    size = struct.calcsize(kind)
    if len(data) > size:
        at = min(_place(rng, len(data)), len(data) - size)
        largest = (1 << 8 * size) - 1
        value = (
            int(rng.choice([0, 1, 255, 60_000])) if rng.random() < 0.5 else largest >> int(rng.integers(4))
        )
        struct.pack_into(kind, data, at, min(value, largest))
    return bytes(data)


def _value(rng: np.random.Generator, content: bytes) -> bytes:
    """A double that is none."""
    data = bytearray(content)
    if len(data) > 8:
        value = float(rng.choice([np.nan, np.inf, -np.inf, 1e308, 1e-320, -1.0, 0.0]))
        struct.pack_into("<d", data, min(_place(rng, len(data)), len(data) - 8), value)
    return bytes(data)


def _hole(rng: np.random.Generator, content: bytes) -> bytes:
    at, count = _place(rng, len(content)), int(rng.integers(1, max(2, len(content) // 3)))
    return content[:at] + bytes(len(content[at : at + count])) + content[at + count :]


def _missing(rng: np.random.Generator, content: bytes) -> bytes:
    at, count = _place(rng, len(content)), int(rng.integers(1, max(2, len(content) // 3)))
    return content[:at] + content[at + count :]


def _more(rng: np.random.Generator, content: bytes) -> bytes:
    at = len(content) if rng.random() < 0.5 else _place(rng, len(content))
    return content[:at] + rng.bytes(int(rng.integers(1, 200))) + content[at:]


def _place(rng: np.random.Generator, size: int) -> int:
    """Headers are short and decide most: half the time within the first bytes."""
    return int(rng.integers(min(size, 200) + 1 if rng.random() < 0.5 else size + 1)) % max(1, size)


_OF_BYTES: dict[str, Change] = {
    "cut": _cut,
    "bits": _flip,
    "an integer": _integer,
    "a double": _value,
    "zeros": _hole,
    "bytes missing": _missing,
    "bytes more": _more,
    "empty": lambda rng, content: b"",
    "noise": lambda rng, content: rng.bytes(min(len(content), 100_000)),
}


# --- of lines and words ---


def _token(rng: np.random.Generator, content: bytes, new: tuple[str, ...], pattern: str) -> bytes:
    text = content.decode()
    found = list(re.finditer(pattern, text))
    if not found:
        return content
    match = found[int(rng.integers(len(found)))]
    word = new[int(rng.integers(len(new)))]
    return (text[: match.start()] + word + text[match.end() :]).encode("utf-8", "surrogatepass")


def _number(rng: np.random.Generator, content: bytes) -> bytes:
    return _token(rng, content, _NUMBERS, r"-?\d+(\.\d+)?(e[-+]?\d+)?")


def _word(rng: np.random.Generator, content: bytes) -> bytes:
    return _token(rng, content, _WORDS, r"[A-Za-z][\w./-]*")


def _digit(rng: np.random.Generator, content: bytes) -> bytes:
    return _token(rng, content, tuple("0123456789.- "), r"\d")


def _lines(rng: np.random.Generator, content: bytes) -> bytes:
    lines = content.decode().splitlines(keepends=True)
    if not lines:
        return content
    i, j = (int(k) for k in rng.integers(len(lines), size=2))
    kind = int(rng.integers(4))
    if kind == 0:
        lines.insert(j, lines[i])
    elif kind == 1:
        lines[i], lines[j] = lines[j], lines[i]
    elif kind == 2:
        del lines[i]
    else:
        lines[i] = " ".join(lines[i].split()[:-1]) + "\n"
    return "".join(lines).encode()


def _text(rng: np.random.Generator, content: bytes) -> bytes:
    new = _TEXTS[int(rng.integers(len(_TEXTS)))].encode()
    return (content + b"\n" + new, new + content, new)[int(rng.integers(3))]


_OF_LINES: dict[str, Change] = {
    "a number": _number,
    "another number": _number,
    "a word": _word,
    "a digit": _digit,
    "lines": _lines,
    "a text": _text,
}
