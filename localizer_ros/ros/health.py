"""What the node knows of its own health, and what to tell the user. Knows nothing of ROS."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Collection

import numpy as np

from localizer_ros.core.types import LATE_SEARCH, LocalizerOutput, Status
from localizer_ros.localization.status import largest_sigma
from localizer_ros.ros.diagnosis import Diagnosis, Verdict
from localizer_ros.ros.rates import SILENT_AFTER_S, Rates
from localizer_ros.ros.streams import LEFT_OUT, OTHER_CAMERA, Streams
from localizer_ros.ros.what_helps import HELP, LOST_HELP, OVERLOAD_HELP

_RECENT = 300
# Poses whose transforms do not go out for so long are of no use to a robot. A start whose first pose is that of the
# third image at 10 Hz is told of within half a second.
_TF_SILENT_S = 0.25
# A remark is made for so long after the last time that there was a reason for it.
_REMARKED_S = 2.0
# Searches that may take longer than declared before anybody is told, and how many say anything at all.
_OVERDUE_SHARE, _FEWEST_SEARCHES = 0.2, 5
# Statuses in which poses go out.
_POSE_KNOWN = frozenset({Status.TRACKING, Status.DEGRADED})


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
        self._active_since_s: float | None = None
        self.opening = ""
        self.paused = False
        self.image_topic = ""
        self.image_publishers = 0
        self.received = 0
        self.answered = 0
        self.processed = 0
        self.jumps_back = 0
        self.lost = 0
        self.dropped: Counter[str] = Counter()
        self.status: Status | None = None
        self.reason = ""
        self.notes: dict[str, str] = {}
        self._rates = Rates(clock)
        self._streams = Streams(clock)
        self._remarks: dict[str, tuple[float, str]] = {}
        self._tf_silent: tuple[float, str] = (0.0, "")
        self._output: LocalizerOutput | None = None
        self._last_received_s: float | None = None
        self._last_processed_s: float | None = None
        self._last_drop: tuple[float, str, str] | None = None
        self._waits_ms: deque[float] = deque(maxlen=_RECENT)
        self._delays_ms: deque[float] = deque(maxlen=_RECENT)
        self._ages_ms: deque[float] = deque(maxlen=_RECENT)
        self._timings_ms: dict[str, deque[float]] = {}

    @property
    def active(self) -> bool:
        """The node is in the lifecycle state active."""
        return self._active_since_s is not None

    @active.setter
    def active(self, active: bool) -> None:
        if active != self.active:
            self._active_since_s = self.clock() if active else None

    def frame_received(self, stamp_ns: int = 0, camera: str = "") -> None:
        """An image message arrived, of one of several cameras where it has a name."""
        with self._lock:
            self.received += 1
            self._last_received_s = self.clock()
            self._rates.received()
            self._streams.received(camera, stamp_ns)

    def frames_lost(self, count: int) -> None:
        """The middleware says that images never arrived."""
        with self._lock:
            self.lost += count

    def frame_dropped(self, kind: str, message: str) -> None:
        """A frame was not processed; ``kind`` is what it is counted by."""
        with self._lock:
            self.dropped[kind] += 1
            if kind == "superseded":
                self._rates.superseded()
                return
            if kind in LEFT_OUT:
                # Another camera answers in its place; that one sees nothing is worth a word.
                if kind != OTHER_CAMERA:
                    self._remarks[message.partition(":")[0]] = (self.clock(), message)
                return
            # That it is paused is said as long as it is so, and no longer.
            if kind != "paused":
                self._last_drop = (self.clock(), kind, message)

    def frame_processed(self, output: LocalizerOutput, waited_s: float) -> bool:
        """The localizer answered; True when the status changed."""
        with self._lock:
            self.processed += 1
            self._output, self._last_processed_s = output, self.clock()
            self._rates.answered()
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

    def remark(self, key: str, text: str) -> None:
        """Something that is no fault of the answers, but that a user must know; forgotten soon after the last time."""
        with self._lock:
            self._remarks[key] = (self.clock(), text)

    def transforms(self, silent_s: float, why: str) -> None:
        """For how long poses have had no transform, and why; 0 where they have."""
        with self._lock:
            self._tf_silent = (silent_s, why)

    def judge(self) -> Verdict:
        """What is told at once."""
        with self._lock:
            return self._judge()

    def diagnose(self) -> Diagnosis:
        """The state in words."""
        with self._lock:
            verdict = self._judge()
            return Diagnosis(verdict.level, verdict.message, self._summary(verdict), self._values(verdict))

    def _judge(self) -> Verdict:
        """What comes first in the way of an image is told first."""
        if self.opening:
            so_far_s = self.clock() - self._began_s
            opening = f"opening the scene {self.opening}: {so_far_s:.1f} s so far"
            return Verdict("STALE", opening, Status.INITIALIZING)
        if not self.active:
            return Verdict("STALE", "inactive: activate the node (ros2 lifecycle set)", Status.INITIALIZING)
        if self.paused:
            return Verdict("STALE", "paused: call ~/pause with false to go on", self._without_answers())
        return self._judge_input() or self._judge_drops() or self._judge_answers()

    def _judge_input(self) -> Verdict | None:
        received_s = self._last_received_s
        since_s = self._active_since_s if self._active_since_s is not None else self._began_s
        silent_s = self.clock() - max(received_s if received_s is not None else since_s, since_s)
        if silent_s <= self._rates.silent_after_s():
            return None
        topic, publishers = self.image_topic, self.image_publishers
        if publishers == 0:
            help_ = f"nobody publishes {topic} with a QoS that fits: check the remapping and the QoS"
        else:
            help_ = f"{topic} has {publishers} publisher(s) that send nothing: check the camera"
        if received_s is None:
            return Verdict("STALE", f"no image yet; {help_}", Status.INITIALIZING, help_)
        level = "ERROR" if silent_s > SILENT_AFTER_S else "WARN"
        return self._without(level, f"no image for {silent_s:.1f} s; {help_}", help_)

    def _without(self, level: str, message: str, help_: str) -> Verdict:
        """While images do not come, or are not answered."""
        status = self._without_answers()
        return Verdict(level, message, status, help_, status in _POSE_KNOWN)

    def _judge_drops(self) -> Verdict | None:
        drop = self._last_drop
        if drop is None or self.clock() - drop[0] >= SILENT_AFTER_S:
            return None
        _, kind, text = drop
        help_ = HELP.get(kind, "")
        level = "ERROR" if self.processed == 0 else "WARN"
        said = "; ".join(filter(None, (f"frames are dropped ({kind}): {text}", help_)))
        return self._without(level, said, help_)

    def _without_answers(self) -> Status:
        """The status while images do not come, or are not answered: that of the last answer, for a moment."""
        if self.status is None or self.status is Status.INITIALIZING or self._last_processed_s is None:
            return Status.INITIALIZING
        since_s = self.clock() - self._last_processed_s
        if since_s > SILENT_AFTER_S:
            return Status.LOST
        degraded = self.status is Status.TRACKING and since_s > self._rates.silent_after_s()
        return Status.DEGRADED if degraded else self.status

    def _judge_answers(self) -> Verdict:
        status = self._without_answers()
        if self.status is None:
            return Verdict("WARN", "waiting for the first answer", status)
        faults, help_ = [], ""
        silent_s, why = self._tf_silent
        if silent_s > _TF_SILENT_S:
            faults.append(f"no TF for {silent_s:.1f} s: {why}")
        if overload := self._rates.overload():
            faults, help_ = [*faults, overload], OVERLOAD_HELP
        if faults and status is Status.TRACKING:
            status = Status.DEGRADED
        now_s = self.clock()
        remarks = [text for at_s, text in self._remarks.values() if now_s - at_s < _REMARKED_S]
        remarks += self._streams.silent()
        if status in (Status.LOST, Status.INITIALIZING):
            help_ = LOST_HELP
        said = "; ".join(text for text in (*faults, self.reason, help_, *remarks) if text)
        level = "ERROR" if status is Status.LOST else "WARN"
        if status is Status.TRACKING and not remarks:
            level = "OK"
        usable = status in _POSE_KNOWN and silent_s <= _TF_SILENT_S
        return Verdict(level, f"{status.value}: {said}" if said else status.value, status, help_, usable)

    def _summary(self, verdict: Verdict) -> dict[str, str]:
        """What a program acts on; a value that is not known is empty."""
        age_s = None if self._last_processed_s is None else self.clock() - self._last_processed_s
        return {
            "status": verdict.status.value,
            "reason": self.reason,
            **certainty(self._output),
            "image rate Hz": _number(self._rates.image_hz, 1),
            "answer rate Hz": _number(self._rates.answer_hz, 1),
            "last answer s ago": _number(age_s, 2),
            "what would help": verdict.help,
        }

    def _values(self, verdict: Verdict) -> dict[str, str]:
        values = {
            **self._summary(verdict),
            "image topic": self.image_topic,
            "image publishers": str(self.image_publishers),
            "frames lost on the way": str(self.lost),
            "frames missing by their stamps": str(self._streams.missing),
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
        if overdue := _overdue(self._timings_ms.get(LATE_SEARCH, ()), self._search_latency_s):
            values["search latency"] = overdue
        return values | self.notes


def certainty(output: LocalizerOutput | None) -> dict[str, str]:
    """What an answer says of how sure it is; what it does not say is empty."""
    absolute = None if output is None else output.absolute
    estimate = None if output is None else output.estimate
    covariance = None if estimate is None else estimate.covariance
    sigma_m = sigma_deg = score = None
    if covariance is not None:
        sigma_m = largest_sigma(covariance[3:, 3:])
        sigma_deg = float(np.degrees(largest_sigma(covariance[:3, :3])))
    if output is not None:
        score = output.out_of_distribution
    return {
        "confidence": _number(None if absolute is None else absolute.confidence, 3),
        "inliers": _number(None if absolute is None else absolute.inliers, 0),
        "sigma m": _number(sigma_m, 3),
        "sigma deg": _number(sigma_deg, 2),
        "out-of-distribution score": _number(score, 2),
    }


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _percentiles(name: str, values_ms: deque[float]) -> dict[str, str]:
    if not values_ms:
        return {}
    p50, p99 = np.percentile(values_ms, (50, 99))
    return {f"{name} p50 ms": f"{p50:.2f}", f"{name} p99 ms": f"{p99:.2f}"}


def _overdue(took_ms: Collection[float], declared_s: float) -> str:
    """Whether the declared latency of searches is too short; empty when it is not."""
    if len(took_ms) < _FEWEST_SEARCHES:
        return ""
    over = sum(each_ms > 1e3 * declared_s for each_ms in took_ms)
    if over <= _OVERDUE_SHARE * len(took_ms):
        return ""
    return (
        f"{over} of the last {len(took_ms)} searches took longer than search.latency_s = "
        f"{declared_s:g} s and came late: declare {np.percentile(list(took_ms), 95) / 1e3:.2f} s"
    )
