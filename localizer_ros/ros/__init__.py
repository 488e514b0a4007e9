"""ROS 2 around the pipeline: the only package that imports rclpy and messages."""
