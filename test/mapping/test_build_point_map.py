"""A map of a slice of a real recording: building it, resuming, localising in it, and refusing what is not in it."""

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from localizer_ros.core.config.map_based import SearchConfig, TrackingConfig
from localizer_ros.core.config.mapping import KeyframeConfig, LocalFeatureConfig, StructureConfig
from localizer_ros.core.config.runtime import LocalizerConfig
from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import Camera, Frame, PoseEstimate, SceneError, SourceError
from localizer_ros.datasets.source import FrameSource, open_source
from localizer_ros.localization.front_end import Observation
from localizer_ros.localization.map_based.front_end import open_map_front_end
from localizer_ros.localization.map_based.hierarchical import HierarchicalLocalizer
from localizer_ros.localization.map_based.tracking import Tracker
from localizer_ros.mapping import build_point_map as builder
from localizer_ros.mapping import matching
from localizer_ros.mapping.build_point_map import PointMapReport, build_point_map
from localizer_ros.scene.map_scene import MapScene


class Part:
    """Some frames of a recording."""

    def __init__(self, whole: FrameSource, keep: list[int]) -> None:
        self.whole, self.keep = whole, keep
        self.path, self.format, self.camera = whole.path, whole.format, whole.camera
        self.ground_truth, self.odometry, self.T_base_cam, self.splits = whole.ground_truth, None, None, ()
        self.stamps = whole.stamps
        self.records = [whole.records[i] for i in keep]

    def read(self, index: int) -> Frame:
        return self.whole.read(self.keep[index])

    def split(self, name: str) -> FrameSource:
        raise NotImplementedError


@dataclass
class Mapped:
    scene: Path
    work: Path
    source: Part
    queries: Part
    report: PointMapReport


CONFIG = StructureConfig(
    features=LocalFeatureConfig(max_keypoints=1200),
    keyframes=KeyframeConfig(max_images=20, neighbours=8),
)


@pytest.fixture(scope="module")
def mapped(shared_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Mapped:
    whole = open_source(shared_dir / "data" / "redkitchen").split("train")
    inside = [i for i, r in enumerate(whole.records) if r.sequence == "seq-01"]
    source = Part(whole, inside[0:40:2] + inside[60:100:2])
    queries = Part(whole, inside[40:60])
    folder = tmp_path_factory.mktemp("structure")
    report = build_point_map(source, CONFIG, folder / "scene", folder / "work")
    return Mapped(folder / "scene", folder / "work", source, queries, report)


def errors(queries: Part, index: int, answer: PoseEstimate) -> tuple[float, float]:
    given = queries.records[index].T_map_cam
    assert given is not None
    return given.distance_to(answer.T_map_cam), float(np.degrees(given.angle_to(answer.T_map_cam)))


def test_the_report_says_what_was_made(mapped: Mapped) -> None:
    report = mapped.report
    assert report.images <= 20
    assert report.indexed == 40
    assert report.points > 500
    assert report.mean_track_length > 3.0
    assert report.reprojection_error_px < 1.5
    on_disk = sum(f.stat().st_size for f in mapped.scene.rglob("*") if f.is_file())
    assert report.bytes == on_disk
    assert (mapped.scene / "map" / "colmap" / "points3D.bin").is_file()


def test_the_colmap_model_agrees_with_the_map(mapped: Mapped) -> None:
    import pycolmap

    model = pycolmap.Reconstruction(str(mapped.scene / "map" / "colmap"))
    assert model.num_points3D() == mapped.report.points
    model.update_point_3d_errors()
    assert model.compute_mean_reprojection_error() < 1.5


@pytest.mark.parametrize("direct", [False, True])
def test_full_search_finds_frames_between_the_mapped_ones(mapped: Mapped, direct: bool) -> None:
    localizer = HierarchicalLocalizer(MapScene.open(mapped.scene), SearchConfig(), direct)
    found = []
    for index in range(0, 20, 5):
        answer = localizer.localize(mapped.queries.read(index), None)
        assert answer is not None, localizer.reason
        assert answer.covariance is not None
        assert np.linalg.eigvalsh(answer.covariance)[0] > 0.0
        found.append(errors(mapped.queries, index, answer))
    # Poses of the recording are good to a few centimetres.
    assert np.median([t for t, _ in found]) < 0.04
    assert np.median([r for _, r in found]) < 1.5


def believed(queries: FrameSource, index: int, sigma: float = 0.2) -> PoseEstimate | None:
    """A vague prior for a frame but the first, as once the localizer has believed an answer."""
    record = queries.records[index]
    if index == 0 or record.T_map_cam is None:
        return None
    return PoseEstimate(record.stamp_ns, record.T_map_cam, sigma**2 * np.eye(6), "prediction")


def test_a_pose_that_nobody_believes_is_searched_for_again(mapped: Mapped) -> None:
    front_end = open_map_front_end(mapped.scene, "hierarchical", LocalizerConfig())
    for index, prior, source in (
        (0, False, "hierarchical"),
        (1, False, "hierarchical"),
        (2, True, "tracking"),
    ):
        known = believed(mapped.queries, index) if prior else None
        observation = front_end.observe(mapped.queries.read(index), known)
        assert observation.absolute is not None and observation.absolute.source == source
        # Motion is measured all the same: two answers are compared by it.
        assert (observation.relative is not None) == (index > 0)
    front_end.close()


def test_tracking_takes_over_and_measures_the_motion(mapped: Mapped) -> None:
    front_end = open_map_front_end(mapped.scene, "hierarchical", LocalizerConfig())
    sources, motion = [], []
    for index in range(12):
        observation = front_end.observe(mapped.queries.read(index), believed(mapped.queries, index))
        assert observation.absolute is not None, observation.reason
        sources.append(observation.absolute.source)
        assert errors(mapped.queries, index, observation.absolute)[0] < 0.08
        if observation.relative is not None:
            a, b = mapped.queries.records[index - 1], mapped.queries.records[index]
            assert a.T_map_cam is not None and b.T_map_cam is not None
            assert observation.relative.stamp_prev_ns == a.stamp_ns
            given = a.T_map_cam.inverse() @ b.T_map_cam
            motion.append(given.distance_to(observation.relative.T_prev_cur))
    assert sources[0] == "hierarchical"
    assert sources.count("tracking") >= 10
    assert len(motion) == 11
    assert np.median(motion) < 0.01
    front_end.reset()
    again = front_end.observe(mapped.queries.read(0), None)
    assert again.absolute is not None and again.absolute.source == "hierarchical" and again.relative is None
    front_end.close()


def tracked(mapped: Mapped, frames: range, **settings: object) -> tuple[list[Observation], list[bool]]:
    """Observations of frames, and whether keypoints were found in each."""
    config = LocalizerConfig(tracking=TrackingConfig(**settings))  # type: ignore[arg-type]
    front_end = open_map_front_end(mapped.scene, "hierarchical", config)
    observations = [
        front_end.observe(mapped.queries.read(index), believed(mapped.queries, index)) for index in frames
    ]
    front_end.close()
    return observations, [any("extract" in name for name in o.timings_ms) for o in observations]


def test_between_matchings_the_matched_points_are_followed(mapped: Mapped) -> None:
    observations, extracted = tracked(mapped, range(9), match_every=3)
    assert extracted == [True, False, False] * 3
    assert tracked(mapped, range(3), match_every=1)[1] == [True] * 3
    for index, observation in enumerate(observations):
        assert observation.absolute is not None and observation.absolute.covariance is not None
        assert errors(mapped.queries, index, observation.absolute)[0] < 0.08
        assert observation.absolute.confidence is not None and observation.absolute.confidence > 0.9
    # The points do not move in the map: a pose from followed ones is as near to that from new ones as ever.
    new = tracked(mapped, range(9), match_every=1)[0]
    apart = [
        a.absolute.T_map_cam.distance_to(b.absolute.T_map_cam)
        for a, b in zip(observations, new, strict=True)
        if a.absolute is not None and b.absolute is not None
    ]
    assert np.max(apart) < 0.03


def test_in_doubt_every_frame_is_matched(mapped: Mapped, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HierarchicalLocalizer, "confidence", lambda *_: 0.7)
    observations, extracted = tracked(mapped, range(4), match_every=10)
    assert extracted == [True] * 4
    assert all(o.absolute is not None and o.absolute.confidence == 0.7 for o in observations)


def test_inliers_that_fit_worse_than_the_map_are_doubted(mapped: Mapped) -> None:
    localizer = HierarchicalLocalizer(MapScene.open(mapped.scene), SearchConfig())
    frame = mapped.queries.read(0)
    assert localizer.localize(frame, None) is not None and localizer.found is not None
    found = localizer.found
    map_error_px = localizer._scene.point_map.statistics["reprojection_error_px"]

    def confidence(error: float, frame: Frame = frame) -> float:
        solved = replace(found.solved, error_px=np.full(len(found.solved.error_px), error * map_error_px))
        return localizer.confidence(frame, solved, found.visible, found.spread, None)

    # As well as the map's own observations, and as well as right poses do, is all the same.
    assert confidence(1.0) == confidence(2.5) > 0.9
    assert confidence(2.5) > confidence(4.0) > confidence(6.0)
    odds = [value / (1.0 - value) for value in (confidence(2.5), confidence(6.0))]
    assert odds[1] < 0.01 * odds[0]
    # A camera of half the resolution cannot do better.
    small = frame.camera.scaled(frame.camera.width_px // 2, frame.camera.height_px // 2)
    coarse = Frame(frame.stamp_ns, frame.image[::2, ::2], small)
    assert confidence(5.0, coarse) == confidence(2.5)


def test_a_track_that_contradicts_the_prior_is_searched_for(mapped: Mapped) -> None:
    front_end = open_map_front_end(mapped.scene, "hierarchical", LocalizerConfig())
    given = mapped.queries.records[4].T_map_cam
    assert given is not None
    sigma = np.diag([0.02**2] * 3 + [0.03**2] * 3)
    for index in range(4):
        front_end.observe(mapped.queries.read(index), None)
    for metres, expected in ((0.02, "tracking"), (0.5, "hierarchical")):
        prior = PoseEstimate(0, given @ SE3.exp([0, 0, 0, metres, 0, 0]), sigma, "prediction")
        observation = front_end.observe(mapped.queries.read(4 if metres < 0.1 else 5), prior)
        assert observation.absolute is not None and observation.absolute.source == expected
    front_end.close()


def test_points_that_get_lost_are_matched_anew_before_it_is_time(mapped: Mapped) -> None:
    config = LocalizerConfig(tracking=TrackingConfig(match_every=10))
    front_end = open_map_front_end(mapped.scene, "hierarchical", config)
    for index in range(3):
        front_end.observe(mapped.queries.read(index), believed(mapped.queries, index))
    whole = mapped.queries.read(3)
    covered = whole.image.copy()
    covered[:, :380] = 90
    observation = front_end.observe(Frame(whole.stamp_ns, covered, whole.camera), believed(mapped.queries, 3))
    assert "track_extract" in observation.timings_ms
    if observation.absolute is not None:
        assert errors(mapped.queries, 3, observation.absolute)[0] < 0.1
    nothing = mapped.queries.read(4)
    blank = Frame(nothing.stamp_ns, np.full_like(nothing.image, 90), nothing.camera)
    observation = front_end.observe(blank, None)
    assert observation.absolute is None and observation.relative is None and observation.reason
    front_end.close()


def test_a_pose_is_less_certain_the_faster_the_camera_moves(mapped: Mapped) -> None:
    exact = tracked(mapped, range(4), timing_sigma_ms=0.0)[0]
    loose = tracked(mapped, range(4), timing_sigma_ms=20.0)[0]
    for a, b in zip(exact[1:], loose[1:], strict=True):
        assert a.relative is not None and b.relative is not None
        elapsed_s = (a.relative.stamp_cur_ns - a.relative.stamp_prev_ns) * 1e-9
        moved = a.relative.T_prev_cur.log() * 0.02 / elapsed_s
        for p, q in ((a.relative, b.relative), (a.absolute, b.absolute)):
            assert p is not None and q is not None and p.covariance is not None and q.covariance is not None
            assert np.allclose(q.covariance - p.covariance, np.outer(moved, moved), atol=1e-12)


def test_motion_goes_on_where_the_map_does_not(mapped: Mapped, monkeypatch: pytest.MonkeyPatch) -> None:
    front_end = open_map_front_end(mapped.scene, "hierarchical", LocalizerConfig())
    for index in range(3):
        front_end.observe(mapped.queries.read(index), None)
    with monkeypatch.context() as patch:
        for method in ("track", "carry"):
            patch.setattr(Tracker, method, lambda *_: None)
        patch.setattr(HierarchicalLocalizer, "search", lambda *_: None)
        lost = [front_end.observe(mapped.queries.read(index), None) for index in range(3, 6)]
    for index, observation in enumerate(lost, 3):
        assert observation.absolute is None and observation.relative is not None
        a, b = mapped.queries.records[index - 1].T_map_cam, mapped.queries.records[index].T_map_cam
        assert a is not None and b is not None
        assert (a.inverse() @ b).distance_to(observation.relative.T_prev_cur) < 0.02
    front_end.close()


def test_a_late_search_catches_up_and_motion_goes_on_without_the_map(
    mapped: Mapped, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = LocalizerConfig(search=SearchConfig(latency_s=0.1))
    front_end = open_map_front_end(mapped.scene, "hierarchical", config)
    records = mapped.queries.records
    observations = []
    for index in range(12):
        with monkeypatch.context() as patch:
            if index in (8, 9, 10):
                patch.setattr(Tracker, "track", lambda *_: None)
                patch.setattr(Tracker, "carry", lambda *_: None)
            observations.append(front_end.observe(mapped.queries.read(index), None))
    front_end.close()
    due = next(i for i, r in enumerate(records) if r.stamp_ns - records[0].stamp_ns >= 100_000_000)
    assert all(o.absolute is None and not o.late for o in observations[:due])
    late, absolute = observations[due].late, observations[due].absolute
    assert [p.stamp_ns for p in late] == [records[0].stamp_ns]
    assert errors(mapped.queries, 0, late[0])[0] < 0.08
    assert absolute is not None and absolute.source == "tracking"
    assert errors(mapped.queries, due, absolute)[0] < 0.08
    for index in (8, 9, 10, 11):
        relative = observations[index].relative
        a, b = records[index - 1], records[index]
        assert relative is not None and a.T_map_cam is not None and b.T_map_cam is not None
        assert (relative.stamp_prev_ns, relative.stamp_cur_ns) == (a.stamp_ns, b.stamp_ns)
        assert (a.T_map_cam.inverse() @ b.T_map_cam).distance_to(relative.T_prev_cur) < 0.02
    assert [o.absolute is None for o in observations[8:11]] == [True] * 3


def test_a_prior_starts_tracking_without_a_search(mapped: Mapped) -> None:
    front_end = open_map_front_end(mapped.scene, "hierarchical", LocalizerConfig())
    given = mapped.queries.records[4].T_map_cam
    assert given is not None
    off = given @ SE3.exp([0.01, -0.01, 0.0, 0.02, 0.0, 0.01])
    prior = PoseEstimate(0, off, np.diag([0.02**2] * 3 + [0.03**2] * 3), "prediction")
    observation = front_end.observe(mapped.queries.read(4), prior)
    assert observation.absolute is not None and observation.absolute.source == "tracking"
    unsure = PoseEstimate(0, off, np.eye(6), "prediction")
    front_end.reset()
    observation = front_end.observe(mapped.queries.read(4), unsure)
    assert observation.absolute is not None and observation.absolute.source == "hierarchical"


@pytest.mark.parametrize("method", ["retrieval", "relative"])
def test_methods_without_points_answer_nearby(mapped: Mapped, method: str) -> None:
    front_end = open_map_front_end(mapped.scene, method, LocalizerConfig())
    found = []
    for index in range(0, 20, 5):
        observation = front_end.observe(mapped.queries.read(index), None)
        if observation.absolute is not None:
            found.append(errors(mapped.queries, index, observation.absolute)[0])
    assert len(found) >= 3
    assert np.median(found) < (0.3 if method == "retrieval" else 0.12)


def test_frames_of_another_place_have_no_answer_but_a_reason(mapped: Mapped, shared_dir: Path) -> None:
    elsewhere = open_source(shared_dir / "data" / "tum_fr1_rpy")
    front_end = open_map_front_end(mapped.scene, "hierarchical", LocalizerConfig())
    for index in (0, 300, 600):
        observation = front_end.observe(elsewhere.read(index), None)
        assert observation.absolute is None
        assert observation.relative is None
        assert observation.reason
    blank = Frame(0, np.full((480, 640), 90, np.uint8), Camera.pinhole(640, 480, 525, 525, 320, 240))
    assert "too few keypoints" in front_end.observe(blank, None).reason


def test_a_second_build_takes_what_the_first_left(
    mapped: Mapped, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def must_not_run(*_: object) -> None:
        raise AssertionError("features were extracted or matched again")

    monkeypatch.setattr(mapped.source, "read", must_not_run)
    monkeypatch.setattr(builder, "_VALIDATION_IMAGES", 0)
    monkeypatch.setattr(matching, "open_matcher", must_not_run)
    report = build_point_map(mapped.source, CONFIG, tmp_path / "again", mapped.work)
    assert report.points == mapped.report.points


def test_a_damaged_map_is_named(mapped: Mapped, tmp_path: Path) -> None:
    shutil.copytree(mapped.scene, tmp_path / "scene")
    arrays = tmp_path / "scene" / "map" / "point_map.npz"
    arrays.write_bytes(arrays.read_bytes()[:1000])
    with pytest.raises(SceneError, match=r"point_map\.npz"):
        open_map_front_end(tmp_path / "scene", "hierarchical", LocalizerConfig())


def test_too_few_poses_are_an_error(mapped: Mapped, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="expected at least 3"):
        build_point_map(Part(mapped.queries.whole, [0, 1]), CONFIG, tmp_path / "scene", tmp_path / "work")


def test_tracking_can_be_switched_off(mapped: Mapped) -> None:
    config = LocalizerConfig(tracking=TrackingConfig(enabled=False))
    front_end = open_map_front_end(mapped.scene, "hierarchical", config)
    for index in range(2):
        observation = front_end.observe(mapped.queries.read(index), None)
        assert observation.absolute is not None and observation.absolute.source == "hierarchical"
