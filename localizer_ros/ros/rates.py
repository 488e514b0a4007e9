"""How often images come and answers go, and whether the localizer keeps up. Knows nothing of ROS."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import numpy as np

# Nobody calls a camera slow that has not sent for so long.
SILENT_AFTER_S = 2.0
# A camera whose rhythm is known has stopped after so many of its periods, but not sooner than a driver may hang.
_SILENT_AFTER_PERIODS, _HANGS_S = 3.5, 0.3
# Arrivals that tell the rhythm of a camera.
_FEWEST_ARRIVALS = 5
# The localizer does not keep up where it passes over a third of the last images: of half a second, but five at least,
# so that two of a camera of 10 Hz are told in time.
_OVERLOADED_SHARE, _OVER_S, _OVER_IMAGES = 1 / 3, 0.5, 5
_RECENT = 60


class Rates:
    """Rates of images and answers over the last of them.

    Args:
        clock: seconds of a clock that never goes back.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._arrivals_s: deque[float] = deque(maxlen=_RECENT)
        self._answers_s: deque[float] = deque(maxlen=_RECENT)
        self._superseded_s: deque[float] = deque(maxlen=_RECENT)

    def received(self) -> None:
        """An image came."""
        self._arrivals_s.append(self._clock())

    def answered(self) -> None:
        """An answer went out."""
        self._answers_s.append(self._clock())

    def superseded(self) -> None:
        """An image was passed over for a newer one."""
        self._superseded_s.append(self._clock())

    @property
    def image_hz(self) -> float | None:
        """Images a second; None before there are two."""
        return _hz(self._arrivals_s, self._clock())

    @property
    def answer_hz(self) -> float | None:
        """Answers a second; None before there are two."""
        return _hz(self._answers_s, self._clock())

    def silent_after_s(self) -> float:
        """Time without an image that is no pause of the camera any more."""
        if len(self._arrivals_s) < _FEWEST_ARRIVALS:
            return SILENT_AFTER_S
        period_s = float(np.median(np.diff(self._arrivals_s)))
        return min(SILENT_AFTER_S, max(_HANGS_S, _SILENT_AFTER_PERIODS * period_s))

    def overload(self) -> str:
        """That more images come than are answered, with both rates; empty where the localizer keeps up."""
        arrivals = list(self._arrivals_s)
        recent = max(_OVER_IMAGES, sum(at_s > self._clock() - _OVER_S for at_s in arrivals))
        if len(arrivals) < recent:
            return ""
        first_s = arrivals[-recent]
        superseded = sum(at_s >= first_s for at_s in self._superseded_s)
        if superseded <= _OVERLOADED_SHARE * recent:
            return ""
        images_hz = (recent - 1) / max(arrivals[-1] - first_s, 1e-6)
        answers_hz = images_hz * max(0, recent - superseded) / recent
        return f"overloaded: {answers_hz:.1f} of {images_hz:.1f} images a second are answered"


def _hz(times_s: deque[float], now_s: float) -> float | None:
    """Rate of events; it falls while none comes."""
    if len(times_s) < 2:
        return None
    periods = len(times_s) - 1
    period_s = (times_s[-1] - times_s[0]) / periods
    since_s = now_s - times_s[-1]
    span_s = times_s[-1] - times_s[0] + (since_s if since_s > 2.0 * period_s else 0.0)
    return periods / span_s if span_s > 0.0 else None
