"""A bag is read in any order and process, of any storage, or refused in one line."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import warnings

import numpy as np
import pytest
from bag_recorder import pictures, stamp
from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from localizer_ros.core.types import SourceError
from localizer_ros.datasets.bag_file import BagFile
from localizer_ros.datasets.bag_storage import message_counts
from localizer_ros.datasets.convert import write_bag
from localizer_ros.datasets.simulated import SimulatedSource, WorldConfig
from localizer_ros.datasets.source import open_source

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


def test_a_storage_file_opens_by_itself(bag):
    (file,) = bag.glob("*.mcap")
    assert len(open_source(file).records) == 12


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_a_folder_may_be_called_bag(world, tmp_path, storage):
    write_bag(world, tmp_path / "drive.bag", storage)
    source = open_source(tmp_path / "drive.bag")
    assert (len(source.records), source.ground_truth) == (12, "simulation (exact)")


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_a_storage_file_that_would_never_end_is_not_read(world, tmp_path, storage):
    write_bag(world, tmp_path / "drive", storage)
    file = next(f for f in (tmp_path / "drive").iterdir() if f.suffix != ".yaml")
    file.unlink()
    os.mkfifo(file)
    for path in (tmp_path / "drive", file):
        with pytest.raises(SourceError, match=rf"{file.name}: cannot be read \(not a regular file\)"):
            open_source(path)


@pytest.mark.parametrize("text", ["[" * 20_000, "a: &a [*a]", "#" * (5 << 20)])
def test_metadata_that_is_a_trap_is_passed_over(world, tmp_path, text):
    write_bag(world, tmp_path / "drive")
    (tmp_path / "drive" / "metadata.yaml").write_text(text)
    source = open_source(tmp_path / "drive")
    assert len(source.records) == 12 and "metadata.yaml is not used" in source.problems[0]


def test_reading_in_any_order(bag, world, rng):
    source = open_source(bag)
    for index in rng.integers(0, 12, 40).tolist():
        np.testing.assert_array_equal(source.read(index).image, world.read(index).image)


def test_reading_in_forked_and_pickled_copies(bag):
    # In an interpreter of its own: forking one in which inference engines have started threads crashes in them.
    subprocess.run([sys.executable, "-c", FORKED, str(bag)], check=True, timeout=120)


@pytest.mark.parametrize("damage", ["no_metadata", "cut", "no_storage", "garbage"])
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
    elif damage == "no_storage":
        storage.unlink()
    else:
        storage.write_bytes(b"not a bag at all" * 100)
    with pytest.raises(SourceError, match=str(out)) as caught:
        open_source(out)
    assert "\n" not in str(caught.value)


def test_a_bag_nobody_uses_is_closed(bag):
    source = open_source(bag)
    assert source.read(3).image.size
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del source
        gc.collect()
    assert [w for w in caught if "drive" in str(w.message)] == []


@pytest.mark.parametrize("cut", [0.55, 0.8, 0.999])
def test_an_mcap_without_an_end_is_read_up_to_it(long, tmp_path, cut):
    out = tmp_path / "bag"
    write_bag(long, out)
    (out / "metadata.yaml").unlink()
    (storage,) = out.glob("*.mcap")
    data = storage.read_bytes()
    storage.write_bytes(data[: int(len(data) * cut)])
    source = open_source(out)
    assert "it has no end" in source.problems[0]
    for index, record in enumerate(source.records):
        np.testing.assert_array_equal(source.read(index).image, long.read(index).image)
        assert record.stamp_ns == long.records[index].stamp_ns


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda text: "", "metadata.yaml is not used"),
        (lambda text: text.replace("storage_identifier: mcap", 'storage_identifier: ""'), "Storage plugin"),
        (lambda text: text.replace("bag.mcap", "other.mcap"), "are missing"),
        (
            lambda text: text.replace("/ground_truth", "/elsewhere"),
            "topic /ground_truth stands in it otherwise",
        ),
        (lambda text: text.replace("reliability: 1", "reliability: 2", 1), "otherwise"),
    ],
    ids=["empty", "no_storage_identifier", "renamed", "stale", "qos"],
)
def test_where_metadata_is_wrong_the_files_have_the_last_word(world, tmp_path, change, says):
    out = tmp_path / "bag"
    write_bag(world, out)
    text = (out / "metadata.yaml").read_text()
    changed = change(text)
    assert changed != text
    (out / "metadata.yaml").write_text(changed)
    source = open_source(out)
    assert [r.T_map_cam is not None for r in source.records] == [True] * 12
    assert says in source.problems[0] and str(tmp_path) not in source.problems[0]


@pytest.fixture(scope="module")
def long():
    """Several chunks of MCAP."""
    return SimulatedSource(WorldConfig(width_px=320, height_px=240, duration_s=2.0, fps=10.0, seed=3))


def test_a_damaged_chunk_costs_its_messages_only(long, tmp_path):
    out = tmp_path / "bag"
    write_bag(long, out)
    (storage,) = out.glob("*.mcap")
    data = bytearray(storage.read_bytes())
    chunks, at = [], 8
    while data[at] != 15:
        chunks += [at] if data[at] == 6 else []
        at += 9 + int.from_bytes(data[at + 1 : at + 9], "little")
    # What the second chunk says of its own size.
    data[chunks[1] + 25] ^= 0x55
    storage.write_bytes(bytes(data))
    bag = BagFile(out)
    assert bag.recover()
    assert "1 damaged chunks are left out" in bag.problems[0]
    assert 8 <= len(list(bag.scan(["/camera/image_raw"]))) < 20


def test_empty_topics_are_no_choices(recorder, rng):
    recorder.info("/cam/camera_info", 64, 48, k=[0.0] * 9)
    recorder.info("/cam/camera_info", 64, 48)
    recorder.image("/cam/image_raw", stamp(0), pictures(rng)[0], "rgb8")
    recorder.declare("/rear/image_raw", "sensor_msgs/msg/Image")
    source = open_source(recorder.close())
    # The first camera_info is no calibration yet.
    assert (source.topics["image"], source.camera.K[0, 0]) == ("/cam/image_raw", 50.0)
    with pytest.raises(SourceError, match="topic /rear/image_raw has no messages"):
        open_source(recorder.path, topics={"image": "/rear/image_raw"})


def test_messages_that_the_bag_counts_and_does_not_hold_are_said(bag, monkeypatch):
    assert open_source(bag).problems == []
    whole = message_counts
    monkeypatch.setattr(
        "localizer_ros.datasets.bag_file.message_counts",
        lambda reader: {topic: count + (topic == "/odom") for topic, count in whole(reader).items()},
    )
    (problem,) = open_source(bag).problems
    assert problem.startswith("/odom: 1 of the ") and problem.endswith("are not there")


@pytest.mark.parametrize(
    ("storage", "mode"),
    [
        (StoragePlugin.MCAP, CompressionMode.MESSAGE),
        (StoragePlugin.MCAP, CompressionMode.FILE),
        (StoragePlugin.MCAP, CompressionMode.STORAGE),
        (StoragePlugin.SQLITE3, CompressionMode.MESSAGE),
        (StoragePlugin.SQLITE3, CompressionMode.FILE),
    ],
)
def test_bags_that_rosbag2_compressed_are_read(bag, tmp_path, storage, mode):
    writer = Writer(tmp_path / "packed", version=8, storage_plugin=storage)
    writer.set_compression(mode, CompressionFormat.ZSTD)
    store = get_typestore(Stores.ROS2_JAZZY)
    with AnyReader([bag], default_typestore=store) as reader, writer:
        topics = {
            c.topic: writer.add_connection(c.topic, c.msgtype, typestore=store) for c in reader.connections
        }
        for connection, log_ns, data in reader.messages():
            writer.write(topics[connection.topic], log_ns, data)
    packed, plain = open_source(tmp_path / "packed"), open_source(bag)
    assert [r.stamp_ns for r in packed.records] == [r.stamp_ns for r in plain.records]
    assert packed.records[3].T_map_cam is not None
    np.testing.assert_array_equal(packed.read(5).image, plain.read(5).image)
