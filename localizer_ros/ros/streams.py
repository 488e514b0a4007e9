"""The streams of images, one of each camera: which images never came, and which cameras send nothing any more."""

from __future__ import annotations

from collections.abc import Callable

from localizer_ros.ros.rates import Rates
from localizer_ros.ros.stamps import MissingFrames

OTHER_CAMERA = "other_camera"
"""A frame was left out, as another camera's that is as new was answered."""
LEFT_OUT = frozenset({OTHER_CAMERA, "blind", "repeats"})
"""Why frames of one of several cameras are left out: no fault of the answers, which the others give."""


class Streams:
    """Knows what each camera sends.

    Args:
        clock: seconds of a clock that never goes back.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._missing: dict[str, MissingFrames] = {}
        self._rates: dict[str, Rates] = {}
        self._received_s: dict[str, float] = {}

    def received(self, camera: str, stamp_ns: int) -> None:
        """An image came; the name of the camera is empty where there is but one."""
        self._missing.setdefault(camera, MissingFrames()).add(stamp_ns)
        self._rates.setdefault(camera, Rates(self._clock)).received()
        self._received_s[camera] = self._clock()

    @property
    def missing(self) -> int:
        """Images that never came, by their stamps."""
        return sum(missing.count for missing in self._missing.values())

    def silent(self) -> list[str]:
        """What is to say of each of several cameras that has sent images and sends none any more."""
        if len(self._received_s) < 2:
            return []
        since_s = {camera: self._clock() - at_s for camera, at_s in self._received_s.items()}
        return [
            f"no image of camera {camera} for {for_s:.1f} s: check that camera"
            for camera, for_s in since_s.items()
            if for_s > self._rates[camera].silent_after_s()
        ]
