"""The node's process: how it starts, fails to start, and ends."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import rclpy
from fake_robot import CAMERA
from geometry_msgs.msg import PoseStamped
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CameraInfo, Image

from localizer_ros.ros import conversions as convert
from localizer_ros.scene.bundle import Scene

pytestmark = [pytest.mark.ros, pytest.mark.slow]

TEST_FOLDER = Path(__file__).resolve().parents[1]
# A signal is answered within this, and so is the end of a scene that is still being opened.
END_S = 2.0


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "localizer_ros.ros.main", "--ros-args", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def error_lines(stderr: str) -> list[str]:
    return [line for line in stderr.splitlines() if "rror" in line or "ERROR" in line]


# --- nothing to run ---


def test_a_missing_scene_is_one_line_and_exit_code_1(tmp_path: Path) -> None:
    done = run("-p", f"scene:={tmp_path / 'nowhere'}")
    assert done.returncode == 1
    assert len(error_lines(done.stderr)) == 1 and "no such scene" in done.stderr
    assert "Traceback" not in done.stderr


def test_without_ros_it_says_what_to_install() -> None:
    hidden = "import sys; sys.modules['rclpy'] = None; from localizer_ros.ros.main import main; main()"
    done = subprocess.run([sys.executable, "-c", hidden], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "rclpy is not installed" in done.stderr and "localizer_ros[ros]" in done.stderr


def test_a_scene_that_is_not_set_is_one_line_and_exit_code_1() -> None:
    done = run()
    assert done.returncode == 1
    assert len(error_lines(done.stderr)) == 1 and "parameter scene" in done.stderr


def test_a_changed_file_of_a_scene_is_named(tiny_scene: Path, tmp_path: Path) -> None:
    scene = tmp_path / "changed scene"
    shutil.copytree(tiny_scene, scene)
    name = next(iter(Scene.load(scene).manifest["files"]))
    with (scene / name).open("ab") as file:
        file.write(b"!")
    done = run("-p", f"scene:='{scene}'")
    assert done.returncode == 1
    assert len(error_lines(done.stderr)) == 1 and f"{name}: has changed" in done.stderr


def test_a_misspelt_parameter_is_named() -> None:
    done = run("-p", "smother.lag_s:=1.0")
    assert done.returncode == 1
    assert len(error_lines(done.stderr)) == 1 and "unknown setting smother.lag_s" in done.stderr


def test_a_misspelt_option_is_named() -> None:
    done = run("--viw")
    assert done.returncode == 1
    assert error_lines(done.stderr) == ["localizer_node: error: ROS knows no such arguments: '--viw'"]


def test_malformed_ros_arguments_are_one_line_beside_that_of_ros_and_exit_code_1() -> None:
    done = run("-p", "no_value")
    assert done.returncode == 1
    lines = [line for line in done.stderr.splitlines() if "[rcl]" not in line]
    assert len(lines) == 1 and lines[0].startswith("localizer_node: error: ")


# --- the end ---


class Process:
    """The node with a fake localizer, in a process of its own.

    Args:
        opening: ``fake`` opens at once, ``slow`` in a minute.
        arguments: ROS arguments.
        scene: a viewer for browsers shows its map; None = no viewer.
    """

    def __init__(self, opening: str, *arguments: str, scene: Path | None = None) -> None:
        viewed = [] if scene is None else [str(scene)]
        command = [sys.executable, "-m", "fake_node", opening, *viewed]
        command += ["--ros-args", "-p", "scene:=x", *arguments]
        path = os.pathsep.join([str(TEST_FOLDER), str(TEST_FOLDER.parent)])
        self.lines: list[str] = []
        self._process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | {"PYTHONPATH": path},
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.lines.append(line.rstrip())

    def wait_for(self, text: str) -> None:
        deadline_s = time.monotonic() + 30.0
        while not any(text in line for line in self.lines):
            assert time.monotonic() < deadline_s and self._process.poll() is None, "\n".join(self.lines)
            time.sleep(0.01)

    def end(self, *signals: signal.Signals) -> tuple[int, float, list[str]]:
        """Exit code, seconds from the first signal, and the lines printed since."""
        before, began_s = len(self.lines), time.monotonic()
        for each in signals:
            self._process.send_signal(each)
        code = self._process.wait(30.0)
        took_s = time.monotonic() - began_s
        self._reader.join(5.0)
        return code, took_s, self.lines[before:]

    def kill(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()


@pytest.fixture
def processes() -> Iterator[list[Process]]:
    started: list[Process] = []
    yield started
    for process in started:
        process.kill()


@contextlib.contextmanager
def streaming() -> Iterator[list[PoseStamped]]:
    """Images at 50 Hz to the node; gives the poses that come back."""
    context = rclpy.Context()
    rclpy.init(args=[], context=context)
    camera = rclpy.create_node("camera", context=context)
    infos = camera.create_publisher(CameraInfo, "/camera_info", QoSProfile(depth=5))
    images = camera.create_publisher(Image, "/image", QoSProfile(depth=5))
    poses: list[PoseStamped] = []
    camera.create_subscription(PoseStamped, "/localizer/pose", poses.append, QoSProfile(depth=50))
    pixels = np.zeros((CAMERA.height_px, CAMERA.width_px, 3), np.uint8)

    def send() -> None:
        stamp_ns = time.time_ns()
        infos.publish(convert.info_msg(CAMERA, stamp_ns, "camera"))
        images.publish(convert.image_msg(pixels, stamp_ns, "camera"))

    camera.create_timer(0.02, send)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(camera)

    def spin() -> None:
        with contextlib.suppress(ExternalShutdownException):
            executor.spin()

    thread = threading.Thread(target=spin, daemon=True)
    thread.start()
    try:
        yield poses
    finally:
        rclpy.try_shutdown(context=context)
        thread.join(10.0)
        camera.destroy_node()


def test_a_view_is_served_while_the_node_runs_and_ends_with_it(
    processes: list[Process], tiny_map: Path
) -> None:
    pytest.importorskip("rerun")
    process = Process("fake", scene=tiny_map)
    processes.append(process)
    process.wait_for("in a browser")
    (address,) = (re.findall(r"http://\S+", line) for line in process.lines if "in a browser" in line)
    with streaming() as poses:
        process.wait_for("TRACKING")
        with urllib.request.urlopen(address[0], timeout=20.0) as page:
            assert b"rerun" in page.read().lower()
        deadline_s = time.monotonic() + 20.0
        while len(poses) < 10:
            assert time.monotonic() < deadline_s, "no poses"
            time.sleep(0.01)
    assert_ended_well(process.end(signal.SIGINT), signal.SIGINT)


def assert_ended_well(ended: tuple[int, float, list[str]], by: signal.Signals) -> None:
    code, took_s, lines = ended
    assert code == 0, "\n".join(lines)
    # A line of the node's work may come as late as the signal.
    assert [line for line in lines if "[INFO]" not in line] == [f"localizer_node: stopped by {by.name}"]
    assert took_s < END_S


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_streaming_ends_the_node_with_one_line_and_code_0(
    processes: list[Process], number: signal.Signals
) -> None:
    process = Process("fake")
    processes.append(process)
    with streaming() as poses:
        process.wait_for("TRACKING")
        deadline_s = time.monotonic() + 20.0
        while len(poses) < 10:
            assert time.monotonic() < deadline_s, "no poses"
            time.sleep(0.01)
        assert_ended_well(process.end(number), number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_a_scene_is_opened_ends_the_node_with_one_line_and_code_0(
    processes: list[Process], number: signal.Signals
) -> None:
    process = Process("slow")
    processes.append(process)
    process.wait_for("opening")
    assert_ended_well(process.end(number), number)


def test_a_second_signal_changes_nothing(processes: list[Process]) -> None:
    # The terminal sends SIGINT to a launch file and to its nodes, and the launch file sends it once more.
    process = Process("slow")
    processes.append(process)
    process.wait_for("opening")
    ended = process.end(signal.SIGINT, signal.SIGINT, signal.SIGTERM)
    code, took_s, lines = ended
    assert code == 0 and took_s < END_S
    assert len(lines) == 1 and lines[0].startswith("localizer_node: stopped by SIG")


def test_a_signal_ends_a_node_that_waits_for_its_manager(processes: list[Process]) -> None:
    process = Process("fake", "-p", "autostart:=false")
    processes.append(process)
    process.wait_for("waiting for a lifecycle manager")
    assert_ended_well(process.end(signal.SIGTERM), signal.SIGTERM)


def test_an_autostarted_process_outlives_a_manager_that_configures_it_again(processes: list[Process]) -> None:
    from lifecycle_msgs.msg import Transition
    from lifecycle_msgs.srv import ChangeState

    process = Process("fake")
    processes.append(process)
    process.wait_for("active: waiting")
    context = rclpy.Context()
    rclpy.init(args=[], context=context)
    manager = rclpy.create_node("manager", context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(manager)
    client = manager.create_client(ChangeState, "/localizer/change_state")
    try:
        assert client.wait_for_service(20.0)
        for number, possible in (
            (Transition.TRANSITION_CONFIGURE, False),
            (Transition.TRANSITION_ACTIVATE, False),
            (Transition.TRANSITION_CLEANUP, False),
            (Transition.TRANSITION_DEACTIVATE, True),
            (Transition.TRANSITION_ACTIVATE, True),
        ):
            future = client.call_async(ChangeState.Request(transition=Transition(id=number)))
            executor.spin_until_future_complete(future, 20.0)
            assert future.result().success is possible, number
    finally:
        manager.destroy_node()
        rclpy.try_shutdown(context=context)
    assert_ended_well(process.end(signal.SIGINT), signal.SIGINT)
