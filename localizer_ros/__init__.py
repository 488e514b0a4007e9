"""Visual localization for ROS 2: where is this camera in a place seen before?"""

__version__ = "0.1.0"
