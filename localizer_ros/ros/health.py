"""What the node knows of its own health, and what to tell the user. Knows nothing of ROS."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from localizer_ros.core.types import LATE_SEARCH, LocalizerOutput, Status

_RECENT = 300
# Nobody calls a camera slow that has not sent for so long.
_SILENT_AFTER_S = 2.0
# A camera whose rhythm is known has stopped after so many of its periods, but not sooner than a driver may hang.
_SILENT_AFTER_PERIODS, _HANGS_S = 3.5, 0.3
# Arrivals that tell the rhythm of a camera.
_FEWEST_ARRIVALS = 5
# Searches that may take longer than declared before anybody is told, and how many say anything at all.
_OVERDUE_SHARE, _FEWEST_SEARCHES = 0.2, 5

# What would help, by the kind of the last drop.
_HELP = {
    "no_camera_info": "publish sensor_msgs/CameraInfo beside the image, or remap camera_info to where it is",
    "camera_info": "calibrate the camera (camera_calibration), then restart the driver",
    "no_extrinsics": "publish the static transform from base_frame to the camera, or set base_frame to ''",
    "no_frame_id": "set header.frame_id in the camera driver",
    "encoding": "set another encoding in the camera driver, or use image_transport: compressed",
    "image_size": "camera_info and image must come from the same camera at the same resolution",
    "stamp_zero": "the driver must stamp its images",
    "superseded": "frames arrive faster than they are processed: only the newest is used",
}
_LOST_HELP = (
    "bring the camera to a mapped place with the view it had there, give an initialpose, "
    "or call ~/relocalize; if it stays lost, map the place again under this light"
)


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """One line for the user, and everything for whoever looks closer.

    Attributes:
        level: OK, WARN, ERROR or STALE.
        message: what is the matter and what would help.
        values: details, in order.
    """

    level: str
    message: str
    values: dict[str, str]


class Health:
    """Counts what happens to frames; safe to use from several threads.

    Args:
        clock: seconds of a clock that never goes back.
        search_latency_s: declared for searches beside the frames (``search.latency_s``).
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, search_latency_s: float = float("inf")
    ) -> None:
        self.clock = clock
        self._search_latency_s = search_latency_s
        self._lock = threading.Lock()
        self._began_s = clock()
        self.active = False
        """The node is in the lifecycle state active."""
        self.opening = ""
        """The scene that is being opened; empty when that is done."""
        self.paused = False
        """Somebody paused it."""
        self.image_topic = ""
        """Resolved name of the image topic."""
        self.image_publishers = 0
        """Publishers that the image subscription is matched with."""
        self.received = 0
        self.answered = 0
        self.processed = 0
        self.jumps_back = 0
        self.lost = 0
        self.dropped: Counter[str] = Counter()
        self.status: Status | None = None
        self.reason = ""
        self.notes: dict[str, str] = {}
        """Lines of the details that others set."""
        self._last_received_s: float | None = None
        self._last_drop: tuple[float, str, str] | None = None
        self._waits_ms: deque[float] = deque(maxlen=_RECENT)
        self._delays_ms: deque[float] = deque(maxlen=_RECENT)
        self._ages_ms: deque[float] = deque(maxlen=_RECENT)
        self._arrivals_s: deque[float] = deque(maxlen=60)
        self._timings_ms: dict[str, deque[float]] = {}

    def frame_received(self) -> None:
        """An image message arrived."""
        with self._lock:
            self.received += 1
            self._last_received_s = self.clock()
            self._arrivals_s.append(self._last_received_s)

    def frames_lost(self, count: int) -> None:
        """The middleware says that images never arrived."""
        with self._lock:
            self.lost += count

    def frame_dropped(self, kind: str, message: str) -> None:
        """A frame was not processed; ``kind`` is what it is counted by."""
        with self._lock:
            self.dropped[kind] += 1
            self._last_drop = (self.clock(), kind, message)

    def frame_processed(self, output: LocalizerOutput, waited_s: float) -> bool:
        """The localizer answered; True when the status changed."""
        with self._lock:
            self.processed += 1
            self.answered += output.estimate is not None
            self._waits_ms.append(waited_s * 1e3)
            for stage, value in output.timings_ms.items():
                self._timings_ms.setdefault(stage, deque(maxlen=_RECENT)).append(value)
            changed = output.status is not self.status
            self.status, self.reason = output.status, output.reason
            return changed

    def pose_published(self, delay_s: float, age_s: float) -> None:
        """A pose went out.

        Args:
            delay_s: since its image arrived, by this machine's clock.
            age_s: since the stamp of its image, by the ROS clock; means something where clocks agree.
        """
        with self._lock:
            self._delays_ms.append(delay_s * 1e3)
            self._ages_ms.append(age_s * 1e3)

    def note(self, key: str, value: str | None) -> None:
        """Set a line of the details, or remove it."""
        with self._lock:
            self.notes.pop(key, None)
            if value is not None:
                self.notes[key] = value

    def judge(self) -> tuple[str, str]:
        """Level and message alone."""
        with self._lock:
            return self._judge()

    def diagnose(self) -> Diagnosis:
        """The state in words."""
        with self._lock:
            level, message = self._judge()
            return Diagnosis(level, message, self._values())

    def _judge(self) -> tuple[str, str]:
        """Level and message; what comes first in the way of an image is told first."""
        if self.opening:
            so_far_s = self.clock() - self._began_s
            return "STALE", f"opening the scene {self.opening}: {so_far_s:.1f} s so far"
        if not self.active:
            return "STALE", "inactive: activate the node (ros2 lifecycle set)"
        if self.paused:
            return "STALE", "paused: call ~/pause with false to go on"
        return self._judge_input() or self._judge_drops() or self._judge_answers()

    def _judge_input(self) -> tuple[str, str] | None:
        received_s = self._last_received_s
        silent_s = self.clock() - (received_s if received_s is not None else self._began_s)
        if silent_s <= self._silent_after_s():
            return None
        topic, publishers = self.image_topic, self.image_publishers
        if publishers == 0:
            help_ = f"nobody publishes {topic} with a QoS that fits: check the remapping and the QoS"
        else:
            help_ = f"{topic} has {publishers} publisher(s) that send nothing: check the camera"
        if received_s is None:
            return "STALE", f"no image yet; {help_}"
        return "ERROR" if silent_s > _SILENT_AFTER_S else "WARN", f"no image for {silent_s:.1f} s; {help_}"

    def _silent_after_s(self) -> float:
        """Time without an image that is no pause of the camera any more."""
        if len(self._arrivals_s) < _FEWEST_ARRIVALS:
            return _SILENT_AFTER_S
        period_s = float(np.median(np.diff(self._arrivals_s)))
        return min(_SILENT_AFTER_S, max(_HANGS_S, _SILENT_AFTER_PERIODS * period_s))

    def _judge_drops(self) -> tuple[str, str] | None:
        drop = self._last_drop
        if drop is None or self.clock() - drop[0] >= _SILENT_AFTER_S or drop[1] == "superseded":
            return None
        _, kind, text = drop
        help_ = f"; {_HELP[kind]}" if kind in _HELP else ""
        return ("ERROR" if self.processed == 0 else "WARN"), f"frames are dropped ({kind}): {text}{help_}"

    def _judge_answers(self) -> tuple[str, str]:
        if self.status is None:
            return "WARN", "waiting for the first answer"
        reason = f": {self.reason}" if self.reason else ""
        if self.status is Status.LOST:
            return "ERROR", f"LOST{reason}; {_LOST_HELP}"
        if self.status is Status.INITIALIZING:
            return "WARN", f"INITIALIZING{reason}; {_LOST_HELP}"
        return ("OK" if self.status is Status.TRACKING else "WARN"), f"{self.status.value}{reason}"

    def _values(self) -> dict[str, str]:
        arrivals = self._arrivals_s
        rate = ""
        if len(arrivals) > 1 and arrivals[-1] > arrivals[0]:
            rate = f"{(len(arrivals) - 1) / (arrivals[-1] - arrivals[0]):.1f}"
        values = {
            "status": self.status.value if self.status is not None else "NONE",
            "reason": self.reason,
            "image topic": self.image_topic,
            "image publishers": str(self.image_publishers),
            "image rate Hz": rate,
            "frames lost on the way": str(self.lost),
            "frames received": str(self.received),
            "frames processed": str(self.processed),
            "frames answered": str(self.answered),
            "frames dropped": str(sum(self.dropped.values())),
            **{f"dropped {kind}": str(count) for kind, count in sorted(self.dropped.items())},
            "time jumps back": str(self.jumps_back),
            **_percentiles("wait in mailbox", self._waits_ms),
            **_percentiles("arrival to pose", self._delays_ms),
            **_percentiles("image age", self._ages_ms),
        }
        for stage, timings in self._timings_ms.items():
            values |= _percentiles(f"stage {stage}", timings)
        if self._last_drop is not None:
            values["last drop"] = f"{self._last_drop[1]}: {self._last_drop[2]}"
        if overdue := self._overdue():
            values["search latency"] = overdue
        return values | self.notes

    def _overdue(self) -> str:
        """Whether the declared latency of searches is too short; empty when it is not."""
        took_ms = np.array(self._timings_ms.get(LATE_SEARCH, ()))
        if len(took_ms) < _FEWEST_SEARCHES:
            return ""
        over = int((took_ms > 1e3 * self._search_latency_s).sum())
        if over <= _OVERDUE_SHARE * len(took_ms):
            return ""
        return (
            f"{over} of the last {len(took_ms)} searches took longer than search.latency_s = "
            f"{self._search_latency_s:g} s and came late: declare {np.percentile(took_ms, 95) / 1e3:.2f} s"
        )


def _percentiles(name: str, values_ms: deque[float]) -> dict[str, str]:
    if not values_ms:
        return {}
    p50, p99 = np.percentile(values_ms, (50, 99))
    return {f"{name} p50 ms": f"{p50:.2f}", f"{name} p99 ms": f"{p99:.2f}"}
