"""What a new scene's own trial says."""

from __future__ import annotations

import pytest

from localizer_ros.core.types import SourceError
from localizer_ros.mapping.trial import refuse_dead, trial_lines, trial_verdict


def _map(**validation: float) -> dict[str, object]:
    return {"map": {"validation": validation}}


@pytest.mark.parametrize(
    ("facts", "word", "reason"),
    [
        (_map(frames=40, answered=40, median_t_m=0.01, median_r_deg=0.2), "good", ""),
        (_map(frames=40, answered=30, median_t_m=0.01, median_r_deg=0.2), "doubtful", "only 30 of 40"),
        (_map(frames=40, answered=10, median_t_m=0.01, median_r_deg=0.2), "bad", "only 10 of 40"),
        (_map(frames=40, answered=40, median_t_m=0.9, median_r_deg=0.2), "bad", "half of the answers"),
        (_map(frames=40, answered=10, beyond_deg=10.0), "doubtful", "hidden"),
        (_map(frames=3, answered=0), None, "only 3 frames"),
        (_map(frames=40, answered=0, alike=40), "doubtful", "looks like another one"),
    ],
)
def test_a_map_is_judged_by_the_frames_it_was_tried_on(facts, word, reason):
    verdict = trial_verdict(facts)
    assert verdict.word == word
    assert reason in " ".join(verdict.reasons)


@pytest.mark.parametrize("facts", [{}, {"accuracy": {"median_t_m": 0.1}}, {"map": {"poses": 1}}])
def test_what_was_not_tried_on_a_map_is_not_judged(facts: dict[str, object]) -> None:
    verdict = trial_verdict(facts)
    assert verdict.word is None and verdict.reasons
    assert trial_lines(facts, "scenes/room", "drive1")[0] == "verdict: unknown"


NETWORK = {"median_t_m": 0.5, "median_r_deg": 9.0}


@pytest.mark.parametrize(
    ("nearest", "facts", "word", "reason"),
    [
        ((0.3, 8.0), {}, "bad", "train longer (--time-budget), or make a map (--method hierarchical)"),
        ((0.3, 8.0), _map(frames=40, answered=40), "doubtful", "answers come from the map; train longer"),
        ((0.3, 8.0), _map(frames=40, answered=10), "bad", "only 10 of 40"),
        ((0.6, 8.0), {}, None, "evaluate it on another recording"),
        ((0.6, 8.0), _map(frames=40, answered=40), "good", ""),
    ],
)
def test_a_network_that_a_nearest_image_beats_is_said_to_be(nearest, facts, word, reason):
    image = dict(zip(NETWORK, nearest, strict=True))
    verdict = trial_verdict({**facts, "accuracy": {**NETWORK, "nearest_image": image}})
    assert verdict.word == word and reason in " ".join(verdict.reasons)
    if word in ("bad", "doubtful") and nearest[0] < 0.5:
        assert "errs by 0.500 m 9.00 deg" in verdict.reasons[-1] and "0.300 m 8.00 deg" in verdict.reasons[-1]


def test_after_a_bad_network_the_next_command_makes_a_map():
    image = {"median_t_m": 0.1, "median_r_deg": 1.0}
    lines = trial_lines({"accuracy": {**NETWORK, "nearest_image": image}}, "scenes/room", "drive1")
    assert lines[-1] == "next: localizer map drive1 --out scenes/room_map --method hierarchical"


def test_a_map_that_answers_nothing_is_refused():
    with pytest.raises(SourceError, match="answers none of the 40 frames"):
        refuse_dead({"frames": 40, "answered": 0}, "drive")
    refuse_dead({"frames": 40, "answered": 1}, "drive")
    # It shows places that look alike.
    refuse_dead({"frames": 40, "answered": 0, "alike": 40}, "drive")
    # Too few to say anything.
    refuse_dead({"frames": 3, "answered": 0}, "drive")


def test_the_next_command_follows_the_verdict():
    good = trial_lines(_map(frames=40, answered=40), "scenes/room", "drive1")
    assert good[0] == "verdict: good"
    assert good[-1] == "next: localizer eval scenes/room ANOTHER_RECORDING --report report"
    good = trial_lines(_map(frames=40, answered=40), "scenes/room", "drive1", "drive1")
    assert good[-1] == "next: localizer eval scenes/room drive1 --report report"
    assert (
        trial_lines(_map(frames=40, answered=1), "scenes/room", "drive1")[-1]
        == "next: localizer check drive1"
    )
