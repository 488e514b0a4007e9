"""How a wheeled robot drives: a smooth planar path with realistic speeds, its wobble, and what its odometry
says."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.interpolate import CubicSpline
from scipy.spatial.transform import Rotation

from localizer_ros.core.se3 import SE3
from localizer_ros.core.trajectory import Trajectory
from localizer_ros.core.types import Array

_STEP_S = 0.01
_TURN_RATE = 0.7
"""Fastest turn of the robot, rad/s; it slows down in bends."""
_WOBBLE_RAD = np.deg2rad(0.25)
_WOBBLE_M = 0.002


@dataclass(frozen=True)
class Course:
    """Where a drive goes, and how.

    Attributes:
        route_m: (half length along x, half length along y, corner radius) of a rounded rectangle.
        wander_m: how far the drive strays to either side.
        start: 0..1, where on the way around it begins.
        duration_s: of the drive.
        speed_m_s: on straight stretches.
        offset_m: lateral distance from the path, left positive.
        offset_rad: heading relative to the path, left positive.
        reverse: drive the other way around.
    """

    route_m: tuple[float, float, float]
    wander_m: float
    start: float
    duration_s: float
    speed_m_s: float
    offset_m: float = 0.0
    offset_rad: float = 0.0
    reverse: bool = False


class Drive:
    """A drive along a rounded rectangle, straying from it differently on every lap.

    Args:
        rng: decides the stray, the phase, stops and wobble; drives with equally seeded generators are equal.
        course: where it goes, and how.
    """

    def __init__(self, rng: np.random.Generator, course: Course) -> None:
        duration_s, speed_m_s = course.duration_s, course.speed_m_s
        lap_m = _lap_length(course.route_m)
        begin = course.start * lap_m
        distance = np.arange(begin, begin + duration_s * speed_m_s + 2.0, 0.02)
        xy, normal = _rounded_rectangle(course.route_m, distance if not course.reverse else -distance)
        if course.reverse:
            normal = -normal
        # Waves whose lengths have no common multiple with the lap: no two laps are alike.
        stray = np.zeros_like(distance)
        for weight, length_m in ((0.6, 0.37 * lap_m), (0.4, 0.161 * lap_m)):
            stray += weight * np.sin(2 * np.pi * (distance / length_m + rng.uniform()))
        path = xy + (course.wander_m * stray + course.offset_m)[:, None] * normal
        path_m = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(path, axis=0), axis=1))])
        tangent = np.gradient(path, path_m, axis=0)
        heading = np.unwrap(np.arctan2(tangent[:, 1], tangent[:, 0]))
        turn_per_m = np.abs(np.gradient(heading, path_m))
        limit = np.minimum(speed_m_s, _TURN_RATE / np.maximum(turn_per_m, 1e-6))
        limit = np.minimum(limit, np.convolve(np.pad(limit, 20, mode="edge"), np.ones(41) / 41, "valid"))

        times = np.arange(-0.5, duration_s + 0.5, _STEP_S)
        stop_s = rng.uniform(0.3, 0.9) * max(duration_s, 4.0)
        # Standing at the start and for a moment on the way, with smooth ramps.
        drive = _ramp((times - 0.3) / 1.0) * (
            1.0 - _ramp((times - stop_s) / 0.8) * _ramp((stop_s + 4.0 - times) / 0.8)
        )
        at = np.zeros_like(times)
        for i in range(1, len(times)):
            at[i] = at[i - 1] + _STEP_S * drive[i] * np.interp(at[i - 1], path_m, limit)
        x, y = (np.interp(at, path_m, path[:, axis]) for axis in (0, 1))
        look = np.deg2rad(6.0) * np.sin(2 * np.pi * (at / 5.3 + rng.uniform()))
        yaw = np.interp(at, path_m, heading) + look + course.offset_rad
        pose = np.stack([_smooth(value) for value in (x, y, yaw)], axis=1)
        self._planar = CubicSpline(times, pose)
        self._motion = CubicSpline(times, _smooth(drive))
        self._wobble = rng.uniform(0.0, 2 * np.pi, 3), rng.uniform(1.0, 2.5, 3)

    def planar(self, time_s: Array) -> Array:
        """(N, 3) x, y (m) and yaw (rad) of the base without its wobble."""
        return np.asarray(self._planar(time_s))

    def T_map_base(self, time_s: float) -> SE3:
        """True pose of the base, with the small roll, pitch and heave of a moving robot."""
        x, y, yaw = self._planar(time_s)
        phase, hertz = self._wobble
        sway = float(self._motion(time_s)) * np.sin(2 * np.pi * hertz * time_s + phase)
        angles = [yaw, _WOBBLE_RAD * sway[0], _WOBBLE_RAD * sway[1]]
        R = Rotation.from_euler("ZYX", angles).as_matrix()
        return SE3(np.asarray(R), np.array([x, y, _WOBBLE_M * sway[2]]))

    def odometry(
        self, rng: np.random.Generator, duration_s: float, noise: float, start_ns: int
    ) -> Trajectory:
        """Wheel odometry ``T_odom_base`` at 50 Hz with drift and an honest covariance.

        Every step has white noise that grows with the motion, and the drive as a whole has one scale error of
        distance and one of rotation. The covariance carries both (a Kalman prediction with the two scales as
        states), so that the normalised error is that of a Gaussian.

        Args:
            rng: of the noise.
            duration_s: covered, from 0.
            noise: 1 = a good wheeled robot (1 % of distance, 1.5 % of turns), 0 = perfect.
            start_ns: stamp of time 0.
        """
        times = np.arange(0.0, duration_s + 0.02, 0.02)
        truth = self.planar(times)
        sigma_scale = noise * np.array([0.01, 0.015])
        scale = sigma_scale * rng.standard_normal(2)
        state = np.zeros(3)
        # States: x, y, yaw of the base in odom, scale of distance, scale of turns.
        P = np.diag([0.0, 0.0, 0.0, *sigma_scale**2])
        poses, covariances = [], []
        for i in range(len(times)):
            if i > 0:
                c, s = np.cos(truth[i - 1, 2]), np.sin(truth[i - 1, 2])
                step = truth[i] - truth[i - 1]
                forward, left, turn = c * step[0] + s * step[1], -s * step[0] + c * step[1], step[2]
                sigma = noise * np.array(
                    [
                        0.01 * np.sqrt(abs(forward)),
                        0.004 * np.sqrt(abs(forward)),
                        0.01 * np.sqrt(abs(turn)) + 0.004 * np.sqrt(abs(forward)),
                    ]
                )
                measured = np.array([forward, left, turn]) + sigma * rng.standard_normal(3)
                measured += np.array([scale[0] * forward, scale[0] * left, scale[1] * turn])
                c, s = np.cos(state[2]), np.sin(state[2])
                rotation = np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])
                moved = rotation @ measured
                F = np.eye(5)
                F[0, 2], F[1, 2] = -moved[1], moved[0]
                F[:3, 3] = rotation @ np.array([forward, left, 0.0])
                F[2, 4] = turn
                P = F @ P @ F.T
                P[:3, :3] += rotation @ np.diag(sigma**2) @ rotation.T
                state = state + moved
            c, s = np.cos(state[2]), np.sin(state[2])
            R = np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])
            poses.append(SE3(R, np.array([state[0], state[1], 0.0])))
            covariances.append(_planar_covariance(P[:3, :3], R))
        stamps = start_ns + np.round(times * 1e9).astype(np.int64)
        return Trajectory(stamps, tuple(poses), np.stack(covariances))


def camera_on_robot(height_m: float, pitch_deg: float) -> SE3:
    """``T_base_cam``: base x forward, y left, z up on the floor; the optical frame looks forward and up.

    Args:
        height_m: above the floor.
        pitch_deg: by which it looks up.
    """
    c, s = np.cos(np.deg2rad(pitch_deg)), np.sin(np.deg2rad(pitch_deg))
    R = np.array([[0.0, s, c], [-1.0, 0.0, 0.0], [0.0, -c, s]])
    return SE3(R, np.array([0.1, 0.0, height_m]))


def _planar_covariance(P: Array, R: Array) -> Array:
    """(6, 6) in the tangent [rotation, translation] of the base from (3, 3) of x, y, yaw in the odom
    frame.
    """
    # Roll, pitch and height are not measured; the floor holds them within the wobble.
    S = np.diag([_WOBBLE_RAD**2, _WOBBLE_RAD**2, 0.0, 0.0, 0.0, _WOBBLE_M**2])
    to_tangent = np.zeros((6, 3))
    to_tangent[2, 2] = 1.0
    to_tangent[3:5, :2] = R[:2, :2].T
    return S + to_tangent @ P @ to_tangent.T + 1e-12 * np.eye(6)


def _ramp(x: Array) -> Array:
    """0 below 0, 1 above 1, smooth between."""
    clipped = np.clip(x, 0.0, 1.0)
    return np.asarray(clipped**2 * (3.0 - 2.0 * clipped))


def _smooth(values: Array) -> Array:
    """Running mean over 0.3 s: a robot has mass."""
    half = round(0.15 / _STEP_S)
    # Odd reflection keeps the slope at both ends.
    padded = np.pad(values, half, mode="reflect", reflect_type="odd")
    return np.convolve(padded, np.ones(2 * half + 1) / (2 * half + 1), "valid")


def _lap_length(route_m: tuple[float, float, float]) -> float:
    half_x, half_y, radius = route_m
    return 4.0 * (half_x + half_y - 2.0 * radius) + 2.0 * np.pi * radius


def _rounded_rectangle(route_m: tuple[float, float, float], distance_m: Array) -> tuple[Array, Array]:
    """(N, 2) points and (N, 2) unit normals (to the left) at distances along the way around,
    counter-clockwise.
    """
    half_x, half_y, radius = route_m
    bend = 0.5 * np.pi * radius
    # From the middle of the lower side: straight pieces and quarter circles in turn.
    straight = [
        half_x - radius,
        2 * (half_y - radius),
        2 * (half_x - radius),
        2 * (half_y - radius),
        half_x - radius,
    ]
    at, heading = np.array([0.0, -half_y]), 0.0
    rest = np.mod(distance_m, _lap_length(route_m))
    xy, angle = np.zeros((len(distance_m), 2)), np.zeros(len(distance_m))
    for piece, length in enumerate(straight):
        along = np.array([np.cos(heading), np.sin(heading)])
        here = (rest >= 0.0) & (rest <= length)
        xy[here], angle[here] = at + rest[here, None] * along, heading
        at, rest = at + length * along, np.where(here, -1.0, rest - length)
        if piece == 4:
            break
        centre = at + radius * np.array([-np.sin(heading), np.cos(heading)])
        here = (rest >= 0.0) & (rest <= bend)
        turned = heading + rest[here] / radius
        xy[here] = centre + radius * np.stack([np.sin(turned), -np.cos(turned)], axis=1)
        angle[here] = turned
        heading += 0.5 * np.pi
        at = centre + radius * np.array([np.sin(heading), -np.cos(heading)])
        rest = np.where(here, -1.0, rest - bend)
    return xy, np.stack([-np.sin(angle), np.cos(angle)], axis=1)
