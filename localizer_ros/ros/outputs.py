"""What a robot consumes of an answer: poses, odometry and TF, all stamped as the image."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from geometry_msgs.msg import PoseStamped, PoseWithCovarianceStamped
from nav_msgs.msg import Odometry

from localizer_ros.core.config.runtime import RunConfig
from localizer_ros.core.robot_pose import BasePose, BaseTwist, base_pose, base_twist
from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import FrameRejected, LocalizerOutput, RelativePose, Status
from localizer_ros.ros import conversions as convert
from localizer_ros.ros.frame_assembler import Job
from localizer_ros.ros.tf import MapBroadcaster

# ``create(type, name)``: a publisher on ``~/name``.
CreatePublisher = Callable[[type, str], Any]


class Outputs:
    """Publishers of the localizer's answers.

    Args:
        create: makes a publisher of a message type on a topic of the node.
        map_frame: frame of the poses.
        broadcaster: of the TF edge that the localizer owns; None publishes no TF.
    """

    def __init__(self, create: CreatePublisher, map_frame: str, broadcaster: MapBroadcaster | None) -> None:
        self._map_frame, self._broadcaster = map_frame, broadcaster
        # The frame before: its stamp, and where the camera was on the robot.
        self._before: tuple[int, SE3] | None = None
        self._pose = create(PoseStamped, "pose")
        self._pose_with_covariance = create(PoseWithCovarianceStamped, "pose_with_covariance")
        self._odometry = create(Odometry, "odometry")
        self._global_pose = create(PoseWithCovarianceStamped, "global_pose")

    def publish(self, job: Job, output: LocalizerOutput) -> BasePose | None:
        """The pose that went out; None where the answer has none or is LOST.

        Raises:
            FrameRejected: the estimate is not finite; nothing was published.
        """
        if output.reset:
            self.forget()
        pose = None
        if output.estimate is not None and output.status is not Status.LOST:
            pose = base_pose(output.estimate, job.T_base_cam)
            if not pose.finite:
                raise FrameRejected("not_finite", "the estimate has values that are not finite")
        if pose is not None:
            self._publish_pose(job, output, pose)
        else:
            self.forget()
        self._publish_global_pose(job, output)
        self._before = (output.stamp_ns, job.T_base_cam)
        return pose

    def reconfigure(self, config: RunConfig) -> None:
        """Publish the transform or not, dated otherwise, from now on."""
        if self._broadcaster is not None:
            self._broadcaster.reconfigure(config)

    def retry_transform(self) -> None:
        """Publish the transform that waited for odometry, where it is known by now."""
        if self._broadcaster is not None:
            self._broadcaster.retry()

    def transform_details(self) -> dict[str, str]:
        """What is published as TF, what it waits for and how late it is; empty where none is asked for."""
        return self._broadcaster.details() if self._broadcaster is not None else {}

    def transform_silence(self) -> tuple[float, str]:
        """Seconds for which poses have waited without any transform going out, 0 when none waits, and for what."""
        if self._broadcaster is None:
            return 0.0, ""
        return self._broadcaster.silent_s(), self._broadcaster.waiting_for

    def forget(self) -> None:
        """Drop the transform that waits: its pose is not to be trusted any more."""
        if self._broadcaster is not None:
            self._broadcaster.forget()

    def _publish_pose(self, job: Job, output: LocalizerOutput, pose: BasePose) -> None:
        self._pose.publish(convert.pose_stamped_msg(pose, self._map_frame))
        if self._broadcaster is not None and job.base_frame:
            self._broadcaster.send(
                pose.stamp_ns, pose.T_map_base, job.base_frame, output.odometry_contradicted
            )
        if pose.covariance is not None:
            self._pose_with_covariance.publish(convert.pose_with_covariance_msg(pose, self._map_frame))
            twist = self._twist(job, output.relative)
            self._odometry.publish(convert.odometry_msg(pose, twist, self._map_frame, job.base_frame))

    def _twist(self, job: Job, relative: RelativePose | None) -> BaseTwist | None:
        if relative is None:
            return None
        before_ns, T_base_prev = self._before or (0, job.T_base_cam)
        return base_twist(
            relative, job.T_base_cam, T_base_prev if before_ns == relative.stamp_prev_ns else None
        )

    def _publish_global_pose(self, job: Job, output: LocalizerOutput) -> None:
        if output.absolute is None:
            return
        pose = base_pose(output.absolute, job.T_base_cam)
        if pose.covariance is not None and pose.finite:
            self._global_pose.publish(convert.pose_with_covariance_msg(pose, self._map_frame))
