"""Which of the poses in a bag are taken, what else there is, and what is said where none are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from localizer_ros.core.trajectory import Trajectory
from localizer_ros.datasets.bag_poses import BagPoses
from localizer_ros.datasets.pose_coverage import PoseSeries, describe

MAKES_POSES = "`localizer map --length M`, the length of the path in metres, makes poses from images alone"


@dataclass
class PoseChoice:
    """What was found.

    Attributes:
        series: the poses that are taken; None when there are none.
        candidates: all that there is, plain values (see ``pose_coverage.describe``).
        problem: why no frame has a pose; None when one has.
        problems: what is wrong with poses that are there, one line each.
    """

    series: PoseSeries | None = None
    candidates: list[dict[str, Any]] = field(default_factory=list)
    problem: str | None = None
    problems: list[str] = field(default_factory=list)


def choose_poses(
    poses: BagPoses,
    topics: Mapping[str, str],
    wanted: Mapping[str, str],
    camera: str,
    frames_ns: Sequence[int],
) -> PoseChoice:
    """The topic of true poses, else the transforms from the map to the camera, the first that covers a frame.

    Args:
        poses: of the bag.
        topics: in use, by purpose.
        wanted: the user's choice, see ``bag_topics``.
        camera: optical frame of the images.
        frames_ns: stamps of the images.
    """
    choice = PoseChoice()
    topic = topics.get("ground_truth")
    is_tf = topic is not None and not poses.has_poses(topic)
    off = wanted.get("ground_truth") == "none"
    if topic is not None and not is_tf:
        series, why = poses.topic_series(topic, camera, wanted.get("ground_truth_frame"))
        _consider(choice, series, why, frames_ns, usable=True)
    if is_tf or "ground_truth" not in wanted or off:
        series, why = poses.transform_series(camera)
        _consider(choice, series, why, frames_ns, usable=not off)
    for name, trajectory in poses.other_topics(topic).items():
        _list(choice, f"topic {name}", trajectory, frames_ns)
    odometry = poses.odometry()
    if odometry is not None:
        _list(choice, f"odometry {topics['odometry']}", odometry, frames_ns)
    if choice.series is None and not off and choice.problem is None:
        choice.problem = _absent(choice, camera)
    return choice


def _consider(
    choice: PoseChoice, series: PoseSeries | None, why: str, frames_ns: Sequence[int], usable: bool
) -> None:
    if series is None:
        if why and usable:
            choice.problems.append(f"{why}: not used")
        return
    facts = describe(series, frames_ns)
    choice.candidates.append(facts)
    if not usable or choice.series is not None:
        return
    if facts["frames"]:
        choice.series, choice.problem = series, None
        if facts["why"]:
            choice.problems.append(facts["why"])
    elif choice.problem is None:
        choice.problem = facts["why"]


def _list(choice: PoseChoice, name: str, trajectory: Trajectory, frames_ns: Sequence[int]) -> None:
    choice.candidates.append(describe(PoseSeries(name, trajectory.stamps_ns, trajectory.at), frames_ns))


def _absent(choice: PoseChoice, camera: str) -> str:
    others = [facts["name"].removeprefix("topic ") for facts in choice.candidates if facts["frames"]]
    choose = [name for name in others if name.startswith("/")]
    there = f" it has {', '.join(others)};" if others else ""
    how = f" choose one by --topic ground_truth={choose[0]}, or" if choose else ""
    driven = any(name.startswith("odometry ") for name in others)
    makes = "`localizer map` corrects the odometry by images" if driven else MAKES_POSES
    where = f"no topic of true poses and no transforms from the map to the camera {camera!r}"
    return f"no poses: {where};{there}{how} {makes}"
