"""Whether a scenario held: what was promised for all of them, and what each asks for by itself."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import Array
from localizer_ros.ros.scenario.packets import SECOND_NS, Timeline
from localizer_ros.ros.scenario.record import Answer, Record, Said
from localizer_ros.ros.scenario.schema import Saying, Scenario

SIGMAS = 3.0
# Nobody can tell a pose that is late from one that does not come, sooner.
NOTICED_S = 0.5
_IN_FORCE_NS = 50_000_000
# A status and the transform that it comes with go out one after the other, on two topics.
_TOGETHER_NS = 150_000_000


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that had to hold.

    Attributes:
        name: what.
        held: whether it did.
        detail: what was found; for people.
    """

    name: str
    held: bool
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of a scenario.

    Attributes:
        checks: all that had to hold.
        figures: of interest whether it held or not.
    """

    checks: tuple[Check, ...]
    figures: dict[str, float | int | None]

    @property
    def held(self) -> bool:
        """Everything did."""
        return all(check.held for check in self.checks)

    @property
    def broken(self) -> tuple[Check, ...]:
        """What did not."""
        return tuple(check for check in self.checks if not check.held)


def judge(scenario: Scenario, timeline: Timeline, record: Record) -> Verdict:
    """The verdict on what was recorded.

    Args:
        scenario: that was played.
        timeline: of it.
        record: of the node.
    """
    trial = _Trial(scenario, timeline, record)
    checks = [
        *trial.lives(),
        *trial.names_it(),
        *trial.is_never_wrong(),
        *trial.recovers(),
        *trial.answers(),
        *trial.is_silent(),
        *trial.transforms_are_honest(),
    ]
    return Verdict(tuple(checks), trial.figures)


class _Trial:
    def __init__(self, scenario: Scenario, timeline: Timeline, record: Record) -> None:
        self._scenario, self._record = scenario, record
        self._robot = timeline.robot
        self._truth: dict[int, list[SE3]] = {}
        for packet in record.images:
            if packet.T_map_base is not None:
                self._truth.setdefault(packet.stamp_ns, []).append(packet.T_map_base)
        self._end_s = timeline.end_ns / SECOND_NS
        odom = str(scenario.parameters.get("odom_frame", timeline.robot.parameters.get("odom_frame", "")))
        self._publishes_tf = bool(scenario.parameters.get("publish_tf", True))
        self._by_tf = record.robot_by_transforms(odom)
        self.figures: dict[str, float | int | None] = {
            "frames": len(record.images),
            "answered": len(self._answered()),
        }

    # --- what is asked of all ---

    def lives(self) -> Iterator[Check]:
        record = self._record
        yield Check("the node lives", bool(record.state), "it is gone" if not record.state else "")
        text = "; ".join(f"{at / SECOND_NS:.2f} s: {_last_line(text)}" for at, text in record.crashes[:3])
        yield Check("no unexpected error", not record.crashes, text)

    def names_it(self) -> Iterator[Check]:
        for number, saying in enumerate(self._scenario.sayings):
            after_s = self._scenario.first_s if saying.after is None else saying.after
            said = self._first_said(saying, after_s)
            delay_s = None if said is None else said.at_ns / SECOND_NS - after_s
            if number == 0:
                self.figures["named_s"] = delay_s
            detail = (
                f"after {delay_s:.2f} s: {said.text}" if said and delay_s is not None else self._says(after_s)
            )
            held = delay_s is not None and delay_s <= saying.within + 1e-6
            yield Check(f"says {saying.text!r} within {saying.within:g} s", held, detail)

    def is_never_wrong(self) -> Iterator[Check]:
        covariances = {a.stamp_ns: a for a in self._record.answers if a.covariance is not None}
        wrong: list[str] = []
        worst_m, worst_deg = 0.0, 0.0
        for answer in [*self._record.answers, *self._by_tf]:
            error = self._error(answer)
            if error is None:
                continue
            metres, degrees = error
            worst_m, worst_deg = max(worst_m, metres), max(worst_deg, degrees)
            if metres <= self._scenario.worst_m and degrees <= self._scenario.worst_deg:
                continue
            known = covariances.get(answer.stamp_ns)
            if known is None or not self._covers(known, answer):
                wrong.append(
                    f"{answer.topic} at {answer.at_ns / SECOND_NS:.2f} s: {metres:.2f} m, {degrees:.0f} deg"
                )
        self.figures |= {"worst_m": worst_m, "worst_deg": worst_deg, "wrong": len(wrong)}
        yield Check(
            "no pose is wrong beyond its own 3 sigma", not wrong, f"{len(wrong)}: {'; '.join(wrong[:3])}"
        )

    def recovers(self) -> Iterator[Check]:
        last_s, within_s = self._scenario.last_s, self._scenario.recovers
        if last_s is None or within_s is None or not self._scenario.faults:
            return
        name = f"right again within {within_s:g} s"
        if last_s + within_s > self._end_s:
            yield Check(name, False, f"nobody can tell: the drive ends at {self._end_s:.1f} s")
            return
        # Poses of frames that came after the end, and only those that people would follow.
        after_ns = round(last_s * SECOND_NS)
        stamps = {p.stamp_ns for p in self._record.images if p.at_ns >= after_ns}
        right = [
            a for a in self._record.answers if a.stamp_ns in stamps and a.at_ns >= after_ns and self._right(a)
        ]
        delay_s = (right[0].at_ns - after_ns) / SECOND_NS if right else None
        self.figures["recovered_s"] = delay_s
        detail = f"after {delay_s:.2f} s" if delay_s is not None else f"never; {self._says(self._end_s)}"
        held = delay_s is not None and delay_s <= within_s + 1e-6
        yield Check(name, held, detail)

    def transforms_are_honest(self) -> Iterator[Check]:
        if not self._publishes_tf:
            return
        lost = []
        for at_ns, *_ in self._record.transforms:
            said = self._record.in_force(at_ns - 1)
            if said is not None and said.lost and said.values.get("status") == "LOST":
                following = self._record.in_force(at_ns + _IN_FORCE_NS)
                if following is said:
                    lost.append(at_ns)
        where = ", ".join(f"{at / SECOND_NS:.2f} s" for at in lost[:3])
        yield Check("no transform while LOST", not lost, f"{len(lost)}: {where}")
        silent = list(self._silences())
        yield Check("never OK while transforms are silent", not silent, "; ".join(silent[:3]))

    # --- what a scenario asks for ---

    def answers(self) -> Iterator[Check]:
        scenario = self._scenario
        inside, outside = [], []
        recovery_s = scenario.recovers or 0.0
        for packet in self._record.images:
            at_s = packet.at_ns / SECOND_NS
            if at_s < 1.0 or at_s > self._end_s - 0.5:
                continue  # it has to find itself first, and the last may not be done
            hit = [
                f
                for f in scenario.faults
                if f.from_s <= at_s and (f.to_s is None or at_s < f.to_s + recovery_s)
            ]
            during = [f for f in hit if f.to_s is None or at_s < f.to_s]
            if during:
                inside.append(packet.stamp_ns)
            elif not hit:
                outside.append(packet.stamp_ns)
        answered = self._answered()
        for name, stamps, least in (
            ("outside of the fault", outside, scenario.answers),
            ("during the fault", inside, scenario.answers_during),
        ):
            if stamps and least > 0.0:
                share = sum(stamp in answered for stamp in stamps) / len(stamps)
                yield Check(
                    f"at least {least:.0%} answered {name}", share >= least, f"{share:.0%} of {len(stamps)}"
                )

    def is_silent(self) -> Iterator[Check]:
        if not self._scenario.silent:
            return
        begin_ns = round((self._scenario.first_s + NOTICED_S) * SECOND_NS)
        end_s = self._end_s if self._scenario.last_s is None else self._scenario.last_s
        spoken = [a for a in self._record.answers if begin_ns <= a.at_ns < end_s * SECOND_NS]
        yield Check("no pose during the fault", not spoken, f"{len(spoken)} poses")

    # --- tools ---

    def _answered(self) -> set[int]:
        return {answer.stamp_ns for answer in self._record.answers}

    def _first_said(self, saying: Saying, after_s: float) -> Said | None:
        wanted = re.compile(saying.text, re.IGNORECASE)
        for said in self._record.said:
            if said.at_ns >= after_s * SECOND_NS and said.level != "OK" and wanted.search(said.text):
                return said
        return None

    def _says(self, at_s: float) -> str:
        texts = [s for s in self._record.said if s.at_ns >= (at_s - 0.2) * SECOND_NS][
            :3
        ] or self._record.said[-1:]
        return "it says " + (
            " | ".join(f"{s.at_ns / SECOND_NS:.2f} s {s.level} {s.text}" for s in texts) or "nothing"
        )

    def _error(self, answer: Answer) -> tuple[float, float] | None:
        """Metres and degrees; None where the truth is not known. Of images with one stamp the nearest counts."""
        errors = [
            (T.distance_to(answer.T_map_base), float(np.degrees(T.angle_to(answer.T_map_base))))
            for T in self._truth.get(answer.stamp_ns, ())
        ]
        return min(errors) if errors else None

    def _right(self, answer: Answer) -> bool:
        error = self._error(answer)
        return (
            error is not None and error[0] <= self._scenario.worst_m and error[1] <= self._scenario.worst_deg
        )

    def _covers(self, known: Answer, answer: Answer) -> bool:
        """Whether the covariance that went out with a pose is as large as the pose's error, along the error."""
        truth = min(self._truth[answer.stamp_ns], key=lambda T: T.distance_to(answer.T_map_base))
        residual: Array = (answer.T_map_base.inverse() @ truth).log()
        S = known.covariance
        assert S is not None
        for part in (slice(0, 3), slice(3, 6)):
            size = float(np.linalg.norm(residual[part]))
            limit = np.radians(self._scenario.worst_deg) if part.start == 0 else self._scenario.worst_m
            if size > limit:
                along = residual[part] / size
                variance = float(along @ S[part, part] @ along)
                if size > SIGMAS * max(0.0, variance) ** 0.5:
                    return False
        return True

    def _silences(self) -> Iterator[str]:
        """Where transforms were silent for longer than anybody would miss, and the node said that all was well."""
        times = [at for at, *_ in self._record.transforms]
        if not times:
            return
        noticed_ns = round(NOTICED_S * SECOND_NS)
        end_ns = round((self._end_s - 0.1) * SECOND_NS)
        for before, after in zip(times, [*times[1:], end_ns], strict=True):
            if after - before <= noticed_ns:
                continue
            for at_ns in range(before + noticed_ns, after - _TOGETHER_NS, noticed_ns // 5):
                said = self._record.in_force(at_ns)
                if said is not None and said.level == "OK":
                    yield f"silent from {before / SECOND_NS:.2f} s, OK at {at_ns / SECOND_NS:.2f} s"
                    break


def _last_line(text: str) -> str:
    return text.strip().splitlines()[-1] if text.strip() else ""
