"""Bags as robots record them, for tests: any topic, type, frame and stamp."""

from __future__ import annotations

import numpy as np
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

START_NS = 1_600_000_000_000_000_123


class Recorder:
    """Writes messages of a robot into a rosbag2."""

    def __init__(self, path):
        self.store = get_typestore(Stores.ROS2_HUMBLE)
        self.writer = Writer(path, version=8, storage_plugin=StoragePlugin.SQLITE3)
        self.writer.open()
        self.connections = {}
        self.path = path

    def make(self, kind, **fields):
        return self.store.types[kind](**fields)

    def header(self, stamp_ns, frame):
        stamp = self.make("builtin_interfaces/msg/Time", sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9)
        return self.make("std_msgs/msg/Header", stamp=stamp, frame_id=frame)

    def add(self, topic, log_ns, message):
        kind = message.__msgtype__
        if topic not in self.connections:
            self.connections[topic] = self.writer.add_connection(topic, kind, typestore=self.store)
        self.writer.write(self.connections[topic], log_ns, self.store.serialize_cdr(message, kind))

    def declare(self, topic, kind):
        """A topic without messages."""
        self.connections[topic] = self.writer.add_connection(topic, kind, typestore=self.store)

    def image(self, topic, stamp_ns, pixels, encoding, log_ns=None, step=None, frame="cam"):
        height, width = pixels.shape[:2]
        message = self.make(
            "sensor_msgs/msg/Image",
            header=self.header(stamp_ns, frame),
            height=height,
            width=width,
            encoding=encoding,
            is_bigendian=0,
            step=step or pixels.nbytes // height,
            data=np.ascontiguousarray(pixels).view(np.uint8).reshape(-1),
        )
        self.add(topic, log_ns or stamp_ns, message)

    def info(
        self, topic, width, height, k=(50, 0, 31.5, 0, 50, 23.5, 0, 0, 1), p=None, model="plumb_bob", d=()
    ):
        p = p or (40, 0, 30, 0, 0, 40, 20, 0, 0, 0, 1, 0)
        roi = self.make(
            "sensor_msgs/msg/RegionOfInterest", x_offset=0, y_offset=0, height=0, width=0, do_rectify=False
        )
        message = self.make(
            "sensor_msgs/msg/CameraInfo",
            header=self.header(START_NS, "cam"),
            height=height,
            width=width,
            distortion_model=model,
            d=np.array(d, dtype=np.float64),
            k=np.array(k, dtype=np.float64),
            r=np.eye(3).reshape(-1),
            p=np.array(p, dtype=np.float64),
            binning_x=0,
            binning_y=0,
            roi=roi,
        )
        self.add(topic, START_NS, message)

    def vector(self, kind, t):
        return self.make(f"geometry_msgs/msg/{kind}", x=float(t[0]), y=float(t[1]), z=float(t[2]))

    def quaternion(self, T):
        x, y, z, w = (float(v) for v in T.quaternion_xyzw())
        return self.make("geometry_msgs/msg/Quaternion", x=x, y=y, z=z, w=w)

    def odometry(self, topic, stamp_ns, T, parent, child):
        pose = self.make(
            "geometry_msgs/msg/Pose", position=self.vector("Point", T.t), orientation=self.quaternion(T)
        )
        twist = self.make(
            "geometry_msgs/msg/Twist",
            linear=self.vector("Vector3", [0] * 3),
            angular=self.vector("Vector3", [0] * 3),
        )
        message = self.make(
            "nav_msgs/msg/Odometry",
            header=self.header(stamp_ns, parent),
            child_frame_id=child,
            pose=self.make("geometry_msgs/msg/PoseWithCovariance", pose=pose, covariance=np.zeros(36)),
            twist=self.make("geometry_msgs/msg/TwistWithCovariance", twist=twist, covariance=np.zeros(36)),
        )
        self.add(topic, stamp_ns, message)

    def transforms(self, topic, stamp_ns, *edges):
        transforms = [
            self.make(
                "geometry_msgs/msg/TransformStamped",
                header=self.header(stamp_ns, parent),
                child_frame_id=child,
                transform=self.make(
                    "geometry_msgs/msg/Transform",
                    translation=self.vector("Vector3", T.t),
                    rotation=self.quaternion(T),
                ),
            )
            for parent, child, T in edges
        ]
        self.add(topic, stamp_ns, self.make("tf2_msgs/msg/TFMessage", transforms=transforms))

    def close(self):
        self.writer.close()
        return self.path


def pictures(rng, count=4):
    """(count, 48, 64, 3) images of noise."""
    return rng.integers(0, 256, (count, 48, 64, 3)).astype(np.uint8)


def stamp(index):
    """Stamp of a frame of a 10 Hz recording, nanoseconds."""
    return START_NS + index * 100_000_000
