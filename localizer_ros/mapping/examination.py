"""A new map examines itself: what answers look like that are right, that are wrong, and that are given from afar.

Frames of the recording are looked for with the keyframes around them hidden, further and further: first one knows how
answers from beside the path are, then how those are that rest on another part of the place alone. Some are looked for
in other light, and some with their tiles exchanged: each tile shows what the map knows, and the whole what is nowhere.
Images of other places and mirrored ones teach nothing: of 182 tried none passed verification.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import cv2
import numpy as np

from localizer_ros.core.config.map_based import SearchConfig
from localizer_ros.core.limits import WRONG_DEG, WRONG_M
from localizer_ros.core.progress import Progress
from localizer_ros.core.se3 import SE3
from localizer_ros.core.timing import StageTimer
from localizer_ros.core.types import Array, Frame, UInt8
from localizer_ros.datasets.source import FrameSource
from localizer_ros.geometry.view_distance import view_distances
from localizer_ros.localization.map_based.hierarchical import PlaceSearch
from localizer_ros.localization.map_based.verification import AGREEMENT
from localizer_ros.mapping.keyframes import Keyframes
from localizer_ros.scene.confidence import PLAIN, Evidence
from localizer_ros.scene.hidden_views import without_keyframes
from localizer_ros.scene.map_scene import MapScene, View

# Groups of frames, and frames of each; a group shares its hidden maps.
_GROUPS, _FRAMES = 5, 2
# Keyframes nearer than this to a group are hidden, deg of view distance; in other light at two of them.
_HIDDEN_DEG, _LIGHT_DEG = (0.0, 15.0, 30.0, 50.0), (0.0, 15.0)
# A right answer shows the same view, whatever its metres: rad of view distance.
_SAME_VIEW_RAD = np.radians(5.0)
# Sigma of a pose that tracking predicts, where it is: a turn, or a move of like effect.
_PREDICTED_RAD = np.radians(1.0)
EXPLAINS = 0.5
"""Probability from which a place explains an image."""

# An answer so far off, of view distance, shows another place. From afar many are a little off, in halls by more than
# evaluations call right: of such answers the evidence speaks truly, and the covariance has to say the rest.
_ELSEWHERE_RAD = np.radians(15.0)
# With such a share of the inliers of the best answer to the frames beside it, that place looks the same: in a map of
# two rooms furnished alike (simulated), wrong places had 0.4 to 1.4 times as many.
_ALIKE = 0.25
FEWEST_KEYFRAMES, FEWEST_POINTS = 4, 50
"""Smaller maps are none."""

# Rows and columns of tiles that are exchanged.
_TILES = (4, 6)


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One answer of the examination.

    Attributes:
        evidence: what spoke for it.
        error: (6,) of its pose, in its tangent; None for an image of nowhere.
        covariance: (6, 6) before any inflation.
        right: whether it is.
        elsewhere: whether it shows another place; one that is neither is at the place, but inaccurate.
        agrees: whether a prior would have allowed it that is as good as the predictions of tracking.
        kind: what was asked: ``hidden``, the light, ``tiles``, or ``validation``.
    """

    evidence: Evidence
    error: Array | None
    covariance: Array
    right: bool
    elsewhere: bool
    agrees: bool
    kind: str


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """What a map is asked.

    Attributes:
        frame: the image.
        T_map_cam: its true pose; None for an image of nowhere.
        kind: see :class:`Sample`.
    """

    frame: Frame
    T_map_cam: SE3 | None
    kind: str


def examine(
    scene: MapScene,
    source: FrameSource,
    keyframes: Keyframes,
    seed: int,
    progress: Progress,
    groups: int = _GROUPS,
) -> list[Sample]:
    """The answers of a new map about its own recording; frames without an answer are left out.

    Args:
        scene: the new map.
        source: its recording.
        keyframes: what it was made of.
        seed: of what is drawn at random.
        progress: told as it goes.
        groups: more of them where time does not matter.
    """
    scene = replace(scene, confidence=PLAIN)
    rng, samples = np.random.default_rng(seed), []
    posed = len(keyframes.posed)
    centres = np.unique(np.linspace(0, posed - 1, groups + 2)[1:-1].round().astype(int))
    apart = max(1, posed // (4 * groups))
    for n, centre in enumerate(centres):
        chosen = np.unique(np.clip(centre + apart * np.arange(_FRAMES), 0, posed - 1))
        questions = [_question(source, keyframes, int(k)) for k in chosen]
        samples += _examine_group(scene, questions, n, rng)
        progress("examination", n + 1, len(centres))
    return samples


def _question(source: FrameSource, keyframes: Keyframes, k: int) -> Question:
    T = keyframes.T_map_cam[k]
    return Question(source.read(keyframes.posed[k]), SE3(T[:3, :3], T[:3, 3]), "hidden")


def _examine_group(
    scene: MapScene, questions: list[Question], n: int, rng: np.random.Generator
) -> list[Sample]:
    first = questions[0]
    assert first.T_map_cam is not None
    lit = [
        replace(first, frame=replace(first.frame, image=image), kind=kind)
        for kind, image in _lights(first, n, rng)
    ]
    tiles = Question(replace(first.frame, image=exchanged_tiles(first.frame.image, rng)), None, "tiles")
    # As searches do: without the finest octave of keypoints, and with it.
    seen = [(q, _view(scene, q.frame, fine)) for q in (*questions, *lit, tiles) for fine in (False, True)]
    names = {q.frame.name for q in questions}
    itself = np.array([name in names for name in scene.point_map.names])
    distance = scene.point_map.view_distances(scene.refined_pose(first.T_map_cam))
    samples = []
    for degrees in _HIDDEN_DEG:
        hidden = itself | (distance < np.radians(degrees))
        if np.count_nonzero(~hidden) < FEWEST_KEYFRAMES:
            break
        left = without_keyframes(scene, hidden)
        if len(left.point_map.points) < FEWEST_POINTS:
            break
        search = PlaceSearch(left, SearchConfig(fine_features="never"))
        asked = [
            (q, view)
            for q, view in seen
            if q.kind == "hidden" or (degrees in _LIGHT_DEG if q.kind != "tiles" else degrees == 0.0)
        ]
        answers = (ask(left, search, q, view) for q, view in asked)
        samples += [sample for sample in answers if sample is not None]
    return [sample for sample in samples if not looks_alike(sample, samples)]


def looks_alike(sample: Sample, samples: list[Sample]) -> bool:
    """Whether a wrong answer names a place that looks like the right one. It does explain the image, and says nothing
    of evidence: with nothing hidden, the two places are held against each other."""
    if not sample.elsewhere or sample.error is None:
        return False
    best = max(s.evidence.inliers for s in samples)
    return sample.evidence.inliers > _ALIKE * best


def _view(scene: MapScene, frame: Frame, fine: bool) -> View:
    return scene.view(frame, scene.point_map.settings.features.max_keypoints, fine)


def ask(scene: MapScene, search: PlaceSearch, question: Question, view: View) -> Sample | None:
    """The answer of a map, with any confidence; None when it has none.

    Args:
        scene: the map; its inflation of covariances is part of the sample.
        search: of that map.
        question: what is asked.
        view: features of its frame.
    """
    verified = search.search(question.frame, view, None, StageTimer()).verified
    if verified is None:
        return None
    T_map_cam, covariance = verified.T_map_cam, verified.inflated(scene)
    if question.T_map_cam is None:
        return Sample(verified.evidence, None, covariance, False, True, False, question.kind)
    depth_m = scene.point_map.median_depth
    return judged(verified.evidence, T_map_cam, covariance, question.T_map_cam, depth_m, question.kind)


def judged(
    evidence: Evidence, T_map_cam: SE3, covariance: Array, T_true: SE3, depth_m: float, kind: str
) -> Sample:
    """An answer beside the truth.

    Args:
        evidence: what spoke for it.
        T_map_cam: its pose.
        covariance: (6, 6) in its tangent.
        T_true: the true pose.
        depth_m: median depth of the scene.
        kind: of what was asked.
    """
    error = (T_map_cam.inverse() @ T_true).log()
    agrees = bool(error @ np.linalg.solve(covariance + _prediction(depth_m), error) < AGREEMENT)
    right, elsewhere = is_right(error, depth_m), bool(view_distance_rad(error, depth_m) > _ELSEWHERE_RAD)
    return Sample(evidence, error, covariance, right, elsewhere, agrees, kind)


def _prediction(depth_m: float) -> Array:
    """(6, 6) covariance of a pose predicted by tracking."""
    return np.diag([_PREDICTED_RAD**2] * 3 + [(_PREDICTED_RAD * depth_m) ** 2] * 3)


def is_right(error: Array, depth_m: float) -> bool:
    """Whether a pose with such an error (6,) is right, as evaluations judge it, and shows the same view."""
    turn, move = float(np.linalg.norm(error[:3])), float(np.linalg.norm(error[3:]))
    near = move <= WRONG_M and turn <= np.radians(WRONG_DEG)
    return near and bool(view_distance_rad(error, depth_m) < _SAME_VIEW_RAD)


def view_distance_rad(error: Array, depth_m: float) -> float:
    """How much the view of a pose with such an error (6,) differs from the true one."""
    return float(view_distances(np.eye(4)[None], SE3.exp(error), depth_m)[0])


def _lights(question: Question, n: int, rng: np.random.Generator) -> Iterator[tuple[str, UInt8]]:
    """Two of the ways in which an image can be worse, others in each group."""
    image = question.frame.image.astype(np.float32)
    kinds = ("gain", "gamma", "dark", "blur")
    for kind in (kinds[n % 4], kinds[(n + 2) % 4]):
        if kind == "gain":
            changed = 0.5 * image
        elif kind == "gamma":
            changed = 255.0 * (image / 255.0) ** 2
        elif kind == "dark":
            changed = np.round(0.08 * image + rng.normal(size=image.shape))
        else:
            changed = cv2.GaussianBlur(image, (0, 0), image.shape[1] / 256.0)
        yield kind, np.clip(changed, 0.0, 255.0).astype(np.uint8)


def exchanged_tiles(image: UInt8, rng: np.random.Generator) -> UInt8:
    """An image whose tiles all lie elsewhere."""
    rows, columns = _TILES
    height, width = image.shape[0] // rows, image.shape[1] // columns
    places = [(r * height, c * width) for r in range(rows) for c in range(columns)]
    order = rng.permutation(len(places))
    changed = image.copy()
    for k, place in enumerate(order):
        (y, x), (from_y, from_x) = places[place], places[order[k - 1]]
        changed[y : y + height, x : x + width] = image[from_y : from_y + height, from_x : from_x + width]
    return changed
