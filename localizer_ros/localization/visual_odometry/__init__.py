"""Motion of one camera in metres without a map: followed corners, points triangulated from keyframes."""

VISUAL_ODOMETRY = "visual_odometry"
"""Source of its motions."""
