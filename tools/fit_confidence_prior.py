"""The prior of confidence (``scene.confidence.PRIOR``) from the examinations of maps, and how well it does elsewhere.

Each map examines itself again, with more questions than at mapping. With each recording left out in turn, a model is
fitted to the answers of the others and told its answers: AUROC of right against wrong, and how many wrong and right
ones it accepts at ``--max-wrong``; beside it the prior as it is. Prints the model of all of them, to be written down.

    .venv/bin/python tools/fit_confidence_prior.py SCENE=RECORDING[:SPLIT] ... [--groups 10] [--max-wrong 0.001]

SPLIT is the part that the scene was made of.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.stats import rankdata

from localizer_ros.core.progress import no_progress
from localizer_ros.datasets.source import open_source
from localizer_ros.mapping.confidence_fit import fit_confidence
from localizer_ros.mapping.examination import Sample, examine
from localizer_ros.mapping.keyframes import Keyframes
from localizer_ros.scene.confidence import FEATURES, PRIOR, ConfidenceModel
from localizer_ros.scene.map_scene import MapScene

# Before any place was seen: more of what speaks for a pose makes it more probable. Weights may be far off.
IGNORANT = replace(
    PRIOR,
    bias=0.0,
    weights=np.ones(len(FEATURES)),
    examined=np.zeros(0),
    inflation=np.ones_like(PRIOR.inflation),
    doubt_slope=0.0,
)
_WEIGHT_SIGMA = 2.0
# Quantiles of the examined answers that a prior keeps: as many as a scene has a dozen answers without one.
_KEPT = np.linspace(0.05, 0.95, 10)


def examined(argument: str, groups: int) -> tuple[str, list[Sample]]:
    """Name and answers of one map."""
    scene_dir, _, recording = argument.partition("=")
    path, _, split = recording.partition(":")
    scene, source = MapScene.open(Path(scene_dir)), open_source(Path(path))
    source = source.split(split) if split else source
    posed = [i for i, record in enumerate(source.records) if record.T_map_cam is not None]
    poses = np.stack([T.matrix() for i in posed if (T := source.records[i].T_map_cam) is not None])
    names = tuple(source.records[i].name for i in posed)
    everything = np.arange(len(posed))
    keyframes = Keyframes(posed, poses, names, everything, everything, scene.point_map.median_depth)
    return Path(path).name, examine(scene, source, keyframes, 0, no_progress, groups)


def fitted(samples: Sequence[Sample]) -> ConfidenceModel:
    """The model of the answers of several maps, with so many quantiles of what they were."""
    model = fit_confidence(samples, IGNORANT, _WEIGHT_SIGMA)
    return replace(model, examined=np.quantile(model.examined, _KEPT))


def told(model: ConfidenceModel, samples: Sequence[Sample], max_wrong: float) -> str:
    """How well a model tells the right answers from the wrong ones."""
    p = np.array([model.probability(s.evidence) for s in samples])
    right = np.array([s.right for s in samples])
    accepted = p >= model.least_accepted(max_wrong)
    n, m = np.count_nonzero(right), np.count_nonzero(~right)
    area = (rankdata(p)[right].sum() - n * (n + 1) / 2) / (n * m) if n * m else np.nan
    return (
        f"{area:.3f} | {(accepted & ~right).sum()} of {(~right).sum()} | "
        f"{(accepted & right).sum()} of {right.sum()}"
    )


def main() -> None:
    """Fits and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("maps", nargs="+", metavar="SCENE=RECORDING[:SPLIT]")
    parser.add_argument("--groups", type=int, default=10)
    parser.add_argument("--max-wrong", type=float, default=0.001)
    args = parser.parse_args()
    answers: dict[str, list[Sample]] = {}
    for argument in args.maps:
        name, samples = examined(argument, args.groups)
        answers[name] = samples
        print(f"{name}: {len(samples)} answers, {sum(s.right for s in samples)} right", flush=True)
    print("\n| left out | AUROC | wrong accepted | right accepted | by the prior as it is: the same |")
    print("|---|---|---|---|---|")
    for name, samples in answers.items():
        others = [s for other, kept in answers.items() if other != name for s in kept]
        new, old = (told(model, samples, args.max_wrong) for model in (fitted(others), PRIOR))
        print(f"| {name} | {new} | {old} |", flush=True)
    model = fitted([s for kept in answers.values() for s in kept])
    print(f"\nbias {model.bias:.2f}, rival weight {model.rival_weight:.2f}, slope {model.doubt_slope:.2f}")
    print(", ".join(f"{name} {weight:.2f}" for name, weight in zip(FEATURES, model.weights, strict=True)))
    print("examined", np.array2string(model.examined, precision=6, separator=", "))
    print("inflation", np.array2string(model.inflation, precision=2, separator=", "))


if __name__ == "__main__":
    main()
