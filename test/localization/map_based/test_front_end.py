"""Tracking in a map of a real recording: when it begins, what it measures, when it ends."""

from dataclasses import replace

import numpy as np
import pytest
from kitchen import Kitchen

from localizer_ros.core.config.map_based import SearchConfig, TrackingConfig
from localizer_ros.core.config.runtime import LocalizerConfig
from localizer_ros.core.se3 import SE3, compose_covariance
from localizer_ros.core.types import LATE_MATCHING, Frame, PoseEstimate
from localizer_ros.localization.front_end import Observation
from localizer_ros.localization.map_based.front_end import TrackingFrontEnd, open_map_front_end
from localizer_ros.localization.map_based.hierarchical import PlaceSearch
from localizer_ros.localization.map_based.late_matching import LateMatching, Matched
from localizer_ros.localization.map_based.search import ViewResult
from localizer_ros.localization.map_based.tracking import Track, Tracker
from localizer_ros.localization.visual_odometry import VISUAL_ODOMETRY
from localizer_ros.scene.confidence import ConfidenceModel

pytestmark = pytest.mark.slow

# As once the localizer has believed an answer, and so vague that it says nothing.
PRIOR = PoseEstimate(0, SE3.identity(), 100.0 * np.eye(6), "prediction")


def test_without_a_prior_every_frame_is_searched_in_full(kitchen: Kitchen) -> None:
    front_end = open_map_front_end(kitchen.scene, "hierarchical", LocalizerConfig())
    for index, prior, source in (
        (0, False, "hierarchical"),
        (1, False, "hierarchical"),
        (2, True, "tracking"),
    ):
        known = kitchen.prior(index) if prior else None
        observation = front_end.observe(kitchen.queries.read(index), known)
        assert observation.absolute is not None and observation.absolute.source == source
        # Motion is measured all the same: two answers are compared by it.
        assert (observation.relative is not None) == (index > 0)
    front_end.close()


def test_what_was_seen_is_told_with_a_pose_and_without(kitchen: Kitchen) -> None:
    front_end = open_map_front_end(kitchen.scene, "hierarchical", LocalizerConfig())
    frame = kitchen.queries.read(0)
    searched = front_end.observe(frame, None).seen
    tracked = front_end.observe(kitchen.queries.read(1), kitchen.prior(1)).seen
    noise = np.random.default_rng(1).integers(0, 255, frame.image.shape, np.uint8)
    lost = front_end.observe(replace(frame, stamp_ns=frame.stamp_ns + 10**10, image=noise), None).seen
    assert searched is not None and tracked is not None and lost is not None
    for seen in (searched, tracked):
        inliers = seen.inliers
        assert inliers.sum() > 20 and len(seen.matched_px) == len(inliers) == len(seen.projected_px)
        off_px = np.linalg.norm(seen.projected_px - seen.matched_px, axis=1)
        # What the verifier takes for an inlier is at most 4 px off, by the focal length that mapping refined.
        assert off_px[inliers].max() < 4.5 and np.median(off_px[inliers]) < 2.0
    assert len(searched.keypoints_px) > len(searched.matched_px) and len(tracked.keypoints_px) == 0
    assert len(lost.keypoints_px) > 0 and not lost.inliers.any() and len(lost.projected_px) == 0
    front_end.close()


def test_tracking_follows_a_search_and_measures_the_motion(kitchen: Kitchen) -> None:
    front_end = open_map_front_end(kitchen.scene, "hierarchical", LocalizerConfig())
    sources, motion = [], []
    for index in range(12):
        observation = front_end.observe(kitchen.queries.read(index), kitchen.prior(index))
        assert observation.absolute is not None, observation.reason
        sources.append(observation.absolute.source)
        assert kitchen.errors(index, observation.absolute)[0] < 0.08
        if observation.relative is not None:
            a, b = kitchen.queries.records[index - 1], kitchen.queries.records[index]
            assert a.T_map_cam is not None and b.T_map_cam is not None
            assert observation.relative.stamp_prev_ns == a.stamp_ns
            given = a.T_map_cam.inverse() @ b.T_map_cam
            motion.append(given.distance_to(observation.relative.T_prev_cur))
    assert sources[0] == "hierarchical"
    assert sources.count("tracking") >= 10
    assert len(motion) == 11
    assert np.median(motion) < 0.01
    front_end.reset()
    again = front_end.observe(kitchen.queries.read(0), None)
    assert again.absolute is not None and again.absolute.source == "hierarchical" and again.relative is None
    front_end.close()


def tracked(kitchen: Kitchen, frames: range, **settings: object) -> tuple[list[Observation], list[bool]]:
    """Observations of frames, and whether keypoints were found in each."""
    in_place = {"latency_s": 0.0, **settings}
    config = LocalizerConfig(tracking=TrackingConfig(**in_place))  # type: ignore[arg-type]
    front_end = open_map_front_end(kitchen.scene, "hierarchical", config)
    observations = [front_end.observe(kitchen.queries.read(index), kitchen.prior(index)) for index in frames]
    front_end.close()
    return observations, [any("extract" in name for name in o.timings_ms) for o in observations]


def test_points_are_followed_by_optical_flow_between_matchings(kitchen: Kitchen) -> None:
    observations, extracted = tracked(kitchen, range(9), match_every=3)
    assert extracted == [True, False, False] * 3
    assert tracked(kitchen, range(3), match_every=1)[1] == [True] * 3
    for index, observation in enumerate(observations):
        assert observation.absolute is not None and observation.absolute.covariance is not None
        assert kitchen.errors(index, observation.absolute)[0] < 0.08
        assert observation.absolute.confidence is not None and observation.absolute.confidence > 0.9
    # The points do not move in the map: a pose from followed ones is as near to that from new ones as ever.
    new = tracked(kitchen, range(9), match_every=1)[0]
    apart = [
        a.absolute.T_map_cam.distance_to(b.absolute.T_map_cam)
        for a, b in zip(observations, new, strict=True)
        if a.absolute is not None and b.absolute is not None
    ]
    assert np.max(apart) < 0.03


def test_no_tracked_frame_waits_for_keypoints_that_are_matched_beside_it(kitchen: Kitchen) -> None:
    beside, extracted = tracked(kitchen, range(12), match_every=3, latency_s=0.03)
    assert extracted == [True] + [False] * 11
    assert [LATE_MATCHING in o.beside_ms for o in beside].count(True) >= 3
    in_place = tracked(kitchen, range(12), match_every=3)[0]
    for index, (a, b) in enumerate(zip(beside, in_place, strict=True)):
        assert a.absolute is not None and b.absolute is not None
        assert kitchen.errors(index, a.absolute)[0] < 0.08
        assert a.absolute.T_map_cam.distance_to(b.absolute.T_map_cam) < 0.03
        assert (a.relative is None) == (b.relative is None)


def test_what_a_late_matching_does_not_confirm_is_matched_in_place(
    kitchen: Kitchen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LateMatching, "_match", lambda *_: Matched(None, {}))
    observations, extracted = tracked(kitchen, range(9), match_every=3, latency_s=0.03)
    assert extracted == [True, False, False, False, True, False, False, False, True]
    assert all(o.absolute is not None for o in observations)


def test_a_frame_that_has_lost_its_points_waits_for_the_matching_that_is_under_way(
    kitchen: Kitchen, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Half a second is longer than all of these frames take: nothing is ever due.
    slow = {"match_every": 2, "latency_s": 0.5}
    due = tracked(kitchen, range(8), **slow)[0]
    assert not any(LATE_MATCHING in o.beside_ms for o in due)
    ages: list[int] = []
    sure = TrackingFrontEnd._is_sure

    def loses_points(self: TrackingFrontEnd, track: Track | None) -> bool:
        assert track is not None
        ages.append(track.age)
        return track.age < 3 and sure(self, track)

    monkeypatch.setattr(TrackingFrontEnd, "_is_sure", loses_points)
    observations, extracted = tracked(kitchen, range(8), **slow)
    assert extracted == [True] + [False] * 7
    assert ages.count(3) >= 2
    # A frame that has waited says for what.
    assert [LATE_MATCHING in o.beside_ms for o in observations].count(True) == ages.count(3)
    for index, observation in enumerate(observations):
        assert observation.absolute is not None
        assert kitchen.errors(index, observation.absolute)[0] < 0.08


def test_fewer_points_are_enough_while_an_earlier_frame_is_matched(kitchen: Kitchen) -> None:
    config = LocalizerConfig(tracking=TrackingConfig(match_every=100, latency_s=0.5))
    front_end = open_map_front_end(kitchen.scene, "hierarchical", config)
    assert isinstance(front_end, TrackingFrontEnd) and front_end._matching is not None
    for index in range(3):
        front_end.observe(kitchen.queries.read(index), kitchen.prior(index))
    assert front_end._last is not None
    track, frame = front_end._last.track, kitchen.queries.read(2)
    half, few = replace(track, kept=0.5), replace(track, kept=0.3)
    assert not front_end._is_sure(half)
    # It is not yet time for a matching: nothing is lost.
    front_end._matching.offer(frame, replace(track, kept=0.9), PRIOR)
    assert not front_end._matching.is_under_way
    front_end._matching.offer(frame, replace(track, kept=0.7), PRIOR)
    assert front_end._matching.is_under_way
    assert front_end._is_sure(half) and not front_end._is_sure(few)
    front_end.reset()
    assert not front_end._matching.is_under_way and front_end._matching.wait() is None
    front_end.close()


def test_every_frame_is_matched_while_confidence_is_low(
    kitchen: Kitchen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ConfidenceModel, "probability", lambda *_: 0.7)
    observations, extracted = tracked(kitchen, range(4), match_every=10)
    assert extracted == [True] * 4
    assert all(o.absolute is None for o in observations)


def test_a_track_that_contradicts_the_prior_is_dropped_and_the_frame_searched(kitchen: Kitchen) -> None:
    front_end = open_map_front_end(kitchen.scene, "hierarchical", LocalizerConfig())
    given = kitchen.queries.records[4].T_map_cam
    assert given is not None
    sigma = np.diag([0.02**2] * 3 + [0.03**2] * 3)
    for index in range(4):
        front_end.observe(kitchen.queries.read(index), None)
    for metres, expected in ((0.02, "tracking"), (0.5, "hierarchical")):
        prior = PoseEstimate(0, given @ SE3.exp([0, 0, 0, metres, 0, 0]), sigma, "prediction")
        observation = front_end.observe(kitchen.queries.read(4 if metres < 0.1 else 5), prior)
        assert observation.absolute is not None and observation.absolute.source == expected
    front_end.close()


def test_lost_points_are_matched_again_before_the_next_matching_is_due(kitchen: Kitchen) -> None:
    config = LocalizerConfig(tracking=TrackingConfig(match_every=10))
    front_end = open_map_front_end(kitchen.scene, "hierarchical", config)
    for index in range(3):
        front_end.observe(kitchen.queries.read(index), kitchen.prior(index))
    whole = kitchen.queries.read(3)
    covered = whole.image.copy()
    covered[:, :380] = 90
    observation = front_end.observe(Frame(whole.stamp_ns, covered, whole.camera), kitchen.prior(3))
    assert "track_extract" in observation.timings_ms
    if observation.absolute is not None:
        assert kitchen.errors(3, observation.absolute)[0] < 0.1
    nothing = kitchen.queries.read(4)
    blank = Frame(nothing.stamp_ns, np.full_like(nothing.image, 90), nothing.camera)
    observation = front_end.observe(blank, None)
    assert observation.absolute is None and observation.relative is None and observation.reason
    front_end.close()


def test_covariance_grows_with_velocity_by_the_error_of_stamps(kitchen: Kitchen) -> None:
    exact = tracked(kitchen, range(4), timing_sigma_ms=0.0)[0]
    loose = tracked(kitchen, range(4), timing_sigma_ms=20.0)[0]
    for a, b in zip(exact[1:], loose[1:], strict=True):
        assert a.relative is not None and b.relative is not None
        elapsed_s = (a.relative.stamp_cur_ns - a.relative.stamp_prev_ns) * 1e-9
        moved = a.relative.T_prev_cur.log() * 0.02 / elapsed_s
        for p, q in ((a.relative, b.relative), (a.absolute, b.absolute)):
            assert p is not None and q is not None and p.covariance is not None and q.covariance is not None
            assert np.allclose(q.covariance - p.covariance, np.outer(moved, moved), atol=1e-12)


def test_motion_is_measured_while_no_frame_is_localised(
    kitchen: Kitchen, monkeypatch: pytest.MonkeyPatch
) -> None:
    front_end = open_map_front_end(kitchen.scene, "hierarchical", LocalizerConfig())
    for index in range(3):
        front_end.observe(kitchen.queries.read(index), None)
    with monkeypatch.context() as patch:
        for method in ("track", "carry"):
            patch.setattr(Tracker, method, lambda *_: None)
        patch.setattr(PlaceSearch, "search", lambda *_: ViewResult(None, "nothing"))
        lost = [front_end.observe(kitchen.queries.read(index), None) for index in range(3, 6)]
    for index, observation in enumerate(lost, 3):
        assert observation.absolute is None and observation.relative is not None
        a, b = kitchen.queries.records[index - 1].T_map_cam, kitchen.queries.records[index].T_map_cam
        assert a is not None and b is not None
        assert (a.inverse() @ b).distance_to(observation.relative.T_prev_cur) < 0.02
    front_end.close()


def test_tracking_starts_from_a_late_result(kitchen: Kitchen, monkeypatch: pytest.MonkeyPatch) -> None:
    config = LocalizerConfig(search=SearchConfig(latency_s=0.1))
    front_end = open_map_front_end(kitchen.scene, "hierarchical", config)
    records = kitchen.queries.records
    observations = []
    for index in range(12):
        with monkeypatch.context() as patch:
            if index in (8, 9, 10):
                patch.setattr(Tracker, "track", lambda *_: None)
                patch.setattr(Tracker, "carry", lambda *_: None)
            observations.append(front_end.observe(kitchen.queries.read(index), None))
    front_end.close()
    due = next(i for i, r in enumerate(records) if r.stamp_ns - records[0].stamp_ns >= 100_000_000)
    assert all(o.absolute is None and not o.late for o in observations[:due])
    late, absolute = observations[due].late, observations[due].absolute
    assert [p.stamp_ns for p in late] == [records[0].stamp_ns]
    assert kitchen.errors(0, late[0])[0] < 0.08
    assert absolute is not None and absolute.source == "tracking"
    assert kitchen.errors(due, absolute)[0] < 0.08
    for index in (8, 9, 10, 11):
        relative = observations[index].relative
        a, b = records[index - 1], records[index]
        assert relative is not None and a.T_map_cam is not None and b.T_map_cam is not None
        assert (relative.stamp_prev_ns, relative.stamp_cur_ns) == (a.stamp_ns, b.stamp_ns)
        assert (a.T_map_cam.inverse() @ b.T_map_cam).distance_to(relative.T_prev_cur) < 0.02
    assert [o.absolute is None for o in observations[8:11]] == [True] * 3


def test_a_certain_prior_starts_tracking_without_a_search(kitchen: Kitchen) -> None:
    front_end = open_map_front_end(kitchen.scene, "hierarchical", LocalizerConfig())
    given = kitchen.queries.records[4].T_map_cam
    assert given is not None
    off = given @ SE3.exp([0.01, -0.01, 0.0, 0.02, 0.0, 0.01])
    prior = PoseEstimate(0, off, np.diag([0.02**2] * 3 + [0.03**2] * 3), "prediction")
    observation = front_end.observe(kitchen.queries.read(4), prior)
    assert observation.absolute is not None and observation.absolute.source == "tracking"
    unsure = PoseEstimate(0, off, np.eye(6), "prediction")
    front_end.reset()
    observation = front_end.observe(kitchen.queries.read(4), unsure)
    assert observation.absolute is not None and observation.absolute.source == "hierarchical"


def test_without_tracking_every_frame_is_searched(kitchen: Kitchen) -> None:
    config = LocalizerConfig(tracking=TrackingConfig(enabled=False))
    front_end = open_map_front_end(kitchen.scene, "hierarchical", config)
    for index in range(2):
        observation = front_end.observe(kitchen.queries.read(index), None)
        assert observation.absolute is not None and observation.absolute.source == "hierarchical"


def test_where_the_map_ends_visual_odometry_goes_on(
    kitchen: Kitchen, monkeypatch: pytest.MonkeyPatch
) -> None:
    front_end = open_map_front_end(kitchen.scene, "hierarchical", LocalizerConfig())
    source = kitchen.queries.whole
    mapped = kitchen.queries.keep[:5]
    for index in mapped:
        front_end.observe(source.read(index), PRIOR)
    monkeypatch.setattr(Tracker, "track", lambda *_: None)
    monkeypatch.setattr(Tracker, "carry", lambda *_: None)
    monkeypatch.setattr(PlaceSearch, "search", lambda *_: ViewResult(None, "not mapped"))
    T, S = SE3.identity(), np.zeros((6, 6))
    for index in range(mapped[-1] + 1, mapped[-1] + 36):
        observation = front_end.observe(source.read(index), PRIOR)
        assert observation.absolute is None
        motion = observation.relative
        assert motion is not None and motion.source == VISUAL_ODOMETRY
        assert motion.stamp_prev_ns == source.records[index - 1].stamp_ns
        S = compose_covariance(S, motion.T_prev_cur, motion.covariance)
        T = T @ motion.T_prev_cur
    begin, end = (source.records[i].T_map_cam for i in (mapped[-1], mapped[-1] + 35))
    assert begin is not None and end is not None
    error = (T.inverse() @ begin.inverse() @ end).log()
    # The ground truth errs by a centimetre or two itself.
    assert np.linalg.norm(error[3:]) < 0.08
    given = np.diag([0.01**2] * 3 + [0.015**2] * 3)
    assert float(error @ np.linalg.solve(S + given, error)) < 22.5  # 0.999 of chi-squared
    front_end.reset()
    assert front_end.observe(source.read(mapped[-1] + 36), None).relative is None
    front_end.close()
