"""What maps of several places have shown of their answers: the numbers of ``scene.confidence.PRIOR``.

    python tools/confidence_prior.py SCENE=SOURCE[:SPLIT] ... [--frames 60]

Frames of a drive are looked for in a map, with the keyframes around them hidden, further and further, and with and
without the finest octave of keypoints. A drive should also go where its map has never been: what a map takes for itself
there is what wrong answers look like. Each place is left out in turn and judged by the others; then all are fitted.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from localizer_ros.core.config.map_based import SearchConfig
from localizer_ros.datasets.source import FrameSource, open_source
from localizer_ros.evaluation.confidence import auroc
from localizer_ros.localization.map_based.hierarchical import PlaceSearch
from localizer_ros.mapping.confidence_fit import fit_confidence
from localizer_ros.mapping.examination import FEWEST_KEYFRAMES, FEWEST_POINTS, Question, Sample, ask
from localizer_ros.scene.confidence import PLAIN, PRIOR, ConfidenceModel
from localizer_ros.scene.hidden_views import without_keyframes
from localizer_ros.scene.map_scene import MapScene

# Keyframes nearer than this to a frame are hidden, deg of view distance: its own always. So many frames in a row share
# what is left.
_HIDDEN_DEG, _TOGETHER = (3.0, 20.0, 45.0), 5
_MAX_WRONG = 0.001
_QUANTILES = np.linspace(0.05, 0.95, 10)
# Every place is fitted alike, from nothing. Of places left out, 4 of 97 wrong answers were accepted with weights as
# wide as 3, and 7 % fewer right ones with 0.5.
_SPREAD = 1.0
_NOTHING = replace(PRIOR, bias=0.0, weights=np.zeros(len(PRIOR.weights)), examined=np.zeros(0))


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pair", nargs="+", help="map, and a drive through its place and beyond")
    parser.add_argument("--frames", type=int, default=60, help="of each drive")
    arguments = parser.parse_args()
    places: dict[str, list[Sample]] = {}
    for pair in arguments.pair:
        scene, _, source = pair.partition("=")
        path, _, split = source.partition(":")
        part = open_source(Path(path)).split(split or "all")
        places[scene] = samples_of(MapScene.open(Path(scene)), part, arguments.frames)
        right = sum(s.right for s in places[scene])
        elsewhere = sum(s.elsewhere for s in places[scene])
        print(f"{scene}: {right} right, {elsewhere} elsewhere, of {len(places[scene])}", flush=True)
    for scene, samples in places.items():
        others = [s for name, answers in places.items() if name != scene for s in answers]
        print(f"{scene} by the others: {judged(fit_confidence(others, _NOTHING, _SPREAD), samples)}")
    everything = [s for answers in places.values() for s in answers]
    model = fit_confidence(everything, _NOTHING, _SPREAD)
    print(f"all by all: {judged(model, everything)}")
    print(f"bias={model.bias:.3g}, weights={np.array2string(model.weights, precision=3, separator=', ')}")
    print(f"rival_weight={model.rival_weight:.3g}")
    print(f"examined={np.array2string(np.quantile(model.examined, _QUANTILES), precision=6, separator=', ')}")
    print(f"inflation={np.array2string(model.inflation, precision=3, separator=', ')}")
    print(f"doubt_slope={model.doubt_slope:.3g}")


def samples_of(scene: MapScene, source: FrameSource, frames: int) -> list[Sample]:
    """The answers of a map to frames of a drive."""
    scene = replace(scene, confidence=PLAIN)
    with_truth = [n for n, record in enumerate(source.records) if record.T_map_cam is not None]
    chosen = np.array(with_truth)[np.linspace(0, len(with_truth) - 1, frames).round().astype(int)]
    samples: list[Sample] = []
    for together in np.split(chosen, range(_TOGETHER, len(chosen), _TOGETHER)):
        questions = [
            Question(source.read(int(n)), source.records[int(n)].T_map_cam, "drive") for n in together
        ]
        middle = questions[len(questions) // 2].T_map_cam
        assert middle is not None
        distance = scene.point_map.view_distances(scene.refined_pose(middle))
        for degrees in _HIDDEN_DEG:
            left = without_keyframes(scene, distance < np.radians(degrees))
            if len(left.point_map.names) < FEWEST_KEYFRAMES or len(left.point_map.points) < FEWEST_POINTS:
                break
            samples += _asked(left, questions)
    return samples


def _asked(scene: MapScene, questions: Sequence[Question]) -> list[Sample]:
    search = PlaceSearch(scene, SearchConfig())
    most = scene.point_map.settings.features.max_keypoints
    answers = [
        ask(scene, search, question, scene.view(question.frame, most, fine))
        for question in questions
        for fine in (False, True)
    ]
    return [answer for answer in answers if answer is not None]


def judged(model: ConfidenceModel, samples: Sequence[Sample]) -> str:
    """How well a model tells right answers from those that name another place."""
    confidence = np.array([model.probability(s.evidence) for s in samples])
    right, elsewhere = np.array([s.right for s in samples]), np.array([s.elsewhere for s in samples])
    told = right | elsewhere
    apart = auroc(confidence[told], elsewhere[told])
    least = model.least_accepted(_MAX_WRONG)
    counts = (
        f"{np.sum((confidence >= least) & kind)} of {np.sum(kind)} {name}"
        for name, kind in (("right", right), ("inaccurate", ~told), ("elsewhere", elsewhere))
    )
    surest = confidence[elsewhere].max(initial=0.0)
    return (
        f"AUROC {'-' if apart is None else f'{apart:.3f}'}, from {least:.4f} accepted {', '.join(counts)}; "
        f"surest elsewhere {surest:.4f}"
    )


if __name__ == "__main__":
    main()
