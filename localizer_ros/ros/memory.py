"""Memory that stays as small as it is at the start.

Each of the process's thirty threads may have a heap of its own, and once an array was freed glibc takes all of its size
from the heaps, where they leave holes. Two heaps, and arrays of megabytes given back to the system: measured over 200
frames of a hierarchical scene, 54 MB less of 323, and no time. Images of a camera stay in the heaps: to be given new
pages for each would cost more than it saves.

What only the start has needed is given back when a scene is open: an engine's file, of which the library has made a
copy in a layout of its own, and the parts of libraries that say what there is in them. Some ten seconds of frames later
a node with a pose network and its map has 313 MB, where it had 438, and one of a hierarchical scene 223, where it had
279.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from pathlib import Path

# As <malloc.h> has them.
_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8
_LARGE_BYTES = 4 << 20
_HEAPS = 2
# As <sys/mman.h> has it.
_MADV_DONTNEED = 4
_MAPPINGS = Path("/proc/self/smaps")


def keep_small() -> bool:
    """Tell the allocator, before any thread is started; False where it is none that listens (musl, macOS)."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES) and mallopt(_M_ARENA_MAX, _HEAPS))


def give_back() -> bool:
    """Let the kernel have freed heap and the pages of files that nobody has changed in memory; False where it is none
    that can. Who needs such a page again finds it in the file, as if it had never been read."""
    try:
        libc, mappings = ctypes.CDLL(None), _MAPPINGS.read_text()
        trim, advise = libc.malloc_trim, libc.madvise
    except (AttributeError, OSError):
        return False
    trim(ctypes.c_size_t(0))
    for first, last in _unchanged(mappings):
        advise(ctypes.c_void_p(first), ctypes.c_size_t(last - first), _MADV_DONTNEED)
    return True


def _unchanged(mappings: str) -> Iterator[tuple[int, int]]:
    """First address and end of each mapped file that cannot be written to, and that has no page of this process's own:
    a loader writes addresses into some, and locks them afterwards."""
    span: tuple[int, int] | None = None
    for line in mappings.splitlines():
        words = line.split()
        if not words[0].endswith(":"):
            first, last = (int(address, 16) for address in words[0].split("-"))
            named = len(words) > 5 and words[5].startswith("/")
            span = (first, last) if named and words[1][1] == "-" else None
        elif words[0] == "Anonymous:" and words[1] == "0" and span is not None:
            yield span
