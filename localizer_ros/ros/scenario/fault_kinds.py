"""The table of faults: on which streams each may be, and what its value means. Knows nothing of ROS."""

from __future__ import annotations

from dataclasses import dataclass

STREAMS = {
    "image": "the camera's images",
    "camera_info": "its calibration",
    "odom": "the odometry: its topic and its transform",
    "tf": "the transform of the odometry alone",
    "tf_static": "where the camera is on the robot",
    "drive": "the recording itself: what all sensors see",
    "initialpose": "a pose that somebody gives",
    "call": "a service that somebody calls, or a transition of the lifecycle",
    "clock": "the ROS clock",
    "processing": "the machine",
}
_ALL = ("image", "camera_info", "odom", "tf", "tf_static")
_MOTION = ("odom", "tf")
CALLS = (
    *("relocalize", "reset", "pause", "resume"),
    *("configure", "activate", "deactivate", "cleanup"),
)


@dataclass(frozen=True, slots=True)
class FaultKind:
    """What is known of a fault.

    Attributes:
        streams: that can have it.
        meaning: what happens, for the documentation.
        value: what its value is, with its unit; empty where it has none.
        default: of the value.
        at_once: it happens at ``from`` and is over.
        words: that its text may be; empty where it has none.
    """

    streams: tuple[str, ...]
    meaning: str
    value: str = ""
    default: float = 0.0
    at_once: bool = False
    words: tuple[str, ...] = ()


FAULTS: dict[str, FaultKind] = {
    # messages
    "drop": FaultKind(_ALL, "messages do not come", "share of them that is lost", 1.0),
    "late": FaultKind(_ALL, "messages come late", "delay, s", 0.1),
    "burst": FaultKind(_ALL, "messages are held back and come all at once at the end"),
    "shuffle": FaultKind((*_MOTION, "image"), "messages come out of order, three by three"),
    "duplicate": FaultKind((*_MOTION, "image"), "every message comes twice"),
    "stamp": FaultKind((*_MOTION, "image"), "stamps are wrong", "added to the stamp, s", 1000.0),
    "stamp_zero": FaultKind((*_MOTION, "image"), "stamps are zero"),
    "stamp_stands": FaultKind((*_MOTION, "image"), "every stamp is that of the first"),
    "frame_id": FaultKind(_ALL, "the frame_id is another one (nowhere)"),
    "frame_id_empty": FaultKind((*_MOTION, "image"), "the frame_id is empty"),
    "nan": FaultKind((*_MOTION, "camera_info", "tf_static"), "numbers are not finite"),
    # pixels
    "freeze": FaultKind(("image",), "the driver repeats its last image under new stamps"),
    "black": FaultKind(("image",), "images are black"),
    "white": FaultKind(("image",), "images are white"),
    "covered": FaultKind(("image",), "something dark covers the view", "share of the width", 0.7),
    "brightness": FaultKind(("image",), "images are darker or brighter", "factor", 0.05),
    "blur": FaultKind(("image",), "images are blurred", "sigma as a share of the width", 0.02),
    "noise": FaultKind(("image",), "images are nothing but noise"),
    "upside_down": FaultKind(("image",), "images are turned by half a turn"),
    "mirrored": FaultKind(("image",), "images are mirrored"),
    "other_place": FaultKind(("image",), "images are of another place", "number of the place", 7.0),
    # what an image message says of itself
    "size": FaultKind(("image", "camera_info"), "the size is another one", "factor", 0.5),
    "truncate": FaultKind(("image",), "data are cut", "share that is left", 0.5),
    "encoding": FaultKind(("image",), "the encoding is unknown"),
    # calibration
    "focal": FaultKind(("camera_info",), "the focal length is wrong", "factor", 1.1),
    "uncalibrated": FaultKind(("camera_info",), "all is zero, as from a driver without calibration"),
    "impossible": FaultKind(("camera_info",), "the focal length is negative"),
    # odometry and transforms
    "jump": FaultKind(_MOTION, "the pose jumps, once", "metres to the side", 3.0, at_once=True),
    "restart": FaultKind(_MOTION, "the odometry starts again at zero", at_once=True),
    "drift": FaultKind(_MOTION, "every way is too long", "share", 0.02),
    "still": FaultKind(_MOTION, "the pose stands still"),
    "covariance": FaultKind(("odom",), "the covariance is nonsense (negative)"),
    "moved": FaultKind(
        ("tf_static",),
        "another node says that the camera is elsewhere on the robot",
        "metres to the side",
        0.5,
        True,
    ),
    "foreign": FaultKind(("tf",), "another node publishes the transform of the localizer, too"),
    # the drive
    "kidnap": FaultKind(("drive",), "the robot is carried on", "seconds of the recording", 2.0, at_once=True),
    "loop": FaultKind(("drive",), "the recording begins again, stamps and clock too", at_once=True),
    # somebody does something
    "pose": FaultKind(("initialpose",), "a pose", "metres to the side of the true one", 0.0, at_once=True),
    "pose_unsure": FaultKind(
        ("initialpose",), "a pose whose covariance is zero", "metres to the side of the true one", 0.0, True
    ),
    "pose_nan": FaultKind(("initialpose",), "a pose that is not finite", at_once=True),
    "pose_elsewhere": FaultKind(("initialpose",), "a pose in another frame", at_once=True),
    "call": FaultKind(("call",), "the call named by `text`", at_once=True, words=CALLS),
    # the machine
    "slow": FaultKind(("processing",), "frames take longer", "for each frame, s", 0.25),
    "clock_back": FaultKind(("clock",), "the clock alone jumps back", "seconds", 100.0, at_once=True),
}
