"""What the allocator is told."""

import mmap
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from localizer_ros.ros.memory import _unchanged

# Arrays of eight megabytes that are used and freed, one after the other, with a small one behind each that stays.
SCRIPT = """
import sys, numpy as np
from pathlib import Path
from localizer_ros.ros.memory import keep_small
assert sys.argv[1] == "no" or keep_small()
kept = []
for _ in range(20):
    large = [np.ones(1 << 20) for _ in range(4)]
    kept.append([bytearray(5000) for _ in range(20)])
    del large
print(int(Path("/proc/self/statm").read_text().split()[1]))
"""

# Libraries with tables that a loader has written into, and a file that somebody has read as an engine is read.
GIVEN_BACK = """
import sys, mmap, cv2, numpy as np, scipy.spatial
from pathlib import Path
from localizer_ros.ros.memory import give_back
def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE
def answers():
    image = np.arange(64 * 64, dtype=np.float32).reshape(64, 64)
    blurred = cv2.GaussianBlur(image, (5, 5), 1.0)
    return blurred, np.linalg.inv(image + 5000.0 * np.eye(64)), scipy.spatial.cKDTree(image).query(image, 3)[0]
with open(sys.argv[1], "rb") as file:
    engine = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
content, expected, before = engine[:], answers(), resident()
given_back = give_back()
after = resident()
assert engine[:] == content and all(np.array_equal(a, b) for a, b in zip(answers(), expected))
print(before - after if given_back else -1)
"""
# As Linux writes it: code, what the loader has changed and locked, what may be written, and memory without a file.
SMAPS = """\
7f0000000000-7f0000002000 r-xp 00000000 08:01 42                         /usr/lib/libone.so
Size:                  8 kB
Anonymous:             0 kB
VmFlags: rd ex mr mw me sd
7f0000002000-7f0000003000 r--p 00002000 08:01 42                         /usr/lib/libone.so
Anonymous:             4 kB
7f0000003000-7f0000004000 rw-p 00003000 08:01 42                         /usr/lib/libone.so
Anonymous:             0 kB
7f0000005000-7f0000006000 r--p 00000000 00:00 0
Anonymous:             0 kB
7f0000006000-7f0000009000 r--s 00000000 08:01 43                         /a scene/engines/1.blob
Anonymous:             0 kB
"""


def test_only_files_as_they_are_on_disk_are_given_back() -> None:
    assert list(_unchanged(SMAPS)) == [(0x7F0000000000, 0x7F0000002000), (0x7F0000006000, 0x7F0000009000)]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")
def test_what_the_start_has_read_is_given_back_and_read_again(tmp_path: Path) -> None:
    engine = tmp_path / "engine.blob"
    engine.write_bytes(bytes(range(256)) * 65_536)
    done = subprocess.run(
        [sys.executable, "-c", GIVEN_BACK, str(engine)], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) > engine.stat().st_size - 100 * mmap.PAGESIZE


@pytest.mark.skipif(
    "gnu" not in str(sysconfig.get_config_var("HOST_GNU_TYPE")), reason="glibc's allocator is meant"
)
def test_what_was_large_is_given_back() -> None:
    pages = {}
    for told in ("no", "yes"):
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, told], capture_output=True, text=True, check=True
        )
        pages[told] = int(done.stdout)
    # The four arrays are 8192 pages; without being told, glibc keeps most of them.
    assert pages["yes"] < pages["no"] - 4000
