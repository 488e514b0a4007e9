"""What a run is measured on: versions and memory of this process."""

from __future__ import annotations

import platform
import resource
import sys

from localizer_ros.scene.bundle import library_versions


def peak_rss_mb() -> float:
    """Largest resident memory that this process ever had, MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux counts in KiB, macOS in bytes.
    return peak / 1024 / 1024 if sys.platform == "darwin" else peak / 1024


def versions() -> dict[str, str]:
    """Versions of this package, Python and what the answers depend on."""
    return {"python": platform.python_version(), **library_versions()}
