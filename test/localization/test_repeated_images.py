"""A camera that hangs, one that stands still, and the odometry that tells them apart."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from localizer_ros.core.config.runtime import LocalizerConfig, StatusConfig
from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import Camera, Frame, LocalizerOutput, PoseEstimate, RelativePose, Status, UInt8
from localizer_ros.localization.front_end import Observation
from localizer_ros.localization.localizer import Localizer
from localizer_ros.localization.repeated_images import RepeatedImages
from localizer_ros.smoothing import open_smoother

CAMERA = Camera.pinhole(64, 48, 50.0, 50.0, 31.5, 23.5)
PERIOD_NS = 33_333_333
STEP = SE3.exp([0.0, 0.01, 0.0, 0.0, 0.0, 0.03])  # 0.9 m/s and 17 deg/s
SHARP = np.diag(np.repeat([0.01**2, 0.02**2], 3))
T_BASE_CAM = SE3.exp([0.1, -0.4, 0.2, 0.3, 0.0, 0.5])
TEXTURE = np.random.default_rng(3).integers(3, 28, (48, 256), dtype=np.uint8) * 8


def view(index: int) -> UInt8:
    """What the camera sees at a place."""
    return np.ascontiguousarray(TEXTURE[:, index % 180 : index % 180 + 64])


def pose(place: int) -> SE3:
    T = SE3.exp([0.2, 0.1, 0.0, 1.0, 2.0, 3.0])
    for _ in range(place):
        T = T @ STEP
    return T


class Seeing:
    """A front end that recognises ``view``: as a method does, it believes whatever the image shows."""

    def __init__(self) -> None:
        self.places: dict[bytes, int] = {view(i).tobytes(): i for i in range(180)}
        self.last: tuple[int, int] | None = None
        self.observed = 0

    def observe(self, frame: Frame, prior: PoseEstimate | None) -> Observation:
        self.observed += 1
        place = self.places[(frame.image // 8 * 8).tobytes()]
        last, self.last = self.last, (frame.stamp_ns, place)
        relative = None
        if last is not None:
            T = pose(last[1]).inverse() @ pose(place)
            relative = RelativePose(last[0], frame.stamp_ns, T, np.eye(6) * 1e-6, "vo")
        return Observation(PoseEstimate(frame.stamp_ns, pose(place), SHARP, "test"), relative=relative)

    def reset(self) -> None:
        self.last = None

    def lost(self) -> None:
        self.last = None

    def close(self) -> None: ...


class Drive:
    """A robot that drives ``moving`` frames; its camera may hang, its odometry may be missing."""

    def __init__(self, odometry: bool = True, config: LocalizerConfig = LocalizerConfig()) -> None:  # noqa: B008
        self.front_end, self.odometry = Seeing(), odometry
        self.localizer = Localizer(self.front_end, open_smoother(config.smoother), config)
        self.index = self.place = 0
        self.image = view(0)

    def go(
        self, frames: int, moves: bool = True, camera: bool = True, noise: int = 0
    ) -> list[LocalizerOutput]:
        outputs = []
        rng = np.random.default_rng(self.index)
        for _ in range(frames):
            self.index += 1
            self.place += moves
            if self.odometry:
                T_odom_base = pose(self.place) @ T_BASE_CAM.inverse()
                self.localizer.add_odometry(self.index * PERIOD_NS, T_odom_base)
            if camera:
                self.image = view(self.place)
            image = self.image
            if noise:
                image = (image + rng.integers(0, noise + 1, image.shape)).astype(np.uint8)
            frame = Frame(self.index * PERIOD_NS, image, CAMERA, T_base_cam=T_BASE_CAM)
            outputs.append(self.localizer.process(frame))
        return outputs

    def error_m(self, output: LocalizerOutput) -> float:
        assert output.estimate is not None
        return output.estimate.T_map_cam.distance_to(pose(self.place))


def sigma_m(output: LocalizerOutput) -> float:
    assert output.estimate is not None and output.estimate.covariance is not None
    return float(np.sqrt(np.linalg.eigvalsh(output.estimate.covariance[3:, 3:])[-1]))


def test_a_frozen_camera_is_told_within_a_third_of_a_second_and_odometry_carries_the_pose() -> None:
    drive = Drive()
    drive.go(30)
    frozen = drive.go(9, camera=False)
    assert frozen[-1].status is Status.DEGRADED and "camera is frozen" in frozen[-1].reason
    assert "while odometry moves" in frozen[-1].reason
    later = drive.go(60, camera=False)
    assert all(output.status is Status.DEGRADED for output in later)
    # What was published until it was told is off by what was driven in a tenth of a second.
    assert drive.error_m(later[-1]) < 0.1 and sigma_m(later[-1]) > sigma_m(frozen[0])
    after = drive.go(10)
    assert after[0].status is Status.TRACKING and not after[0].reset and drive.error_m(after[-1]) < 0.05


def test_a_frozen_camera_without_odometry_is_told_and_its_sigma_covers_what_nobody_sees() -> None:
    drive = Drive(odometry=False)
    drive.go(30)
    for _ in range(12):
        output = drive.go(10, camera=False)[-1]
        assert output.status is Status.DEGRADED and "identical images for" in output.reason
        assert drive.error_m(output) < max(0.1, 3.0 * sigma_m(output))
    assert sigma_m(output) < LocalizerConfig().status.lost_sigma_m
    assert drive.go(1)[-1].status is Status.TRACKING


@pytest.mark.parametrize("noise", [0, 2])
def test_a_robot_that_stands_still_is_tracked_and_grows_no_surer(noise: int) -> None:
    drive = Drive()
    drive.go(30)
    standing = drive.go(200, moves=False, noise=noise)
    assert {output.status for output in standing} == {Status.TRACKING}
    assert {output.reason for output in standing} == {""}
    assert drive.error_m(standing[-1]) < 0.05
    if not noise:
        assert drive.front_end.observed < 40
        assert sigma_m(standing[-1]) > sigma_m(standing[3])
    after = drive.go(30)
    assert {output.status for output in after} == {Status.TRACKING}
    assert drive.error_m(after[-1]) < 0.05


def test_a_camera_that_has_never_shown_anything_else_is_doubted_until_its_image_changes() -> None:
    drive = Drive()
    standing = drive.go(60, moves=False)
    told = [output.status for output in standing].index(Status.DEGRADED)
    assert told * PERIOD_NS < 300_000_000 and {o.status for o in standing[told:]} == {Status.DEGRADED}
    assert "identical images for" in standing[-1].reason and drive.error_m(standing[-1]) < 0.05
    drive.go(10)
    # From now on the same image is what a robot sees that stands still.
    assert {output.status for output in drive.go(60, moves=False)} == {Status.TRACKING}
    drive.localizer.reset()
    assert drive.go(60, moves=False)[-1].status is Status.DEGRADED


def test_standing_still_without_noise_or_odometry_is_degraded_and_never_lost() -> None:
    drive = Drive(odometry=False)
    drive.go(30)
    standing = drive.go(300, moves=False)
    assert {output.status for output in standing[5:]} == {Status.DEGRADED}
    assert "stands still and has no noise" in standing[-1].reason
    assert drive.error_m(standing[-1]) < 0.05
    assert {output.status for output in drive.go(10)} == {Status.TRACKING}


def test_a_start_with_an_image_that_does_not_change_is_searched_until_there_is_a_pose() -> None:
    drive = Drive()
    answers = [Observation(reason="search under way")] * 20
    observe = drive.front_end.observe
    drive.front_end.observe = lambda frame, prior: answers.pop() if answers else observe(frame, prior)  # type: ignore[method-assign]
    outputs = drive.go(25, moves=False)
    assert outputs[19].status is Status.INITIALIZING and outputs[20].status is Status.TRACKING
    # Asked to, it looks again.
    drive.localizer.relocalize()
    assert drive.go(1, moves=False)[-1].absolute is not None


def test_a_frozen_image_finds_no_pose_again_after_odometry_has_lost_it() -> None:
    drive = Drive(config=LocalizerConfig(status=StatusConfig(degraded_sigma_m=0.1, lost_sigma_m=0.2)))
    drive.go(30)
    outputs = drive.go(100, camera=False)
    lost = [output.status for output in outputs].index(Status.LOST)
    assert {output.status for output in outputs[lost:]} == {Status.LOST}
    assert outputs[-1].estimate is None and "camera is frozen" in outputs[-1].reason
    after = drive.go(3)[-1]
    assert after.status is Status.TRACKING and drive.error_m(after) < 0.05


def test_an_image_published_twice_is_taken_as_ever() -> None:
    drive = Drive()
    for _ in range(30):
        outputs = drive.go(1) + drive.go(1, camera=False)
        assert all(o.status is Status.TRACKING and o.absolute is not None for o in outputs)


# --- images alone ---

NOW = 1_000_000_000


def since(*images: UInt8) -> int | None:
    seen = RepeatedImages()
    found = None
    for index, image in enumerate(images):
        camera = replace(CAMERA, width_px=image.shape[1], height_px=image.shape[0])
        found = seen.repeated(Frame(NOW + 60_000_000 * index, image, camera))
    return None if found is None else found.since_ns


def grey(change: Callable[[UInt8], None] = lambda image: None) -> UInt8:
    image = np.random.default_rng(0).integers(10, 240, (240, 320), dtype=np.uint8)
    change(image)
    return image


def write_clock(image: UInt8) -> None:
    image[4:10, 4:60] = 255


def add_noise(image: UInt8) -> None:
    image += np.rint(np.random.default_rng(7).normal(0.0, 0.2, image.shape)).astype(np.uint8)


def test_an_image_is_old_after_a_tenth_of_a_second() -> None:
    assert since(grey(), grey()) is None
    assert since(grey(), grey(), grey()) == NOW
    colour = np.repeat(grey()[..., None], 3, axis=2)
    assert since(colour, colour, colour.copy()) == NOW
    assert since(grey(), colour, colour, colour) == NOW + 60_000_000


def test_a_clock_written_into_a_frozen_image_does_not_make_it_new() -> None:
    assert since(grey(), grey(write_clock), grey()) == NOW


def test_the_faintest_noise_makes_an_image_new() -> None:
    assert since(grey(), grey(add_noise), grey()) is None


def test_black_and_white_have_no_noise_and_prove_nothing() -> None:
    for shade in (0, 255):
        image = np.full((240, 320, 3), shade, np.uint8)
        assert since(image, image, image, image) is None
