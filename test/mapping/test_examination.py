"""A map examines itself."""

from pathlib import Path

import numpy as np
import pytest

from localizer_ros.core.progress import no_progress
from localizer_ros.datasets.source import FrameSource
from localizer_ros.mapping.examination import Sample, examine, exchanged_tiles, is_right, looks_alike
from localizer_ros.mapping.keyframes import Keyframes, posed_frames
from localizer_ros.scene.bundle import MAP_FOLDER
from localizer_ros.scene.confidence import FILE, Evidence
from localizer_ros.scene.map_scene import MapScene


def test_the_examination_of_a_map_is_kept_in_its_scene(tiny_map: Path, tiny_source: FrameSource) -> None:
    scene = MapScene.open(tiny_map)
    assert (tiny_map / MAP_FOLDER / FILE).is_file()
    assert f"{MAP_FOLDER}/{FILE}" in (tiny_map / "scene.yaml").read_text(encoding="utf-8")
    posed, T = posed_frames(tiny_source)
    names = tuple(tiny_source.records[i].name for i in posed)
    chosen = np.array([names.index(name) for name in scene.point_map.names])
    keyframes = Keyframes(posed, T, names, chosen, chosen, scene.point_map.median_depth)
    first, again = (examine(scene, tiny_source, keyframes, 0, no_progress, groups=1) for _ in range(2))
    assert [s.evidence for s in first] == [s.evidence for s in again]
    assert any(s.right for s in first) and {s.evidence.fine for s in first} == {False, True}
    assert all(s.right or s.kind != "hidden" or s.error is not None for s in first)
    assert not any(s.right for s in first if s.kind == "tiles")
    near, far = (max(f(s.evidence.beyond_rad for s in first), 0.0) for f in (min, max))
    assert near < far


@pytest.mark.parametrize("shape", [(48, 72), (50, 75, 3)])
def test_every_tile_of_an_exchanged_image_lies_elsewhere(
    rng: np.random.Generator, shape: tuple[int, ...]
) -> None:
    image = rng.integers(0, 255, shape, dtype=np.uint8)
    changed = exchanged_tiles(image, rng)
    assert changed.shape == image.shape and changed.dtype == np.uint8
    for y in range(0, 48, 12):
        for x in range(0, 72, 12):
            assert not np.array_equal(changed[y : y + 12, x : x + 12], image[y : y + 12, x : x + 12])
    assert np.array_equal(np.sort(changed[:48, :72].ravel()), np.sort(image[:48, :72].ravel()))


@pytest.mark.parametrize(
    ("error", "depth_m", "right"),
    [
        ([0.0, 0.0, 0.0, 0.4, 0.0, 0.0], 20.0, True),
        ([0.0, 0.0, 0.0, 0.6, 0.0, 0.0], 20.0, False),  # further than an evaluation calls right
        ([0.0, 0.0, 0.0, 0.4, 0.0, 0.0], 2.0, False),  # another view of so near a place
        ([0.1, 0.0, 0.0, 0.0, 0.0, 0.0], 2.0, False),
    ],
)
def test_right_is_near_in_metres_and_for_the_depth(error: list[float], depth_m: float, right: bool) -> None:
    assert is_right(np.array(error), depth_m) is right


def test_a_place_that_looks_the_same_says_nothing_of_evidence() -> None:
    def sample(inliers: int, away_m: float, right: bool = False) -> Sample:
        error = np.array([0.0, 0.0, 0.0, away_m, 0.0, 0.0])
        return Sample(
            Evidence(inliers, 900, 0.5, 2.0, 30.0, 0.0),
            error,
            np.eye(6),
            right,
            away_m > 1.0,
            right,
            "hidden",
        )

    best = sample(200, 0.01, right=True)
    assert looks_alike(sample(150, 30.0), [best])
    assert not looks_alike(sample(20, 30.0), [best])  # it explains little
    assert not looks_alike(sample(150, 0.6), [best])  # it is the same place
    assert not looks_alike(best, [best])
