"""Extractors and matchers that a model card describes: small networks made here, and XFeat with LighterGlue."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import yaml
from onnx import TensorProto, helper, numpy_helper

from localizer_ros.core.config.map_based import SearchConfig
from localizer_ros.core.config.mapping import MapConfig
from localizer_ros.core.config.schema import config_from_dict
from localizer_ros.core.types import BackendError, ConfigError
from localizer_ros.datasets.simulated import SimulatedSource, WorldConfig
from localizer_ros.features.matchers import LightGlueMatcher, MutualMatcher, Side, open_matcher
from localizer_ros.features.onnx_extractor import OnnxExtractor
from localizer_ros.localization.map_based.hierarchical import HierarchicalLocalizer
from localizer_ros.localization.map_based.relative_pose import RelativeLocalizer
from localizer_ros.mapping.build import build_scene
from localizer_ros.scene.map_scene import MapScene


def unit(rng: np.random.Generator, count: int, dimensions: int = 64) -> np.ndarray:
    values = rng.normal(size=(count, dimensions)).astype(np.float32)
    return np.asarray(values / np.linalg.norm(values, axis=1, keepdims=True))


def write(
    folder: Path, nodes: list[Any], inputs: list[Any], outputs: list[Any], card: dict[str, Any]
) -> Path:
    """A network with its card; returns the card's path."""
    graph = helper.make_graph(nodes, "small", inputs, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(model, folder / "network.onnx")
    path = folder / "network.yaml"
    path.write_text(yaml.safe_dump({"network": "network.onnx", **card}))
    return path


def value(name: str, kind: int, shape: list[Any]) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


def constant(name: str, array: np.ndarray) -> Any:
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(array, name))


def small_matcher(folder: Path, **changes: Any) -> Path:
    """Each keypoint's most alike, alike meaning descriptors less the squared distance of the coordinates given."""
    nodes = [
        helper.make_node("Transpose", ["desc1"], ["desc1_t"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["desc0", "desc1_t"], ["alike"]),
        constant("two", np.array([2], np.int64)),
        constant("one", np.array([1], np.int64)),
        helper.make_node("Unsqueeze", ["kpts0", "two"], ["k0"]),
        helper.make_node("Unsqueeze", ["kpts1", "one"], ["k1"]),
        helper.make_node("Sub", ["k0", "k1"], ["apart"]),
        helper.make_node("ReduceSumSquare", ["apart"], ["distance"], axes=[3], keepdims=0),
        helper.make_node("Sub", ["alike", "distance"], ["score"]),
        helper.make_node("ArgMax", ["score"], ["best"], axis=2, keepdims=1),
        helper.make_node("ReduceMax", ["score"], ["best_score"], axes=[2], keepdims=0),
        helper.make_node("Squeeze", ["best_score"], ["scores"]),
        constant("zero", np.array(0, np.int64)),
        constant("step", np.array(1, np.int64)),
        helper.make_node("Shape", ["kpts0"], ["count3"], start=1, end=2),
        helper.make_node("Squeeze", ["count3"], ["count"]),
        helper.make_node("Range", ["zero", "count", "step"], ["row"]),
        helper.make_node("Unsqueeze", ["row", "one"], ["rows"]),
        constant("batch", np.array([0], np.int64)),
        helper.make_node("Squeeze", ["best", "batch"], ["column"]),
        helper.make_node("Concat", ["rows", "column"], ["matches"], axis=1),
    ]
    inputs = [value(f"kpts{n}", TensorProto.FLOAT, [1, f"n{n}", 2]) for n in (0, 1)]
    inputs += [value(f"desc{n}", TensorProto.FLOAT, [1, f"n{n}", 64]) for n in (0, 1)]
    outputs = [value("matches", TensorProto.INT64, ["m", 2]), value("scores", TensorProto.FLOAT, ["m"])]
    card = {
        "keypoints": ["kpts0", "kpts1"],
        "descriptors": ["desc0", "desc1"],
        "matches": "matches",
        "scores": "scores",
        "min_score": 0.5,
        "dimensions": 64,
    }
    return write(folder, nodes, inputs, outputs, {**card, **changes})


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


# Corners and an inner point of any image, in the coordinates of ALIKED.
SIGNED_UNIT = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1], [0.5, -0.25]], dtype=np.float32)


def small_extractor(folder: Path, height: Any = "h", width: Any = "w", **changes: Any) -> Path:
    """Fixed keypoints in -1..1, descriptors that are the colours there, as (1, D, N)."""
    nodes = [
        constant("grid", SIGNED_UNIT[None, None]),
        helper.make_node(
            "GridSample",
            ["image", "grid"],
            ["sampled"],
            align_corners=1,
            mode="bilinear",
            padding_mode="border",
        ),
        constant("two", np.array([2], np.int64)),
        helper.make_node("Squeeze", ["sampled", "two"], ["descriptors"]),
        constant("keypoints", SIGNED_UNIT[None]),
        constant("scores", np.array([[0.1, 0.2, 0.3, 0.4, 0.5]], np.float32)),
    ]
    outputs = [
        value("keypoints", TensorProto.FLOAT, [1, 5, 2]),
        value("descriptors", TensorProto.FLOAT, [1, "c", 5]),
        value("scores", TensorProto.FLOAT, [1, 5]),
    ]
    channels = changes.get("channels", 3)
    card = {
        "input": "image",
        "multiple_of": 1,
        "keypoints": "keypoints",
        "coordinates": "signed_unit",
        "descriptors": "descriptors",
        "scores": "scores",
        "dimensions": channels,
    }
    inputs = [value("image", TensorProto.FLOAT, [1, channels, height, width])]
    return write(folder, nodes, inputs, outputs, {**card, **changes})


def gradient(height: int, width: int) -> np.ndarray:
    """Red grows to the right, green downwards, blue is constant."""
    image = np.full((height, width, 3), 128, np.uint8)
    image[:, :, 0] = np.linspace(20, 250, width)
    image[:, :, 1] = np.linspace(20, 250, height)[:, None]
    return image


@pytest.mark.parametrize("fixed", [False, True])
def test_an_extractor_of_the_kind_of_aliked_fits_its_card(tmp_path: Path, fixed: bool) -> None:
    # A network of one fixed size is given that, whatever the image's.
    extractor = OnnxExtractor(small_extractor(tmp_path, *((60, 80) if fixed else ())), 1280)
    image = gradient(120, 160)
    features = extractor.extract(image, 4, fine=True)
    # The four strongest, the strongest first: the inner point, then corners backwards.
    expected = ((SIGNED_UNIT[[4, 3, 2, 1]] + 1.0) / 2.0) * [159.0, 119.0]
    assert np.abs(features.xy_px - expected).max() < (1.0 if fixed else 1e-3)
    assert np.allclose(np.linalg.norm(features.descriptors, axis=1), 1.0, atol=1e-6)
    for xy, descriptor in zip(features.xy_px, features.descriptors, strict=True):
        colour = image[round(float(xy[1])), round(float(xy[0]))].astype(float)
        assert np.abs(descriptor - colour / np.linalg.norm(colour)).max() < 0.02


def test_a_grey_extractor_without_scores(tmp_path: Path) -> None:
    card = small_extractor(tmp_path, channels=1)
    values = yaml.safe_load(card.read_text())
    del values["scores"]
    card.write_text(yaml.safe_dump(values))
    features = OnnxExtractor(card, 1280).extract(gradient(30, 40), 3, fine=False)
    # In the network's order.
    assert np.abs(features.xy_px - [[0, 0], [39, 0], [39, 29]]).max() < 1e-3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"channels": 2}, "expected 1 or 3"),
        ({"coordinates": "inches"}, "pixels or signed_unit"),
        ({"dimensions": 7}, "the card says 7 dimensions"),
    ],
)
def test_a_wrong_card_of_an_extractor_is_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BackendError, match=message):
        OnnxExtractor(small_extractor(tmp_path, **changes), 1280).extract(gradient(30, 40), 10, fine=False)


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
