"""Image decoding: every encoding against pixels encoded by hand, and a clear refusal of everything
damaged.
"""

from __future__ import annotations

import array
import struct
import zlib

import cv2
import numpy as np
import pytest

from localizer_ros.core.types import FrameRejected
from localizer_ros.datasets.images import (
    decode_compressed,
    decode_image,
    encode_jpeg,
    encode_png,
    file_size_px,
)

HEIGHT, WIDTH = 24, 32


@pytest.fixture
def rgb(rng):
    """A smooth colour image: demosaicing and chroma subsampling lose detail, not slow gradients."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float64)
    channels = [60 + 4 * x + y, 200 - 3 * x, 40 + 5 * y]
    return np.clip(np.stack(channels, axis=-1), 0, 255).astype(np.uint8)


def with_step(pixels, padding):
    """Bytes of (H, ...) pixels with ``padding`` bytes after each row, and the step."""
    rows = np.ascontiguousarray(pixels).reshape(pixels.shape[0], -1).view(np.uint8)
    padded = np.pad(rows, ((0, 0), (0, padding)), constant_values=99)
    return padded.tobytes(), padded.shape[1]


@pytest.mark.parametrize("padding", [0, 7])
@pytest.mark.parametrize(
    ("encoding", "order"),
    [
        ("rgb8", [0, 1, 2]),
        ("bgr8", [2, 1, 0]),
        ("8UC3", [2, 1, 0]),
        ("rgba8", [0, 1, 2, 3]),
        ("bgra8", [2, 1, 0, 3]),
    ],
)
def test_colour_orders_and_row_padding(rgb, encoding, order, padding):
    rgba = np.dstack([rgb, np.full((HEIGHT, WIDTH), 128, np.uint8)])
    data, step = with_step(rgba[..., order], padding)
    np.testing.assert_array_equal(decode_image(encoding, HEIGHT, WIDTH, step, False, data), rgb)


@pytest.mark.parametrize("encoding", ["mono8", "8UC1"])
def test_grey_stays_grey(rgb, encoding):
    data, step = with_step(rgb[..., 0], 5)
    np.testing.assert_array_equal(decode_image(encoding, HEIGHT, WIDTH, step, False, data), rgb[..., 0])


@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize("encoding", ["mono16", "rgb16", "bgr16"])
def test_sixteen_bits_keep_the_upper_byte_in_both_byte_orders(rng, encoding, big_endian):
    shape = (HEIGHT, WIDTH) if encoding == "mono16" else (HEIGHT, WIDTH, 3)
    values = rng.integers(0, 65536, shape).astype(">u2" if big_endian else "<u2")
    data, step = with_step(values.view(np.uint8), 4)
    expected = (values >> 8).astype(np.uint8)
    if encoding == "bgr16":
        expected = expected[..., ::-1]
    np.testing.assert_array_equal(decode_image(encoding, HEIGHT, WIDTH, step, big_endian, data), expected)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
def test_bayer_patterns_are_named_by_their_first_pixels(rgb, pattern, bits):
    mosaic = np.zeros((HEIGHT, WIDTH), np.uint8)
    for position, letter in enumerate(pattern):
        at = (slice(position // 2, None, 2), slice(position % 2, None, 2))
        mosaic[at] = rgb[..., "rgb".index(letter)][at]
    data = mosaic.tobytes() if bits == 8 else (mosaic.astype("<u2") << 8).tobytes()
    image = decode_image(f"bayer_{pattern}{bits}", HEIGHT, WIDTH, WIDTH * bits // 8, False, data)
    # Linear gradients survive bilinear demosaicing; the outermost pixels have no neighbours to interpolate
    # from.
    inner = (slice(2, -2), slice(2, -2))
    np.testing.assert_allclose(image[inner].astype(int), rgb[inner].astype(int), atol=2)


@pytest.mark.parametrize(
    ("encoding", "luma_first"), [("yuv422_yuy2", True), ("yuyv", True), ("yuv422", False)]
)
def test_packed_yuv(rgb, encoding, luma_first):
    yuv = cv2.cvtColor(rgb, cv2.COLOR_RGB2YUV).astype(int)
    # OpenCV's packed formats have video range: luma 16..235.
    luma = np.round(16 + yuv[..., 0] * 219 / 255).astype(np.uint8)
    ycc = cv2.cvtColor(rgb, cv2.COLOR_RGB2YCrCb).astype(int)
    chroma = np.round(128 + (ycc[..., [2, 1]] - 128) * 224 / 255).astype(np.uint8)
    packed = np.zeros((HEIGHT, WIDTH, 2), np.uint8)
    packed[..., 0 if luma_first else 1] = luma
    packed[:, 0::2, 1 if luma_first else 0] = chroma[:, 0::2, 0]
    packed[:, 1::2, 1 if luma_first else 0] = chroma[:, 0::2, 1]
    image = decode_image(encoding, HEIGHT, WIDTH, 2 * WIDTH, False, packed.tobytes())
    # Chroma of every second pixel, twice rounded, and 3 grey levels of gradient a pixel.
    np.testing.assert_allclose(image.astype(int), rgb.astype(int), atol=9)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, lambda d: array.array("B", d)])
def test_any_kind_of_bytes_is_taken_and_contiguous_data_is_not_copied(rgb, kind):
    data = kind(rgb.tobytes())
    image = decode_image("rgb8", HEIGHT, WIDTH, 3 * WIDTH, False, data)
    np.testing.assert_array_equal(image, rgb)
    assert np.shares_memory(image, np.frombuffer(data, np.uint8))


def test_last_row_may_lack_its_padding(rgb):
    data, step = with_step(rgb, 10)
    np.testing.assert_array_equal(decode_image("rgb8", HEIGHT, WIDTH, step, False, data[:-10]), rgb)


@pytest.mark.parametrize(
    ("arguments", "kind", "words"),
    [
        (("rgb9", 4, 4, 12, False, bytes(48)), "encoding", "rgb9"),
        (("rgb8", 0, 4, 12, False, b""), "size", "4x0"),
        (("rgb8", 4, 4, 11, False, bytes(48)), "step", "expected at least 12"),
        (("rgb8", 4, 4, 12, False, bytes(47)), "short_data", "47 bytes, expected 48"),
        (("mono8", 4, 4, 4, False, b""), "short_data", "0 bytes, expected 16"),
    ],
)
def test_damaged_images_are_rejected_by_kind_and_in_words(arguments, kind, words):
    with pytest.raises(FrameRejected, match=words) as caught:
        decode_image(*arguments)
    assert caught.value.kind == kind


@pytest.mark.parametrize(("encoding", "size"), [("yuv422", (2, 3)), ("yuv422_yuy2", (4, 1))])
def test_sizes_that_an_encoding_cannot_have_are_rejected(encoding: str, size: tuple[int, int]) -> None:
    height, width = size
    with pytest.raises(FrameRejected) as caught:
        decode_image(encoding, height, width, 2 * width, False, bytes(2 * width * height))
    assert caught.value.kind == "size"


def test_compressed_round_trips(rgb):
    np.testing.assert_array_equal(decode_compressed(encode_png(rgb)), rgb)
    np.testing.assert_array_equal(decode_compressed(encode_png(rgb[..., 0]), "png"), rgb[..., 0])
    # JPEG at quality 95 of a smooth image.
    np.testing.assert_allclose(decode_compressed(encode_jpeg(rgb)).astype(int), rgb.astype(int), atol=8)
    assert decode_compressed(encode_jpeg(rgb[..., 0])).ndim == 2


@pytest.mark.parametrize("encode", [encode_jpeg, encode_png])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.9])
def test_cut_off_files_are_found(rng, encode, share):
    data = encode(rng.integers(0, 256, (60, 80, 3)).astype(np.uint8))
    with pytest.raises(FrameRejected, match="cut off") as caught:
        decode_compressed(data[: int(share * len(data))])
    assert caught.value.kind == "truncated"


def test_thumbnail_in_the_header_does_not_hide_a_cut(rgb):
    jpeg = encode_jpeg(rgb)
    thumbnail = b"Exif" + jpeg
    segment = b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail
    nested = jpeg[:2] + segment + jpeg[2:]
    assert decode_compressed(nested).shape == rgb.shape
    with pytest.raises(FrameRejected, match="cut off"):
        decode_compressed(nested[:-20])


@pytest.mark.parametrize(
    ("data", "format", "kind"),
    [
        (b"", "jpeg", "empty"),
        (b"no image at all", "", "unreadable"),
        (b"x", "16UC1; compressedDepth", "encoding"),
    ],
)
def test_other_bytes_are_rejected(data, format, kind):
    with pytest.raises(FrameRejected) as caught:
        decode_compressed(data, format)
    assert caught.value.kind == kind


@pytest.mark.parametrize(("bits", "pedestal"), [(8, 0), (10, 0), (12, 0), (14, 0), (8, 7400), (8, 30000)])
def test_fewer_than_sixteen_bits_are_scaled_by_their_range(rng, bits, pedestal):
    grey = rng.integers(0, 256, (48, 64)).astype(np.uint16)
    values = (grey << (bits - 8)) + np.uint16(pedestal)
    for encoding in ("mono16", "16UC1"):
        image = decode_image(encoding, 48, 64, 128, False, values.astype("<u2").tobytes())
        # The brightest and darkest thousandth may be cut.
        assert np.abs(image.astype(int) - grey).max() <= 3


@pytest.mark.parametrize("encoding", ["nv12", "nv21"])
def test_planar_colours(encoding):
    luma, u, v = np.full((4, 6), 81, np.uint8), 90, 240
    pair = (u, v) if encoding == "nv12" else (v, u)
    data = np.concatenate([luma.reshape(-1), np.tile(np.array(pair, np.uint8), 6)])
    image = decode_image(encoding, 4, 6, 6, False, data.tobytes())
    # Red in video range.
    assert image.shape == (4, 6, 3)
    assert np.abs(image.astype(int) - (254, 0, 0)).max() <= 2
    with pytest.raises(FrameRejected, match="cannot be nv"):
        decode_image(encoding, 3, 6, 6, False, data.tobytes())
    with pytest.raises(FrameRejected, match="expected 36"):
        decode_image(encoding, 4, 6, 6, False, data.tobytes()[:30])


def test_a_header_that_promises_a_huge_image_is_not_believed(rgb):
    data = bytearray(encode_png(rgb))
    data[16:24] = struct.pack(">II", 60_000, 60_000)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    with pytest.raises(FrameRejected, match="60000x60000 is larger than any camera's"):
        decode_compressed(bytes(data))
    # No header but OpenCV's own decoder tells the size of these.
    bmp = bytearray(cv2.imencode(".bmp", rgb)[1].tobytes())
    bmp[18:26] = struct.pack("<ii", 20_000, 20_000)
    with pytest.raises(FrameRejected):
        decode_compressed(bytes(bmp))


def test_a_chunk_that_claims_gigabytes_is_not_believed(rgb):
    data = bytearray(encode_png(rgb))
    at = data.index(b"IDAT")
    data[at - 4 : at] = struct.pack(">I", 0xF0BF2000)
    for read in (decode_compressed, file_size_px):
        with pytest.raises(FrameRejected, match="cut off"):
            read(bytes(data))
