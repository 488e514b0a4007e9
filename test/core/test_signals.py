"""A library that is imported takes no signal away."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import os, signal, sys
def stop(number, frame):
    print("ours")
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
import localizer_ros.mapping.colmap_model
os.kill(os.getpid(), signal.SIGTERM)
"""


def test_sigterm_is_ours_after_pycolmap_was_imported() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("ours\n", "")
