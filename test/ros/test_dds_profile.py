"""The Fast DDS profile of the package."""

from __future__ import annotations

import os
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
