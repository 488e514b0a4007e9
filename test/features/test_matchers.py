"""Matchers behind one interface, by descriptors and by a network that a model card describes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from small_networks import small_matcher

from localizer_ros.core.config.map_based import SearchConfig
from localizer_ros.core.config.mapping import MapConfig
from localizer_ros.core.config.schema import config_from_dict
from localizer_ros.core.types import BackendError, ConfigError
from localizer_ros.datasets.simulated import SimulatedSource, WorldConfig
from localizer_ros.features.matchers import LightGlueMatcher, MutualMatcher, Side, open_matcher
from localizer_ros.localization.map_based.hierarchical import HierarchicalLocalizer
from localizer_ros.localization.map_based.relative_pose import RelativeLocalizer
from localizer_ros.mapping.build import build_scene
from localizer_ros.scene.map_scene import MapScene


def unit(rng: np.random.Generator, count: int, dimensions: int = 64) -> np.ndarray:
    values = rng.normal(size=(count, dimensions)).astype(np.float32)
    return np.asarray(values / np.linalg.norm(values, axis=1, keepdims=True))


def test_a_matching_network_is_given_what_its_card_says(rng: np.random.Generator, tmp_path: Path) -> None:
    descriptors = unit(rng, 40)
    xy = rng.uniform(0, [320, 240], (40, 2)).astype(np.float32)
    order = rng.permutation(40)
    # The same view at another size: normalised coordinates agree, pixels do not.
    a, b = Side(xy, descriptors, (320, 240)), Side(2.0 * xy[order], descriptors[order], (640, 480))
    pairs = LightGlueMatcher(small_matcher(tmp_path / "n")).match(a, b)
    assert len(pairs) == 40 and np.array_equal(order[pairs[:, 1]], pairs[:, 0])
    pixels = LightGlueMatcher(small_matcher(tmp_path / "p", coordinates="pixels"))
    assert len(pixels.match(a, b)) < 5
    assert len(pixels.match(a, Side(xy, descriptors, (320, 240)))) == 40
    nothing = Side(xy[:0], descriptors[:0], (320, 240))
    assert LightGlueMatcher(small_matcher(tmp_path / "e")).match(a, nothing).shape == (0, 2)


def test_matchers_share_one_interface(rng: np.random.Generator, tmp_path: Path) -> None:
    descriptors = unit(rng, 30)
    side = Side(rng.uniform(0, 100, (30, 2)).astype(np.float32), descriptors, (100, 100))
    mutual, network = (open_matcher(k, 0.9, small_matcher(tmp_path)) for k in ("mutual", "lightglue"))
    assert isinstance(mutual, MutualMatcher) and isinstance(network, LightGlueMatcher)
    for matcher in (mutual, network):
        pairs = matcher.match(side, side)
        assert pairs.dtype == np.intp and np.array_equal(pairs[:, 0], pairs[:, 1]) and len(pairs) == 30
    with pytest.raises(ConfigError, match=r"lightglue needs the network"):
        open_matcher("lightglue", 0.9, tmp_path / "elsewhere.yaml")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"keypoints": "kpts0"}, "names of two inputs"),
        ({"coordinates": "furlongs"}, "normalised or pixels"),
        ({"sha256": "0"}, "sha256 differs"),
        ({"network": "other.onnx"}, r"other\.onnx: is missing"),
        ({"matches": "pairs"}, "pairs"),
    ],
)
def test_a_wrong_card_of_a_matcher_is_named(
    rng: np.random.Generator, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    side = Side(np.zeros((3, 2), np.float32), unit(rng, 3), (9, 9))
    with pytest.raises(BackendError, match=message):
        LightGlueMatcher(small_matcher(tmp_path, **changes)).match(side, side)


def test_a_matcher_of_other_descriptors_is_refused_before_mapping(tmp_path: Path) -> None:
    world = config_from_dict(WorldConfig, {"duration_s": 1.0, "width_px": 64, "height_px": 64})
    structure = {"matcher": {"card": str(small_matcher(tmp_path))}}
    config = config_from_dict(MapConfig, {"structure": structure})
    with pytest.raises(ConfigError, match="length 64, but the extractor's have 128"):
        build_scene(SimulatedSource(world), "all", config, tmp_path / "scene")
    for method, message in (
        ("relative", r"matcher\.card: kind lightglue needs"),
        ("local", "method local does not"),
    ):
        config = config_from_dict(
            MapConfig, {"method": method, "structure": {"matcher": {"kind": "lightglue"}}}
        )
        with pytest.raises(ConfigError, match=message):
            build_scene(SimulatedSource(world), "all", config, tmp_path / "scene")
    assert not (tmp_path / "scene").exists()


@pytest.mark.slow
def test_xfeat_maps_and_lighterglue_localises(shared_dir: Path, tmp_path: Path) -> None:
    weights = shared_dir / "weights"
    if not (weights / "lighterglue_xfeat_L3.onnx").is_file():
        pytest.skip("needs XFeat and LighterGlue among the shared weights")
    xfeat, lighterglue = tmp_path / "xfeat.yaml", tmp_path / "lighterglue.yaml"
    outputs = {name: name for name in ("keypoints", "descriptors", "scores")}
    network = {"input": "images", "multiple_of": 32, "dimensions": 64, **outputs}
    xfeat.write_text(yaml.safe_dump({"network": str(weights / "xfeat_sparse_2048.onnx"), **network}))
    network = {"keypoints": ["kpts0", "kpts1"], "descriptors": ["desc0", "desc1"], "dimensions": 64}
    network |= {"matches": "matches", "scores": "scores"}
    lighterglue.write_text(yaml.safe_dump({"network": str(weights / "lighterglue_xfeat_L3.onnx"), **network}))
    world = {"duration_s": 4.0, "fps": 4.0, "width_px": 320, "height_px": 240, "moving_objects": 0}
    source = SimulatedSource(config_from_dict(WorldConfig, world))
    structure = {
        "features": {"kind": "onnx", "card": str(xfeat), "max_keypoints": 600},
        "matcher": {"card": str(lighterglue)},
        "retrieval": {"words": 16},
    }
    config = config_from_dict(MapConfig, {"structure": structure})
    build_scene(source, "all", config, tmp_path / "scene")
    # The scene has taken both networks along: what they were copied from is no longer needed.
    xfeat.unlink()
    lighterglue.unlink()
    scene = MapScene.open(tmp_path / "scene")
    queries = SimulatedSource(config_from_dict(WorldConfig, {**world, "fps": 3.0}))
    settings = SearchConfig(matcher="lightglue", neighbours=3, relative_neighbours=3)
    for localizer in (HierarchicalLocalizer(scene, settings), RelativeLocalizer(scene, settings)):
        for index in (5, 10):
            truth = queries.records[index].T_map_cam
            result = localizer.localize(queries.read(index), None)
            answer = result.answer
            assert answer is not None and truth is not None, result.reason
            assert truth.distance_to(answer.T_map_cam) < 0.08
            assert truth.angle_to(answer.T_map_cam) < np.radians(1.0)
