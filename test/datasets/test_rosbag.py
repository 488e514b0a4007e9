"""Bags: what is written is read back, in any order and process; foreign bags are understood or refused in
words.
"""

from __future__ import annotations

import copy
import gc
import subprocess
import sys
import warnings

import numpy as np
import pytest
from rosbags.rosbag1 import Writer as Writer1
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import SourceError
from localizer_ros.datasets.calibration import write_camera_yaml
from localizer_ros.datasets.convert import write_bag
from localizer_ros.datasets.derived import FirstFrames
from localizer_ros.datasets.rosbag import RosbagSource
from localizer_ros.datasets.simulated import SimulatedSource, WorldConfig
from localizer_ros.datasets.source import FrameNames, frame_names, open_source

WORLD = WorldConfig(width_px=96, height_px=72, duration_s=1.2, fps=10.0, moving_objects=1, seed=3)
START_NS = 1_600_000_000_000_000_123


@pytest.fixture(scope="module")
def world():
    return SimulatedSource(WORLD)


@pytest.fixture(scope="module")
def bag(world, tmp_path_factory):
    out = tmp_path_factory.mktemp("bags") / "drive"
    write_bag(world, out)
    return out


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
@pytest.mark.parametrize("compression", ["none", "png", "jpeg"])
def test_round_trip(world, tmp_path, storage, compression):
    calls = []
    write_bag(world, tmp_path / "bag", storage, compression, lambda done, total: calls.append((done, total)))
    assert calls == [(i + 1, 12) for i in range(12)]
    source = open_source(tmp_path / "bag")
    assert (source.format, source.ground_truth, source.problems) == ("rosbag", "simulation (exact)", [])
    assert source.camera.same_as(world.camera)
    assert len(source.records) == len(world.records) == 12
    for index, (record, original) in enumerate(zip(source.records, world.records, strict=True)):
        assert record.stamp_ns == original.stamp_ns
        np.testing.assert_allclose(record.T_map_cam.matrix(), original.T_map_cam.matrix(), atol=1e-12)
        image, expected = source.read(index).image, world.read(index).image
        if compression == "jpeg":
            assert np.abs(image.astype(int) - expected).mean() < 4.0
        else:
            np.testing.assert_array_equal(image, expected)
    np.testing.assert_allclose(source.T_base_cam.matrix(), world.T_base_cam.matrix(), atol=1e-12)
    np.testing.assert_array_equal(source.odometry.stamps_ns, world.odometry.stamps_ns)
    np.testing.assert_allclose(source.odometry.positions, world.odometry.positions, atol=1e-12)
    np.testing.assert_allclose(source.odometry.covariances, world.odometry.covariances, atol=1e-12)


def test_a_bag_of_invented_stamps_says_so(world, tmp_path):
    stills = copy.copy(world)
    stills.stamps = "invented"
    write_bag(stills, tmp_path / "bag")
    assert (world.stamps, open_source(tmp_path / "bag").stamps) == ("recorded", "invented")


def test_a_storage_file_opens_by_itself(bag):
    (file,) = bag.glob("*.mcap")
    assert len(open_source(file).records) == 12


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_a_folder_may_be_called_bag(world, tmp_path, storage):
    write_bag(world, tmp_path / "drive.bag", storage)
    source = open_source(tmp_path / "drive.bag")
    assert (len(source.records), source.ground_truth) == (12, "simulation (exact)")


def test_reading_in_any_order(bag, world, rng):
    source = open_source(bag)
    for index in rng.integers(0, 12, 40).tolist():
        np.testing.assert_array_equal(source.read(index).image, world.read(index).image)


FORKED = """
import multiprocessing, pickle, sys
from localizer_ros.datasets.source import FrameNames, frame_names, open_source

def read_mean(source, index, queue):
    queue.put(float(source.read(index).image.mean()))

source = open_source(sys.argv[1])
expected = [float(source.read(index).image.mean()) for index in range(6)]
source.read(2)
context = multiprocessing.get_context("fork")
queue = context.Queue()
workers = [context.Process(target=read_mean, args=(source, 3 + i, queue)) for i in range(2)]
for worker in workers:
    worker.start()
assert sorted(queue.get(timeout=20) for _ in workers) == sorted(expected[3:5])
for worker in workers:
    worker.join(20)
# The parent's position in the bag is its own.
assert float(source.read(3).image.mean()) == expected[3]
copy = pickle.loads(pickle.dumps(source))
assert float(copy.read(5).image.mean()) == expected[5]
"""


def test_reading_in_forked_and_pickled_copies(bag):
    # In an interpreter of its own: forking one in which inference engines have started threads crashes in them.
    subprocess.run([sys.executable, "-c", FORKED, str(bag)], check=True, timeout=120)


def test_nothing_is_overwritten_and_a_failure_leaves_nothing(world, tmp_path):
    (tmp_path / "there").mkdir()
    with pytest.raises(SourceError, match="exists already"):
        write_bag(world, tmp_path / "there")

    def stop(done, total):
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_bag(world, tmp_path / "bag", progress=stop)
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


# --- bags as others write them
# -------------------------------------------------------------------------------------------


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


@pytest.fixture
def recorder(tmp_path):
    return Recorder(tmp_path / "bag")


def pictures(rng, count=4):
    return rng.integers(0, 256, (count, 48, 64, 3)).astype(np.uint8)


def stamp(index):
    return START_NS + index * 100_000_000


def test_ground_truth_of_the_base_becomes_the_cameras(recorder, rng):
    T_base_mount, T_mount_cam = SE3.exp(rng.uniform(-1, 1, 6)), SE3.exp(rng.uniform(-1, 1, 6))
    poses = [SE3.exp(rng.uniform(-1, 1, 6)) for _ in range(4)]
    recorder.transforms(
        "/tf_static", START_NS, ("base_link", "mount", T_base_mount), ("mount", "cam", T_mount_cam)
    )
    recorder.info("/front/camera_info", 64, 48)
    for i, pixels in enumerate(pictures(rng)):
        recorder.image("/front/image_raw", stamp(i), pixels, "rgb8")
        recorder.odometry("/mocap/robot", stamp(i), poses[i], "world", "base_link")
        recorder.odometry("/wheels/odom", stamp(i), poses[i], "odom", "base_link")
        recorder.transforms(
            "/tf", stamp(i), ("odom", "base_link", SE3.identity()), ("map", "base_link", poses[i])
        )
    source = open_source(recorder.close())
    T_base_cam = T_base_mount @ T_mount_cam
    np.testing.assert_allclose(source.T_base_cam.matrix(), T_base_cam.matrix(), atol=1e-12)
    assert source.topics["ground_truth"] == "/mocap/robot"
    assert source.topics["odometry"] == "/wheels/odom"
    # Covariances of zeros mean unknown.
    assert source.odometry.covariances is None
    for record, T_map_base in zip(source.records, poses, strict=True):
        np.testing.assert_allclose(record.T_map_cam.matrix(), (T_map_base @ T_base_cam).matrix(), atol=1e-12)

    from_tf = open_source(recorder.path, topics={"ground_truth": "/tf", "ground_truth_frame": "base_link"})
    for record, other in zip(source.records, from_tf.records, strict=True):
        np.testing.assert_allclose(record.T_map_cam.matrix(), other.T_map_cam.matrix(), atol=1e-12)
    assert open_source(recorder.path, topics={"ground_truth": "none"}).ground_truth == "none"


@pytest.mark.parametrize("slash", ["", "/"])
def test_frames_keep_their_names(recorder, rng, tmp_path, slash):
    """A leading slash is how ROS 1 wrote them; no TF of ROS 2 knows such a frame."""
    T_base_mount, T_mount_cam = SE3.exp(rng.uniform(-1, 1, 6)), SE3.exp(rng.uniform(-1, 1, 6))
    recorder.transforms(
        "/tf_static",
        START_NS,
        (f"{slash}wheels", "mount", T_base_mount),
        ("mount", f"{slash}eye", T_mount_cam),
    )
    recorder.info("/left/camera_info", 64, 48)
    for i, pixels in enumerate(pictures(rng)):
        recorder.odometry("/odom", stamp(i), SE3.identity(), f"{slash}start", f"{slash}wheels")
        recorder.image("/left/image_raw", stamp(i), pixels, "rgb8", frame=f"{slash}eye")
    source = open_source(recorder.close())
    assert frame_names(source) == FrameNames("eye", "wheels", "start")
    expected = T_base_mount @ T_mount_cam
    assert source.T_base_cam.distance_to(expected) < 1e-9
    # Written again and read again they are the same, and so is the mounting.
    write_bag(FirstFrames(source, 2), tmp_path / "again")
    again = open_source(tmp_path / "again")
    assert frame_names(again) == frame_names(source)
    assert again.T_base_cam.distance_to(expected) < 1e-9


def test_frames_without_names_have_the_usual_ones(recorder, rng, bag):
    recorder.info("/left/camera_info", 64, 48)
    recorder.image("/left/image_raw", stamp(0), pictures(rng)[0], "rgb8", frame="")
    assert frame_names(open_source(recorder.close())) == FrameNames("camera", "base_link", "odom")
    assert frame_names(open_source(bag)) == FrameNames("camera", "base_link", "odom")


def test_ground_truth_of_an_unjoined_frame_is_not_taken_as_the_cameras(recorder, rng):
    recorder.info("/front/camera_info", 64, 48)
    for i, pixels in enumerate(pictures(rng)):
        recorder.image("/front/image_raw", stamp(i), pixels, "rgb8")
        recorder.odometry("/ground_truth/odom", stamp(i), SE3.identity(), "world", "base_link")
    source = open_source(recorder.close())
    assert source.ground_truth == "none"
    assert all(record.T_map_cam is None for record in source.records)
    assert "'base_link'" in source.problems[0]
    assert source.T_base_cam is None
    given = open_source(recorder.path, topics={"ground_truth_frame": "cam"})
    assert all(record.T_map_cam is not None for record in given.records)


def test_several_image_topics_must_be_chosen(recorder, rng):
    for side in ("left", "right"):
        recorder.info(f"/{side}/camera_info", 64, 48)
        for i, pixels in enumerate(pictures(rng)):
            recorder.image(f"/{side}/image_raw", stamp(i), pixels, "rgb8")
    recorder.image("/depth/image_raw", stamp(0), np.zeros((48, 64), np.uint16), "16UC1")
    path = recorder.close()
    with pytest.raises(SourceError, match="choose one of /left/image_raw, /right/image_raw"):
        open_source(path)
    assert (
        open_source(path, topics={"image": "/right/image_raw"}).topics["camera_info"] == "/right/camera_info"
    )
    with pytest.raises(SourceError, match="no image topic '/up'"):
        open_source(path, topics={"image": "/up"})
    with pytest.raises(SourceError, match="unknown topic option 'images'"):
        open_source(path, topics={"images": "/left/image_raw"})
    with pytest.raises(
        SourceError, match=r"no pose topic '/left/image_raw' \(it is a sensor_msgs/msg/Image\)"
    ):
        open_source(path, topics={"image": "/left/image_raw", "ground_truth": "/left/image_raw"})


def test_rectified_images_use_the_projection_matrix(recorder, rng):
    recorder.info("/cam/camera_info", 64, 48, d=(0.1, 0.2, 0.0, 0.0, 0.0))
    recorder.image("/cam/image_rect_color", stamp(0), pictures(rng)[0], "rgb8")
    source = open_source(recorder.close())
    assert (source.camera.K[0, 0], source.camera.distorted) == (40.0, False)


def test_order_repeats_and_pauses(recorder, rng):
    recorder.info("/cam/camera_info", 64, 48)
    pixels = pictures(rng, 6)
    # Arrival: second before first, one twice, and after a pause a second drive.
    for i, (at, log) in enumerate([(1, 10), (0, 11), (1, 12), (2, 12), (200, 300), (201, 301)]):
        recorder.image("/cam/image_raw", stamp(at), pixels[i], "rgb8", log_ns=stamp(log))
    source = open_source(recorder.close())
    assert [record.stamp_ns for record in source.records] == [stamp(at) for at in (0, 1, 2, 200, 201)]
    assert [record.sequence for record in source.records] == ["bag-0"] * 3 + ["bag-1"] * 2
    for index, number in enumerate((1, 0, 3, 4, 5)):
        np.testing.assert_array_equal(source.read(index).image, pixels[number])
    assert ["go back" in source.problems[0], "repeat" in source.problems[1]] == [True, True]


def test_images_without_stamps_take_the_times_of_recording(recorder, rng):
    recorder.info("/cam/camera_info", 64, 48)
    for i, pixels in enumerate(pictures(rng)):
        recorder.image("/cam/image_raw", 0, pixels, "rgb8", log_ns=stamp(i))
    source = open_source(recorder.close())
    assert [record.stamp_ns for record in source.records] == [stamp(i) for i in range(4)]
    assert "no stamps" in source.problems[0]


@pytest.mark.parametrize(
    ("encoding", "options", "message"),
    [
        ("tiff", {}, r"/cam/image_raw at 1600000000\.000000123 s: image encoding 'tiff' is not supported"),
        ("rgb8", {"step": 10}, "step is 10 bytes"),
        ("rgb8", {"step": 1000}, r"expected .* \(64x48 rgb8, step 1000\)"),
    ],
)
def test_damaged_images_are_named(recorder, rng, encoding, options, message):
    recorder.info("/cam/camera_info", 64, 48)
    recorder.image("/cam/image_raw", START_NS, pictures(rng)[0], encoding, **options)
    with pytest.raises(SourceError, match=message):
        open_source(recorder.close())


def test_calibration_problems(recorder, rng, tmp_path):
    recorder.image("/cam/image_raw", START_NS, pictures(rng)[0], "rgb8")
    path = recorder.close()
    with pytest.raises(SourceError, match=r"no CameraInfo for /cam/image_raw.*camera\.yaml"):
        open_source(path)
    uncalibrated = Recorder(tmp_path / "zero")
    uncalibrated.image("/cam/image_raw", START_NS, pictures(rng)[0], "rgb8")
    uncalibrated.info("/cam/camera_info", 64, 48, k=[0.0] * 9)
    with pytest.raises(SourceError, match="/cam/camera_info: camera: is not calibrated"):
        open_source(uncalibrated.close())
    write_camera_yaml(path / "camera.yaml", SimulatedSource(WORLD).camera.scaled(64, 48))
    assert open_source(path).camera.width_px == 64


@pytest.mark.parametrize("damage", ["no_metadata", "cut", "empty_metadata", "no_storage", "garbage"])
def test_damaged_bags_are_named_in_one_line(world, tmp_path, damage):
    out = tmp_path / "bag"
    write_bag(world, out)
    (storage,) = out.glob("*.mcap")
    if damage == "no_metadata":
        # Still readable: the storage file says everything.
        (out / "metadata.yaml").unlink()
        assert len(open_source(out).records) == 12
        return
    if damage == "cut":
        storage.write_bytes(storage.read_bytes()[:5000])
    elif damage == "empty_metadata":
        (out / "metadata.yaml").write_text("")
    elif damage == "no_storage":
        storage.unlink()
    else:
        storage.write_bytes(b"not a bag at all" * 100)
    with pytest.raises(SourceError, match=str(out)) as caught:
        open_source(out)
    assert "\n" not in str(caught.value)


def test_ros1_bags(tmp_path, rng):
    store = get_typestore(Stores.ROS1_NOETIC)
    images = pictures(rng)

    def header(i):
        time = store.types["builtin_interfaces/msg/Time"](sec=stamp(i) // 10**9, nanosec=stamp(i) % 10**9)
        return store.types["std_msgs/msg/Header"](seq=i + 7, stamp=time, frame_id="cam")

    with Writer1(tmp_path / "old.bag") as writer:
        connections = {}

        def add(topic, log_ns, message):
            kind = message.__msgtype__
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, kind, typestore=store)
            writer.write(connections[topic], log_ns, store.serialize_ros1(message, kind))

        roi = store.types["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False)
        K = np.array([50.0, 0, 31.5, 0, 50, 23.5, 0, 0, 1])
        info = store.types["sensor_msgs/msg/CameraInfo"](
            header(0), 48, 64, "plumb_bob", np.zeros(5), K, np.eye(3).reshape(-1), np.zeros(12), 0, 0, roi
        )
        add("/cam/camera_info", stamp(0), info)
        for i, pixels in enumerate(images):
            data = np.ascontiguousarray(pixels[..., ::-1]).reshape(-1)
            add(
                "/cam/image_raw",
                stamp(i),
                store.types["sensor_msgs/msg/Image"](header(i), 48, 64, "bgr8", 0, 192, data),
            )
    source = open_source(tmp_path / "old.bag")
    assert isinstance(source, RosbagSource)
    assert [record.stamp_ns for record in source.records] == [stamp(i) for i in range(4)]
    assert source.camera.K[0, 2] == 31.5
    for index, pixels in enumerate(images):
        np.testing.assert_array_equal(source.read(index).image, pixels)


def test_a_bag_nobody_uses_is_closed(bag):
    source = open_source(bag)
    assert source.read(3).image.size
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del source
        gc.collect()
    assert [w for w in caught if "drive" in str(w.message)] == []
