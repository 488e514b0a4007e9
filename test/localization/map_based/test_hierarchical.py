"""Full search: in a map of a real recording, and where two places explain one image."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kitchen import Kitchen
from scipy.sparse import csr_array
from synthetic_map import CAMERA, synthetic_map, view_from

from localizer_ros.core.config.map_based import SearchConfig
from localizer_ros.core.config.runtime import LocalizerConfig
from localizer_ros.core.se3 import SE3
from localizer_ros.core.timing import StageTimer
from localizer_ros.core.types import Camera, Frame
from localizer_ros.datasets.source import open_source
from localizer_ros.geometry.pose_solver import SolvedPose
from localizer_ros.localization.map_based.front_end import open_map_front_end
from localizer_ros.localization.map_based.hierarchical import HierarchicalLocalizer, PlaceSearch
from localizer_ros.localization.map_based.places import Places
from localizer_ros.localization.map_based.verification import PoseVerifier, VerifiedPose
from localizer_ros.scene.confidence import Evidence
from localizer_ros.scene.map_scene import MapScene


@pytest.mark.slow
@pytest.mark.parametrize("direct", [False, True])
def test_full_search_finds_frames_between_the_mapped_ones(kitchen: Kitchen, direct: bool) -> None:
    localizer = HierarchicalLocalizer(MapScene.open(kitchen.scene), SearchConfig(), direct)
    found = []
    for index in range(0, 20, 5):
        result = localizer.localize(kitchen.queries.read(index), None)
        answer = result.answer
        assert answer is not None, result.reason
        assert result.verified is not None and result.verified.solved.count == answer.inliers
        assert set(result.timings_ms) >= {"extract", "match", "solve", "verify"}
        assert answer.covariance is not None
        assert np.linalg.eigvalsh(answer.covariance)[0] > 0.0
        found.append(kitchen.errors(index, answer))
    # Poses of the recording are good to a few centimetres.
    assert np.median([t for t, _ in found]) < 0.04
    assert np.median([r for _, r in found]) < 1.5


@pytest.mark.slow
def test_frames_of_another_place_have_no_answer_but_a_reason(kitchen: Kitchen, shared_dir: Path) -> None:
    elsewhere = open_source(shared_dir / "data" / "tum_fr1_rpy")
    front_end = open_map_front_end(kitchen.scene, "hierarchical", LocalizerConfig())
    for index in (0, 300, 600):
        observation = front_end.observe(elsewhere.read(index), None)
        assert observation.absolute is None
        assert observation.relative is None
        assert observation.reason
    blank = Frame(0, np.full((480, 640), 90, np.uint8), Camera.pinhole(640, 480, 525, 525, 320, 240))
    assert "too few keypoints" in front_end.observe(blank, None).reason


@pytest.mark.slow
@pytest.mark.parametrize("method", ["retrieval", "relative"])
def test_methods_without_points_answer_nearby(kitchen: Kitchen, method: str) -> None:
    front_end = open_map_front_end(kitchen.scene, method, LocalizerConfig())
    found = []
    for index in range(0, 20, 5):
        observation = front_end.observe(kitchen.queries.read(index), None)
        if observation.absolute is not None:
            found.append(kitchen.errors(index, observation.absolute)[0])
    assert len(found) >= 3
    assert np.median(found) < (0.3 if method == "retrieval" else 0.12)


def verified(T: SE3, inliers: int, confidence: float, agrees: bool | None = None) -> VerifiedPose:
    nothing: Any = np.zeros(0)
    solved = SolvedPose(T, np.eye(6), np.ones(inliers, dtype=bool), np.zeros(inliers))
    evidence = Evidence(inliers, inliers, 0.5, 1.0, 30.0, 0.0, agrees=agrees)
    return VerifiedPose(solved, nothing, nothing, nothing, nothing, T, np.eye(6), evidence, confidence)


@pytest.mark.parametrize("depth_m", [0.5, 4.0, 40.0])
@pytest.mark.parametrize(
    ("of_depth", "turn_rad", "rivals"), [(0.05, 0.0, False), (0.2, 0.0, True), (0.0, 0.2, True)]
)
def test_a_rival_that_is_far_off_for_the_depth_of_the_scene_lowers_confidence(
    rng: np.random.Generator, depth_m: float, of_depth: float, turn_rad: float, rivals: bool
) -> None:
    point_map = synthetic_map(rng, depth_m=depth_m)
    scene = MapScene(point_map, None, None, None)  # type: ignore[arg-type]
    verifier = PoseVerifier(scene, 12)
    apart = SE3.exp([0, turn_rad, 0, 0, 0, of_depth * point_map.median_depth])
    best = verifier.surest([verified(apart, 50, 0.6), verified(SE3.identity(), 50, 0.9)], 0.98)
    assert best.solved.T_map_refined.distance_to(SE3.identity()) == 0.0
    assert best.evidence.rival == (50 if rivals else 0)
    # A coin decides between two places that explain the image alike, as far as the other one does.
    assert best.confidence == pytest.approx(0.7, abs=0.01) if rivals else best.confidence == 0.9


def test_a_rival_that_the_prior_does_not_allow_is_none(rng: np.random.Generator) -> None:
    scene = MapScene(synthetic_map(rng), None, None, None)  # type: ignore[arg-type]
    verifier = PoseVerifier(scene, 12)
    far = SE3.exp([0, 0, 0, 9.0, 0, 0])
    best = verified(SE3.identity(), 50, 0.996, True)
    assert verifier.surest([verified(far, 50, 0.999, False), best], 0.98) is best
    doubtful = verifier.surest([verified(far, 50, 0.995, True), best], 0.98)
    assert doubtful.evidence.rival == 50 and doubtful.confidence < 0.6
    # One that is hardly there chooses nothing.
    weak = verified(SE3.identity(), 50, 0.5, True)
    assert verifier.surest([verified(far, 50, 0.999, False), weak], 0.98).evidence.rival == 50


def test_a_place_beyond_the_retrieved_ones_is_a_rival_where_it_shares_nothing_with_the_first(
    rng: np.random.Generator,
) -> None:
    images = np.arange(18)
    covisible = np.zeros((18, 18), dtype=np.int32)
    for place in (slice(0, 12), slice(12, 15), slice(15, 18)):
        covisible[place, place] = 99
    covisible[15:18, 0] = covisible[0, 15:18] = 99  # seen from the first place
    point_map = synthetic_map(rng)
    point_map.__dict__["covisibility"] = csr_array(covisible)
    scene = MapScene(point_map, None, None, None)  # type: ignore[arg-type]
    places = Places(scene, SearchConfig())
    assert places._rivals([images[:12]], images) == []
    (rival,) = places._rivals([images[:6]], images)
    assert rival.tolist() == [12, 13, 14]


def test_half_of_the_images_of_a_place_are_tried_first(rng: np.random.Generator) -> None:
    point_map = synthetic_map(rng)
    places = Places(MapScene(point_map, None, None, None), SearchConfig())  # type: ignore[arg-type]
    view = view_from(point_map, SE3.identity())
    # The most similar image shows half of the points as nothing.
    point_map.descriptors[:100] = 128
    quick, thorough = places.attempts(view, np.arange(5))
    assert set(quick[1]) == set(range(100, 200)) and set(thorough[1]) == set(range(200))
    assert np.array_equal(quick[0], quick[1]) and np.array_equal(thorough[0], thorough[1])
    assert len(list(places.attempts(view, np.arange(3)))) == 1
    assert len(list(places.attempts(view, None))) == 1


def test_of_many_keypoints_the_strongest_are_tried_first(rng: np.random.Generator) -> None:
    point_map = synthetic_map(rng, 1000)
    places = Places(MapScene(point_map, None, None, None), SearchConfig())  # type: ignore[arg-type]
    view = view_from(point_map, SE3.identity())
    count = len(view.features)
    quick, thorough = places.attempts(view, np.arange(5))
    assert quick[0].max() < count // 2 <= thorough[0].max()
    assert len(thorough[0]) > 1.5 * len(quick[0]) > 0.5 * count


@pytest.mark.parametrize("rooms", [1, 2, 3])
def test_keyframes_that_see_the_same_one_after_another_are_one_place(
    rng: np.random.Generator, rooms: int
) -> None:
    room = rng.integers(0, rooms, 24)
    covisible = np.zeros((24, 24), dtype=np.int32)
    for seen in (np.nonzero(room == r)[0] for r in range(rooms)):
        # A chain: each sees the same as the next one, and no two further apart do.
        covisible[seen[:-1], seen[1:]] = covisible[seen[1:], seen[:-1]] = 12
    point_map = synthetic_map(rng)
    point_map.__dict__["covisibility"] = csr_array(covisible)
    places = Places(MapScene(point_map, None, None, None), SearchConfig())  # type: ignore[arg-type]
    images = rng.permutation(24)
    found = places._connected(images)
    assert sorted(map(len, found), reverse=True) == list(map(len, found))
    assert {frozenset(place.tolist()) for place in found} == {
        frozenset(np.nonzero(room == r)[0].tolist()) for r in range(rooms)
    }
    # The most similar one stays first.
    assert all(list(place) == [i for i in images if i in set(place)] for place in found)


@pytest.mark.parametrize("forgotten", [0, 1])
def test_a_place_is_tried_with_all_images_where_half_of_them_are_not_enough(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, forgotten: int
) -> None:
    point_map = synthetic_map(rng)
    T = SE3(np.eye(3), np.array([0.4, 0.0, 0.0]))
    view = view_from(point_map, T)
    known = point_map.descriptors[point_map.observation_image < forgotten]
    point_map.descriptors[point_map.observation_image < forgotten] = rng.permuted(known, axis=1)
    tried: list[int] = []

    def attempts(self: Places, view: Any, place: Any) -> Any:
        for matches in of_places(self, view, place):
            tried.append(len(matches[0]))
            yield matches

    of_places = Places.attempts
    monkeypatch.setattr(Places, "attempts", attempts)
    monkeypatch.setattr(Places, "retrieve", lambda self, frame, view: [np.arange(5)])
    search = PlaceSearch(MapScene(point_map, None, None, None), SearchConfig())  # type: ignore[arg-type]
    frame = Frame(0, np.zeros((240, 320), np.uint8), CAMERA)
    found = search.search(frame, view, None, StageTimer()).verified
    assert found is not None and found.solved.T_map_refined.distance_to(T) < 1e-4
    assert len(tried) == (1 if forgotten == 0 else 2)
