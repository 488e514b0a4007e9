"""What a user can do about what the node tells him."""

from __future__ import annotations

# What would help, by the kind of the last drop.
HELP = {
    "no_camera_info": "publish sensor_msgs/CameraInfo beside the image, or remap camera_info to where it is",
    "camera_info": "calibrate the camera (camera_calibration), then restart the driver",
    "no_extrinsics": "publish the static transform from base_frame to the camera, or set base_frame to ''",
    "no_frame_id": "set header.frame_id in the camera driver",
    "encoding": "set another encoding in the camera driver, or use image_transport: compressed",
    "image_size": "camera_info and image must come from the same camera at the same resolution",
    "stamp_zero": "the driver must stamp its images",
    "stamp_future": "nothing that listens to TF can use such a pose",
}
LOST_HELP = (
    "bring the camera to a mapped place with the view it had there, give an initialpose, "
    "or call ~/relocalize; if it stays lost, map the place again under this light"
)


OVERLOAD_HELP = "send fewer or smaller images, or give the localizer more of the processor"
