"""Threads of the libraries: linear algebra has one where frames are localised, images and networks what is set."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import cv2
import pytest
from command_line import localizer

from localizer_ros.core.threads import ONE_THREAD, cores, share_cores

TOLD = tuple(ONE_THREAD)
# Threads of a process after a product of matrices that OpenBLAS shares between all it has.
PRODUCT = """
import os, sys
from localizer_ros.core.threads import one_thread_for_linear_algebra
assert "numpy" not in sys.modules
if sys.argv[1] == "told":
    one_thread_for_linear_algebra()
import numpy as np
a = np.ones((600, 600))
a @ a
print(len(os.listdir("/proc/self/task")))
"""


def threads_after_a_product(told: str, **environment: str) -> int:
    own = {name: value for name, value in os.environ.items() if name not in TOLD}
    command = [sys.executable, "-c", PRODUCT, told]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={**own, **environment})
    return int(done.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux") or cores(0) < 2, reason="needs /proc and two cores")
def test_linear_algebra_has_one_thread_unless_a_user_says_otherwise() -> None:
    assert threads_after_a_product("told") == 1
    assert threads_after_a_product("not told") > 1
    assert threads_after_a_product("told", OPENBLAS_NUM_THREADS="2") == 2


@pytest.mark.parametrize("command", ["eval", "compare", "bench", "replay", "scenario"])
def test_commands_that_localise_tell_the_libraries(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in TOLD:
        monkeypatch.setenv(name, "7")
        monkeypatch.delenv(name)
    more = {"replay": ("--out", tmp_path / "out"), "scenario": (tmp_path / "no scenarios.yaml",)}
    ran = localizer(command, tmp_path / "no scene", tmp_path / "no recording", *more.get(command, ()))
    assert ran.exit_code == 1, ran.output
    assert [os.environ.get(name) for name in TOLD] == ["1"] * 3


def test_mapping_keeps_all_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "7")
    monkeypatch.delenv("OPENBLAS_NUM_THREADS")
    assert localizer("map", tmp_path / "no recording", "--out", tmp_path / "out").exit_code == 1
    assert "OPENBLAS_NUM_THREADS" not in os.environ


@pytest.mark.usefixtures("opencv_as_before")
def test_images_have_the_threads_that_are_set_or_all_cores() -> None:
    share_cores(1)
    assert cv2.getNumThreads() == 1
    share_cores(0)
    assert cv2.getNumThreads() == cores(0) == len(os.sched_getaffinity(0))
