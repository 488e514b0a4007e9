"""The localizer, and optionally a recording that feeds it and RViz that shows it.

ros2 launch localizer_ros localizer.launch.py scene:=/path/to/scene image:=/camera/image_raw
ros2 launch localizer_ros localizer.launch.py scene:=/path/to/scene bag:=/path/to/recording rviz:=true
"""

import re
from collections.abc import Sequence

from ament_index_python.packages import PackageNotFoundError, get_package_prefix
from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    ExecuteProcess,
    LogInfo,
    OpaqueFunction,
    RegisterEventHandler,
    SetEnvironmentVariable,
)
from launch.event_handlers import OnProcessExit, OnProcessIO
from launch.events import matches_action
from launch.events.process import ProcessExited, ProcessIO, ShutdownProcess
from launch.substitutions import EnvironmentVariable, LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import LifecycleNode, Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import ExecutableInPackage, FindPackageShare

from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity

PACKAGE = "localizer_ros"
# Exit code of a node that cannot start, and how often in a row it is started in vain.
CANNOT_START, MOST_STARTS = 1, 3

# name -> (default, description); None as default makes the argument obligatory.
ARGUMENTS: dict[str, tuple[str | None, str]] = {
    "scene": (None, "folder of the scene, made by `localizer map`"),
    "image": ("image", "topic of the raw images; compressed ones are expected on <image>/compressed"),
    "camera_info": ("camera_info", "topic of the calibration of these images"),
    "odom": ("odom", "topic of external odometry; unused while nobody publishes it"),
    "image_transport": ("", "raw or compressed; empty leaves it to params_file"),
    "map_frame": ("", "frame of the published poses; empty leaves it to params_file, then to the scene"),
    "odom_frame": ("", "when set, TF is map -> odom_frame; empty leaves it to params_file"),
    "base_frame": (
        "",
        "robot frame whose pose is published; empty leaves it to params_file, then the camera",
    ),
    "params_file": ("", "parameter file; empty takes the package's config/localizer.param.yaml"),
    "namespace": ("", "namespace of the node"),
    "use_sim_time": ("", "take time from /clock; empty means: when a bag is given"),
    "autostart": ("true", "configure and activate at once; false leaves it to a lifecycle manager"),
    "respawn": (
        "true",
        "start the node again when it ends; three starts in vain, one after the other, are the last",
    ),
    "respawn_delay": ("2.0", "seconds before that"),
    "log_level": ("info", "debug, info, warn, error or fatal"),
    "bag": ("", "recording to play: bag or any other format `localizer info` knows; empty plays nothing"),
    "rate": ("1.0", "speed of the recording"),
    "loop": ("false", "play the recording again and again"),
    "rviz": ("false", "show poses, path, covariance and the debug image in RViz"),
    "rviz_config": ("", "RViz configuration; empty takes the package's config/localizer.rviz"),
    "fastdds_profile": (
        "",
        "Fast DDS profile; empty keeps FASTRTPS_DEFAULT_PROFILES_FILE where it is set, else takes the package's "
        "config/fastdds.xml, without which raw images are lost",
    ),
}


def is_true(text: str) -> bool:
    """As launch reads a condition."""
    return text.strip().lower() in ("true", "1")


def in_config(name: str) -> PathJoinSubstitution:
    """A file of the package's config folder."""
    return PathJoinSubstitution([FindPackageShare(PACKAGE), "config", name])


def remapped(value: dict[str, str]) -> list[tuple[str, str]]:
    """Topics that are called otherwise than in the node."""
    return [(name, value[name]) for name in ("image", "camera_info", "odom") if value[name] != name]


def node(value: dict[str, str], sim_time: bool) -> LifecycleNode:
    """The localizer."""
    # Only what was given overrides the file.
    given = {
        name: ParameterValue(value[name], value_type=str)
        for name in ("image_transport", "map_frame", "odom_frame", "base_frame")
        if value[name]
    }
    parameters = [
        value["params_file"] or in_config("localizer.param.yaml"),
        {
            "scene": ParameterValue(value["scene"], value_type=str),
            "autostart": is_true(value["autostart"]),
            "use_sim_time": sim_time,
            **given,
        },
    ]
    return LifecycleNode(
        package=PACKAGE,
        executable="localizer_node",
        name="localizer",
        namespace=value["namespace"],
        parameters=parameters,
        remappings=remapped(value),
        ros_arguments=["--log-level", f"localizer:={value['log_level']}"],
        respawn=is_true(value["respawn"]),
        respawn_delay=float(value["respawn_delay"]),
        output="screen",
        emulate_tty=True,
    )


def player(value: dict[str, str]) -> ExecuteProcess:
    """A recording that feeds the localizer."""
    command = [ExecutableInPackage(package=PACKAGE, executable="localizer"), "play", value["bag"]]
    command += ["--rate", value["rate"], "--wait", "1"]
    if is_true(value["loop"]):
        command.append("--loop")
    remaps = [f"{name}:={topic}" for name, topic in remapped(value)]
    if value["namespace"]:
        remaps.append(f"__ns:=/{value['namespace'].strip('/')}")
    if remaps:
        command.append("--ros-args")
    for remap in remaps:
        command += ["-r", remap]
    return ExecuteProcess(cmd=command, name="play", output="screen")


def rviz(value: dict[str, str], sim_time: bool) -> LaunchDescriptionEntity:
    """RViz; where it is not installed, a line that says so."""
    try:
        get_package_prefix("rviz2")
    except PackageNotFoundError:
        return LogInfo(msg="rviz:=true, but rviz2 is not installed here: the localizer runs without it")
    return Node(
        package="rviz2",
        executable="rviz2",
        arguments=["-d", value["rviz_config"] or in_config("localizer.rviz")],
        parameters=[{"use_sim_time": sim_time}],
    )


class Starts:
    """Gives up a node that cannot start: what is wrong with a scene or a parameter does not mend itself.

    Args:
        localizer: the node, which launch starts again when it ends.
        others: what is of no use without it, and ends with it.
    """

    def __init__(self, localizer: LifecycleNode, others: Sequence[ExecuteProcess]) -> None:
        self._localizer, self._others = localizer, others
        self._in_vain, self._last_line = 0, ""

    def handlers(self) -> list[RegisterEventHandler]:
        """To be registered before the node is started."""
        return [
            RegisterEventHandler(
                OnProcessIO(target_action=self._localizer, on_stdout=self._read, on_stderr=self._read)
            ),
            RegisterEventHandler(OnProcessExit(target_action=self._localizer, on_exit=self._ended)),
        ]

    def _read(self, event: ProcessIO) -> None:
        text = re.sub(r"\x1b\[[0-9;]*m", "", event.text.decode(errors="replace"))
        self._last_line = next(
            (line for line in reversed(text.splitlines()) if line.strip()), self._last_line
        )

    def _ended(self, event: ProcessExited, context: LaunchContext) -> list[LaunchDescriptionEntity] | None:
        self._in_vain = self._in_vain + 1 if event.returncode == CANNOT_START else 0
        if self._in_vain < MOST_STARTS or context.is_shutdown:
            return None
        why = self._last_line.strip()
        said = f"the localizer could not start {self._in_vain} times in a row and is given up: {why}"
        ended = [
            EmitEvent(event=ShutdownProcess(process_matcher=matches_action(process)))
            for process in (self._localizer, *self._others)
        ]
        return [LogInfo(msg=said), *ended]


def entities(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """What is started, once the arguments have their values."""
    value = {name: LaunchConfiguration(name).perform(context) for name in ARGUMENTS}
    playing = value["bag"] != ""
    sim_time = is_true(value["use_sim_time"]) if value["use_sim_time"] else playing
    started: list[LaunchDescriptionEntity] = []
    if value["fastdds_profile"]:
        started.append(SetEnvironmentVariable("FASTRTPS_DEFAULT_PROFILES_FILE", value["fastdds_profile"]))
    localizer = node(value, sim_time)
    players = [player(value)] if playing else []
    started += [*Starts(localizer, players).handlers(), localizer, *players]
    if is_true(value["rviz"]):
        started.append(rviz(value, sim_time))
    return started


def generate_launch_description() -> LaunchDescription:
    """Read by `ros2 launch`."""
    declared = [
        DeclareLaunchArgument(name, description=description)
        if default is None
        else DeclareLaunchArgument(name, default_value=default, description=description)
        for name, (default, description) in ARGUMENTS.items()
    ]
    profile = SetEnvironmentVariable(
        "FASTRTPS_DEFAULT_PROFILES_FILE",
        EnvironmentVariable("FASTRTPS_DEFAULT_PROFILES_FILE", default_value=in_config("fastdds.xml")),
    )
    return LaunchDescription([*declared, profile, OpaqueFunction(function=entities)])
