"""What the node knows of its own health."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import LATE_SEARCH, LocalizerOutput, PoseEstimate, Status
from localizer_ros.ros.diagnosis import Verdict
from localizer_ros.ros.health import Health
from localizer_ros.ros.stamps import MissingFrames


def output(status: Status, reason: str = "", answered: bool = True) -> LocalizerOutput:
    estimate = PoseEstimate(1, SE3.identity(), np.eye(6), "fake") if answered else None
    return LocalizerOutput(1, status, estimate, None, None, reason, {"network": 5.0, "total": 6.0})


def test_health_tells_what_is_wrong_and_what_would_help() -> None:
    now = [0.0]
    health = Health(clock=lambda: now[0])
    health.image_topic, health.active = "/image", True

    def message(publishers: int = 1, paused: bool = False) -> tuple[str, str]:
        health.paused, health.image_publishers = paused, publishers
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
    assert message(paused=True)[1].startswith("paused")
    health.active = False
    assert message()[1].startswith("inactive")
    now[0] = 100.0
    health.active = True
    assert message()[1] != "", "what was silent before it was active is no matter"
    assert not message()[1].startswith("no image")


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


class Stream:
    """A camera at a rate, in time of its own, before a localizer that answers every n-th of its images."""

    def __init__(self, rate_hz: float = 30.0) -> None:
        self.now_s = 0.0
        self.health = Health(clock=lambda: self.now_s)
        self.health.active, self.health.image_publishers = True, 1
        self.period_s = 1.0 / rate_hz
        self.count = 0

    def go(self, seconds: float, every: int = 1, lose: int = 0) -> Verdict:
        """What is told after so many seconds; ``lose`` loses every so-manieth image on the way."""
        for _ in range(round(seconds / self.period_s)):
            self.now_s += self.period_s
            self.count += 1
            if lose and self.count % lose == 0:
                continue
            self.health.frame_received(round(1e9 * self.now_s))
            if self.count % every == 0:
                self.health.frame_processed(output(Status.TRACKING), 0.0)
            else:
                self.health.frame_dropped("superseded", "a newer one came")
        return self.health.judge()


@pytest.mark.parametrize("rate_hz", [10.0, 30.0, 60.0])
def test_a_localizer_that_does_not_keep_up_is_degraded_within_half_a_second_with_both_rates(
    rate_hz: float,
) -> None:
    stream = Stream(rate_hz)
    assert stream.go(3.0)[:3] == ("OK", "TRACKING", Status.TRACKING)
    level, _, status = stream.go(0.5, every=3)[:3]
    assert (level, status) == ("WARN", Status.DEGRADED)
    message = stream.go(2.0, every=3).message
    assert f"of {rate_hz:.1f} images a second are answered" in message
    answered_hz = float(message.split("overloaded: ")[1].split(" ")[0])
    assert answered_hz == pytest.approx(rate_hz / 3, rel=0.3)
    summary = stream.health.diagnose().summary
    assert float(summary["image rate Hz"]) == pytest.approx(rate_hz, abs=0.1)
    assert stream.go(1.0).level == "OK"


def test_two_images_of_a_slow_camera_that_were_passed_over_are_an_overload() -> None:
    # Each frame takes as long as three images of 10 Hz: two were passed over 0.3 s after the first that was slow.
    stream = Stream(10.0)
    stream.go(3.0)
    assert stream.go(0.3, every=3).status is Status.DEGRADED


def test_one_image_passed_over_now_and_then_is_no_overload() -> None:
    stream = Stream()
    for _ in range(20):
        assert stream.go(0.2).level == "OK"
        stream.health.frame_received(round(1e9 * stream.now_s))
        stream.health.frame_dropped("superseded", "a newer one came")


def test_poses_whose_transforms_do_not_go_out_are_degraded() -> None:
    stream = Stream()
    stream.go(1.0)
    stream.health.transforms(0.2, "'odom' -> 'base_link' is not known as late as 5 ns yet")
    assert stream.health.judge().level == "OK"
    # Three images of 10 Hz until the first pose, and one more period of the watch, are half a second.
    stream.health.transforms(0.26, "'odom' -> 'base_link' is not known as late as 5 ns yet")
    assert stream.health.judge().status is Status.DEGRADED
    stream.health.transforms(0.4, "'odom' -> 'base_link' is not known as late as 5 ns yet")
    level, message, status = stream.health.judge()[:3]
    assert (level, status) == ("WARN", Status.DEGRADED)
    assert message.startswith("DEGRADED: no TF for 0.4 s: 'odom' -> 'base_link'")
    assert stream.health.diagnose().values["status"] == "DEGRADED"
    assert not stream.health.judge().usable
    stream.health.transforms(0.0, "")
    assert stream.health.judge().usable
    assert stream.health.judge()[:3] == ("OK", "TRACKING", Status.TRACKING)


def test_the_status_falls_while_no_images_come_or_all_are_refused() -> None:
    stream = Stream()
    stream.go(2.0)
    found = []
    for _ in range(30):
        stream.now_s += 0.1
        found.append(stream.health.judge().status)
    assert found[:2] == [Status.TRACKING] * 2 and found[4] is Status.DEGRADED and found[-1] is Status.LOST
    stream.go(1.0)
    for _ in range(90):
        stream.now_s += stream.period_s
        stream.health.frame_received(round(1e9 * stream.now_s))
        stream.health.frame_dropped("encoding", "no encoding")
        found.append(stream.health.judge().status)
    assert Status.DEGRADED in found[30:] and found[-1] is Status.LOST
    assert stream.go(3.0).status is Status.TRACKING


def test_a_remark_is_made_for_a_while_and_forgotten() -> None:
    stream = Stream()
    stream.go(1.0)
    stream.health.remark("odometry", "odom is ignored: not finite")
    assert stream.health.judge()[:3] == ("WARN", "TRACKING: odom is ignored: not finite", Status.TRACKING)
    assert stream.go(2.5)[:3] == ("OK", "TRACKING", Status.TRACKING)


def test_images_that_never_came_are_counted_by_the_gaps_in_their_rhythm() -> None:
    stream = Stream()
    stream.go(120.0, lose=31)
    assert stream.health.diagnose().values["frames missing by their stamps"] == str(3600 // 31)


def test_an_uneven_camera_and_a_pause_miss_nothing() -> None:
    missing, stamp = MissingFrames(), 0
    rng = np.random.default_rng(0)
    for _ in range(300):
        stamp += int(rng.uniform(1e7, 2e8))
        missing.add(stamp)
    assert missing.count == 0
    even = MissingFrames()
    for index in range(100):
        even.add(index * 33_000_000 + (5_000_000_000 if index > 50 else 0))
    assert even.count == 0


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


def test_frames_that_came_while_paused_are_no_complaint_afterwards() -> None:
    health = Health(clock=lambda: 1.0)
    health.active, health.image_publishers = True, 1
    health.frame_received()
    health.frame_dropped("paused", "the node is paused")
    health.frame_received()
    health.frame_processed(output(Status.TRACKING), 0.0)
    assert health.judge()[0] == "OK" and health.dropped["paused"] == 1
