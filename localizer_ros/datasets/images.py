"""Image bytes to pixels: the only decoder, used for files, bags and the ROS node.

Results are uint8, (H, W, 3) **RGB** or (H, W) grey. Where the data already has that layout the array is a
read-only view of it; nothing loops over pixels.
"""

from __future__ import annotations

from array import array
from typing import Any, NamedTuple, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from localizer_ros.core.limits import LARGEST_IMAGE_PX
from localizer_ros.core.types import Camera, FrameRejected, UInt8

# Messages hold bytes (rosbags: an array of numpy, rclpy: an array of the standard library).
ImageData: TypeAlias = "bytes | bytearray | memoryview | array[int] | UInt8"

# encoding -> (channels, bytes a channel, OpenCV conversion to RGB or None). Packed YUV counts as two
# channels. OpenCV names a Bayer pattern by its second row and column, ROS by its first: ``rggb`` is OpenCV's
# ``BG``.
_ENCODINGS: dict[str, tuple[int, int, int | None]] = {
    "mono8": (1, 1, None),
    "8UC1": (1, 1, None),
    "mono16": (1, 2, None),
    "16UC1": (1, 2, None),
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


# Greys first, then the colours of two by two pixels, half as many rows.
_PLANAR: dict[str, tuple[int, int, int | None]] = {
    "nv12": (1, 1, cv2.COLOR_YUV2RGB_NV12),
    "nv21": (1, 1, cv2.COLOR_YUV2RGB_NV21),
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
        encoding: a name of ``sensor_msgs/image_encodings.hpp``; 16-bit values are scaled, see ``eight_bits``.
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
    layout = _layout(encoding, height, width)
    channels, depth, conversion, row, rows, _ = layout
    if step < row:
        raise FrameRejected(
            "step", f"image step is {step} bytes, expected at least {row} ({width} x {encoding})"
        )
    flat = np.frombuffer(data, np.uint8)
    # A publisher may leave out the padding of the last row.
    needed = step * (rows - 1) + row
    if flat.size < needed:
        raise FrameRejected(
            "short_data",
            f"image data has {flat.size} bytes, expected {needed} ({width}x{height} {encoding}, step {step})",
        )
    pixels = np.lib.stride_tricks.as_strided(flat, (rows, row), (step, 1), writeable=False)
    if depth == 2:
        values = np.ascontiguousarray(pixels).view(">u2" if is_bigendian else "<u2")
        pixels = eight_bits(values if channels == 1 and conversion is None else values[..., None])
        pixels = pixels.reshape(rows, -1)
    image = pixels.reshape(rows, width, channels) if channels > 1 else pixels
    if conversion is not None:
        try:
            return np.asarray(cv2.cvtColor(np.ascontiguousarray(image), conversion), np.uint8)
        except cv2.error as error:
            # Packed YUV needs an even width, a Bayer pattern two rows and columns.
            raise FrameRejected("size", f"image of {width}x{height} cannot be {encoding}") from error
    return np.ascontiguousarray(image)


class _Layout(NamedTuple):
    """How the bytes of a raw image lie."""

    channels: int
    depth: int
    conversion: int | None
    row: int
    """Bytes of a row, without padding."""
    rows: int
    """Rows of bytes: more than the image has where its colours lie behind its greys."""
    height: int


def _layout(encoding: str, height: int, width: int) -> _Layout:
    """Raises FrameRejected for an unknown encoding or a size that it cannot have."""
    known = _ENCODINGS.get(encoding) or _PLANAR.get(encoding)
    if known is None:
        raise FrameRejected(
            "encoding",
            f"image encoding {encoding!r} is not supported; supported: {', '.join((*_ENCODINGS, *_PLANAR))}",
        )
    channels, depth, conversion = known
    if width <= 0 or height <= 0:
        raise FrameRejected("size", f"image has no pixels: {width}x{height}")
    if encoding in _PLANAR and (width % 2 or height % 2):
        raise FrameRejected("size", f"image of {width}x{height} cannot be {encoding}")
    rows = height + height // 2 if encoding in _PLANAR else height
    return _Layout(channels, depth, conversion, width * channels * depth, rows, height)


# Pixels that have a range.
_FEWEST = 64


def eight_bits(values: NDArray[np.uint16]) -> UInt8:
    """16-bit values as 8-bit ones: by the bits that are used, or by the range that is.

    Values up to 255 are taken as they are, and of values that use all sixteen bits the upper byte counts. Cameras that
    put 10 to 14 bits into 16 are scaled by their brightest, thermal cameras (a narrow band of values far from zero)
    from their darkest to their brightest; a thousandth of the pixels on either side is left out.
    """
    brightest = int(values.max())
    if brightest <= 255:
        return np.asarray(values, np.uint8)
    sample = values[::4, ::4]
    low, high = (float(v) for v in np.percentile(sample, (0.1, 99.9)))
    # Colours would lose their balance, and a few pixels have no range to go by.
    narrow = values.ndim == 2 and sample.size >= _FEWEST and high - low < brightest / 8.0
    if brightest >= 1 << 14 and not narrow:
        return np.asarray(np.right_shift(values, 8), np.uint8)
    low = low if narrow else 0.0
    # A bare wall must not become noise: never more than one grey for one count.
    scale = min(1.0, 255.0 / max(high - low, 1.0))
    scaled = (values.astype(np.float32) - low) * scale
    return np.asarray(np.clip(scaled, 0.0, 255.0), np.uint8)


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
    # Before memory is taken for all that a damaged header promises.
    width, height = _file_size_px(view) or (0, 0)
    if width * height > LARGEST_IMAGE_PX:
        raise FrameRejected("size", f"compressed image of {width}x{height} is larger than any camera's")
    # Intrinsics belong to the sensor's pixel grid, so an EXIF rotation must not be applied.
    flags = cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        image = cv2.imdecode(view, flags)
    except (cv2.error, MemoryError) as error:
        why = getattr(error, "err", "not enough memory")
        raise FrameRejected("unreadable", f"compressed image cannot be decoded ({why})") from error
    if image is None:
        kind = f" {format!r}" if format else ""
        raise FrameRejected("unreadable", f"compressed image{kind} of {view.size} bytes cannot be decoded")
    if image.dtype == np.uint16:
        image = eight_bits(image)
    elif image.dtype != np.uint8:
        raise FrameRejected("encoding", f"image has values of {image.dtype}, expected 8 or 16 bits")
    if image.ndim == 3:
        return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)
    return np.asarray(image, np.uint8)


def message_size_px(message: Any) -> tuple[int, int] | None:
    """(width, height) of an image message by its headers, None where they do not tell; nothing is decoded.

    Raises:
        FrameRejected: cut off, or not possible; see ``decode_image`` and ``decode_compressed``.
    """
    if hasattr(message, "format"):
        return file_size_px(message.data)
    layout = _layout(message.encoding, int(message.height), int(message.width))
    needed = int(message.step) * (layout.rows - 1) + layout.row
    if message.step < layout.row or len(message.data) < needed:
        raise FrameRejected("short_data", f"image data has {len(message.data)} bytes, expected {needed}")
    return int(message.width), layout.height


def file_size_px(data: ImageData, ends_alone: bool = False) -> tuple[int, int] | None:
    """(width, height) of an image file by its header, see above.

    Args:
        data: the file's bytes.
        ends_alone: of a large file, the first and the last of them.

    Raises:
        FrameRejected: it is empty, cut off, or its parts are longer than it is.
    """
    view = np.frombuffer(data, np.uint8)
    if view.size == 0:
        raise FrameRejected("empty", "compressed image is empty")
    if _is_truncated(view, ends_alone):
        raise FrameRejected("truncated", f"compressed image is cut off after {view.size} bytes")
    return _file_size_px(view)


def check_size(size_px: tuple[int, int], camera: Camera) -> None:
    """Raises FrameRejected where an image is of another size than the camera's."""
    if size_px != (camera.width_px, camera.height_px):
        raise FrameRejected(
            "image_size",
            f"image is {size_px[0]}x{size_px[1]} but the camera is {camera.width_px}x{camera.height_px}; "
            "expected a camera.yaml of the image's size",
        )


def _file_size_px(view: UInt8) -> tuple[int, int] | None:
    """(width, height) by the header of a PNG or JPEG; None for others."""
    data = view.data
    if bytes(data[:8]) == b"\x89PNG\r\n\x1a\n" and len(data) >= 24:
        return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    if bytes(data[:2]) != b"\xff\xd8":
        return None
    position = 2
    while position + 9 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        # A start of frame; C4, C8 and CC among those numbers are tables.
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height = int.from_bytes(data[position + 5 : position + 7], "big")
            return int.from_bytes(data[position + 7 : position + 9], "big"), height
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return None


def _is_truncated(view: UInt8, ends_alone: bool = False) -> bool:
    """True for a JPEG or PNG without its end marker, or with a part that does not end within the file."""
    data = view.data
    if bytes(data[:8]) == b"\x89PNG\r\n\x1a\n":
        return b"IEND" not in bytes(data[-64:]) if ends_alone else not _png_ends(data)
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


def _png_ends(data: memoryview) -> bool:
    """Whether the chunks of a PNG follow each other to its last: OpenCV allocates whatever length one claims."""
    position = 8
    while position + 12 <= len(data):
        if bytes(data[position + 4 : position + 8]) == b"IEND":
            return True
        position += 12 + int.from_bytes(data[position : position + 4], "big")
    return False


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
