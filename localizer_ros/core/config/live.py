"""Which settings may change while a localizer runs. All others are read when its scene is opened."""

from __future__ import annotations

# Gates and limits, what is published, what is shown; a name that ends with a point is a group.
LIVE = (
    "publish_tf",
    "transform_tolerance",
    "correction_m_s",
    "path_length",
    "gate.",
    "status.",
    "odometry.rotation_share",
    "odometry.translation_share",
    "odometry.floor_deg",
    "odometry.floor_m",
    "odometry.max_gap_s",
)


def is_live(name: str) -> bool:
    """Whether the setting of this dotted name may."""
    return name in LIVE or f"{name.partition('.')[0]}." in LIVE
