"""Shared memory large enough for camera images, without anybody having to know of it.

With its defaults Fast DDS loses most raw images at camera rate (see ``config/fastdds.xml``). The profile is read
when a process joins the network for the first time, so it has to be named before that.
"""

from __future__ import annotations

import os
from pathlib import Path

PROFILE_VARIABLE = "FASTRTPS_DEFAULT_PROFILES_FILE"
# Newer releases of Fast DDS read this one as well.
_OTHER_VARIABLE = "FASTDDS_DEFAULT_PROFILES_FILE"


def use_shared_memory_profile() -> str:
    """Name the package's Fast DDS profile to the middleware, unless the user has named one.

    Returns:
        The profile in use; empty when the package's is not installed.
    """
    named = os.environ.get(PROFILE_VARIABLE) or os.environ.get(_OTHER_VARIABLE)
    if named:
        return named
    found = next((path for path in _candidates() if path.is_file()), None)
    if found is None:
        return ""
    os.environ[PROFILE_VARIABLE] = str(found)
    return str(found)


def _candidates() -> list[Path]:
    """Beside the package in a checkout, and where an installation puts it."""
    places = [Path(__file__).resolve().parents[2]]
    for prefix in filter(None, os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)):
        places.append(Path(prefix) / "share" / "localizer_ros")
    return [place / "config" / "fastdds.xml" for place in places]
