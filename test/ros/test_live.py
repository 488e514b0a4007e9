"""The node in a process of its own, fed by the player in this one, over real DDS: the main job end to end."""

from pathlib import Path

import pytest
from rosbags.highlevel import AnyReader

from localizer_ros.core.config.runtime import RunConfig
from localizer_ros.core.config.schema import config_from_dict, load_config
from localizer_ros.core.se3 import SE3
from localizer_ros.datasets.convert import write_bag
from localizer_ros.datasets.derived import FirstFrames
from localizer_ros.datasets.simulated import SimulatedSource, WorldConfig
from localizer_ros.datasets.source import FrameSource, open_source
from localizer_ros.evaluation.replay import POSE_TOPIC, replay
from localizer_ros.localization.localizer import open_localizer
from localizer_ros.ros.conversions import pose_from_msg, stamp_ns
from localizer_ros.ros.latency import LiveRun, measure
from localizer_ros.ros.play import PlayOptions
from localizer_ros.scene.bundle import Scene

pytestmark = [pytest.mark.ros, pytest.mark.slow]

DRIVE = {"duration_s": 3.0, "fps": 30.0, "width_px": 640, "height_px": 480, "moving_objects": 0}
SETTINGS = {
    # Threads of the network that do not fight for the cores of the machine that also plays and listens.
    "backend.threads": 1,
    # A network of a moment's training is never sure of itself: that is no reason to be LOST here.
    "status.degraded_sigma_m": 1000.0,
    "status.lost_sigma_m": 1000.0,
    "status.lost_sigma_deg": 180.0,
}
ROS_ARGUMENTS = [word for name, value in SETTINGS.items() for word in ("-p", f"{name}:={value}")]


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> FrameSource:
    """Three seconds of 640x480 at 30 Hz with odometry, as a bag."""
    out = tmp_path_factory.mktemp("live") / "drive"
    write_bag(SimulatedSource(config_from_dict(WorldConfig, DRIVE)), out)
    return open_source(out)


def run_config() -> RunConfig:
    return load_config(RunConfig, overrides=[f"{name}={value}" for name, value in SETTINGS.items()])


def replayed(scene: Path, source: FrameSource, out: Path) -> dict[int, SE3]:
    """Poses of ``localizer replay`` by stamp."""
    config = run_config()
    localizer = open_localizer(scene, config)
    try:
        replay(localizer, Scene.load(scene), source, out, config)
    finally:
        localizer.close()
    with AnyReader([out]) as reader:
        connections = [c for c in reader.connections if c.topic == POSE_TOPIC]
        messages = [reader.deserialize(raw, c.msgtype) for c, _, raw in reader.messages(connections)]
    return {stamp_ns(message.header.stamp): pose_from_msg(message.pose) for message in messages}


def live_poses(live: LiveRun) -> dict[int, SE3]:
    return {stamp_ns(message.header.stamp): pose_from_msg(message.pose) for message in live.poses}


def test_no_frame_is_lost_at_camera_rate(tiny_scene: Path, bag: FrameSource) -> None:
    live = measure(tiny_scene, bag, ros_arguments=ROS_ARGUMENTS)
    report = live.latency
    print("\n".join(report.lines()))
    assert report.received == report.frames == len(bag.records), "images were lost on the way"
    # Where the machine is busy the node may skip to a newer image; that is counted, and nothing else is dropped.
    assert set(report.dropped) <= {"superseded"}
    assert report.poses + sum(report.dropped.values()) == report.frames
    stamps = [record.stamp_ns for record in bag.records]
    assert set(live_poses(live)) <= set(stamps)
    assert report.latency_ms["p50"] > 0.0 and report.stages_ms["network"]["p50"] > 0.0


def test_live_poses_are_those_of_replay(tiny_scene: Path, bag: FrameSource, tmp_path: Path) -> None:
    # Slow enough for a busy machine to keep up; poses depend on stamps alone.
    first = FirstFrames(bag, 40)
    live = measure(tiny_scene, first, PlayOptions(rate=0.2), ROS_ARGUMENTS)
    assert not live.latency.dropped
    online, offline = live_poses(live), replayed(tiny_scene, first, tmp_path / "answers")
    assert online.keys() == offline.keys() and len(online) > len(first.records) / 2
    worst_m = max(online[stamp].distance_to(offline[stamp]) for stamp in online)
    worst_rad = max(online[stamp].angle_to(offline[stamp]) for stamp in online)
    # The same numbers go through the same code; the contract allows 1e-6.
    assert worst_m < 1e-6 and worst_rad < 1e-6, (worst_m, worst_rad)
