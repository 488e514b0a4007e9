"""The families beside the hierarchical method: retrieval, relative poses, local maps; scenes of posed images."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from localizer_ros.cli.main import app
from localizer_ros.core.config.map_based import SearchConfig
from localizer_ros.core.config.mapping import MapConfig
from localizer_ros.core.config.runtime import LocalizerConfig
from localizer_ros.core.config.schema import config_from_dict
from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import Camera, ConfigError, Frame, SourceError
from localizer_ros.datasets.derived import FirstFrames
from localizer_ros.datasets.simulated import SimulatedSource, WorldConfig
from localizer_ros.features.matchers import MutualMatcher
from localizer_ros.localization.map_based import local_points as local_map
from localizer_ros.localization.map_based.front_end import open_map_front_end
from localizer_ros.localization.map_based.hierarchical import HierarchicalLocalizer
from localizer_ros.localization.map_based.local_map import LocalMapLocalizer
from localizer_ros.localization.map_based.local_points import LocalMaps, epipolar_distances
from localizer_ros.localization.map_based.pose_interpolation import RetrievalLocalizer, motion_weights
from localizer_ros.localization.map_based.relative_pose import RelativeLocalizer
from localizer_ros.localization.map_based.reranking import MatchedImage, matched_images
from localizer_ros.mapping.build import build_scene
from localizer_ros.scene.map_scene import MapScene

WORLD = {"duration_s": 4.0, "fps": 8.0, "width_px": 240, "height_px": 180, "moving_objects": 0}


@pytest.fixture(scope="module")
def drive() -> SimulatedSource:
    return SimulatedSource(config_from_dict(WorldConfig, WORLD))


@pytest.fixture(scope="module")
def queries() -> SimulatedSource:
    """The same drive at other times."""
    return SimulatedSource(config_from_dict(WorldConfig, {**WORLD, "fps": 3.3}))


@pytest.fixture(scope="module")
def scenes(drive: SimulatedSource, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("families")
    for method in ("relative", "local", "retrieval"):
        config = config_from_dict(
            MapConfig, {"method": method, "structure": {"retrieval": {"words": 16, "kind": "vlad"}}}
        )
        build_scene(drive, "all", config, folder / method)
    return {method: folder / method for method in ("relative", "local", "retrieval")}


def errors(
    scene: Path, method: str, queries: SimulatedSource, **settings: object
) -> list[tuple[float, float]]:
    """Metres and degrees of every answered frame."""
    config = LocalizerConfig(search=config_from_dict(SearchConfig, settings))
    front_end = open_map_front_end(scene, method, config)
    found = []
    for index, record in enumerate(queries.records):
        observation = front_end.observe(queries.read(index), None)
        answer, truth = observation.absolute, record.T_map_cam
        assert answer is not None or observation.reason
        if answer is not None and truth is not None:
            assert answer.source == method and answer.covariance is not None
            assert np.linalg.eigvalsh(answer.covariance)[0] > 0.0
            found.append(
                (truth.distance_to(answer.T_map_cam), float(np.degrees(truth.angle_to(answer.T_map_cam))))
            )
    return found


@pytest.mark.parametrize(
    ("method", "limit_m", "limit_deg"),
    [("relative", 0.05, 1.0), ("local", 0.03, 0.6), ("retrieval", 0.06, 1.0)],
)
def test_frames_between_the_mapped_ones_are_found(
    scenes: dict[str, Path], queries: SimulatedSource, method: str, limit_m: float, limit_deg: float
) -> None:
    found = errors(scenes[method], method, queries)
    assert len(found) >= len(queries.records) - 1
    # An image of a drive at 8 Hz and 0.6 m/s is up to 4 cm from the next frame asked for.
    assert np.median([t for t, _ in found]) < limit_m
    assert np.median([r for _, r in found]) < limit_deg


@pytest.mark.parametrize("kind", ["nearest", "equal", "cosine", "barycentric"])
@pytest.mark.parametrize("rerank", ["auto", "never"])
def test_every_interpolation_answers(
    scenes: dict[str, Path], queries: SimulatedSource, kind: str, rerank: str
) -> None:
    found = errors(
        scenes["retrieval"],
        "retrieval",
        queries,
        interpolation=kind,
        rerank=rerank,
        interpolation_neighbours=4,
    )
    assert len(found) >= len(queries.records) - 1
    assert np.median([t for t, _ in found]) < 0.5


def seen(T: SE3, points: np.ndarray) -> np.ndarray:
    p = T.inverse() @ points
    return np.asarray(p[:, :2] / p[:, 2:])


def test_motion_weights_find_the_query_between_and_beyond_the_images(rng: np.random.Generator) -> None:
    points = rng.uniform(-1, 1, (80, 3)) * [2.0, 1.5, 0.3] + [0.0, 0.0, 3.0]
    along = [0.0, 0.02, 0.05, 0.01, 0.1, 0.0]
    for position in (0.4, 1.6):
        query = seen(SE3.exp(np.multiply(along, position)), points)
        images = [
            MatchedImage(n, query, seen(SE3.exp(np.multiply(along, at)), points))
            for n, at in enumerate((0.0, 1.0))
        ]
        weights = motion_weights(images, np.array([0.7, 0.5]))
        assert weights.sum() == pytest.approx(1.0)
        # Affine motion is a model: it holds to a few percent of the distance here.
        assert weights @ [0.0, 1.0] == pytest.approx(position, abs=0.12)


def test_an_image_with_few_matches_weighs_less(rng: np.random.Generator) -> None:
    points = rng.uniform(-1, 1, (200, 3)) * [2.0, 1.5, 0.3] + [0.0, 0.0, 3.0]
    query, left, right = (seen(SE3.exp([0, 0, 0, x, 0, 0]), points) for x in (0.0, -0.1, 0.1))
    few = motion_weights(
        [MatchedImage(0, query[:4], left[:4]), MatchedImage(1, query, right)], np.array([0.7, 0.5])
    )
    many = motion_weights([MatchedImage(0, query, left), MatchedImage(1, query, right)], np.array([0.7, 0.5]))
    assert few[0] < many[0] == pytest.approx(0.5, abs=0.05)


def test_reranking_puts_the_nearest_view_first(scenes: dict[str, Path], queries: SimulatedSource) -> None:
    scene = MapScene.open(scenes["retrieval"])
    truth = queries.records[-1].T_map_cam
    assert truth is not None
    distance = scene.point_map.view_distances(truth)
    everything = list(range(len(scene.point_map.names)))
    view = scene.view(queries.read(len(queries.records) - 1), 1000, fine=False)
    found = matched_images(scene, view, everything[::-1], MutualMatcher(0.9), SearchConfig())
    assert [len(m) for m in found] == sorted((len(m) for m in found), reverse=True)
    assert distance[found[0].image] <= np.sort(distance)[2]


def test_reranked_full_search_answers_the_same(scenes: dict[str, Path], queries: SimulatedSource) -> None:
    scene, frame = MapScene.open(scenes["relative"]), queries.read(5)
    plain = HierarchicalLocalizer(scene, SearchConfig()).localize(frame, None)
    reranked = HierarchicalLocalizer(scene, SearchConfig(rerank="always")).localize(frame, None)
    assert plain is not None and reranked is not None
    assert plain.T_map_cam.distance_to(reranked.T_map_cam) < 0.01


def test_scenes_of_posed_images_hold_no_points_and_name_no_places(scenes: dict[str, Path]) -> None:
    for method in ("local", "retrieval"):
        structure = MapScene.open(scenes[method]).point_map
        assert len(structure.points) == 0 and len(structure.observation_point) > 500
        assert np.all(structure.observation_point == -1)
        assert 0.5 < structure.median_depth < 10.0
        manifest = yaml.safe_load((scenes[method] / "scene.yaml").read_text())
        assert manifest["map"]["validation"]["beyond_deg"] > 0.0
    text = "".join(file.read_text() for folder in scenes.values() for file in folder.rglob("*.yaml"))
    assert str(scenes["local"].parent) not in text
    assert CliRunner().invoke(app, ["info", str(scenes["local"])]).exit_code == 0


def test_points_of_a_local_map_lie_on_what_the_images_show(
    scenes: dict[str, Path], drive: SimulatedSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = MapScene.open(scenes["local"])
    maps = LocalMaps(scene, MutualMatcher(0.85))
    images = range(len(scene.point_map.names))
    local = maps.around(images)
    assert len(local.points) > 50
    index = {record.name: n for n, record in enumerate(drive.records)}
    off: list[float] = []
    for image, T in enumerate(local.T_map_refined):
        seen_here = local.observation_image == image
        depth = (local.points[local.observation_point[seen_here]] - T[:3, 3]) @ T[:3, 2]
        column, row = np.rint(local.observation_xy_px[seen_here]).astype(int).T
        off.extend(np.abs(depth * drive.render(index[local.names[image]])[1][row, column] - 1.0))
    # The rays of a point meet at 1.5 degrees at least.
    assert np.median(off) < 0.05
    assert maps.around(reversed(images)) is local
    monkeypatch.setattr(local_map, "_MAPS_KEPT", 2)
    for n in range(3):
        maps.around([n, n + 1, n + 2])
    assert maps.around(images) is not local


def test_matches_lie_on_their_epipolar_lines(rng: np.random.Generator) -> None:
    points = rng.uniform(-1, 1, (40, 3)) + np.array([0.0, 0.0, 4.0])
    a, b = SE3.identity(), SE3.exp([0.02, -0.05, 0.01, 0.4, 0.1, 0.05])
    T_b_a = (b.inverse() @ a).matrix()
    assert epipolar_distances(T_b_a, seen(a, points), seen(b, points)).max() < 1e-9
    off = epipolar_distances(T_b_a, seen(a, points), seen(b, points) + np.array([0.0, 0.01]))
    assert 0.005 < np.median(off) < 0.0101


def test_a_frame_without_features_has_a_reason(scenes: dict[str, Path]) -> None:
    blank = Frame(0, np.full((180, 240), 90, np.uint8), Camera.pinhole(240, 180, 150, 150, 120, 90))
    for method in scenes:
        front_end = open_map_front_end(scenes[method], method, LocalizerConfig())
        observation = front_end.observe(blank, None)
        assert observation.absolute is None and observation.reason


def test_frames_of_another_place_are_not_answered(scenes: dict[str, Path]) -> None:
    elsewhere = SimulatedSource(config_from_dict(WorldConfig, {**WORLD, "place": "hall", "seed": 5}))
    for method in scenes:
        assert errors(scenes[method], method, FirstFrames(elsewhere, 3)) == []  # type: ignore[arg-type]


def test_impossible_settings_are_one_line(
    scenes: dict[str, Path], drive: SimulatedSource, tmp_path: Path
) -> None:
    scene = MapScene.open(scenes["retrieval"])
    with pytest.raises(ConfigError, match=r"interpolation: motion needs .*rerank"):
        RetrievalLocalizer(scene, SearchConfig(rerank="never"))
    for localizer in (RetrievalLocalizer, RelativeLocalizer, LocalMapLocalizer, HierarchicalLocalizer):
        with pytest.raises(ConfigError, match=r"lightglue needs the network"):
            localizer(scene, SearchConfig(matcher="lightglue"))
    with pytest.raises(ConfigError, match="direct"):
        HierarchicalLocalizer(scene, SearchConfig(matcher="lightglue"), direct=True)
    with pytest.raises(SourceError, match="expected at least 3"):
        config = config_from_dict(MapConfig, {"method": "local"})
        build_scene(FirstFrames(drive, 2), "all", config, tmp_path / "scene")
    assert not (tmp_path / "scene").exists()
