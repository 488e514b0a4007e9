"""Whether a recording is good enough to make a map of, why not, and what to do next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from localizer_ros.core.progress import Progress, no_progress
from localizer_ros.datasets.info import recording_info
from localizer_ros.datasets.source import FrameSource, camera_problem
from localizer_ros.evaluation.check_geometry import check_geometry
from localizer_ros.evaluation.check_images import check_images
from localizer_ros.evaluation.check_poses import check_poses
from localizer_ros.evaluation.check_stamps import check_stamps
from localizer_ros.evaluation.findings import Finding, Word, word_for


def check_camera(source: FrameSource) -> tuple[dict[str, Any], list[Finding]]:
    """Whether the camera is known, and if so whether poses and images fit it."""
    problem = camera_problem(source)
    if problem is None:
        return check_geometry(source)
    advice = "calibrate the camera; for localising in a scene that it has mapped, nothing is needed"
    facts = {"pose_check_pairs": 0, "epipolar_error_px": None}
    return facts, [Finding("no_camera", "bad", problem, advice)]


CHECKS = (check_images, check_stamps, check_poses, check_camera)


@dataclass(frozen=True)
class RecordingCheck:
    """What the checks of a recording found.

    Attributes:
        findings: the worst first.
        facts: the figures they rest on; None where one is not known.
    """

    findings: tuple[Finding, ...]
    facts: dict[str, Any]

    @property
    def word(self) -> Word:
        """Good, doubtful or bad."""
        return word_for(self.findings)

    def to_dict(self, source: FrameSource) -> dict[str, Any]:
        """The one JSON object of ``localizer check --json``."""
        return {
            "source": str(source.path),
            "verdict": self.word,
            "frames": len(source.records),
            "findings": [finding.to_dict() for finding in self.findings],
            "facts": self.facts,
        }


def check_recording(source: FrameSource, progress: Progress = no_progress) -> RecordingCheck:
    """What is wrong with a recording, by a sample of about a hundred images and all stamps and poses.

    Raises:
        SourceError: not one image can be read.
    """
    findings: list[Finding] = []
    facts: dict[str, Any] = {}
    for n, check in enumerate(CHECKS):
        progress("checking", n, len(CHECKS))
        figures, found = check(source)
        facts.update(figures)
        findings += found
    order = ("bad", "doubtful", "note")
    return RecordingCheck(tuple(sorted(findings, key=lambda f: order.index(f.severity))), facts)


def check_lines(check: RecordingCheck, source: str) -> list[str]:
    """The verdict, why, and what to do next, for a terminal.

    Args:
        check: of the recording.
        source: how the user called it.
    """
    lines = [f"verdict: {check.word}"]
    for finding in check.findings:
        at = f" (first at {finding.where})" if finding.where is not None else ""
        lines += [f"  {finding.severity}: {finding.text}{at}", f"    {finding.advice}"]
    if check.word == "bad":
        return [*lines, f"next: mend what is bad, then `localizer check {source}` again"]
    if any(finding.check == "no_poses" and finding.severity != "note" for finding in check.findings):
        return [*lines, f"next: localizer map {source} --length METRES --out SCENE"]
    return [*lines, f"next: localizer map {source} --out SCENE"]


def recording_facts(source: FrameSource) -> dict[str, Any]:
    """What ``recording_info`` tells, and ``capture``: how good the images are and whether they fit the poses.

    Raises:
        SourceError: not one image can be read.
    """
    info = recording_info(source)
    checked = check_recording(source)
    problems = [*info.pop("problems"), *(str(f) for f in checked.findings if f.severity != "note")]
    return {**info, "verdict": checked.word, "capture": checked.facts, "problems": problems}
