"""What the node knows of its own health."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import LATE_SEARCH, LocalizerOutput, PoseEstimate, Status
from localizer_ros.ros.health import Health


def output(status: Status, reason: str = "", answered: bool = True) -> LocalizerOutput:
    estimate = PoseEstimate(1, SE3.identity(), np.eye(6), "fake") if answered else None
    return LocalizerOutput(1, status, estimate, None, None, reason, {"network": 5.0, "total": 6.0})


def test_health_tells_what_is_wrong_and_what_would_help() -> None:
    now = [0.0]
    health = Health(clock=lambda: now[0])
    health.image_topic = "/image"

    def message(publishers: int = 1, active: bool = True, paused: bool = False) -> tuple[str, str]:
        health.active, health.paused, health.image_publishers = active, paused, publishers
        diagnosis = health.diagnose()
        return diagnosis.level, diagnosis.message

    now[0] = 3.0
    assert message(publishers=0) == (
        "STALE",
        "no image yet; nobody publishes /image with a QoS that fits: check the remapping and the QoS",
    )
    health.frame_received()
    health.frame_dropped("no_camera_info", "nothing received on /camera_info")
    level, text = message()
    assert level == "ERROR" and "no_camera_info" in text and "publish sensor_msgs/CameraInfo" in text
    now[0] = 10.0
    health.frame_received()
    assert health.frame_processed(output(Status.TRACKING), 0.001)
    assert not health.frame_processed(output(Status.TRACKING), 0.001)
    assert message() == ("OK", "TRACKING")
    assert health.frame_processed(output(Status.LOST, "no absolute pose for 2.1 s", answered=False), 0.0)
    level, text = message()
    assert level == "ERROR" and text.startswith("LOST: no absolute pose for 2.1 s; bring the camera")
    now[0] = 20.0
    assert message(publishers=0)[1].startswith("no image for 10.0 s; nobody publishes")
    assert message(active=False)[1].startswith("inactive")
    assert message(paused=True)[1].startswith("paused")


def test_a_camera_that_stops_is_missed_by_its_own_rhythm() -> None:
    now = [0.0]
    health = Health(clock=lambda: now[0])
    health.active, health.image_publishers = True, 1

    def missed(rate_hz: float) -> float:
        """Seconds after its last image."""
        for _ in range(60):
            now[0] += 1.0 / rate_hz
            health.frame_received()
        health.frame_processed(output(Status.TRACKING), 0.0)
        last_s = now[0]
        while health.judge()[0] == "OK":
            now[0] += 0.01
        assert health.judge()[1].startswith("no image for")
        return now[0] - last_s

    assert missed(30.0) < 0.35 and missed(10.0) < 0.4
    # A slow camera is not called silent between two of its images.
    assert 1.0 < missed(2.0) <= 2.1


def test_health_accounts_for_every_frame() -> None:
    health = Health()
    for kind in ("encoding", "encoding", "superseded"):
        health.frame_received()
        health.frame_dropped(kind, "why")
    health.frame_received()
    health.frame_processed(output(Status.TRACKING), 0.002)
    values = health.diagnose().values
    assert values["frames received"] == "4"
    assert values["frames processed"] == values["frames answered"] == "1"
    assert values["frames dropped"] == "3"
    assert values["dropped encoding"] == "2" and values["dropped superseded"] == "1"
    assert values["stage network p50 ms"] == "5.00"


def test_health_tells_of_a_declared_search_latency_that_is_not_kept() -> None:
    health = Health(search_latency_s=0.3)

    def searched(*took_ms: float) -> str | None:
        for each in took_ms:
            timings = {"front_end": 1.0, LATE_SEARCH: each, "total": 2.0}
            health.frame_processed(replace(output(Status.TRACKING), timings_ms=timings), 0.0)
        return health.diagnose().values.get("search latency")

    assert searched(900.0, 900.0) is None  # two say nothing
    assert searched(*[200.0] * 20) is None  # now and then is no matter
    said = searched(*[400.0] * 10)
    assert said == (
        "12 of the last 32 searches took longer than search.latency_s = 0.3 s and came late: declare 0.62 s"
    )
    assert Health().diagnose().values.get("search latency") is None
