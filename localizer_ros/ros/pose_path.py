"""The path that the robot took, kept and published as bytes.

Ten thousand poses are 88 ms of conversion as message objects, in the middle of which no image is received, and 20 MB;
as bytes they are copied in less than a millisecond.
"""

from __future__ import annotations

import struct
from collections import deque

from geometry_msgs.msg import PoseStamped
from nav_msgs.msg import Path
from rclpy.serialization import deserialize_message, serialize_message

from localizer_ros.core.robot_pose import BasePose
from localizer_ros.ros.conversions import header, pose_stamped_msg

# In front of every serialised message, and no part of what fields are aligned to.
_ENCAPSULATION = 4


class PosePath:
    """The newest poses of one frame.

    A serialised pose is as long as a multiple of eight, which is what its numbers are aligned to: so it follows
    another one in a path as it is. Only the first stands where the path's own header ends.

    Args:
        map_frame: frame of the poses.
        length: the oldest poses are dropped beyond this.
    """

    def __init__(self, map_frame: str, length: int) -> None:
        self._map_frame = map_frame
        self._poses: deque[bytes] = deque(maxlen=length)
        self._encapsulation, self._newest_ns = b"", 0

    def __len__(self) -> int:
        return len(self._poses)

    def add(self, pose: BasePose) -> None:
        """The newest pose."""
        message = serialize_message(pose_stamped_msg(pose, self._map_frame))
        self._encapsulation, self._newest_ns = message[:_ENCAPSULATION], pose.stamp_ns
        self._poses.append(message[_ENCAPSULATION:])

    def resize(self, length: int) -> None:
        """Keep so many from now on."""
        self._poses = deque(self._poses, maxlen=length)

    def clear(self) -> None:
        """Begin again."""
        self._poses.clear()

    def serialized(self) -> bytes:
        """A ``nav_msgs/Path`` as it is published, stamped as its newest pose. Needs a pose."""
        oldest, *rest = self._poses
        first = deserialize_message(self._encapsulation + oldest, PoseStamped)
        path = Path(header=header(self._newest_ns, self._map_frame), poses=[first])
        begin = bytearray(serialize_message(path))
        # Stamp, length and text of the frame with its end, then the number of poses at a multiple of four.
        text = 8 + 4 + len(self._map_frame.encode()) + 1
        struct.pack_into("<I", begin, _ENCAPSULATION + text + -text % 4, 1 + len(rest))
        return b"".join([bytes(begin), *rest])
