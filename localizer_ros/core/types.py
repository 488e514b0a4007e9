"""The nouns of the pipeline: cameras, frames, poses with covariance, and what the localizer answers.

Transforms are written ``T_a_b``: the pose of frame b in frame a, ``p_a = T_a_b @ p_b``. ``cam`` is an optical frame:
x right, y down, z forward. A covariance is 6x6 in the tangent ``T · Exp([w, v])``: rotation (rad) first, then
translation (m), both in the body frame, as in GTSAM. An unknown value is ``None``; it is never an identity.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from localizer_ros.core.arrays import Array as Array
from localizer_ros.core.arrays import Float32 as Float32
from localizer_ros.core.arrays import Index as Index
from localizer_ros.core.arrays import Mask as Mask
from localizer_ros.core.arrays import UInt8 as UInt8
from localizer_ros.core.exposure import bright_grey
from localizer_ros.core.se3 import SE3
from localizer_ros.core.seen import SeenPoints

# Stage of ``LocalizerOutput.timings_ms``.
LATE_SEARCH, LATE_MATCHING = "late_search", "late_matching"


UNFORESEEN = "in a way that was not foreseen"
"""In the message of an error that nothing nearer to its cause has told: a fault of this program; tests look for it."""


class LocalizerError(Exception):
    """A known error, told to the user in one line. Subclasses say what kind."""


class ConfigError(LocalizerError):
    """An unknown key or a value outside its range; the message names the path of the key."""


class SourceError(LocalizerError):
    """A recording is missing, has the wrong format or is damaged; the message names the file."""


class SceneError(LocalizerError):
    """A scene bundle is missing, incomplete, changed or of another version; the message names the file."""


class BackendError(LocalizerError):
    """An inference back end cannot be opened or failed to run."""


class NumericalError(LocalizerError):
    """A computation gave NaN, infinity or a singular system."""


class FrameRejected(LocalizerError):
    """One frame cannot be used. ``kind`` is a short stable word to count by, the message has the details."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Status(enum.Enum):
    """How far the answer can be trusted."""

    INITIALIZING = "INITIALIZING"
    TRACKING = "TRACKING"
    DEGRADED = "DEGRADED"
    LOST = "LOST"


# No sensor has more pixels along a side; a larger number is a damaged file.
_LARGEST_PX = 65_535
# How many coefficients OpenCV takes for a model.
_COEFFICIENTS = {
    "plumb_bob": (0, 4, 5, 8, 12, 14),
    "rational_polynomial": (0, 4, 5, 8, 12, 14),
    "equidistant": (0, 4),
}


def _check_matrix(K: Array) -> None:
    """Raises ConfigError for a matrix that no camera has."""
    if K.shape != (3, 3) or not np.all(np.isfinite(K)) or K[0, 0] <= 0 or K[1, 1] <= 0:
        raise ConfigError(f"camera: expected a finite 3x3 K with positive focal lengths, got {K.tolist()}")
    if K[1, 0] != 0.0 or not np.array_equal(K[2], (0.0, 0.0, 1.0)):
        raise ConfigError(f"camera: expected K of the rows fx s cx, 0 fy cy, 0 0 1, got {K.tolist()}")


def _coefficients(model: str, distortion: Array) -> Array:
    """As many coefficients as OpenCV takes: missing ones are zero, and zeros at the end say nothing.

    Raises:
        ConfigError: unknown model, a value that is not finite, more coefficients than the model has.
    """
    counts = _COEFFICIENTS.get(model)
    if counts is None:
        raise ConfigError(f"camera: expected model {', '.join(_COEFFICIENTS)}, got {model!r}")
    if not np.all(np.isfinite(distortion)):
        raise ConfigError("camera: distortion has a value that is not finite")
    if distortion.size in counts:
        return distortion
    used = distortion[: int(np.max(np.flatnonzero(distortion), initial=-1)) + 1]
    if used.size > counts[-1]:
        raise ConfigError(
            f"camera: distortion model {model} has at most {counts[-1]} coefficients, got {distortion.size}"
        )
    whole = np.zeros(next(count for count in counts if count >= used.size))
    whole[: used.size] = used
    return whole


@dataclass(frozen=True, slots=True, eq=False)
class Camera:
    """A pinhole camera with an OpenCV/ROS distortion model.

    Attributes:
        width_px: image width.
        height_px: image height.
        K: (3, 3) float64 intrinsics in pixels, pixel centres at integer coordinates.
        distortion: (D,) coefficients of ``model``; empty for an ideal pinhole. Missing ones are zero.
        model: ``plumb_bob`` or ``rational_polynomial`` (OpenCV's standard model), or ``equidistant`` (fisheye).
    """

    width_px: int
    height_px: int
    K: Array
    distortion: Array = field(default_factory=lambda: np.zeros(0))
    model: str = "plumb_bob"

    def __post_init__(self) -> None:
        if not (0 < self.width_px <= _LARGEST_PX and 0 < self.height_px <= _LARGEST_PX):
            raise ConfigError(
                f"camera: expected a size of 1 to {_LARGEST_PX} px, got {self.width_px}x{self.height_px}"
            )
        K = np.array(self.K, dtype=np.float64)
        _check_matrix(K)
        distortion = _coefficients(self.model, np.array(self.distortion, dtype=np.float64).reshape(-1))
        K.setflags(write=False)
        distortion.setflags(write=False)
        object.__setattr__(self, "K", K)
        object.__setattr__(self, "distortion", distortion)

    @staticmethod
    def pinhole(width_px: int, height_px: int, fx: float, fy: float, cx: float, cy: float) -> Camera:
        """An ideal camera without distortion; all arguments in pixels."""
        return Camera(width_px, height_px, np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]]))

    @property
    def distorted(self) -> bool:
        """True when any distortion coefficient differs from zero."""
        return bool(self.distortion.any())

    def scaled(self, width_px: int, height_px: int) -> Camera:
        """The same camera read out at another size; distortion coefficients do not depend on the size."""
        sx, sy = width_px / self.width_px, height_px / self.height_px
        K = self.K.copy()
        K[0, :] *= sx
        K[1, :] *= sy
        # Pixel centres are integers: the image spans [-0.5, w - 0.5].
        K[0, 2] += 0.5 * sx - 0.5
        K[1, 2] += 0.5 * sy - 0.5
        return Camera(width_px, height_px, K, self.distortion, self.model)

    def same_as(self, other: Camera, tolerance_px: float = 1e-6) -> bool:
        """True when size, model, K (to ``tolerance_px``) and distortion agree."""
        return self is other or (
            (self.width_px, self.height_px) == (other.width_px, other.height_px)
            and bool(np.abs(self.K - other.K).max() <= tolerance_px)
            and (
                (not self.distorted and not other.distorted)
                or (
                    self.model == other.model
                    and self.distortion.shape == other.distortion.shape
                    and bool(np.abs(self.distortion - other.distortion).max() <= 1e-9)
                )
            )
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for YAML or JSON; :meth:`from_dict` reads them back."""
        return {
            "width_px": self.width_px,
            "height_px": self.height_px,
            "K": self.K.reshape(-1).tolist(),
            "distortion": self.distortion.tolist(),
            "model": self.model,
        }

    @staticmethod
    def from_dict(values: dict[str, Any]) -> Camera:
        """Inverse of :meth:`to_dict`. Raises ConfigError when a field is missing or malformed."""
        try:
            return Camera(
                int(values["width_px"]),
                int(values["height_px"]),
                np.asarray(values["K"], dtype=np.float64).reshape(3, 3),
                np.asarray(values["distortion"], dtype=np.float64),
                str(values["model"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(f"camera: malformed entry ({error})") from error


@dataclass(frozen=True, slots=True, eq=False)
class Mount:
    """One of several cameras of a robot.

    Attributes:
        camera: its name, unique on the robot.
        T_robot_cam: where it is on the robot at the frame's time, taken as exact.
    """

    camera: str
    T_robot_cam: SE3


@dataclass(frozen=True, eq=False)
class Frame:
    """One image with its camera and stamp.

    Attributes:
        stamp_ns: time of exposure, nanoseconds; the image's own stamp, never the wall clock.
        image: (H, W, 3) uint8 **RGB** or (H, W) uint8 grey.
        camera: the camera that took it, at the image's size.
        name: for messages and reports, e.g. the file name.
        T_base_cam: the camera on the body whose external odometry is used, at this time (a head may turn); None when
            it is not known.
        mount: which camera of the robot took it, None where it has but one.
    """

    stamp_ns: int
    image: UInt8
    camera: Camera
    name: str = ""
    T_base_cam: SE3 | None = None
    mount: Mount | None = None

    def __post_init__(self) -> None:
        image = self.image
        if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
            raise FrameRejected("image_type", f"frame {self.label}: expected a uint8 array")
        if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] != 3) or image.size == 0:
            raise FrameRejected(
                "image_shape",
                f"frame {self.label}: expected (H, W, 3) or (H, W) with pixels, got {image.shape}",
            )
        if image.shape[:2] != (self.camera.height_px, self.camera.width_px):
            raise FrameRejected(
                "image_size",
                f"frame {self.label}: image is {image.shape[1]}x{image.shape[0]} but the camera is "
                f"{self.camera.width_px}x{self.camera.height_px}",
            )

    @cached_property
    def grey(self) -> UInt8:
        """(H, W) of the image, bright enough; see :func:`localizer_ros.core.exposure.bright_grey`."""
        return bright_grey(self.image)

    @property
    def label(self) -> str:
        """The name, or the stamp when there is none."""
        return self.name or f"at {self.stamp_ns} ns"


@dataclass(frozen=True, slots=True, eq=False)
class PoseEstimate:
    """An absolute pose of the camera.

    Attributes:
        stamp_ns: of the image it belongs to.
        T_map_cam: camera pose in the map.
        covariance: (6, 6) in the tangent of ``T_map_cam`` (see the module), or None when unknown.
        source: what computed it, e.g. ``posenet``, ``hierarchical``, ``smoother``.
        inliers: number of supporting matches, None for methods without matches.
        confidence: 0..1, None when the method has none.
        correlation_s: poses closer in time than this weigh as one, as they have the same error; None = not known.
        common: (6, 6) the part of ``covariance`` that the poses around this one share, such as an error of the clock:
            no number of them makes it smaller. None = there is none.
    """

    stamp_ns: int
    T_map_cam: SE3
    covariance: Array | None
    source: str
    inliers: int | None = None
    confidence: float | None = None
    correlation_s: float | None = None
    common: Array | None = None


@dataclass(frozen=True, slots=True, eq=False)
class RelativePose:
    """Motion of the camera between two frames: ``T_map_cur = T_map_prev @ T_prev_cur``.

    Attributes:
        stamp_prev_ns: stamp of the earlier frame.
        stamp_cur_ns: stamp of the later frame.
        T_prev_cur: pose of the later camera in the earlier one.
        covariance: (6, 6) in the tangent of ``T_prev_cur``.
        source: what computed it, e.g. ``vo``, ``odom``, ``tracking``.
        correlation_s: motions closer in time than this weigh as one, as they have the same error; None = not known.
    """

    stamp_prev_ns: int
    stamp_cur_ns: int
    T_prev_cur: SE3
    covariance: Array
    source: str
    correlation_s: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class LocalizerOutput:
    """The answer to one frame.

    Attributes:
        stamp_ns: of the image.
        status: how far to trust it.
        estimate: the smoothed pose, None while there is none to be trusted (INITIALIZING, LOST).
        absolute: the raw absolute answer for this frame, before gating and smoothing, or None.
        relative: the motion used since the previous frame, or None.
        reason: why the status is not TRACKING, or what was rejected; empty when all is well.
        timings_ms: wall time of each stage, in order; ``LATE_SEARCH`` and ``LATE_MATCHING`` ran beside the
            frames and came with this one.
        reset: True when this frame, or a rejected one since the last output, started over: time jumped back, a long
            gap, or a re-localisation. ``reason`` says which.
        motions: all that were measured since the previous frame (the front end's, external odometry's).
        out_of_distribution: how little the frame resembles what a network was trained on (0 not at all, about 1 another
            place); None for methods without one.
        seen: keypoints and matches, for those who look at the frame; None for methods without points.
        odometry_contradicted: the images contradict how external odometry says the camera moved.
    """

    stamp_ns: int
    status: Status
    estimate: PoseEstimate | None
    absolute: PoseEstimate | None
    relative: RelativePose | None
    reason: str
    timings_ms: dict[str, float]
    reset: bool = False
    motions: tuple[RelativePose, ...] = ()
    out_of_distribution: float | None = None
    seen: SeenPoints | None = None
    odometry_contradicted: bool = False
