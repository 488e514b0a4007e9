"""Several cameras of one robot: each is followed by itself in the one map, and all of them tell of the one robot.

Graph, gate and motions speak of the robot: what a camera sees is carried over with its place on the robot at the
image's time. So the next frame may be of any camera, and cameras may move on the robot. A frame that tells nothing,
while another camera sees where the robot is, is left out: to the graph it is as if it had not been taken.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from localizer_ros.core.config.runtime import LocalizerConfig
from localizer_ros.core.se3 import SE3, compose_covariance
from localizer_ros.core.threads import share_cores
from localizer_ros.core.types import (
    Array,
    ConfigError,
    Frame,
    FrameRejected,
    LocalizerOutput,
    Mount,
    PoseEstimate,
    RelativePose,
)
from localizer_ros.localization.front_end import FrontEnd, Observation
from localizer_ros.localization.localizer import Localizer
from localizer_ros.localization.map_based.front_end import front_end_on
from localizer_ros.localization.motion_prediction import KEPT_NS
from localizer_ros.localization.repeated_images import RepeatedImages
from localizer_ros.scene.bundle import Scene
from localizer_ros.scene.map_scene import MapScene
from localizer_ros.smoothing import open_smoother

logger = logging.getLogger(__name__)

# A map's refinement of its camera that is told: more than the poses in a good map are off by.
_REFINED_MM, _REFINED_DEG = 10.0, 0.2


def mount_of(frame: Frame) -> Mount:
    """Which camera took a frame. Raises FrameRejected where nobody says it."""
    if frame.mount is None:
        raise FrameRejected("no_mount", f"frame {frame.label}: expected one of several cameras, got none")
    return frame.mount


class RigFrontEnd:
    """Implements ``FrontEnd`` for the robot, by a front end for each of its cameras.

    Args:
        create: the front end of a camera, of its first frame.
        recent_s: so long a camera is taken to see, or to be blind, as it did or was.
    """

    def __init__(self, create: Callable[[Frame], FrontEnd], recent_s: float) -> None:
        self._create, self._recent_ns = create, round(recent_s * 1e9)
        self._cameras: dict[str, FrontEnd] = {}
        # Newest stamps of each camera: of all its frames, of those that told something, of those that did not.
        self._sent_ns: dict[str, int] = {}
        self._seen_ns: dict[str, int] = {}
        self._blind_ns: dict[str, int] = {}
        # Where each camera was in its frames of late that were not left out.
        self._mounts: dict[str, dict[int, SE3]] = {}
        self._last_ns: int | None = None

    def sent(self, camera: str, stamp_ns: int) -> None:
        """A camera has sent a frame, whether it is observed or not."""
        self._sent_ns[camera] = stamp_ns

    def other(self, camera: str, stamp_ns: int) -> str:
        """Another camera that sends frames and is not known to be blind; empty where there is none."""

        def lately(times_ns: dict[str, int], other: str) -> bool:
            return other in times_ns and stamp_ns - times_ns[other] <= self._recent_ns

        def blind(other: str) -> bool:
            return lately(self._blind_ns, other) and self._blind_ns[other] >= self._seen_ns.get(other, -1)

        others = (other for other in self._sent_ns if other != camera)
        return next((other for other in others if lately(self._sent_ns, other) and not blind(other)), "")

    def observe(self, frame: Frame, prior: PoseEstimate | None) -> Observation:
        """See :class:`FrontEnd`; prior and poses are the robot's.

        Raises:
            FrameRejected: it tells nothing, and there is another camera to look at.
        """
        mount = mount_of(frame)
        camera, T_cam_robot = mount.camera, mount.T_robot_cam.inverse()
        if camera not in self._cameras:
            self._cameras[camera], self._mounts[camera] = self._create(frame), {}
        seen = self._cameras[camera].observe(frame, _carried(prior, mount.T_robot_cam))
        mounts = self._mounts[camera]
        late = [
            _carried_to_robot(pose, mounts[pose.stamp_ns]) for pose in seen.late if pose.stamp_ns in mounts
        ]
        told = seen.absolute is not None or seen.elsewhere or bool(late)
        (self._seen_ns if told else self._blind_ns)[camera] = frame.stamp_ns
        if not told and (other := self.other(camera, frame.stamp_ns)):
            raise FrameRejected(
                "blind", f"camera {camera}: {seen.reason or 'no pose'}; there is camera {other}"
            )
        relative = self._of_robot(seen.relative, mounts, T_cam_robot)
        self._remember(mounts, frame.stamp_ns, mount.T_robot_cam)
        return replace(
            seen, absolute=_carried(seen.absolute, T_cam_robot), late=tuple(late), relative=relative
        )

    def reset(self) -> None:
        """See :class:`FrontEnd`."""
        for front_end in self._cameras.values():
            front_end.reset()
        for mounts in self._mounts.values():
            mounts.clear()
        self._forget()
        self._last_ns = None

    def lost(self) -> None:
        """See :class:`FrontEnd`."""
        for front_end in self._cameras.values():
            front_end.lost()
        self._forget()

    def close(self) -> None:
        """See :class:`FrontEnd`."""
        for front_end in self._cameras.values():
            front_end.close()

    def _forget(self) -> None:
        for times_ns in (self._sent_ns, self._seen_ns, self._blind_ns):
            times_ns.clear()

    def _of_robot(
        self, relative: RelativePose | None, mounts: dict[int, SE3], T_cam_robot: SE3
    ) -> RelativePose | None:
        """The robot's motion of a camera's, where that began with the last frame of all; else it is no motion since
        that one, and None."""
        if relative is None or relative.stamp_prev_ns != self._last_ns or self._last_ns not in mounts:
            return None
        T_robot_prev = mounts[self._last_ns]
        return _of_frames(relative, T_robot_prev, T_cam_robot)

    def _remember(self, mounts: dict[int, SE3], stamp_ns: int, T_robot_cam: SE3) -> None:
        self._last_ns = stamp_ns
        mounts[stamp_ns] = T_robot_cam
        while next(iter(mounts)) < stamp_ns - KEPT_NS:
            del mounts[next(iter(mounts))]


class Rig:
    """The localizer of a robot with several cameras: takes the frames of all of them (``Frame.mount``), in any order.

    Answers are poses of the camera whose frame it is, as ``Localizer``'s are.

    Args:
        localizer: of the robot, on ``front_end``.
        front_end: of its cameras.
        time_jump_s: a stamp further back than this means that time itself went back.
    """

    def __init__(self, localizer: Localizer, front_end: RigFrontEnd, time_jump_s: float) -> None:
        self._localizer, self._front_end = localizer, front_end
        self._time_jump_ns = round(time_jump_s * 1e9)
        self._images = RepeatedImages()
        self._newest_ns: dict[str, int] = {}
        self._last: tuple[int, Mount] | None = None

    def process(self, frame: Frame) -> LocalizerOutput:
        """The answer to the next frame.

        Raises:
            FrameRejected: the frame cannot be used, or is left out for the sake of another camera's; the next one is
                welcome.
        """
        mount = mount_of(frame)
        self._check_order(frame, mount)
        self._check_image(frame, mount)
        T_base_robot = None if frame.T_base_cam is None else frame.T_base_cam @ mount.T_robot_cam.inverse()
        output = self._localizer.process(replace(frame, T_base_cam=T_base_robot))
        answer = self._of_camera(output, mount)
        self._last = (frame.stamp_ns, mount)
        return answer

    def add_odometry(self, stamp_ns: int, T_odom_base: SE3, covariance: Array | None = None) -> None:
        """See ``Localizer``."""
        self._localizer.add_odometry(stamp_ns, T_odom_base, covariance)

    def reconfigure(self, config: LocalizerConfig) -> None:
        """See ``Localizer``."""
        self._localizer.reconfigure(config)

    def set_prior(self, prior: PoseEstimate) -> None:
        """Start over at a pose of the **robot** that somebody gives."""
        self._forget()
        self._localizer.set_prior(prior)

    def relocalize(self) -> None:
        """See ``Localizer``."""
        self._forget()
        self._localizer.relocalize()

    def reset(self) -> None:
        """See ``Localizer``."""
        self._forget()
        self._newest_ns.clear()
        self._localizer.reset()

    def close(self) -> None:
        """See ``Localizer``."""
        self._localizer.close()

    def _check_order(self, frame: Frame, mount: Mount) -> None:
        """Leave a frame out that came behind a newer one of another camera: time goes on with that one."""
        own_ns, camera = self._newest_ns.get(mount.camera), mount.camera
        if own_ns is not None and 0 <= own_ns - frame.stamp_ns < self._time_jump_ns:
            kind = "stamp_repeats" if own_ns == frame.stamp_ns else "stamp_goes_back"
            behind_s = (own_ns - frame.stamp_ns) * 1e-9
            raise FrameRejected(
                kind, f"frame {frame.label}: {behind_s:.3f} s before the last of camera {camera}"
            )
        self._newest_ns[camera] = frame.stamp_ns
        self._front_end.sent(camera, frame.stamp_ns)
        if self._last is not None and 0 <= self._last[0] - frame.stamp_ns < self._time_jump_ns:
            other = self._last[1].camera
            raise FrameRejected("other_camera", f"a frame of camera {other} that is as new was answered")

    def _check_image(self, frame: Frame, mount: Mount) -> None:
        """Leave an image out that is not new while there is another camera to look at."""
        repeated = self._images.repeated(frame)
        if repeated is not None and self._front_end.other(mount.camera, frame.stamp_ns):
            for_s = (frame.stamp_ns - repeated.since_ns) * 1e-9
            raise FrameRejected("repeats", f"camera {mount.camera}: identical images for {for_s:.1f} s")

    def _of_camera(self, output: LocalizerOutput, mount: Mount) -> LocalizerOutput:
        """The answer as the camera's, of what is the robot's."""
        T_robot_prev = mount.T_robot_cam if self._last is None else self._last[1].T_robot_cam

        def carried(motion: RelativePose) -> RelativePose:
            return _of_frames(motion, T_robot_prev.inverse(), mount.T_robot_cam)

        return replace(
            output,
            estimate=_carried(output.estimate, mount.T_robot_cam),
            absolute=_carried(output.absolute, mount.T_robot_cam),
            relative=None if output.relative is None else carried(output.relative),
            motions=tuple(carried(motion) for motion in output.motions),
        )

    def _forget(self) -> None:
        self._images.reset()
        self._last = None


def _carried(pose: PoseEstimate | None, T_a_b: SE3) -> PoseEstimate | None:
    """The pose of b, of that of a; None of None."""
    if pose is None:
        return None
    covariance, common = (
        None if S is None else compose_covariance(S, T_a_b) for S in (pose.covariance, pose.common)
    )
    return replace(pose, T_map_cam=pose.T_map_cam @ T_a_b, covariance=covariance, common=common)


def _carried_to_robot(pose: PoseEstimate, T_robot_cam: SE3) -> PoseEstimate:
    carried = _carried(pose, T_robot_cam.inverse())
    assert carried is not None
    return carried


def _of_frames(motion: RelativePose, T_b_prev: SE3, T_cur_b: SE3) -> RelativePose:
    """The motion of b, of that of a between two times at which it was elsewhere on b."""
    return replace(
        motion,
        T_prev_cur=T_b_prev @ motion.T_prev_cur @ T_cur_b,
        covariance=compose_covariance(motion.covariance, T_cur_b),
    )


def _warn_of_refinement(camera: str, T_cam_refined: SE3) -> None:
    """Say where the map has found its own camera to be off by more than another one may be taken at its word."""
    move_mm = 1e3 * float(np.linalg.norm(T_cam_refined.t))
    turn_deg = float(np.degrees(T_cam_refined.angle_to(SE3.identity())))
    if move_mm > _REFINED_MM or turn_deg > _REFINED_DEG:
        logger.warning(
            "camera %s is not the one that the map was made with, which was refined by %.0f mm and %.2f deg; poses of "
            "the two differ by about that. Map with calibrated cameras and structure.bundle.refine_intrinsics and "
            "structure.bundle.refine_extrinsics false",
            camera,
            move_mm,
            turn_deg,
        )


def open_rig(scene_path: Path, config: LocalizerConfig, threaded: bool = False) -> Rig:
    """The localizer of a scene on disk for the cameras of a robot, which share its map.

    Args:
        scene_path: the scene.
        config: everything else.
        threaded: see ``open_localizer``.

    Raises:
        SceneError: the scene is missing, incomplete, changed or of another version.
        ConfigError: its method follows one camera only, or a setting is one of single cameras.
    """
    scene = Scene.load(scene_path)
    if scene.method not in ("hierarchical", "direct"):
        raise ConfigError(
            f"{scene.path}: several cameras need a map of points (methods hierarchical and direct), got {scene.method}"
        )
    if config.independent:
        raise ConfigError("independent: frames of several cameras cannot stand for themselves")
    if config.planar:
        raise ConfigError(
            "planar: height and tilt are known of the camera that mapped, not of several cameras"
        )
    share_cores(config.backend.threads)
    shared = MapScene.open(scene.path)

    def create(frame: Frame) -> FrontEnd:
        mapped = frame.camera.same_as(shared.point_map.camera.given, 1e-3)
        if not mapped:
            _warn_of_refinement(mount_of(frame).camera, shared.point_map.T_cam_refined)
        # What the mapping camera sees of the robot is elsewhere in the images of another one.
        seen = shared if mapped else replace(shared, static_mask=None)
        return front_end_on(seen, scene.path, scene.method, config, threaded)

    front_end = RigFrontEnd(create, config.status.degraded_after_s)
    localizer = Localizer(front_end, open_smoother(config.smoother), config, scene.origin_m)
    return Rig(localizer, front_end, config.status.time_jump_s)
