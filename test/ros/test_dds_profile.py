"""The Fast DDS profile of the package."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from localizer_ros.ros.dds_profile import PROFILE_VARIABLE, use_shared_memory_profile


def test_the_profile_is_named_unless_the_user_named_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PROFILE_VARIABLE, "/mine.xml")
    assert use_shared_memory_profile() == "/mine.xml"
    monkeypatch.delenv(PROFILE_VARIABLE)
    found = use_shared_memory_profile()
    assert Path(found).name == "fastdds.xml" and Path(found).is_file()
    assert os.environ[PROFILE_VARIABLE] == found


@pytest.mark.ros
def test_the_middleware_understands_the_profile(tmp_path: Path) -> None:
    join = "import rclpy; rclpy.init(); rclpy.create_node('reads_the_profile'); rclpy.try_shutdown()"

    def said(profile: str) -> str:
        environment = {**os.environ, PROFILE_VARIABLE: profile}
        run = subprocess.run(
            [sys.executable, "-c", join], env=environment, capture_output=True, text=True, timeout=60
        )
        return run.stdout + run.stderr if run.returncode == 0 else f"failed: {run.stderr}"

    package = Path(__file__).parents[2] / "config" / "fastdds.xml"
    assert "rror" not in said(str(package))
    misspelt = tmp_path / "misspelt.xml"
    misspelt.write_text(package.read_text().replace("leaseAnnouncement", "leaseAnnounce"))
    assert "rror" in said(str(misspelt))
