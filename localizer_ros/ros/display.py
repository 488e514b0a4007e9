"""What people look at in RViz: the path, the covariance, the view of the camera, the image with the status on it.

Made while somebody subscribes, from the last answer, in a thread of its own: never in the way of images or poses.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from geometry_msgs.msg import Point
from nav_msgs.msg import Path
from scipy.spatial.transform import Rotation
from sensor_msgs.msg import Image
from std_msgs.msg import ColorRGBA
from visualization_msgs.msg import Marker, MarkerArray

from localizer_ros.core.robot_pose import BasePose
from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import Array, Camera, LocalizerOutput
from localizer_ros.ros.conversions import frame_from_msg, header, image_msg, pose_msg
from localizer_ros.ros.debug_image import debug_image
from localizer_ros.ros.frame_assembler import Job
from localizer_ros.ros.pose_path import PosePath
from localizer_ros.ros.worker import Worker

_VIEW_DEPTH_M = 0.3


class CreatePublisher(Protocol):
    """Makes a publisher on ``~/name``."""

    def __call__(self, kind: type, name: str, depth: int = 10) -> Any: ...


@dataclass(frozen=True, slots=True, eq=False)
class _Shown:
    """An answer and what belongs to it."""

    job: Job
    output: LocalizerOutput
    pose: BasePose | None


class Display:
    """Publishers for RViz.

    Args:
        create: makes a publisher on a topic of the node.
        map_frame: frame of the poses.
        path_length: poses kept in the path.
        on_error: told of exceptions while something is drawn.
    """

    def __init__(
        self,
        create: CreatePublisher,
        map_frame: str,
        path_length: int,
        on_error: Callable[[Exception], None],
    ) -> None:
        self._map_frame = map_frame
        self._lock = threading.Lock()
        self._poses = PosePath(map_frame, path_length)
        self._shown: _Shown | None = None
        self._path = create(Path, "path", depth=1)
        self._markers = create(MarkerArray, "markers", depth=1)
        self._debug_image = create(Image, "debug_image", depth=1)
        self._drawn: tuple[_Shown | None, list[int]] = (None, [])
        self._painter: Worker[_Shown, None] = Worker(
            lambda: None, lambda _, shown, waited_s: self._draw(shown), lambda _: None, on_error, "display"
        )
        self._painter.start()

    def close(self) -> None:
        """End the thread; before the publishers are gone."""
        self._painter.stop()

    def add(self, job: Job, output: LocalizerOutput, pose: BasePose | None) -> None:
        """Remember an answer and the pose that was published for it, if any; called for every frame."""
        with self._lock:
            last = self._shown
            if output.reset and last is not None and output.stamp_ns < last.output.stamp_ns:
                # Time went back: the path begins again.
                self._poses.clear()
            if pose is not None:
                self._poses.add(pose)
            self._shown = _Shown(job, output, pose)

    def resize(self, path_length: int) -> None:
        """Keep so many poses in the path."""
        with self._lock:
            self._poses.resize(path_length)

    def forget(self) -> None:
        """Begin again with the next answer."""
        with self._lock:
            self._poses.clear()
            self._shown = None

    def publish(self) -> None:
        """Show the last answer to those who look, where they have not seen it; only begins it, and takes no time."""
        shown = self._shown
        looking = [topic.get_subscription_count() for topic in (self._path, self._markers, self._debug_image)]
        if shown is not None and any(looking) and self._drawn != (shown, looking):
            self._drawn = (shown, looking)
            self._painter.mailbox.put(shown)

    def _draw(self, shown: _Shown) -> None:
        if self._path.get_subscription_count():
            with self._lock:
                path = self._poses.serialized() if self._poses else None
            if path is not None:
                self._path.publish(path)
        job = shown.job
        if self._markers.get_subscription_count():
            self._markers.publish(pose_markers(shown.pose, job.T_base_cam, job.camera, self._map_frame))
        if self._debug_image.get_subscription_count():
            frame = frame_from_msg(job.message, job.camera)
            image = debug_image(frame, shown.output)
            self._debug_image.publish(image_msg(image, frame.stamp_ns, job.camera_frame))


def pose_markers(pose: BasePose | None, T_base_cam: SE3, camera: Camera, map_frame: str) -> MarkerArray:
    """Three-sigma ellipsoid of the position and the frustum of the camera; removes both without a pose."""
    if pose is None:
        return MarkerArray(markers=[Marker(action=Marker.DELETEALL)])
    markers = [_frustum(pose, T_base_cam, camera, map_frame)]
    if pose.covariance is not None:
        markers.append(_ellipsoid(pose, map_frame))
    return MarkerArray(markers=markers)


def _ellipsoid(pose: BasePose, map_frame: str) -> Marker:
    assert pose.covariance is not None
    R = pose.T_map_base.R
    values, vectors = np.linalg.eigh(R @ pose.covariance[3:, 3:] @ R.T)
    # Columns of a rotation, not of a reflection.
    vectors = vectors * np.sign(np.linalg.det(vectors))
    marker = Marker(header=header(pose.stamp_ns, map_frame), ns="position_3_sigma", type=Marker.SPHERE)
    marker.pose = pose_msg(SE3(Rotation.from_matrix(vectors).as_matrix(), pose.T_map_base.t))
    # A marker's scale is its diameter; zero would not be drawn.
    marker.scale.x, marker.scale.y, marker.scale.z = (6.0 * np.sqrt(np.maximum(values, 1e-8))).tolist()
    marker.color = ColorRGBA(r=0.9, g=0.6, b=0.1, a=0.35)
    return marker


def _frustum(pose: BasePose, T_base_cam: SE3, camera: Camera, map_frame: str) -> Marker:
    corners = _corner_rays(camera) * _VIEW_DEPTH_M
    T_map_cam = pose.T_map_base @ T_base_cam
    marker = Marker(header=header(pose.stamp_ns, map_frame), ns="camera", type=Marker.LINE_LIST)
    marker.pose = pose_msg(T_map_cam)
    marker.scale.x = 0.01
    marker.color = ColorRGBA(r=0.1, g=0.5, b=0.9, a=1.0)
    origin = Point()
    points = [Point(x=float(x), y=float(y), z=float(z)) for x, y, z in corners]
    for index, point in enumerate(points):
        marker.points += [origin, point, point, points[(index + 1) % 4]]
    return marker


def _corner_rays(camera: Camera) -> Array:
    """(4, 3) directions through the corners of the image with z = 1, without distortion."""
    w, h = camera.width_px - 0.5, camera.height_px - 0.5
    pixels = np.array([[-0.5, -0.5, 1.0], [w, -0.5, 1.0], [w, h, 1.0], [-0.5, h, 1.0]])
    return np.asarray(pixels @ np.linalg.inv(camera.K).T)
