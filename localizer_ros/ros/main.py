"""The node's process: from the command line to the exit code.

The main thread waits for a signal and for nothing else; ROS runs in a thread of its own and the localizer in another.
So SIGINT and SIGTERM are answered at once, whatever the process is doing: a scene may take longer to open than anybody
waits for an end.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from localizer_ros.core.extras import how_to_install
from localizer_ros.core.threads import one_thread_for_linear_algebra
from localizer_ros.ros.memory import keep_small

if TYPE_CHECKING:
    from rclpy.executors import Executor

    from localizer_ros.ros.live_view import LiveView
    from localizer_ros.ros.node import LocalizerNode, Show
    from localizer_ros.ros.online_localizer import Opener

# What has not ended by then is left to the system.
_END_WITHIN_S = 1.2


def main() -> None:
    """Executable ``localizer_node``."""
    try:
        code = run_node(sys.argv)
    except ModuleNotFoundError as error:
        if (line := how_to_install(error.name or "")) is None:
            raise
        sys.stderr.write(f"localizer_node: error: {line}\n")
        code = 1
    sys.exit(code)


def run_scene(scene: Path | str, ros_arguments: Sequence[str] = (), view: bool = False) -> int:
    """``localizer run SCENE [--view] [ROS arguments]``; returns the exit code."""
    given = [argument for argument in ros_arguments if argument != "--ros-args"]
    return run_node(["localizer", "--ros-args", *given], Path(scene).resolve(), view=view)


def run_node(
    arguments: Sequence[str], scene: Path | None = None, opener: Opener | None = None, view: bool = False
) -> int:
    """Run the node until it is told to stop.

    Args:
        arguments: command line of the process, with ROS arguments.
        scene: overrides the parameter of that name.
        opener: makes the localizer; None takes the real one.
        view: serve a viewer for browsers, which shows the map of ``scene``.

    Returns:
        The exit code: 0 after a signal, 1 when the node could not start.
    """
    keep_small()
    one_thread_for_linear_algebra()
    end = _End()
    # Late: signals are taken before anything is imported that takes a while.
    from rclpy.executors import SingleThreadedExecutor

    from localizer_ros.core.types import LocalizerError

    try:
        eyes = _open_view(scene) if view and scene is not None else None
        node = _create_node(arguments, scene, opener, None if eyes is None else eyes.add)
    except LocalizerError as error:
        sys.stderr.write(f"localizer_node: error: {error}\n")
        return 1
    if eyes is not None:
        node.get_logger().info(f"view: open {eyes.address} in a browser")
        eyes.start(lambda: node.health.diagnose(), node.get_logger().warning)
    executor = SingleThreadedExecutor()
    executor.add_node(node)

    def serve() -> None:
        code = 1
        try:
            code = _serve(node, executor, end)
        finally:
            if eyes is not None:
                eyes.close()
            end.tell(code)

    ros = threading.Thread(target=serve, name="ros", daemon=True)
    ros.start()
    number = end.wait()
    if number is None:
        ros.join()
        return end.code
    sys.stderr.write(f"localizer_node: stopped by {number.name}\n")
    sys.stderr.flush()
    executor.wake()
    ros.join(_END_WITHIN_S)
    if ros.is_alive():
        # What is still being opened cannot be interrupted, and must not be met by the end of the interpreter.
        os._exit(0)
    return 0


class _End:
    """Waits for SIGINT, SIGTERM, or for the node to end by itself.

    Attributes:
        asked: a signal has come.
        code: exit code of a node that ended by itself.
    """

    def __init__(self) -> None:
        # A signal may be delivered to another thread, or just before the main thread begins to wait: only a file
        # descriptor wakes it for certain.
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        signal.set_wakeup_fd(self._writer)
        self.asked, self.code = False, 0
        self._handle(self._on_signal)

    def wait(self) -> signal.Signals | None:
        """The signal that came first; None when the node ended by itself. Signals after it are ignored."""
        number = os.read(self._reader, 1)[0]
        self.asked = number != 0
        # The terminal, or a launch file, often sends a second one.
        self._handle(signal.SIG_IGN)
        return signal.Signals(number) if number else None

    def tell(self, code: int) -> None:
        """The node has ended by itself, in another thread."""
        self.code = code
        os.write(self._writer, b"\0")

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.asked = True

    @staticmethod
    def _handle(handler: Callable[[int, FrameType | None], None] | signal.Handlers) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, handler)


def _open_view(scene: Path) -> LiveView:
    """A viewer for browsers. Raises ConfigError where nothing can be served."""
    # Late: it is an optional extra, and takes memory that a robot without it keeps.
    from localizer_ros.ros.live_view import serve

    return serve(scene)


def _create_node(
    arguments: Sequence[str], scene: Path | None, opener: Opener | None, show: Show | None
) -> LocalizerNode:
    """ROS and the node. Raises ConfigError for what is wrong with the arguments or the parameters."""
    import rclpy
    from rclpy.parameter import Parameter
    from rclpy.signals import SignalHandlerOptions

    from localizer_ros.core.types import ConfigError
    from localizer_ros.ros.dds_profile import use_shared_memory_profile
    from localizer_ros.ros.node import LocalizerNode
    from localizer_ros.ros.online_localizer import open_scene

    profile = use_shared_memory_profile()
    try:
        rclpy.init(args=list(arguments), signal_handler_options=SignalHandlerOptions.NO)
    except Exception as error:
        said = " ".join(str(error).split())
        # Of arguments that it does not know rclpy says the bare list.
        unknown = said.startswith("[")
        raise ConfigError(f"ROS knows no such arguments: {said.strip('[]')}" if unknown else said) from error
    given = [Parameter("scene", value=str(scene))] if scene is not None else []
    try:
        node = LocalizerNode(
            opener or open_scene, show=show, parameter_overrides=given, cli_args=list(arguments)
        )
    except Exception:
        rclpy.try_shutdown()
        raise
    node.get_logger().debug(f"Fast DDS profile: {profile or 'none'}")
    return node


def _serve(node: LocalizerNode, executor: Executor, end: _End) -> int:
    """The exit code, after the node was served until the end was asked for, and started where it starts by itself."""
    import rclpy

    try:
        start = executor.create_task(node.start) if node.autostart else None
        if start is None:
            node.get_logger().info("waiting for a lifecycle manager: autostart is false")
        while not end.asked and executor.context.ok():
            if start is not None and start.done():
                if start.exception() is not None or not start.result():
                    # The transition has logged why.
                    return 1
                start = None
            try:
                executor.spin_once()
            except Exception:
                # The node of a moving robot does not die of one callback.
                text = f"unexpected error:\n{traceback.format_exc()}"
                node.get_logger().error(text, throttle_duration_sec=5.0)
        return 0
    finally:
        executor.shutdown()
        node.destroy_node()
        rclpy.try_shutdown()


if __name__ == "__main__":
    main()
