"""The motion head's geometry: with the right depth, the motion between two views of a scene comes out right."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from localizer_ros.core.se3 import SE3
from localizer_ros.networks.motion import MotionHead
from localizer_ros.networks.poses import Pose

W, H = 256, 192
K = np.array([[210.0, 0.0, 126.0], [0.0, 208.0, 97.0], [0.0, 0.0, 1.0]])
# Of a textured wall, towards the camera.
N_CAM = np.array([0.1, -0.2, -1.0]) / np.linalg.norm([0.1, -0.2, -1.0])
DISTANCE_M = 2.0


@pytest.fixture(scope="module")
def wall() -> np.ndarray:
    rng = np.random.default_rng(4)
    layers = [
        cv2.resize(rng.normal(0, 1, (H // s, W // s)), (W, H), interpolation=cv2.INTER_CUBIC)
        for s in (2, 4, 8, 16)
    ]
    # Within the range of a normalised image, in which nothing is darker than black.
    return np.asarray(np.clip(0.3 * sum(layers), -1.8, 2.4), np.float32)


@pytest.fixture
def head() -> MotionHead:
    torch.manual_seed(3)
    head = MotionHead(8, 16)
    head.set_camera(torch.from_numpy(K), Pose(torch.zeros(3), torch.tensor([0.0, 0.0, 0.0, 1.0])))
    return head


def views(wall: np.ndarray, T_prev_cur: SE3) -> tuple[Tensor, Tensor, Tensor]:
    """Network inputs of the wall from prev and cur, and the inverse depth (1, h / 8, w / 8) seen from cur."""
    cur_to_prev = K @ (T_prev_cur.R - np.outer(T_prev_cur.t, N_CAM) / DISTANCE_M) @ np.linalg.inv(K)
    prev = cv2.warpPerspective(
        wall, cur_to_prev, (W, H), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
    )
    xs, ys = np.meshgrid(np.arange(W // 8) * 8 + 3.5, np.arange(H // 8) * 8 + 3.5)
    rays = np.linalg.inv(K) @ np.stack([xs.ravel(), ys.ravel(), np.ones(xs.size)])
    q = (-(N_CAM @ rays) / DISTANCE_M).reshape(H // 8, W // 8)
    prev_t, cur_t = (torch.from_numpy(x)[None, None].expand(1, 3, H, W).float() for x in (prev, wall))
    return prev_t, cur_t, torch.from_numpy(q)[None].float()


def random_motion(rng: np.random.Generator, degrees: float, metres: float) -> SE3:
    return SE3.exp(np.concatenate([np.radians(rng.normal(0, degrees, 3)), rng.normal(0, metres, 3)]))


def motion(rel_6: Tensor) -> SE3:
    w, v = rel_6.detach().double().numpy().reshape(2, 3)
    return SE3(SE3.exp(np.concatenate([w, np.zeros(3)])).R, v)


@pytest.mark.parametrize(("degrees", "metres"), [(0.0, 0.0), (0.3, 0.01), (2.0, 0.05)])
def test_motion_between_two_views_of_a_wall(
    head: MotionHead, wall: np.ndarray, rng: np.random.Generator, degrees: float, metres: float
) -> None:
    for _ in range(3):
        T_prev_cur = random_motion(rng, degrees, metres)
        prev, cur, q = views(wall, T_prev_cur)
        found = motion(head(head.features(prev), head.features(cur), q).rel_B6[0])
        # A tenth of the network's pixel is 0.03 degrees; of fast motions up to a tenth is left by the last step.
        move_m = np.linalg.norm(T_prev_cur.t)
        seen_deg = np.degrees(T_prev_cur.angle_to(SE3.identity()) + move_m / DISTANCE_M)
        assert np.degrees(found.angle_to(T_prev_cur)) < 0.03 + 0.05 * seen_deg
        assert found.distance_to(T_prev_cur) < 1e-3 + 0.1 * move_m


def test_brightness_contrast_and_something_moving_do_not_matter(
    head: MotionHead, wall: np.ndarray, rng: np.random.Generator
) -> None:
    T_prev_cur = random_motion(rng, 0.5, 0.02)
    prev, cur, q = views(wall, T_prev_cur)
    prev = 0.6 * prev + 0.3
    prev[:, :, 40:100, 60:120] = torch.randn(60, 60)
    found = motion(head(head.features(prev), head.features(cur), q).rel_B6[0])
    assert np.degrees(found.angle_to(T_prev_cur)) < 0.2
    assert found.distance_to(T_prev_cur) < 8e-3


def test_a_black_border_that_does_not_move_does_not_matter(
    head: MotionHead, wall: np.ndarray, rng: np.random.Generator
) -> None:
    border = torch.zeros(H, W, dtype=torch.bool)
    border[:6], border[-3:], border[:, :4], border[:, -8:] = True, True, True, True
    for degrees, metres in ((2.0, 0.0), (1.0, 0.04)):
        T_prev_cur = random_motion(rng, degrees, metres)
        prev, cur, q = (x.clone() for x in views(wall, T_prev_cur))
        prev[:, :, border] = cur[:, :, border] = -1.986
        found = motion(head(head.features(prev), head.features(cur), q).rel_B6[0])
        assert np.degrees(found.angle_to(T_prev_cur)) < 0.1
        assert found.distance_to(T_prev_cur) < 5e-3


def test_motion_is_that_of_the_body_the_camera_is_mounted_on(
    head: MotionHead, wall: np.ndarray, rng: np.random.Generator
) -> None:
    T_body_refined = random_motion(rng, 20.0, 0.2)
    T_prev_cur = random_motion(rng, 1.0, 0.03)
    head.set_camera(
        torch.from_numpy(K),
        Pose(torch.from_numpy(T_body_refined.t.copy()), torch.from_numpy(T_body_refined.quaternion_xyzw())),
    )
    prev, cur, q = views(wall, T_prev_cur)
    found = motion(head(head.features(prev), head.features(cur), q).rel_B6[0])
    wanted = T_body_refined @ T_prev_cur @ T_body_refined.inverse()
    assert np.degrees(found.angle_to(wanted)) < 0.05
    assert found.distance_to(wanted) < 3e-3


def test_errors_of_a_motion_correlate_as_the_head_answers(head: MotionHead, wall: np.ndarray) -> None:
    torch.manual_seed(5)
    T_prev_cur = SE3(np.eye(3), np.array([0.02, 0.0, 0.01]))
    prev, cur, q = (x.expand(64, *x.shape[1:]) for x in views(wall, T_prev_cur))
    noise = 0.2 * torch.randn(2, 64, 1, H, W)
    with torch.no_grad():
        out = head(head.features(prev + noise[0]), head.features(cur + noise[1]), q)
    told = out.correlation_B66.mean(0).numpy()
    seen = np.corrcoef(out.rel_B6.numpy(), rowvar=False)
    np.testing.assert_allclose(told, told.T, atol=1e-5)
    np.testing.assert_allclose(np.diagonal(told), 1.0, atol=1e-5)
    assert np.linalg.eigvalsh(told).min() > 0.0
    # A turn about y shows what a move along x shows, the other way round; one about x what a move along y shows.
    assert told[1, 3] < -0.6 and told[0, 4] > 0.6
    np.testing.assert_allclose(told, seen, atol=0.35)


def test_wrong_contrast_of_depth_changes_the_motion_as_the_head_answers(
    head: MotionHead, wall: np.ndarray, rng: np.random.Generator
) -> None:
    for _ in range(3):
        prev, cur, q = views(wall, random_motion(rng, 0.3, 0.03))
        flat, deep = (
            head(head.features(prev), head.features(cur), q.mean() + c * (q - q.mean())) for c in (0.9, 1.1)
        )
        told = head(head.features(prev), head.features(cur), q).depth_error_B6[0] / head.contrast
        found = ((deep.rel_B6 - flat.rel_B6)[0] / 0.2).detach()
        # Robust weights change with the residuals, which the derivative leaves out.
        assert torch.linalg.vector_norm(told - found) < 0.4 * torch.linalg.vector_norm(found)


def test_wrong_depth_scales_translation_and_learns_from_the_motion(
    head: MotionHead, wall: np.ndarray
) -> None:
    T_prev_cur = SE3(np.eye(3), np.array([0.04, 0.0, 0.0]))
    prev, cur, q = views(wall, T_prev_cur)
    log_scale = torch.tensor(np.log(1.2), requires_grad=True)
    rel = head(head.features(prev), head.features(cur), q * log_scale.exp()).rel_B6
    assert rel[0, 3].item() == pytest.approx(0.04 / 1.2, rel=0.05)
    # The translation is too small as the depth is too small: the gradient must push the inverse depth down.
    (rel[0, 3] - 0.04).square().backward()
    assert log_scale.grad is not None and log_scale.grad.item() > 0


def test_images_without_texture_give_finite_motions(head: MotionHead) -> None:
    state = head.features(torch.zeros(2, 3, 64, 96))
    assert state.shape == (2, 1, 32, 48)
    for prev in (torch.zeros_like(state), torch.randn_like(state)):
        out = head(prev, state, torch.full((2, 8, 12), 0.5))
        assert all(torch.isfinite(x).all() for x in out)


def test_gradients_reach_every_parameter(head: MotionHead) -> None:
    images = torch.randn(2, 2, 3, 64, 96)
    q = head.inverse_depth(torch.randn(2, 8, 8, 12), torch.randn(2, 16, 2, 3))
    out = head(head.features(images[0]), head.features(images[1]), q)
    (out.rel_B6.square().sum() + out.log_sigma_B6.square().sum()).backward()
    missing = [n for n, p in head.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert missing == []
