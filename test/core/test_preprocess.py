"""Preprocessing: known points must appear where the target camera would have seen them."""

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from localizer_ros.core.preprocess import (
    ImageWarper,
    Preprocessor,
    network_camera,
    rotate_camera,
    to_gray,
    to_rgb,
)
from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import Array, Camera, ConfigError, Frame, FrameRejected

K = np.array([[525.0, 0.0, 318.2], [0.0, 521.0, 242.7], [0.0, 0.0, 1.0]])

CAMERAS = {
    "pinhole": Camera(640, 480, K),
    "plumb_bob": Camera(640, 480, K, np.array([-0.28, 0.07, 0.0006, -0.0004, 0.01])),
    "rational_polynomial": Camera(
        640, 480, K, np.array([0.4, -0.2, 0.001, -0.001, 0.02, 0.65, -0.1, 0.01]), "rational_polynomial"
    ),
    "equidistant": Camera(640, 480, K, np.array([-0.02, 0.01, -0.003, 0.001]), "equidistant"),
}


def project(camera: Camera, points_cam: Array) -> Array:
    """(N, 2) pixels of (N, 3) points by OpenCV's own projection."""
    points = points_cam.reshape(-1, 1, 3)
    zero = np.zeros(3)
    if camera.model == "equidistant":
        pixels, _ = cv2.fisheye.projectPoints(points, zero, zero, camera.K, camera.distortion)
    else:
        pixels, _ = cv2.projectPoints(points, zero, zero, camera.K, camera.distortion)
    return np.asarray(pixels).reshape(-1, 2)


def draw(camera: Camera, pixel: Array, sigma_px: float = 5.0) -> NDArray[np.uint8]:
    """A soft white dot, exact to the fraction of a pixel."""
    v, u = np.mgrid[: camera.height_px, : camera.width_px]
    d2 = (u - pixel[0]) ** 2 + (v - pixel[1]) ** 2
    return np.round(255.0 * np.exp(-0.5 * d2 / sigma_px**2)).astype(np.uint8)


def centre(image: NDArray[np.uint8]) -> Array:
    """(2,) pixel at the centre of gravity."""
    weights = image.astype(np.float64)
    v, u = np.mgrid[: image.shape[0], : image.shape[1]]
    return np.array([(weights * u).sum(), (weights * v).sum()]) / weights.sum()


DIRECTIONS = np.array(
    [[0.0, 0.0, 1.0], [0.3, -0.2, 1.0], [-0.35, 0.25, 1.0], [0.1, 0.28, 1.0], [-0.2, -0.25, 1.0]]
)


@pytest.mark.parametrize("name", CAMERAS)
@pytest.mark.parametrize("size", [(256, 192), (640, 480), (224, 224)])
def test_warper_puts_points_where_the_pinhole_sees_them(name: str, size: tuple[int, int]) -> None:
    camera = CAMERAS[name]
    target = network_camera(camera, *size)
    warp = ImageWarper(camera, target)
    for pixel, expected in zip(project(camera, DIRECTIONS), project(target, DIRECTIONS), strict=True):
        if not (15 < expected[0] < size[0] - 15 and 15 < expected[1] < size[1] - 15):
            continue  # part of the dot is cropped away
        warped = warp(draw(camera, pixel))
        assert warped.shape == (size[1], size[0])
        # Distortion bends the dot (5 px wide) a little; a shift by half a pixel would be a wrong convention.
        np.testing.assert_allclose(centre(warped), expected, atol=0.12)


@pytest.mark.parametrize("name", ["plumb_bob", "rational_polynomial"])
def test_warper_agrees_with_undistort_points(name: str) -> None:
    camera = CAMERAS[name]
    target = Camera(640, 480, K)
    for pixel in project(camera, DIRECTIONS):
        undistorted = cv2.undistortPoints(pixel.reshape(1, 1, 2), camera.K, camera.distortion, P=target.K)
        found = centre(ImageWarper(camera, target)(draw(camera, pixel)))
        np.testing.assert_allclose(found, undistorted.reshape(2), atol=0.12)


def test_warper_between_unlike_cameras() -> None:
    source = Camera.pinhole(1280, 720, 900.0, 905.0, 631.0, 365.0)
    target = Camera.pinhole(256, 192, 210.0, 210.0, 127.0, 97.0)
    for pixel, expected in zip(project(source, DIRECTIONS), project(target, DIRECTIONS), strict=True):
        np.testing.assert_allclose(
            centre(ImageWarper(source, target)(draw(source, pixel, 8.0))), expected, atol=0.05
        )


@pytest.mark.parametrize("channels", [1, 3])
def test_warper_leaves_the_same_camera_alone(channels: int, rng: np.random.Generator) -> None:
    camera = CAMERAS["pinhole"]
    shape = (480, 640) if channels == 1 else (480, 640, 3)
    image = rng.integers(0, 256, shape, dtype=np.uint8)
    np.testing.assert_array_equal(ImageWarper(camera, camera)(image), image)


def test_warper_averages_when_it_shrinks(rng: np.random.Generator) -> None:
    camera = Camera.pinhole(640, 480, 525.0, 525.0, 319.5, 239.5)
    noise = rng.integers(0, 256, (480, 640), dtype=np.uint8)
    small = ImageWarper(camera, network_camera(camera, 160, 120))(noise)
    # 16 pixels become one: the standard deviation of the noise falls by 4; picking pixels would leave it.
    assert small.std() < 1.15 * noise.std() / 4
    assert small.mean() == pytest.approx(noise.mean(), abs=1.0)


@pytest.mark.parametrize(
    ("size", "target"),
    [
        ((640, 480), (256, 192)),
        ((1920, 1080), (256, 144)),
        ((1241, 376), (256, 78)),
        ((500, 400), (256, 205)),
        ((320, 240), (320, 240)),
        ((160, 120), (256, 192)),
    ],
)
def test_warper_shrinks_as_a_mean_does(
    size: tuple[int, int], target: tuple[int, int], rng: np.random.Generator
) -> None:
    source = Camera.pinhole(*size, 500.0, 500.0, (size[0] - 1) / 2, (size[1] - 1) / 2)
    warper = ImageWarper(source, source.scaled(*target))
    noise = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    mean = np.asarray(cv2.resize(noise, target, interpolation=cv2.INTER_AREA), np.float64)
    # Fine structure that is too small to be seen must not come back as something else.
    assert warper(noise).shape == mean.shape and warper(noise).std() < 1.5 * mean.std() + 1.0
    smooth = cv2.GaussianBlur(noise.astype(np.float32), (0, 0), 0.02 * size[0])
    smooth = np.asarray(cv2.normalize(smooth, None, 0, 255, cv2.NORM_MINMAX), np.uint8)
    way = cv2.INTER_AREA if target[0] <= size[0] else cv2.INTER_LINEAR
    reference = np.asarray(cv2.resize(smooth, target, interpolation=way), np.float64)
    assert np.abs(warper(smooth) - reference).max() <= 4.0


def test_warper_is_black_outside_the_view() -> None:
    camera = CAMERAS["pinhole"]
    wide = Camera.pinhole(640, 480, 200.0, 200.0, 319.5, 239.5)
    warped = ImageWarper(camera, wide)(np.full((480, 640), 200, np.uint8))
    assert warped[0, 0] == 0 and warped[240, 320] == 200


def test_warper_refuses_a_distorted_target() -> None:
    with pytest.raises(ConfigError, match="distortion"):
        ImageWarper(CAMERAS["pinhole"], CAMERAS["plumb_bob"])


@pytest.mark.parametrize(("width", "height"), [(320, 240), (160, 120), (1280, 960), (213, 160)])
def test_scaled_camera_sees_points_where_the_resized_image_has_them(width: int, height: int) -> None:
    camera = CAMERAS["pinhole"]
    scaled = camera.scaled(width, height)
    interpolation = cv2.INTER_AREA if width < 640 else cv2.INTER_LINEAR
    for pixel, expected in zip(project(camera, DIRECTIONS), project(scaled, DIRECTIONS), strict=True):
        resized = np.asarray(cv2.resize(draw(camera, pixel), (width, height), interpolation=interpolation))
        np.testing.assert_allclose(centre(resized.astype(np.uint8)), expected, atol=0.05)


def test_scaling_there_and_back_is_the_same_camera() -> None:
    camera = CAMERAS["plumb_bob"]
    assert camera.scaled(320, 240).scaled(640, 480).same_as(camera)


def test_network_camera_keeps_the_view_without_distortion() -> None:
    camera = Camera.pinhole(640, 480, 525.0, 525.0, 319.5, 239.5)
    same_shape = network_camera(camera, 256, 192)
    assert same_shape.same_as(camera.scaled(256, 192))
    square = network_camera(camera, 224, 224)
    assert square.K[0, 0] == square.K[1, 1] == pytest.approx(525.0 * 224 / 480)
    np.testing.assert_allclose(square.K[:2, 2], [111.5, 111.5])
    # Nothing black: every corner of the target is inside the source.
    white = ImageWarper(camera, square)(np.full((480, 640), 255, np.uint8))
    assert white.min() == 255


@pytest.mark.parametrize("rotation", [[0.0, 0.2, 0.0], [0.15, 0.0, 0.0], [0.0, 0.0, 0.3], [0.1, -0.1, 0.2]])
def test_rotated_view_is_what_the_turned_camera_sees(rotation: list[float]) -> None:
    camera = network_camera(CAMERAS["pinhole"], 256, 192)
    T_map_cam = SE3.exp([0.5, -0.3, 0.8, 1.0, 2.0, 3.0])
    T_cam_new = SE3.exp([*rotation, 0.0, 0.0, 0.0])
    T_map_new = T_map_cam @ T_cam_new
    checked = 0
    for point_map in T_map_cam @ (4.0 * DIRECTIONS):
        before = project(camera, np.atleast_2d(T_map_cam.inverse() @ point_map))[0]
        expected = project(camera, np.atleast_2d(T_map_new.inverse() @ point_map))[0]
        if not (12 < expected[0] < 244 and 12 < expected[1] < 180):
            continue
        turned = rotate_camera(draw(camera, before, 2.5), camera, T_cam_new.R)
        # The perspective widens the dot to one side by less than this.
        np.testing.assert_allclose(centre(turned), expected, atol=0.15)
        checked += 1
    assert checked >= 3


def test_rotating_by_nothing_changes_nothing(rng: np.random.Generator) -> None:
    camera = network_camera(CAMERAS["pinhole"], 64, 64)
    image = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    np.testing.assert_array_equal(rotate_camera(image, camera, np.eye(3)), image)


def test_preprocessor_normalises_and_follows_a_change_of_camera(rng: np.random.Generator) -> None:
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    camera = Camera.pinhole(256, 192, 210.0, 210.0, 127.5, 95.5)
    preprocess = Preprocessor(camera, mean, std)
    image = rng.integers(0, 256, (192, 256, 3), dtype=np.uint8)
    blob = preprocess(image, camera)
    assert blob.shape == (1, 3, 192, 256) and blob.dtype == np.float32 and blob.flags.c_contiguous
    expected = (image.astype(np.float64) / 255.0 - mean) / std
    np.testing.assert_allclose(blob[0].transpose(1, 2, 0), expected, atol=1e-5)

    big = camera.scaled(512, 384)
    assert preprocess(np.full((384, 512), 128, np.uint8), big).shape == (1, 3, 192, 256)
    np.testing.assert_array_equal(preprocess(image, camera), blob)


def test_grey_and_colour() -> None:
    red = np.zeros((2, 2, 3), np.uint8)
    red[..., 0] = 255
    assert to_gray(red)[0, 0] == 76  # 0.299 of full scale: the first channel is red
    assert to_rgb(to_gray(red)).shape == (2, 2, 3)
    assert to_rgb(red) is red
    gray = to_gray(red)
    assert to_gray(gray) is gray


# --- the nouns behind it ---


@pytest.mark.parametrize("name", CAMERAS)
def test_camera_round_trip(name: str) -> None:
    camera = CAMERAS[name]
    again = Camera.from_dict(camera.to_dict())
    assert again.same_as(camera, 0.0) and again.model == camera.model


@pytest.mark.parametrize(
    "change",
    [
        {"width_px": 0},
        {"K": [1.0, 2.0]},
        {"K": [0.0] * 9},
        {"K": [float("nan")] * 9},
        {"distortion": [float("inf")]},
        {"model": "thin_prism"},
        {"width_px": "wide"},
    ],
)
def test_camera_refuses(change: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="camera"):
        Camera.from_dict({**CAMERAS["pinhole"].to_dict(), **change})


def test_camera_cannot_be_changed_by_accident() -> None:
    with pytest.raises(ValueError, match="read-only"):
        CAMERAS["pinhole"].K[0, 0] = 1.0


@pytest.mark.parametrize(
    ("image", "kind"),
    [
        (np.zeros((480, 640), np.float32), "image_type"),
        (np.zeros((480, 640, 4), np.uint8), "image_shape"),
        (np.zeros((0, 640), np.uint8), "image_shape"),
        (np.zeros((479, 640), np.uint8), "image_size"),
    ],
)
def test_frame_refuses_a_bad_image(image: NDArray[np.uint8], kind: str) -> None:
    with pytest.raises(FrameRejected, match=r"bad\.png") as caught:
        Frame(0, image, CAMERAS["pinhole"], "bad.png")
    assert caught.value.kind == kind
