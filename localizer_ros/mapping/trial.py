"""A verdict on a new scene, by the frames of its own recording that it was tried on, and what to do next.

Good news is cheap here: the trial is of the same drive, in the same light. Bad news is certain.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from localizer_ros.core.limits import WRONG_DEG, WRONG_M
from localizer_ros.core.types import SourceError
from localizer_ros.evaluation.verdict import ANSWERED_BAD, ANSWERED_GOOD, Verdict
from localizer_ros.mapping.keyframes import FEWEST_VALIDATED


def refuse_dead(validation: Mapping[str, float], name: str) -> None:
    """Refuse a map that answers none of the frames it was tried on: whatever drives there would be lost.

    Args:
        validation: figures of :func:`localizer_ros.mapping.validation.validate`.
        name: of the recording, for the message.

    Raises:
        SourceError: it was tried on enough frames, and answered none.
    """
    tried = int(validation["frames"])
    if tried >= FEWEST_VALIDATED and not validation["answered"] and not validation.get("alike"):
        raise SourceError(
            f"{name}: the map answers none of the {tried} frames of its own recording that it was tried on, and was "
            f"not written; `localizer check {name}` tells what is wrong with poses, camera or images"
        )


def trial_verdict(facts: Mapping[str, Any]) -> Verdict:
    """Good, doubtful or bad, of the facts of a new scene's manifest; None where there are too few to judge by."""
    validation = facts.get("map", {}).get("validation")
    of_map = None if validation is None else _of_map(validation)
    worse = _worse_than_an_image(facts.get("accuracy", {}))
    if worse and of_map is not None:
        # Its poses are proposals only: what the map makes of them is right where the map is.
        word = "doubtful" if of_map.word in ("good", None) else of_map.word
        return Verdict(word, (*of_map.reasons, f"{worse}: answers come from the map; train longer"))
    if worse:
        return Verdict(
            "bad", (f"{worse}: train longer (--time-budget), or make a map (--method hierarchical)",)
        )
    if of_map is not None:
        return of_map
    return Verdict(None, ("nothing says yet whether it is good enough: evaluate it on another recording",))


def _worse_than_an_image(accuracy: Mapping[str, Any]) -> str:
    """That a network errs more than the nearest image of its training set does; empty where it does not."""
    nearest = accuracy.get("nearest_image")
    if nearest is None:
        return ""
    names = ("median_t_m", "median_r_deg")
    if not all(nearest[name] < accuracy[name] for name in names):
        return ""
    own, other = (
        f"{each['median_t_m']:.3f} m {each['median_r_deg']:.2f} deg" for each in (accuracy, nearest)
    )
    return f"the network errs by {own}, the pose of the training image that looks most alike by {other}"


def _of_map(validation: Mapping[str, float]) -> Verdict:
    tried, answered = int(validation["frames"]), int(validation["answered"])
    if tried < FEWEST_VALIDATED:
        return Verdict(None, (f"only {tried} frames were left to try it on",))
    share, alike = answered / tried, int(validation.get("alike", 0))
    if alike and share < ANSWERED_GOOD:
        reason = f"{alike} of {tried} frames show a place that looks like another one: there it waits, or needs a hint"
        return Verdict("doubtful", (reason,))
    if "beyond_deg" in validation and share < ANSWERED_GOOD:
        # Keyframes near each frame were hidden: a harder trial than the scene will have.
        hidden = f"with the keyframes within {validation['beyond_deg']:g} deg hidden"
        return Verdict("doubtful", (f"only {answered} of {tried} frames have an answer {hidden}",))
    if share < ANSWERED_GOOD:
        reason = f"only {answered} of {tried} frames of its own recording have an answer"
        return Verdict("bad" if share < ANSWERED_BAD else "doubtful", (reason,))
    t_m, r_deg = validation.get("median_t_m", 0.0), validation.get("median_r_deg", 0.0)
    if t_m > WRONG_M or r_deg > WRONG_DEG:
        return Verdict("bad", (f"half of the answers are off by more than {t_m:.2f} m or {r_deg:.1f} deg",))
    return Verdict("good", ())


def trial_lines(
    facts: Mapping[str, Any], scene: str, source: str, unseen: str = "ANOTHER_RECORDING"
) -> list[str]:
    """The verdict, why, and the next command, for a terminal.

    Args:
        facts: of the new scene.
        scene: its folder.
        source: the recording that was mapped.
        unseen: one to evaluate it with.
    """
    verdict = trial_verdict(facts)
    lines = [f"verdict: {verdict.word or 'unknown'}", *(f"  {reason}" for reason in verdict.reasons)]
    lines += [f"  camera: {found}" for found in facts.get("map", {}).get("implausible", ())]
    if "map" not in facts and verdict.word == "bad":
        return [*lines, f"next: localizer map {source} --out {scene}_map --method hierarchical"]
    if verdict.word in ("bad", "doubtful"):
        return [*lines, f"next: localizer check {source}"]
    return [*lines, f"next: localizer eval {scene} {unseen} --report report"]
