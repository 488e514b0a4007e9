"""Packets as messages on the robot's topics."""

from __future__ import annotations

from typing import Any

from geometry_msgs.msg import PoseWithCovarianceStamped
from nav_msgs.msg import Odometry
from sensor_msgs.msg import CameraInfo, Image
from tf2_msgs.msg import TFMessage

from localizer_ros.core.types import UInt8
from localizer_ros.datasets.source import FrameNames, FrameSource
from localizer_ros.ros import conversions as convert
from localizer_ros.ros.scenario.packets import Packet

KINDS: dict[str, type] = {
    "image": Image,
    "camera_info": CameraInfo,
    "odom": Odometry,
    "initialpose": PoseWithCovarianceStamped,
    "/tf": TFMessage,
    "/tf_static": TFMessage,
}
"""Type of each topic without its ``/compressed``."""
_KEPT_BYTES = 300_000_000


class Pictures:
    """The images of a recording, kept for the scenarios to come."""

    def __init__(self, source: FrameSource) -> None:
        self._source = source
        self._kept: dict[int, UInt8] = {}
        self._bytes = 0

    def __getitem__(self, number: int) -> UInt8:
        if number in self._kept:
            return self._kept[number]
        image = self._source.read(number).image
        if self._bytes + image.nbytes <= _KEPT_BYTES:
            self._kept[number] = image
            self._bytes += image.nbytes
        return image


class Messages:
    """Makes the messages of packets.

    Args:
        source: the recording.
        pictures: its images.
        names: of the frames.
        map_frame: of initial poses.
        transport: ``raw``, ``jpeg`` or ``png``.
    """

    def __init__(
        self, source: FrameSource, pictures: Pictures, names: FrameNames, map_frame: str, transport: str
    ) -> None:
        self._camera, self._pictures = source.camera, pictures
        self._names, self._map_frame, self._transport = names, map_frame, transport

    def of(self, packet: Packet) -> tuple[str, Any] | None:
        """Topic, before remapping, and message; None for what is none."""
        made = self._made(packet)
        if made is not None:
            for edit in packet.edits:
                edit(made[1])
        return made

    def _made(self, packet: Packet) -> tuple[str, Any] | None:
        stamp_ns, names, T = packet.stamp_ns, self._names, packet.T
        if packet.stream == "image":
            image = self._pictures[packet.number]
            for change in packet.changes:
                image = change(image)
            if self._transport == "raw":
                return "image", convert.image_msg(image, stamp_ns, names.camera)
            compressed = convert.compressed_msg(image, stamp_ns, names.camera, self._transport)
            return "image/compressed", compressed
        if packet.stream == "camera_info":
            return "camera_info", convert.info_msg(self._camera, stamp_ns, names.camera)
        if T is None:
            return None
        if packet.stream == "odom":
            return "odom", convert.odometry_sample_msg(T, stamp_ns, names.odom, names.base)
        if packet.stream == "initialpose":
            message = PoseWithCovarianceStamped(header=convert.header(stamp_ns, self._map_frame))
            message.pose.pose = convert.pose_msg(T)
            return "initialpose", message
        parent, child = {
            "tf": (names.odom, names.base),
            "tf_static": (names.base, names.camera),
            "foreign": (self._map_frame, names.odom),
        }[packet.stream]
        topic = "/tf_static" if packet.stream == "tf_static" else "/tf"
        return topic, TFMessage(transforms=[convert.transform_msg(T, stamp_ns, parent, child)])
