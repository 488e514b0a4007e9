"""Messages to types and back: images, cameras, poses, covariances, stamps."""

from array import array

import cv2
import numpy as np
import pytest
from geometry_msgs.msg import Pose, PoseWithCovarianceStamped
from hypothesis import given, settings
from hypothesis import strategies as st
from nav_msgs.msg import Odometry
from numpy.typing import NDArray
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, RegionOfInterest

from localizer_ros.core.robot_pose import BasePose, BaseTwist
from localizer_ros.core.se3 import SE3, covariance_to_ros
from localizer_ros.core.types import Camera, ConfigError, FrameRejected
from localizer_ros.datasets.calibration import camera_from_info
from localizer_ros.ros import conversions as convert

STAMP = 1_700_000_000_123_456_789

# encoding -> (channels, bytes a channel, order of the channels that are R, G, B; None for grey)
PACKED = {
    "mono8": (1, 1, None),
    "8UC1": (1, 1, None),
    "mono16": (1, 2, None),
    "rgb8": (3, 1, (0, 1, 2)),
    "bgr8": (3, 1, (2, 1, 0)),
    "rgba8": (4, 1, (0, 1, 2)),
    "bgra8": (4, 1, (2, 1, 0)),
    "rgb16": (3, 2, (0, 1, 2)),
    "bgr16": (3, 2, (2, 1, 0)),
}


def raw_message(
    values: NDArray[np.uint16] | NDArray[np.uint8], encoding: str, padding: int = 0, big: bool = False
) -> Image:
    """A message of (H, W, C) values, each row followed by ``padding`` bytes of rubbish."""
    height, width, channels = values.shape
    depth = values.dtype.itemsize
    stored = values.astype(values.dtype.newbyteorder(">" if big else "<"))
    rows = np.full((height, width * channels * depth + padding), 0xA5, np.uint8)
    rows[:, : width * channels * depth] = np.frombuffer(stored.tobytes(), np.uint8).reshape(height, -1)
    return Image(
        header=convert.header(STAMP, "camera"),
        height=height,
        width=width,
        encoding=encoding,
        is_bigendian=int(big),
        step=rows.shape[1],
        data=array("B", rows.tobytes()),
    )


def camera_of(width: int, height: int) -> Camera:
    return Camera.pinhole(width, height, 100.0, 100.0, width / 2, height / 2)


@settings(max_examples=150)
@given(
    st.sampled_from(sorted(PACKED)),
    st.integers(1, 9),
    st.integers(1, 9),
    st.integers(0, 7),
    st.booleans(),
    st.integers(0, 2**32 - 1),
)
def test_every_packed_encoding_with_padding_and_either_endianness(
    encoding: str, height: int, width: int, padding: int, big: bool, seed: int
) -> None:
    channels, depth, order = PACKED[encoding]
    rng = np.random.default_rng(seed)
    dtype = np.uint8 if depth == 1 else np.uint16
    values = rng.integers(0, np.iinfo(dtype).max, (height, width, channels), dtype, endpoint=True)
    if depth == 2:
        # All sixteen bits are used: what does not use them is scaled.
        values[0, 0] = np.iinfo(dtype).max
    message = raw_message(values, encoding, padding, big)
    frame = convert.frame_from_msg(message, camera_of(width, height))
    upper = (values >> 8).astype(np.uint8) if depth == 2 else values
    expected = upper[:, :, 0] if order is None else upper[:, :, list(order)]
    np.testing.assert_array_equal(frame.image, expected)
    assert frame.stamp_ns == STAMP


@pytest.mark.parametrize("encoding", ["bayer_rggb8", "bayer_bggr8", "bayer_gbrg8", "bayer_grbg8"])
@pytest.mark.parametrize("padding", [0, 6])
def test_bayer_of_one_colour_gives_that_colour(encoding: str, padding: int) -> None:
    colour = {"r": 200, "g": 120, "b": 30}
    pattern = encoding.removeprefix("bayer_")[:4]
    tile = np.array([[colour[pattern[0]], colour[pattern[1]]], [colour[pattern[2]], colour[pattern[3]]]])
    mosaic = np.tile(tile, (8, 8)).astype(np.uint8)[:, :, None]
    frame = convert.frame_from_msg(raw_message(mosaic, encoding, padding), camera_of(16, 16))
    np.testing.assert_array_equal(frame.image[4, 4], [200, 120, 30])


@pytest.mark.parametrize(("encoding", "order"), [("yuv422", "UYVY"), ("yuv422_yuy2", "YUY2")])
def test_packed_yuv_of_one_colour_gives_that_colour(encoding: str, order: str) -> None:
    y, u, v = 128, 90, 190
    pair = [u, y, v, y] if order == "UYVY" else [y, u, y, v]
    values = np.tile(np.array(pair, np.uint8), (4, 4)).reshape(4, 8, 2)
    frame = convert.frame_from_msg(raw_message(values, encoding, 4), camera_of(8, 4))
    # BT.601 limited range; OpenCV works with rounded integer coefficients.
    expected = [
        1.164 * (y - 16) + 1.596 * (v - 128),
        1.164 * (y - 16) - 0.813 * (v - 128) - 0.391 * (u - 128),
        1.164 * (y - 16) + 2.018 * (u - 128),
    ]
    np.testing.assert_allclose(frame.image[2, 3].astype(float), expected, atol=2.0)


def test_rgb_is_not_copied() -> None:
    values = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    message = raw_message(values, "rgb8")
    frame = convert.frame_from_msg(message, camera_of(6, 4))
    assert np.shares_memory(frame.image, np.frombuffer(message.data, np.uint8))


@pytest.mark.parametrize("shape", [(5, 7, 3), (5, 7)])
def test_image_message_round_trip_through_the_wire(shape: tuple[int, ...], rng: np.random.Generator) -> None:
    image = rng.integers(0, 256, shape, np.uint8)
    message = deserialize_message(serialize_message(convert.image_msg(image, STAMP, "camera")), Image)
    frame = convert.frame_from_msg(message, camera_of(7, 5))
    np.testing.assert_array_equal(frame.image, image)
    assert (frame.stamp_ns, message.header.frame_id) == (STAMP, "camera")


@pytest.mark.parametrize("shape", [(16, 24, 3), (16, 24)])
def test_compressed_round_trip(shape: tuple[int, ...], rng: np.random.Generator) -> None:
    image = cv2.resize(rng.integers(0, 256, (2, 3, *shape[2:]), np.uint8), shape[1::-1])
    for format, tolerance in (("png", 0), ("jpeg", 12)):
        sent = convert.compressed_msg(image, STAMP, "camera", format)
        message = deserialize_message(serialize_message(sent), CompressedImage)
        frame = convert.frame_from_msg(message, camera_of(24, 16))
        # Chroma subsampling of a smooth image costs a few grey levels.
        assert np.abs(frame.image.astype(int) - image.astype(int)).max() <= tolerance


def bad_images() -> list[tuple[str, str, Image | CompressedImage]]:
    good = raw_message(np.zeros((4, 6, 3), np.uint8), "rgb8")

    def changed(**changes: object) -> Image:
        message = raw_message(np.zeros((4, 6, 3), np.uint8), "rgb8")
        for name, value in changes.items():
            setattr(message, name, value)
        return message

    zero_stamp = raw_message(np.zeros((4, 6, 3), np.uint8), "rgb8")
    zero_stamp.header.stamp.sec = zero_stamp.header.stamp.nanosec = 0
    jpeg = bytes(convert.compressed_msg(np.zeros((4, 6, 3), np.uint8), STAMP, "camera").data)

    def compressed(data: bytes, format: str = "jpeg") -> CompressedImage:
        return CompressedImage(header=good.header, format=format, data=array("B", data))

    return [
        ("no data", "short_data", changed(data=array("B"))),
        ("truncated", "short_data", changed(data=array("B", bytes(good.data)[:-10]))),
        ("unknown encoding", "encoding", changed(encoding="32FC1")),
        ("no encoding", "encoding", changed(encoding="")),
        ("zero size", "size", changed(width=0, height=0, step=0, data=array("B"))),
        ("step too short", "step", changed(step=5)),
        ("other size", "image_size", raw_message(np.zeros((6, 4, 3), np.uint8), "rgb8")),
        ("huge size", "short_data", changed(width=2**31, height=2**31, step=2**32 - 1, encoding="mono8")),
        ("no stamp", "stamp_zero", zero_stamp),
        ("empty file", "empty", compressed(b"")),
        ("truncated file", "truncated", compressed(jpeg[: len(jpeg) // 2])),
        ("rubbish", "unreadable", compressed(b"not an image at all")),
        ("depth", "encoding", compressed(jpeg, "16UC1; compressedDepth png")),
    ]


@pytest.mark.parametrize(("kind", "message"), [pytest.param(k, m, id=name) for name, k, m in bad_images()])
def test_bad_images_are_rejected_with_a_kind(kind: str, message: Image | CompressedImage) -> None:
    with pytest.raises(FrameRejected) as caught:
        convert.frame_from_msg(message, camera_of(6, 4))
    assert caught.value.kind == kind


@settings(max_examples=200)
@given(
    st.sampled_from(["mono8", "rgb8", "mono16", "bayer_rggb8", "yuv422", "bgra8", "nonsense", ""]),
    st.integers(0, 12),
    st.integers(0, 12),
    st.integers(0, 60),
    st.binary(max_size=400),
)
def test_any_raw_message_decodes_or_is_rejected(
    encoding: str, height: int, width: int, step: int, data: bytes
) -> None:
    message = Image(
        header=convert.header(STAMP, "camera"),
        height=height,
        width=width,
        encoding=encoding,
        step=step,
        data=array("B", data),
    )
    try:
        frame = convert.frame_from_msg(message, camera_of(max(1, width), max(1, height)))
    except FrameRejected:
        return
    assert frame.image.shape[:2] == (height, width)


# --- cameras ---


def info(**changes: object) -> CameraInfo:
    message = CameraInfo(
        width=640,
        height=480,
        distortion_model="plumb_bob",
        d=[0.1, -0.2, 0.001, 0.002, 0.0],
        k=[500.0, 0.0, 320.0, 0.0, 510.0, 240.0, 0.0, 0.0, 1.0],
        p=[450.0, 0.0, 318.0, 0.0, 0.0, 455.0, 242.0, 0.0, 0.0, 0.0, 1.0, 0.0],
    )
    for name, value in changes.items():
        setattr(message, name, value)
    return message


def test_camera_info_round_trip() -> None:
    camera = camera_from_info(info())
    assert camera.distorted and camera.K[1, 1] == 510.0
    again = camera_from_info(convert.info_msg(camera, STAMP, "camera"))
    assert again.same_as(camera)
    ideal = camera_of(64, 48)
    assert camera_from_info(convert.info_msg(ideal, STAMP, "camera")).same_as(ideal)


def test_rectified_images_use_p_without_distortion() -> None:
    camera = camera_from_info(info(), rectified=True)
    assert not camera.distorted
    assert (camera.K[0, 0], camera.K[0, 2], camera.K[1, 2]) == (450.0, 318.0, 242.0)


def test_region_of_interest_and_binning_move_the_principal_point() -> None:
    roi = RegionOfInterest(x_offset=100, y_offset=40, width=400, height=300)
    camera = camera_from_info(info(roi=roi, binning_x=2, binning_y=2))
    assert (camera.width_px, camera.height_px) == (200, 150)
    # A point at full resolution falls into the binned pixel that holds it, pixel centres being integers.
    x_full = 320.0 + 500.0 * 0.1
    x_binned = camera.K[0, 2] + camera.K[0, 0] * 0.1
    assert x_binned == pytest.approx((x_full - 100 + 0.5) / 2 - 0.5)


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (info(k=[0.0] * 9), "not calibrated"),
        (info(width=0), "a size of 1 to"),
        (info(distortion_model="magic"), "unknown distortion model"),
        (info(d=[0.1] * 15), "at most 14 coefficients"),
        (info(k=[float("nan")] + [1.0] * 8), "finite"),
        (info(roi=RegionOfInterest(x_offset=600, width=100, height=480)), "region of interest"),
    ],
)
def test_unusable_camera_info_is_an_error_in_words(message: CameraInfo, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        camera_from_info(message)


def test_rectified_without_p_is_an_error() -> None:
    with pytest.raises(ConfigError, match="projection matrix"):
        camera_from_info(info(p=[0.0] * 12), rectified=True)


# --- stamps, poses, covariances ---


@given(st.integers(0, 2**31 * 10**9 - 1))
def test_stamps_round_trip_to_the_nanosecond(stamp: int) -> None:
    assert convert.stamp_ns(convert.stamp_msg(stamp)) == stamp


def random_pose(rng: np.random.Generator, far_m: float = 5.0) -> SE3:
    return SE3.exp(np.concatenate([rng.normal(0.0, 1.5, 3), rng.normal(0.0, far_m, 3)]))


def random_covariance(rng: np.random.Generator) -> NDArray[np.float64]:
    A = rng.normal(0.0, 0.1, (6, 6))
    return A @ A.T + 1e-4 * np.eye(6)


def test_poses_transforms_and_covariances_round_trip(rng: np.random.Generator) -> None:
    for _ in range(50):
        T, S = random_pose(rng), random_covariance(rng)
        # One quaternion there and back: rounding only.
        np.testing.assert_allclose(
            convert.pose_from_msg(convert.pose_msg(T)).matrix(), T.matrix(), atol=1e-12
        )
        message = convert.transform_msg(T, STAMP, "map", "base")
        assert (message.header.frame_id, message.child_frame_id) == ("map", "base")
        np.testing.assert_allclose(convert.transform_from_msg(message).matrix(), T.matrix(), atol=1e-12)
        back = convert.covariance_from_values(T, convert.covariance_values(T, S))
        assert back is not None
        np.testing.assert_allclose(back, S, atol=1e-12)


def test_covariance_of_a_message_is_in_the_map_axes() -> None:
    # Facing +y: what is uncertain along the robot's x is uncertain along the map's y.
    T_map_base = SE3.exp([0.0, 0.0, np.pi / 2, 0.0, 0.0, 0.0])
    S = np.diag([1e-6, 1e-6, 0.04, 0.25, 1e-6, 1e-6])
    values = np.array(convert.covariance_values(T_map_base, S)).reshape(6, 6)
    # 1e-6 m^2 of the other axes.
    np.testing.assert_allclose(np.diag(values), [1e-6, 0.25, 1e-6, 1e-6, 1e-6, 0.04], atol=1e-9)


def test_initialpose_is_read_as_a_base_pose_and_variances_left_out_are_amcls(
    rng: np.random.Generator,
) -> None:
    T_map_base = random_pose(rng)
    message = PoseWithCovarianceStamped(header=convert.header(STAMP, "map"))
    message.pose.pose = convert.pose_msg(T_map_base)
    pose = convert.base_pose_from_msg(message, "map")
    assert pose.covariance is not None and pose.stamp_ns == STAMP
    amcl = np.diag([0.25] * 3 + [0.06853891909122467] * 3)
    np.testing.assert_allclose(covariance_to_ros(T_map_base, pose.covariance), amcl, atol=1e-12)
    message.pose.covariance = (
        np.diag([0.04, 0.09, 0.0, 0.0, 0.0, 0.01]).reshape(-1).tolist()
    )  # of a floor plan
    flat = convert.base_pose_from_msg(message, "map").covariance
    assert flat is not None
    expected = [0.04, 0.09, 0.25, amcl[5, 5], amcl[5, 5], 0.01]
    np.testing.assert_allclose(np.diag(covariance_to_ros(T_map_base, flat)), expected, atol=1e-12)
    np.testing.assert_allclose(pose.T_map_base.matrix(), T_map_base.matrix(), atol=1e-12)
    S = random_covariance(rng)
    message.pose.covariance = convert.covariance_values(T_map_base, S)
    with pytest.raises(ValueError, match="its frame is 'map', expected 'world'"):
        convert.base_pose_from_msg(message, "world")
    covariance = convert.base_pose_from_msg(message, "map").covariance
    assert covariance is not None
    np.testing.assert_allclose(covariance, S, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    "change", [("position", "x", np.nan), ("orientation", "w", np.inf), ("orientation", "w", 0.0)]
)
def test_poses_that_are_not_finite_or_have_a_zero_quaternion_are_refused(
    change: tuple[str, str, float],
) -> None:
    part, field, value = change
    message = Pose()
    setattr(getattr(message, part), field, value)
    with pytest.raises(ValueError, match="pose"):
        convert.pose_from_msg(message)


def test_malformed_covariances_are_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        convert.covariance_from_values(SE3.identity(), [np.nan] * 36)
    with pytest.raises(ValueError, match="negative"):
        convert.covariance_from_values(SE3.identity(), [-1.0] + [0.0] * 35)


def test_odometry_message_has_the_velocity_in_the_order_of_the_message(rng: np.random.Generator) -> None:
    twist = BaseTwist(np.array([0.1, -0.2, 0.3, 1.0, 0.5, -0.25]), random_covariance(rng))
    pose = BasePose(STAMP, random_pose(rng), random_covariance(rng))
    message = convert.odometry_msg(pose, twist, "map", "base_link")
    linear, angular = message.twist.twist.linear, message.twist.twist.angular
    assert [angular.x, angular.y, angular.z, linear.x, linear.y, linear.z] == twist.xi.tolist()
    S = np.array(message.twist.covariance).reshape(6, 6)
    np.testing.assert_array_equal(S[:3, :3], twist.covariance[3:, 3:])
    np.testing.assert_array_equal(S[:3, 3:], twist.covariance[3:, :3])
    np.testing.assert_array_equal(S[3:, 3:], twist.covariance[:3, :3])
    assert pose.covariance is not None
    np.testing.assert_allclose(
        np.array(message.pose.covariance).reshape(6, 6), covariance_to_ros(pose.T_map_base, pose.covariance)
    )


def test_unknown_velocity_is_published_as_unknown_and_unknown_pose_covariance_not_at_all() -> None:
    pose = BasePose(STAMP, SE3.identity(), np.eye(6))
    message = convert.odometry_msg(pose, None, "map", "base")
    assert np.all(np.diag(np.array(message.twist.covariance).reshape(6, 6)) == convert.UNKNOWN_VARIANCE)
    blind = BasePose(STAMP, SE3.identity(), None)
    with pytest.raises(ValueError, match="unknown"):
        convert.odometry_msg(blind, None, "map", "base")
    with pytest.raises(ValueError, match="unknown"):
        convert.pose_with_covariance_msg(blind, "map")


def test_external_odometry_round_trip(rng: np.random.Generator) -> None:
    T = random_pose(rng)
    sent = convert.odometry_sample_msg(T, STAMP, "odom", "base_link")
    sample = convert.odometry_from_msg(deserialize_message(serialize_message(sent), Odometry))
    assert (sample.stamp_ns, sample.odom_frame, sample.base_frame) == (STAMP, "odom", "base_link")
    assert sample.covariance is None
    np.testing.assert_allclose(sample.T_odom_base.matrix(), T.matrix(), atol=1e-12)
