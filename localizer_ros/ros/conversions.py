"""Messages to the nouns of ``core.types`` and back: where stamps, frames and covariances change form.

Images are decoded by ``datasets.images``, the only decoder. Nothing unknown becomes zero or identity: what a
message cannot say is refused with an error, and what we do not know is not published.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from geometry_msgs.msg import Pose, PoseStamped, PoseWithCovarianceStamped, Transform, TransformStamped
from nav_msgs.msg import Odometry
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from localizer_ros.core.robot_pose import BasePose, BaseTwist
from localizer_ros.core.se3 import SE3, covariance_from_ros, covariance_to_ros
from localizer_ros.core.types import Array, Camera, Frame, FrameRejected, Mount
from localizer_ros.datasets.images import decode_message, encode_jpeg, encode_png

# Variance published for a velocity that was not measured: consumers weigh by it, and a message cannot leave
# it out.
UNKNOWN_VARIANCE = 1e6
# AMCL's default sigmas of an initial pose.
_GIVEN_M, _GIVEN_RAD = 0.5, np.pi / 12.0


# --- time ---


def stamp_ns(time: Time) -> int:
    """Nanoseconds of a message stamp."""
    return int(time.sec) * 1_000_000_000 + int(time.nanosec)


def stamp_msg(stamp: int) -> Time:
    """Message stamp of nanoseconds."""
    seconds, nanoseconds = divmod(stamp, 1_000_000_000)
    return Time(sec=seconds, nanosec=nanoseconds)


def header(stamp: int, frame_id: str) -> Header:
    """A header from nanoseconds and a frame."""
    return Header(stamp=stamp_msg(stamp), frame_id=frame_id)


# --- images and cameras ---


def frame_from_msg(
    message: Image | CompressedImage,
    camera: Camera,
    T_base_cam: SE3 | None = None,
    mount: Mount | None = None,
) -> Frame:
    """A frame from an image message, the camera that took it, where that camera is on the base whose odometry is
    used, where that is known, and which one it is of several.

    Raises:
        FrameRejected: no stamp, or pixels that cannot be decoded or do not fit the camera; ``kind`` says
            which.
    """
    stamp = stamp_ns(message.header.stamp)
    if stamp <= 0:
        # Stamp 0 means "latest" in TF; a driver that never sets it would also repeat it forever.
        raise FrameRejected("stamp_zero", f"image stamp is {stamp} ns; expected the time of exposure")
    return Frame(stamp, decode_message(message), camera, T_base_cam=T_base_cam, mount=mount)


def image_msg(image: NDArray[np.uint8], stamp: int, frame_id: str) -> Image:
    """A raw message, ``rgb8`` or ``mono8``, from (H, W, 3) RGB or (H, W) grey."""
    pixels = np.ascontiguousarray(image)
    channels = 1 if pixels.ndim == 2 else 3
    data = array("B")
    # rclpy takes an array of bytes as it is; anything else it checks value by value.
    data.frombytes(pixels.data.cast("B"))
    return Image(
        header=header(stamp, frame_id),
        height=pixels.shape[0],
        width=pixels.shape[1],
        encoding="mono8" if channels == 1 else "rgb8",
        is_bigendian=0,
        step=pixels.shape[1] * channels,
        data=data,
    )


def compressed_msg(
    image: NDArray[np.uint8], stamp: int, frame_id: str, format: str = "jpeg"
) -> CompressedImage:
    """A compressed message from (H, W, 3) RGB or (H, W) grey; ``format`` is ``jpeg`` or ``png``."""
    encoding = "rgb8" if image.ndim == 3 else "mono8"
    stored = "bgr8" if image.ndim == 3 else "mono8"
    data = array("B")
    data.frombytes(encode_png(image) if format == "png" else encode_jpeg(image))
    return CompressedImage(
        header=header(stamp, frame_id), format=f"{encoding}; {format} compressed {stored}", data=data
    )


def info_msg(camera: Camera, stamp: int, frame_id: str) -> CameraInfo:
    """Calibration message of a camera read out at full resolution."""
    fx, fy, cx, cy = camera.K[0, 0], camera.K[1, 1], camera.K[0, 2], camera.K[1, 2]
    distortion = camera.distortion.tolist()
    if not distortion:
        # Consumers of ROS expect the coefficients even where all are zero.
        distortion = [0.0] * {"plumb_bob": 5, "rational_polynomial": 8, "equidistant": 4}[camera.model]
    return CameraInfo(
        header=header(stamp, frame_id),
        height=camera.height_px,
        width=camera.width_px,
        distortion_model=camera.model,
        d=distortion,
        k=camera.K.reshape(-1).tolist(),
        r=np.eye(3).reshape(-1).tolist(),
        p=[fx, 0.0, cx, 0.0, 0.0, fy, cy, 0.0, 0.0, 0.0, 1.0, 0.0],
    )


# --- poses ---


def pose_msg(T_a_b: SE3) -> Pose:
    """Pose of b in a."""
    message = Pose()
    message.position.x, message.position.y, message.position.z = T_a_b.t.tolist()
    q = message.orientation
    q.x, q.y, q.z, q.w = T_a_b.quaternion_xyzw().tolist()
    return message


def pose_from_msg(message: Pose) -> SE3:
    """``T_a_b`` of a pose message. Raises ValueError for values that are not finite or a zero quaternion."""
    p, q = message.position, message.orientation
    return SE3.from_quaternion((p.x, p.y, p.z), (q.x, q.y, q.z, q.w))


def transform_msg(T_parent_child: SE3, stamp: int, parent: str, child: str) -> TransformStamped:
    """TF edge ``parent`` -> ``child``."""
    transform = Transform()
    transform.translation.x, transform.translation.y, transform.translation.z = T_parent_child.t.tolist()
    q = transform.rotation
    q.x, q.y, q.z, q.w = T_parent_child.quaternion_xyzw().tolist()
    return TransformStamped(header=header(stamp, parent), child_frame_id=child, transform=transform)


def transform_from_msg(message: TransformStamped) -> SE3:
    """``T_parent_child``. Raises ValueError for values that are not finite or a zero quaternion."""
    t, q = message.transform.translation, message.transform.rotation
    return SE3.from_quaternion((t.x, t.y, t.z), (q.x, q.y, q.z, q.w))


def covariance_values(T_a_b: SE3, S_a_b: Array) -> list[float]:
    """The 36 values of a message's covariance from one in the tangent of ``T_a_b``."""
    S_ros = covariance_to_ros(T_a_b, S_a_b)
    return [float(v) for v in (0.5 * (S_ros + S_ros.T)).reshape(-1)]


def covariance_from_values(T_a_b: SE3, values: Sequence[float]) -> Array | None:
    """Covariance in the tangent of ``T_a_b``; None where a message leaves it zero, which means unknown.

    Raises:
        ValueError: not 36 finite values with positive variances.
    """
    S_ros = np.asarray(values, dtype=np.float64)
    if S_ros.shape != (36,) or not np.all(np.isfinite(S_ros)):
        raise ValueError("covariance: expected 36 finite values")
    if not np.any(S_ros):
        return None
    S_ros = S_ros.reshape(6, 6)
    if np.any(np.diag(S_ros) < 0.0):
        raise ValueError("covariance: a variance is negative")
    return covariance_from_ros(T_a_b, 0.5 * (S_ros + S_ros.T))


def pose_stamped_msg(pose: BasePose, map_frame: str) -> PoseStamped:
    """Without the covariance."""
    return PoseStamped(header=header(pose.stamp_ns, map_frame), pose=pose_msg(pose.T_map_base))


def pose_with_covariance_msg(pose: BasePose, map_frame: str) -> PoseWithCovarianceStamped:
    """With the covariance, which must be known.

    Raises:
        ValueError: the covariance is unknown, which this message cannot say.
    """
    if pose.covariance is None:
        raise ValueError("covariance: unknown")
    message = PoseWithCovarianceStamped(header=header(pose.stamp_ns, map_frame))
    message.pose.pose = pose_msg(pose.T_map_base)
    message.pose.covariance = covariance_values(pose.T_map_base, pose.covariance)
    return message


def base_pose_from_msg(message: PoseWithCovarianceStamped, map_frame: str) -> BasePose:
    """The robot's pose of an ``initialpose``. Variances that the message leaves zero are those that AMCL takes: many
    tools leave all of them out, and those of the floor plan leave out height, roll and pitch.

    Raises:
        ValueError: another frame than ``map_frame``, a value that is not finite, a zero quaternion, or a malformed
            covariance.
    """
    frame = message.header.frame_id.lstrip("/")
    if frame != map_frame:
        raise ValueError(f"its frame is {frame!r}, expected {map_frame!r}")
    T_map_base = pose_from_msg(message.pose.pose)
    values = np.array(message.pose.covariance, dtype=np.float64)
    variances = values[::7]
    values[::7] = np.where(variances == 0.0, np.repeat([_GIVEN_M**2, _GIVEN_RAD**2], 3), variances)
    covariance = covariance_from_values(T_map_base, values.tolist())
    return BasePose(stamp_ns(message.header.stamp), T_map_base, covariance)


# --- odometry ---


@dataclass(frozen=True, slots=True, eq=False)
class OdometrySample:
    """A pose of the odometry.

    Attributes:
        stamp_ns: of the measurement.
        odom_frame: frame it is given in.
        base_frame: frame whose pose it is; empty where the message leaves it out.
        T_odom_base: the pose.
        covariance: (6, 6) in the tangent of ``T_odom_base``, or None when unknown.
    """

    stamp_ns: int
    odom_frame: str
    base_frame: str
    T_odom_base: SE3
    covariance: Array | None


def odometry_from_msg(message: Odometry) -> OdometrySample:
    """Raises ValueError for values that are not finite, a zero quaternion or a malformed covariance."""
    T_odom_base = pose_from_msg(message.pose.pose)
    return OdometrySample(
        stamp_ns(message.header.stamp),
        message.header.frame_id,
        message.child_frame_id,
        T_odom_base,
        covariance_from_values(T_odom_base, message.pose.covariance),
    )


def odometry_msg(pose: BasePose, twist: BaseTwist | None, map_frame: str, base_frame: str) -> Odometry:
    """Pose in the map, velocity in the robot's frame; both covariances in the message's order (linear first).

    Raises:
        ValueError: the covariance of the pose is unknown, which this message cannot say.
    """
    if pose.covariance is None:
        raise ValueError("covariance: unknown")
    message = Odometry(header=header(pose.stamp_ns, map_frame), child_frame_id=base_frame)
    message.pose.pose = pose_msg(pose.T_map_base)
    message.pose.covariance = covariance_values(pose.T_map_base, pose.covariance)
    covariance = UNKNOWN_VARIANCE * np.eye(6)
    if twist is not None:
        angular, linear = message.twist.twist.angular, message.twist.twist.linear
        angular.x, angular.y, angular.z, linear.x, linear.y, linear.z = twist.xi.tolist()
        # A twist is given in the body frame already, so only the order of the two halves changes.
        order = [3, 4, 5, 0, 1, 2]
        covariance = twist.covariance[np.ix_(order, order)]
    message.twist.covariance = [float(v) for v in covariance.reshape(-1)]
    return message


def odometry_sample_msg(
    T_odom_base: SE3, stamp: int, odom_frame: str, base_frame: str, covariance: Array | None = None
) -> Odometry:
    """External odometry as a robot publishes it; a covariance that is None stays zero, which means unknown."""
    message = Odometry(header=header(stamp, odom_frame), child_frame_id=base_frame)
    message.pose.pose = pose_msg(T_odom_base)
    if covariance is not None:
        message.pose.covariance = covariance_values(T_odom_base, covariance)
    return message


# --- diagnostics ---

LEVELS = {
    "OK": DiagnosticStatus.OK,
    "WARN": DiagnosticStatus.WARN,
    "ERROR": DiagnosticStatus.ERROR,
    "STALE": DiagnosticStatus.STALE,
}


def diagnostic_status(
    name: str, hardware_id: str, level: str, message: str, values: dict[str, str]
) -> DiagnosticStatus:
    """A status; ``level`` is a key of ``LEVELS``."""
    return DiagnosticStatus(
        level=LEVELS[level],
        name=name,
        message=message,
        hardware_id=hardware_id,
        values=[KeyValue(key=key, value=value) for key, value in values.items()],
    )


def diagnostics_msg(stamp: int, status: DiagnosticStatus) -> DiagnosticArray:
    """One status and its time."""
    return DiagnosticArray(header=header(stamp, ""), status=[status])
