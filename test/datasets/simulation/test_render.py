"""Pixels are where geometry says."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from localizer_ros.core.preprocess import to_gray
from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import Camera
from localizer_ros.datasets.simulated import SimulatedSource, WorldConfig
from localizer_ros.datasets.simulation.drive import Course, Drive
from localizer_ros.datasets.simulation.place import PLACES, Quad, make_place, paint
from localizer_ros.datasets.simulation.render import Renderer


def rays(camera):
    y, x = np.mgrid[0 : camera.height_px, 0 : camera.width_px].astype(np.float64)
    return np.stack([x, y, np.ones_like(x)], axis=-1) @ np.linalg.inv(camera.K).T


def random_view(rng, place):
    """A camera anywhere on the way around, looking anywhere near the horizon."""
    drive = Drive(rng, Course(place.route_m, place.wander_m, rng.uniform(), 5.0, 0.6))
    x, y, yaw = drive.planar(rng.uniform(0, 5))
    yaw, pitch, roll = yaw + rng.uniform(-3, 3), rng.uniform(-0.3, 0.3), rng.uniform(-0.2, 0.2)
    forward = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
    turn = SE3.exp([0, 0, yaw, 0, 0, 0]).R @ forward @ SE3.exp([pitch, 0, roll, 0, 0, 0]).R
    return SE3(turn, np.array([x, y, rng.uniform(0.3, 1.2)]))


@pytest.mark.parametrize("name", list(PLACES))
def test_depth_agrees_with_casting_every_ray_at_every_surface(rng, name):
    place = make_place(name, 5)
    quads = paint(place, 5, 0.2)
    camera = Camera.pinhole(120, 90, 70.0, 75.0, 58.3, 46.1)
    renderer = Renderer(camera, quads)
    for _ in range(3):
        T_map_cam = random_view(rng, place)
        _, inv_z = renderer.render(T_map_cam)
        directions = rays(camera) @ T_map_cam.R.T
        nearest = np.zeros(inv_z.shape)
        for quad in quads:
            facing = directions @ quad.normal
            with np.errstate(divide="ignore", invalid="ignore"):
                z = ((quad.corner - T_map_cam.t) @ quad.normal) / facing
                points = T_map_cam.t + z[..., None] * directions - quad.corner
                u, v = points @ quad.axis_u, points @ quad.axis_v
                width, height = quad.size_m
                hit = (facing < 0) & (z > 0) & (u >= 0) & (u <= width) & (v >= 0) & (v <= height)
                nearest = np.where(hit, np.maximum(nearest, 1.0 / z), nearest)
        # Everything is closed: every pixel sees something. At silhouettes rounding may decide for the other
        # side.
        assert inv_z.min() > 0
        wrong = np.abs(inv_z - nearest) > 1e-4 * nearest
        assert wrong.mean() < 1e-3


@pytest.mark.parametrize(("distance", "slant_deg"), [(0.8, 0.0), (2.0, 40.0), (3.5, -25.0), (2.5, 60.0)])
def test_texture_corners_are_where_they_project(distance, slant_deg):
    """A chessboard: its corners in the image against the projected corners of the board."""
    cells, cell_px = (9, 7), 40
    board = np.kron(np.indices((cells[1], cells[0])).sum(axis=0) % 2, np.ones((cell_px, cell_px)))
    texture = np.repeat((60 + 140 * board).astype(np.uint8)[..., None], 3, axis=2)
    size = (0.9, 0.7)
    a = np.deg2rad(slant_deg)
    right, down = np.array([np.cos(a), 0.0, np.sin(a)]), np.array([0.0, 1.0, 0.0])
    corner = np.array([0.03, -0.02, distance]) - 0.5 * size[0] * right - 0.5 * size[1] * down
    camera = Camera.pinhole(640, 480, 430.0, 435.0, 321.3, 237.8)
    image, _ = Renderer(camera, [Quad(corner, right, down, size, texture)]).render(SE3.identity())
    steps = 0.1 * np.stack(np.meshgrid(np.arange(1, cells[0]), np.arange(1, cells[1])), axis=-1).reshape(
        -1, 2
    )
    points = corner + steps[:, :1] * right + steps[:, 1:] * down
    expected = points @ camera.K.T
    expected = expected[:, :2] / expected[:, 2:]
    criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 50, 1e-4)
    # A window that stays inside the neighbouring cells.
    half = max(2, int(0.35 * 0.1 * np.cos(a) * 430.0 / (distance + 0.45 * abs(np.sin(a)))))
    start = expected.astype(np.float32)[:, None].copy()
    found = cv2.cornerSubPix(to_gray(image), start, (half, half), (-1, -1), criteria)[:, 0]
    # Cells shrink to 11 pixels far away, and the window with them: sampling leaves a tenth of a pixel. A
    # shift by half a texel, or half a pixel, would be 0.2 to 0.6 in the median.
    assert np.abs(np.median(found - expected, axis=0)).max() < 0.04
    assert np.percentile(np.linalg.norm(found - expected, axis=1), 90) < 0.2


def test_two_views_agree_through_depth():
    """Frame B warped into A by depth and poses: optical flow between them is a fraction of a pixel."""
    source = SimulatedSource(
        WorldConfig(
            width_px=480, height_px=360, duration_s=8.0, fps=5.0, moving_objects=0, noise=0.0, exposure_ms=0.0
        )
    )
    a, b = 20, 22
    image_a, inv_z_a = source.render(a)
    image_b, inv_z_b = source.render(b)
    T_a, T_b = source.records[a].T_map_cam, source.records[b].T_map_cam
    assert T_a.distance_to(T_b) > 0.1
    points_b = (T_b.inverse() @ T_a) @ (rays(source.camera) / inv_z_a[..., None]).reshape(-1, 3)
    pixels = points_b @ source.camera.K.T
    map_xy = (pixels[:, :2] / pixels[:, 2:]).reshape(*inv_z_a.shape, 2).astype(np.float32)
    warped = cv2.remap(image_b, map_xy[..., 0], map_xy[..., 1], cv2.INTER_LINEAR)
    seen = cv2.remap(inv_z_b, map_xy[..., 0], map_xy[..., 1], cv2.INTER_LINEAR)
    visible = (np.abs(seen * points_b[:, 2].reshape(seen.shape) - 1.0) < 0.01).astype(np.uint8)
    assert visible.mean() > 0.5
    inner = cv2.erode(visible, np.ones((15, 15)))
    corners = cv2.goodFeaturesToTrack(to_gray(image_a), 300, 0.02, 7, mask=inner)
    moved, ok, _ = cv2.calcOpticalFlowPyrLK(
        to_gray(image_a), to_gray(warped), corners, None, winSize=(11, 11)
    )
    flow = (moved - corners)[ok[:, 0] == 1][:, 0]
    assert len(flow) > 100
    assert np.abs(np.median(flow, axis=0)).max() < 0.02
    assert np.median(np.linalg.norm(flow, axis=1)) < 0.1


def test_smaller_textures_do_not_alias():
    """A fine pattern far away turns grey, as it does in a camera, instead of into noise."""
    rng = np.random.default_rng(0)
    texture = np.repeat(rng.integers(0, 2, (1024, 1024, 1)).astype(np.uint8) * 255, 3, axis=2)
    quad = Quad(
        np.array([-2.0, -2.0, 0.0]), np.array([1.0, 0, 0]), np.array([0.0, 1, 0]), (4.0, 4.0), texture
    )
    camera = Camera.pinhole(200, 200, 200.0, 200.0, 99.5, 99.5)
    image, inv_z = Renderer(camera, [quad]).render(SE3(np.eye(3), np.array([0.0, 0.0, -8.0])))
    inside = image[inv_z > 0][:, 0].astype(float)
    # Each pixel covers 10x10 texels of standard deviation 127: an ideal one would have 13, an aliased one 70
    # to 127.
    assert inside.std() < 25
    assert abs(inside.mean() - 127.5) < 5
