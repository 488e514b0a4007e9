"""A bag is read in any order and process, of any storage, or refused in one line."""

from __future__ import annotations

import gc
import subprocess
import sys
import warnings

import numpy as np
import pytest

from localizer_ros.core.types import SourceError
from localizer_ros.datasets.convert import write_bag
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


def test_reading_in_any_order(bag, world, rng):
    source = open_source(bag)
    for index in rng.integers(0, 12, 40).tolist():
        np.testing.assert_array_equal(source.read(index).image, world.read(index).image)


def test_reading_in_forked_and_pickled_copies(bag):
    # In an interpreter of its own: forking one in which inference engines have started threads crashes in them.
    subprocess.run([sys.executable, "-c", FORKED, str(bag)], check=True, timeout=120)


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


def test_a_bag_nobody_uses_is_closed(bag):
    source = open_source(bag)
    assert source.read(3).image.size
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del source
        gc.collect()
    assert [w for w in caught if "drive" in str(w.message)] == []
