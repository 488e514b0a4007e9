"""Whether a network in lower precision answers as it must: judged by images of the scene, in metres and degrees.

One rule for every precision, and none of fixed metres: answers may move by a part of what the network itself errs by.
Images are those of the validation part. Of noise, which no training was about, a network's answers are as sensitive as
they are meaningless: a MobileNetV2 PoseNet in bf16 moved by 6 cm / 3.4 deg there (median; its score out of distribution
is 0.9), and by 0.6 cm / 0.4 deg on validation images (0.15).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from localizer_ros.core.config.mapping import MapConfig
from localizer_ros.core.config.runtime import BackendConfig
from localizer_ros.core.config.schema import load_config
from localizer_ros.core.progress import Progress
from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import Camera, Frame, SceneError
from localizer_ros.datasets.source import FrameSource
from localizer_ros.inference.model_card import ModelCard, card_path, read_card
from localizer_ros.inference.network_step import NetworkStep
from localizer_ros.localization.learned.front_end import NetworkFrontEnd
from localizer_ros.localization.learned.out_of_distribution import TrainingDistribution
from localizer_ros.scene.bundle import NETWORKS_FOLDER, Scene
from localizer_ros.training.data import PosedImages, hold_out, load_posed_images

MOST_ABOVE = 1.05
"""Mean errors of a network in lower precision by those of the one in single precision, at most."""

# Typical move of an answer by the typical error of the network, at most: errors that know nothing of each other add in
# squares, and one of this size adds what is allowed.
_MOST_MOVED = float(np.sqrt(MOST_ABOVE**2 - 1.0))
# Share of the frames answered in single precision that may get no answer.
_MOST_LOST = 0.05
# Validation images that the gate looks at: enough for a mean, few enough for seconds.
_GATE_IMAGES = 400
_FRAME_NS = 33_000_000


@dataclass(frozen=True)
class Answers:
    """What a network answers to successive frames; None where it has no answer."""

    poses: list[SE3 | None]
    motions: list[SE3 | None]


@dataclass(frozen=True)
class Verdict:
    """What a precision costs.

    Attributes:
        figures: by name, for the model card.
        worse: what is above its bound, in words; empty where the precision is as accurate as it must be.
        t_m: largest move of a pose or motion, metres.
        r_deg: largest turn of one, degrees.
    """

    figures: dict[str, float]
    worse: list[str]
    t_m: float
    r_deg: float


@dataclass(frozen=True)
class PrecisionGate:
    """Frames with known poses, and the networks of a scene that answer to them.

    Attributes:
        folder: of the networks.
        method: of the scene, which its network is named after.
        judged: the frames.
        trained: those that the network was trained on.
    """

    folder: Path
    method: str
    judged: PosedImages
    trained: PosedImages

    @cached_property
    def before(self) -> Answers:
        """In single precision, by PyTorch."""
        return self.answers(self.method, BackendConfig(kind="torch"))

    def answers(self, name: str, config: BackendConfig) -> Answers:
        """Of a network of the folder, on a back end. Raises BackendError."""
        step = NetworkStep(self.folder, name, config)
        front_end = NetworkFrontEnd(step, self.method, trained_on=TrainingDistribution.load(self.folder))
        found = Answers([], [])
        for row, image in enumerate(self.judged.images):
            if row and self.judged.sequences[row] != self.judged.sequences[row - 1]:
                front_end.reset()
            observation = front_end.observe(Frame((row + 1) * _FRAME_NS, image, self.judged.camera), None)
            absolute, relative = observation.absolute, observation.relative
            found.poses.append(None if absolute is None else absolute.T_map_cam)
            found.motions.append(None if relative is None else relative.T_prev_cur)
        front_end.close()
        return found

    def verdict(self, after: Answers, precision: str) -> Verdict:
        """What a network in lower precision costs.

        Judged by means over the same frames, and by how far answers move: medians of some dozen frames jump. Answers
        of bfloat16 that moved by 6 mm changed the median of 48 by 8 %, and their root mean square by less than 2 %.
        """
        if not any(self.before.poses):
            return Verdict({}, ["no answer in single precision"], np.inf, np.inf)
        truth = list(self.judged.poses)
        motions = [None, *(T_a.inverse() @ T_b for T_a, T_b in itertools.pairwise(truth))]
        return _joined(
            accuracy((precision, "lost", "t_m", "r_deg"), truth, self.before.poses, after.poses),
            accuracy(
                (precision, "motion_lost", "motion_m", "motion_deg"),
                motions,
                self.before.motions,
                after.motions,
            ),
        )


def _joined(poses: Verdict, motions: Verdict) -> Verdict:
    return Verdict(
        {**poses.figures, **motions.figures},
        [*poses.worse, *motions.worse],
        max(poses.t_m, motions.t_m),
        max(poses.r_deg, motions.r_deg),
    )


def accuracy(
    names: tuple[str, str, str, str],
    truth: Sequence[SE3 | None],
    before: list[SE3 | None],
    after: list[SE3 | None],
) -> Verdict:
    """What lower precision costs poses, or motions.

    Args:
        names: of the precision, of the share of frames that lose their answer, of lengths in metres and of angles in
            degrees.
        truth: None where there is none.
        before: of the network in single precision.
        after: of the network in lower precision.
    """
    precision, lost, *kinds = names
    known = [
        (T, a, b) for T, a, b in zip(truth, before, after, strict=True) if T is not None and a is not None
    ]
    both = [(T, a, b) for T, a, b in known if b is not None]
    if not known:
        return Verdict({}, [], 0.0, 0.0)
    figures = {lost: float(f"{1.0 - len(both) / len(known):.6g}")}
    if len(known) - len(both) > _MOST_LOST * len(known):
        return Verdict(figures, [f"{lost} {figures[lost]:g} of {_MOST_LOST:g}"], np.inf, np.inf)
    worse, most = [], []
    for name, apart in zip(kinds, (SE3.distance_to, _degrees_to), strict=True):
        old = np.array([apart(T, a) for T, a, _ in both])
        new = np.array([apart(T, b) for T, _, b in both])
        moves = np.array([apart(a, b) for _, a, b in both])
        found = {
            f"fp32_median_{name}": np.median(old),
            f"{precision}_median_{name}": np.median(new),
            f"fp32_mean_{name}": np.mean(old),
            f"{precision}_mean_{name}": np.mean(new),
            f"moved_median_{name}": np.median(moves),
            f"moved_most_{name}": np.max(moves),
        }
        bounds = {
            f"{precision}_mean_{name}": MOST_ABOVE * np.mean(old),
            f"moved_median_{name}": _MOST_MOVED * np.median(old),
            # No answer moves further than answers of the network are off in the worst case.
            f"moved_most_{name}": np.max(old),
        }
        figures |= {key: float(f"{value:.6g}") for key, value in found.items()}
        worse += [f"{k} {found[k]:.3g} of {bound:.3g}" for k, bound in bounds.items() if found[k] > bound]
        most.append(float(np.max(moves)))
    return Verdict(figures, worse, *most)


def _degrees_to(T_a: SE3, T_b: SE3) -> float:
    return float(np.degrees(T_a.angle_to(T_b)))


def open_gate(scene: Scene, source: FrameSource, progress: Progress) -> PrecisionGate:
    """The validation part of the recording that a scene was mapped from, and the scene's networks.

    Args:
        scene: with a pose network.
        source: the recording.
        progress: told as it goes.

    Raises:
        SceneError: the scene has no pose network, or was mapped from another recording.
        SourceError: the recording cannot be read.
    """
    folder = scene.path / NETWORKS_FOLDER
    card = read_card(card_path(folder, scene.method), ModelCard)
    training = scene.manifest["training"]
    part = training.get("split")
    part_of_source = source.split(part) if part in source.splits else source
    if len(part_of_source.records) != training.get("frames"):
        raise SceneError(
            f"{scene.path}: was mapped from {training.get('frames')} frames of {training.get('source')}, but "
            f"{source.path} has {len(part_of_source.records)}; give the recording that it was mapped from"
        )
    data = load_posed_images(part_of_source, Camera.from_dict(card.camera), progress)
    fraction = load_config(MapConfig, scene.path / "config.yaml").training.validation_fraction
    kept, held = hold_out(len(data), fraction)
    # Without a validation part the gate can only look at what was trained on.
    judged = data.subset((held if len(held) > 1 else kept)[:_GATE_IMAGES])
    return PrecisionGate(folder, scene.method, judged, data.subset(kept))
