"""Which topic of a bag serves which purpose: what is found by itself, and what the user's choice overrides.

The choice is a mapping such as ``{"image": "/left/image_raw"}`` (``OPTIONS``; ``none`` switches one off):

``camera``: the namespace of the image topic, e.g. ``/left`` of ``/left/image_raw``.
``image``: the only image topic that is not depth; of a raw and a compressed one the raw.
``camera_info``: the one beside the image topic, else the only one.
``ground_truth``: a topic of poses or odometry with ``ground_truth``, ``groundtruth`` or ``mocap`` in its name, else the
transforms of TF from the map to the camera (see ``bag_poses``).
``ground_truth_frame``: the frame whose poses these are; else the child frame of the message, and for messages without
one (PoseStamped) the camera's optical frame.
``odometry``: the only nav_msgs/Odometry topic that is not the ground truth.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from localizer_ros.core.types import SourceError

OPTIONS = ("camera", "image", "camera_info", "ground_truth", "ground_truth_frame", "odometry")

RAW_IMAGE, COMPRESSED_IMAGE = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
CAMERA_INFO = "sensor_msgs/msg/CameraInfo"
ODOMETRY = "nav_msgs/msg/Odometry"
TF = ("tf2_msgs/msg/TFMessage", "tf/msg/tfMessage")
POSES = (
    "geometry_msgs/msg/PoseStamped",
    "geometry_msgs/msg/PoseWithCovarianceStamped",
    "geometry_msgs/msg/TransformStamped",
    ODOMETRY,
)
_GROUND_TRUTH_NAMES = ("ground_truth", "groundtruth", "mocap")


def choose_topics(
    path: Path, every: Mapping[str, str], counts: Mapping[str, int], wanted: Mapping[str, str]
) -> dict[str, str]:
    """The topic of every purpose that the bag has one for; ``image`` is always there.

    A topic without messages is no choice.

    Args:
        path: the bag, for messages.
        every: message type of every topic.
        counts: number of messages on every topic.
        wanted: see the module.

    Raises:
        SourceError: an unknown purpose, a topic that is not there or of another type, none for images, or several to
            choose from.
    """
    for purpose in wanted:
        if purpose not in OPTIONS:
            raise SourceError(f"{path}: unknown topic option {purpose!r}; known: {', '.join(OPTIONS)}")
    types = {topic: kind for topic, kind in every.items() if counts.get(topic, 0)}
    _refuse_empty(path, every, types, wanted)
    image = _choose_image(path, types, wanted.get("image"), wanted.get("camera"))
    truth = _choose_ground_truth(path, types, wanted.get("ground_truth"))
    found = {
        "image": image,
        "camera_info": _choose_camera_info(path, types, image, wanted.get("camera_info")),
        "ground_truth": truth,
        "odometry": _choose_odometry(path, types, wanted.get("odometry"), truth),
    }
    return {purpose: topic for purpose, topic in found.items() if topic is not None}


def transform_topics(types: Mapping[str, str], image: str) -> dict[str, bool]:
    """The topics of TF, and whether they are static: those of the robot that the camera is on.

    A robot in a namespace has its own (``/robot1/tf``); else the common ones count.
    """
    topics = [topic for topic, kind in types.items() if kind in TF]
    spaces = {topic: topic.rpartition("/")[0] for topic in topics}
    mine = [space for space in set(spaces.values()) if space and image.startswith(space + "/")]
    chosen = max(mine, key=len, default="")
    if not mine and "" not in spaces.values() and len(set(spaces.values())) == 1:
        chosen = next(iter(spaces.values()))
    static = {topic: topic.endswith("tf_static") for topic in topics if spaces[topic] in ("", chosen)}
    return static


def pose_topics(types: Mapping[str, str]) -> list[str]:
    """The topics of messages that hold one pose."""
    return [topic for topic, kind in types.items() if kind in POSES]


def _refuse_empty(
    path: Path, every: Mapping[str, str], types: Mapping[str, str], wanted: Mapping[str, str]
) -> None:
    """Raises SourceError for a chosen topic that is there but has no messages, and no compressed copy that has."""
    for purpose, topic in wanted.items():
        if purpose not in ("ground_truth_frame", "camera") and topic in every and topic not in types:
            if purpose == "image" and f"{topic}/compressed" in types:
                continue
            raise SourceError(f"{path}: topic {topic} has no messages")
    images = [topic for topic, kind in every.items() if kind in (RAW_IMAGE, COMPRESSED_IMAGE)]
    if images and not any(topic in types for topic in images):
        raise SourceError(f"{path}: topic {', '.join(images)} has no messages")


def is_rectified(image_topic: str) -> bool:
    """Whether its images are rectified: by convention of image_proc the last part of the topic's name says so."""
    return "rect" in _without_transport(image_topic).rsplit("/", 1)[-1]


def _without_transport(topic: str) -> str:
    """The image topic that a compressed one is a copy of."""
    return topic.removesuffix("/compressed")


def _choose_image(path: Path, types: Mapping[str, str], wanted: str | None, camera: str | None = None) -> str:
    images = [topic for topic, kind in types.items() if kind in (RAW_IMAGE, COMPRESSED_IMAGE)]
    if camera is not None:
        space = f"/{camera.strip('/')}"
        of_camera = [topic for topic in images if f"{topic}/".startswith(f"{space}/")]
        if not of_camera:
            raise SourceError(f"{path}: no images of a camera {camera!r}; it has {_listing(images)}")
        images = of_camera
    if wanted is not None:
        for topic in (wanted, f"{wanted}/compressed"):
            if topic in images:
                return topic
        raise SourceError(f"{path}: no image topic {wanted!r}; it has {_listing(images)}")
    colour = [t for t in images if "depth" not in t.lower() and "theora" not in t.lower()]
    # A raw topic hides its compressed copy.
    chosen = [t for t in colour if types[t] == RAW_IMAGE or _without_transport(t) not in colour]
    if not chosen:
        raise SourceError(f"{path}: no image topic; it has {_listing(types)}")
    if len(chosen) > 1:
        raise SourceError(
            f"{path}: several image topics, choose one of {_listing(chosen)} by --topic image=..."
        )
    return chosen[0]


def _choose_camera_info(path: Path, types: Mapping[str, str], image: str, wanted: str | None) -> str | None:
    infos = [topic for topic, kind in types.items() if kind == CAMERA_INFO]
    if wanted is not None:
        return _named(path, types, wanted, infos, "CameraInfo")
    beside = _without_transport(image).rpartition("/")[0] + "/camera_info"
    if beside in infos:
        return beside
    return infos[0] if len(infos) == 1 else None


def _choose_ground_truth(path: Path, types: Mapping[str, str], wanted: str | None) -> str | None:
    poses = [topic for topic, kind in types.items() if kind in POSES]
    if wanted is not None:
        transforms = [topic for topic, kind in types.items() if kind in TF]
        return _named(path, types, wanted, poses + transforms, "pose")
    found = [t for t in poses if any(name in t.lower() for name in _GROUND_TRUTH_NAMES)]
    if len(found) > 1:
        raise SourceError(
            f"{path}: several ground truth topics, choose one of {_listing(found)} by --topic ground_truth=..."
        )
    return found[0] if found else None


def _choose_odometry(
    path: Path, types: Mapping[str, str], wanted: str | None, ground_truth: str | None
) -> str | None:
    topics = [topic for topic, kind in types.items() if kind == ODOMETRY and topic != ground_truth]
    if wanted is not None:
        return _named(path, types, wanted, topics, "odometry")
    return topics[0] if len(topics) == 1 else None


def _named(
    path: Path, types: Mapping[str, str], wanted: str, candidates: Sequence[str], what: str
) -> str | None:
    if wanted == "none":
        return None
    if wanted not in candidates:
        kind = f" (it is a {types[wanted]})" if wanted in types else ""
        raise SourceError(f"{path}: no {what} topic {wanted!r}{kind}; it has {_listing(candidates)}")
    return wanted


def _listing(topics: Iterable[str]) -> str:
    return ", ".join(sorted(topics)) or "none"
