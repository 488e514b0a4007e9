"""Image bytes to pixels: the only decoder, used for files, bags and the ROS node.

Results are uint8, (H, W, 3) **RGB** or (H, W) grey. Where the data already has that layout the array is a
read-only view of it; nothing loops over pixels.
"""

from __future__ import annotations

from array import array
from typing import Any, TypeAlias

import cv2
import numpy as np

from localizer_ros.core.types import FrameRejected, UInt8

# Messages hold bytes (rosbags: an array of numpy, rclpy: an array of the standard library).
ImageData: TypeAlias = "bytes | bytearray | memoryview | array[int] | UInt8"

# encoding -> (channels, bytes a channel, OpenCV conversion to RGB or None). Packed YUV counts as two
# channels. OpenCV names a Bayer pattern by its second row and column, ROS by its first: ``rggb`` is OpenCV's
# ``BG``.
_ENCODINGS: dict[str, tuple[int, int, int | None]] = {
    "mono8": (1, 1, None),
    "8UC1": (1, 1, None),
    "mono16": (1, 2, None),
    "rgb8": (3, 1, None),
    "bgr8": (3, 1, cv2.COLOR_BGR2RGB),
    # Typeless three-channel images come from OpenCV programs, whose order is BGR.
    "8UC3": (3, 1, cv2.COLOR_BGR2RGB),
    "rgba8": (4, 1, cv2.COLOR_RGBA2RGB),
    "bgra8": (4, 1, cv2.COLOR_BGRA2RGB),
    "8UC4": (4, 1, cv2.COLOR_BGRA2RGB),
    "rgb16": (3, 2, None),
    "bgr16": (3, 2, cv2.COLOR_BGR2RGB),
    "yuv422": (2, 1, cv2.COLOR_YUV2RGB_UYVY),
    "uyvy": (2, 1, cv2.COLOR_YUV2RGB_UYVY),
    "yuv422_yuy2": (2, 1, cv2.COLOR_YUV2RGB_YUY2),
    "yuyv": (2, 1, cv2.COLOR_YUV2RGB_YUY2),
    "bayer_rggb8": (1, 1, cv2.COLOR_BayerBG2RGB),
    "bayer_bggr8": (1, 1, cv2.COLOR_BayerRG2RGB),
    "bayer_gbrg8": (1, 1, cv2.COLOR_BayerGR2RGB),
    "bayer_grbg8": (1, 1, cv2.COLOR_BayerGB2RGB),
    "bayer_rggb16": (1, 2, cv2.COLOR_BayerBG2RGB),
    "bayer_bggr16": (1, 2, cv2.COLOR_BayerRG2RGB),
    "bayer_gbrg16": (1, 2, cv2.COLOR_BayerGR2RGB),
    "bayer_grbg16": (1, 2, cv2.COLOR_BayerGB2RGB),
}


def decode_message(message: Any) -> UInt8:
    """Pixels of a ``sensor_msgs/Image`` or ``CompressedImage`` of rclpy or rosbags; see the two functions below."""
    if hasattr(message, "format"):
        return decode_compressed(message.data, message.format)
    return decode_image(
        message.encoding,
        message.height,
        message.width,
        message.step,
        bool(message.is_bigendian),
        message.data,
    )


def decode_image(
    encoding: str,
    height: int,
    width: int,
    step: int,
    is_bigendian: bool,
    data: ImageData,
) -> UInt8:
    """Pixels of a raw image as in ``sensor_msgs/Image``.

    Args:
        encoding: a name of ``sensor_msgs/image_encodings.hpp``; 16-bit values keep their upper byte.
        height: rows.
        width: columns.
        step: bytes from one row to the next, padding included.
        is_bigendian: byte order of 16-bit values.
        data: at least ``step * height`` bytes.

    Returns:
        (H, W, 3) RGB or (H, W) grey; perhaps a read-only view of ``data``.

    Raises:
        FrameRejected: ``encoding`` unknown, ``size`` zero or not possible in that encoding, ``step`` shorter than
            a row, ``short_data``.
    """
    layout = _ENCODINGS.get(encoding)
    if layout is None:
        raise FrameRejected(
            "encoding", f"image encoding {encoding!r} is not supported; supported: {', '.join(_ENCODINGS)}"
        )
    channels, depth, conversion = layout
    if width <= 0 or height <= 0:
        raise FrameRejected("size", f"image has no pixels: {width}x{height}")
    row = width * channels * depth
    if step < row:
        raise FrameRejected(
            "step", f"image step is {step} bytes, expected at least {row} ({width} x {encoding})"
        )
    flat = np.frombuffer(data, np.uint8)
    # A publisher may leave out the padding of the last row.
    needed = step * (height - 1) + row
    if flat.size < needed:
        raise FrameRejected(
            "short_data",
            f"image data has {flat.size} bytes, expected {needed} ({width}x{height} {encoding}, step {step})",
        )
    pixels = np.lib.stride_tricks.as_strided(flat, (height, row), (step, 1), writeable=False)
    if depth == 2:
        # The upper byte of each value, without converting the 16-bit image first.
        pixels = pixels[:, (0 if is_bigendian else 1) :: 2]
    image = pixels.reshape(height, width, channels) if channels > 1 else pixels
    if conversion is not None:
        try:
            return np.asarray(cv2.cvtColor(np.ascontiguousarray(image), conversion), np.uint8)
        except cv2.error as error:
            # Packed YUV needs an even width, a Bayer pattern two rows and columns.
            raise FrameRejected("size", f"image of {width}x{height} cannot be {encoding}") from error
    return np.ascontiguousarray(image)


def decode_compressed(data: ImageData, format: str = "") -> UInt8:
    """Pixels of a JPEG, PNG or other file that OpenCV reads.

    Args:
        data: the file's bytes.
        format: ``sensor_msgs/CompressedImage.format``, for messages only (the bytes say what they are). Depth
            formats (``... compressedDepth``) are rejected.

    Returns:
        (H, W, 3) RGB, or (H, W) when the file is grey. Transparency is dropped, 16 bit become 8.

    Raises:
        FrameRejected: ``encoding`` for depth images, ``empty``, ``truncated`` or ``unreadable``.
    """
    if "compressedDepth" in format:
        raise FrameRejected(
            "encoding", f"compressed image is a depth image ({format}); expected colour or grey"
        )
    view = np.frombuffer(data, np.uint8)
    if view.size == 0:
        raise FrameRejected("empty", "compressed image is empty")
    # OpenCV fills the missing part of a cut-off file with grey and calls it a success.
    if _is_truncated(view):
        raise FrameRejected("truncated", f"compressed image is cut off after {view.size} bytes")
    # Intrinsics belong to the sensor's pixel grid, so an EXIF rotation must not be applied.
    flags = cv2.IMREAD_ANYCOLOR | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        image = cv2.imdecode(view, flags)
    except cv2.error as error:
        raise FrameRejected("unreadable", f"compressed image cannot be decoded ({error.err})") from error
    if image is None:
        kind = f" {format!r}" if format else ""
        raise FrameRejected("unreadable", f"compressed image{kind} of {view.size} bytes cannot be decoded")
    if image.ndim == 3:
        return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image), np.uint8)
    return np.asarray(image, np.uint8)


def _is_truncated(view: UInt8) -> bool:
    """True for a JPEG or PNG without its end marker."""
    data = view.data
    if bytes(data[:8]) == b"\x89PNG\r\n\x1a\n":
        return b"IEND" not in bytes(data[-64:])
    if bytes(data[:2]) != b"\xff\xd8":
        return False
    # Walk the header segments to the scan: a thumbnail in them has an end marker of its own.
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xDA:
            # Inside a scan every 0xFF is followed by 0x00 or a restart marker.
            return bytes(data[position:]).find(b"\xff\xd9") < 0
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return True


def encode_png(image: UInt8) -> bytes:
    """PNG bytes of an RGB or grey uint8 image, without loss."""
    return _encode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 3])


def encode_jpeg(image: UInt8, quality: int = 95) -> bytes:
    """JPEG bytes of an RGB or grey uint8 image."""
    return _encode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])


def _encode(extension: str, image: UInt8, options: list[int]) -> bytes:
    pixels = cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if image.ndim == 3 else image
    done, data = cv2.imencode(extension, pixels, options)
    if not done:
        raise ValueError(f"image of shape {image.shape} cannot be written as {extension}")
    return bytes(data)
