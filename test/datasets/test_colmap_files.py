"""Damaged COLMAP models: each is refused by name, before pycolmap believes what it says."""

from __future__ import annotations

import os
import struct

import pytest
from small_recordings import picture, write

from localizer_ros.core.types import SourceError
from localizer_ros.datasets.images import encode_png
from localizer_ros.datasets.source import open_source


@pytest.fixture
def model(tmp_path):
    """Two images and a point, binary; the folder of the model."""
    pycolmap = pytest.importorskip("pycolmap")
    text, sparse = tmp_path / "text", tmp_path / "sparse" / "0"
    write(text / "cameras.txt", "1 OPENCV 64 48 50 51 32 24.5 0.1 -0.05 0.001 0.002\n")
    rows = [f"{i} 1 0 0 0 {i} 0 0 1 {i}.png\n10 20 1\n" for i in (1, 2)]
    write(text / "images.txt", "".join(rows))
    write(text / "points3D.txt", "1 1 2 3 255 255 255 0.5 1 0 2 0\n")
    for i in (1, 2):
        write(tmp_path / "images" / f"{i}.png", encode_png(picture(i)))
    sparse.mkdir(parents=True)
    pycolmap.Reconstruction(text).write_binary(sparse)
    assert len(open_source(tmp_path).records) == 2
    return sparse


FILES = ("cameras", "images", "points3D", "rigs", "frames")


@pytest.mark.parametrize("name", FILES)
def test_a_cut_or_longer_file_is_refused_by_name(model, name):
    file = model / f"{name}.bin"
    whole = file.read_bytes()
    for damaged in (*(whole[:end] for end in range(len(whole))), whole + b"\0"):
        file.write_bytes(damaged)
        with pytest.raises(SourceError, match=rf"{name}\.bin: "):
            open_source(model.parents[1])


@pytest.mark.parametrize("name", FILES)
def test_a_count_beyond_the_file_is_refused(model, name):
    file = model / f"{name}.bin"
    whole = file.read_bytes()
    for count in (1000, 2**40, 2**64 - 1):
        file.write_bytes(struct.pack("<Q", count) + whole[8:])
        with pytest.raises(SourceError, match=r"promises|cut off"):
            open_source(model.parents[1])


def test_a_camera_of_no_model_and_an_image_of_no_camera(model):
    file = model / "cameras.bin"
    whole = file.read_bytes()
    file.write_bytes(whole[:12] + struct.pack("<i", 99) + whole[16:])
    with pytest.raises(SourceError, match=r"cameras\.bin: there is no camera model of number 99"):
        open_source(model.parents[1])
    file.write_bytes(whole[:8] + struct.pack("<i", 7) + whole[12:])
    with pytest.raises(SourceError, match="COLMAP model"):
        open_source(model.parents[1])


@pytest.mark.parametrize("name", FILES[1:])
def test_what_would_never_end_is_not_read(model, name):
    file = model / f"{name}.bin"
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(SourceError, match=rf"{name}\.bin: cannot be read \(not a regular file\)"):
        open_source(model.parents[1])
