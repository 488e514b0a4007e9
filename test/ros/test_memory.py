"""What the allocator is told."""

import subprocess
import sys
import sysconfig

import pytest

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
