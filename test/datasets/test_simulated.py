"""The simulated world as a recording: the same bytes every time, exact poses, settings that are refused."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from localizer_ros.core.preprocess import to_gray
from localizer_ros.core.types import ConfigError, SourceError
from localizer_ros.datasets.simulated import SimulatedSource, WorldConfig, write_world
from localizer_ros.datasets.source import open_source

SMALL = WorldConfig(width_px=160, height_px=120, duration_s=3.0, fps=10.0)


@pytest.fixture(scope="module")
def small():
    return SimulatedSource(SMALL)


def as_dict(config, **changes):
    values = {name: getattr(config, name) for name in config.__struct_fields__}
    return {**values, **changes}


def test_same_settings_same_bytes(small):
    again = SimulatedSource(SMALL)
    for index in (7, 29, 0):
        np.testing.assert_array_equal(again.read(index).image, small.read(index).image)
    np.testing.assert_array_equal(again.odometry.positions, small.odometry.positions)
    other = SimulatedSource(WorldConfig(**{**as_dict(SMALL), "drive": 1}))
    assert np.any(other.read(0).image != small.read(0).image)
    assert other.records[0].stamp_ns > small.records[-1].stamp_ns


def test_lamps_give_the_same_bytes_every_time_and_other_ones_than_windows():
    night = as_dict(SMALL, lighting="lamps", light=0.1, flicker_hz=99.7, exposure_step_stops=1.0, people=2)
    one, again = (SimulatedSource(WorldConfig(**night)) for _ in range(2))
    # In another order: nothing is kept from frame to frame.
    images = [one.read(index).image for index in (3, 20, 9)]
    for index, image in zip((9, 20, 3), reversed(images), strict=True):
        np.testing.assert_array_equal(again.read(index).image, image)
    day = SimulatedSource(WorldConfig(**as_dict(SMALL, lighting="windows")))
    assert day.read(9).image.mean() > images[2].mean()
    for a, b in zip(day.records, one.records, strict=True):
        np.testing.assert_array_equal(a.T_map_cam.t, b.T_map_cam.t)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"flicker_hz": 100.0}, "flicker_hz and lamp_layout: only with lighting: lamps"),
        ({"lighting": "windows", "lamp_layout": 1}, "only with lighting: lamps"),
        ({"exposure_step_stops": 1.0}, "exposure_step_stops: only with"),
    ],
)
def test_settings_that_the_light_does_not_have_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        SimulatedSource(WorldConfig(**as_dict(SMALL, **settings)))


def test_drives_share_the_place_but_not_the_path(small):
    other = SimulatedSource(WorldConfig(**as_dict(SMALL, drive=1, light="night")))
    assert other.place.boxes[0].centre_m == small.place.boxes[0].centre_m
    assert other.records[5].T_map_cam.distance_to(small.records[5].T_map_cam) > 0.1
    assert other.read(5).image.mean() < small.read(5).image.mean()


def test_camera_is_on_the_robot(small):
    for record in small.records:
        assert abs(record.T_map_cam.t[2] - 0.6) < 0.02
        # Optical frame: y is down, and z (forward) is 3 degrees above the horizon but for the wobble.
        assert record.T_map_cam.R[2, 1] < -0.98
        assert np.rad2deg(np.arcsin(record.T_map_cam.R[2, 2])) == pytest.approx(3.0, abs=1.0)


def test_paths_through_furniture_are_refused():
    with pytest.raises(ConfigError, match="would hit something"):
        SimulatedSource(WorldConfig(**as_dict(SMALL, offset_m=2.0, duration_s=40.0)))


def test_moving_things_move_and_keep_clear():
    settings = as_dict(SMALL, moving_objects=4, noise=0.0, exposure_ms=0.0, duration_s=10.0)
    source = SimulatedSource(WorldConfig(**settings))
    empty = SimulatedSource(WorldConfig(**{**settings, "moving_objects": 0}))
    assert len(source._movers) == 4
    times = np.arange(len(source.records)) / SMALL.fps
    robot = np.stack([record.T_map_cam.t[:2] for record in source.records])
    for mover in source._movers:
        at = np.asarray(mover.box.centre_m) + mover.displacement(times)
        assert np.ptp(at, axis=0).max() > 0.1
        assert np.linalg.norm(at - robot, axis=1).min() > 0.8
    differing = [np.mean(source.render(i)[1] != empty.render(i)[1]) for i in range(0, 100, 10)]
    assert max(differing) > 0.005


@pytest.mark.parametrize(("place", "light"), [("room", "day"), ("corridor", "night"), ("hall", "dim")])
def test_images_have_features_depth_and_a_sensible_exposure(place, light):
    source = SimulatedSource(WorldConfig(place=place, light=light, duration_s=24.0, fps=1.0))
    keypoints, brightness, spread = [], [], []
    for index in range(0, 24, 6):
        image = source.read(index).image
        keypoints.append(len(cv2.ORB.create(1000, fastThreshold=12).detect(to_gray(image), None)))
        brightness.append(image.mean())
        depth = 1.0 / source.render(index)[1]
        spread.append(np.percentile(depth, 90) / np.percentile(depth, 10))
    assert np.median(keypoints) > 200
    assert 30 < np.median(brightness) < 200
    assert np.median(spread) > 2


def test_supersampling_keeps_the_geometry(small):
    fine = SimulatedSource(WorldConfig(**as_dict(SMALL, supersampling=2)))
    image, inv_z = small.render(12)
    smooth, inv_z_fine = fine.render(12)
    assert smooth.shape == image.shape
    assert np.median(np.abs(inv_z_fine - inv_z) / inv_z) < 1e-4
    shift, _ = cv2.phaseCorrelate(to_gray(image).astype(np.float32), to_gray(smooth).astype(np.float32))
    assert np.abs(shift).max() < 0.05


def test_world_files(tmp_path):
    config = WorldConfig(**as_dict(SMALL, light=0.7, place="corridor"))
    file = write_world(tmp_path / "world", config)
    for path in (file, file.parent):
        source = open_source(path)
        assert (source.format, source.config, source.ground_truth) == (
            "simulated",
            config,
            "simulation (exact)",
        )
    with pytest.raises(SourceError, match="only 'all'"):
        source.split("train")
    file.write_text("place: moon\n")
    with pytest.raises(SourceError, match=r"world\.yaml.*place"):
        open_source(file)
    file.write_text("light: 9.0\n")
    with pytest.raises(SourceError, match=r"world\.yaml: light: expected 0 to 5"):
        open_source(file)
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match=r"world\.yaml"):
        open_source(tmp_path / "empty", "simulated")


def test_a_world_that_lost_its_content_is_none(tmp_path):
    file = tmp_path / "world.yaml"
    file.write_text(" \n")
    with pytest.raises(SourceError, match=r"world\.yaml: is empty; expected settings"):
        open_source(file)
    file.write_text("{}")
    assert open_source(file).config == WorldConfig()
