"""Visual localization for ROS 2: where is this camera in a place seen before?"""

import os

from localizer_ros.core.limits import LARGEST_IMAGE_PX

__version__ = "0.1.0"

# Read by OpenCV when it is loaded: a damaged image of a format whose header is not checked here (TIFF, BMP, WebP) must
# not take gigabytes.
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(LARGEST_IMAGE_PX))
