"""The worst frames of an evaluation, each beside the mapping image whose pose is most like its true pose."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import Frame, LocalizerError
from localizer_ros.datasets.source import FrameSource
from localizer_ros.evaluation.answers import Answer, sigmas
from localizer_ros.evaluation.evaluate import Evaluation
from localizer_ros.evaluation.off_path import view_change
from localizer_ros.evaluation.report_tables import angle, length, position

_THUMBNAIL_PX = 300
_COUNT = 6
# Thumbnails of neighbouring frames would all tell the same story.
_APART_NS = 1_000_000_000
# Errors that are equally bad.
_AS_BAD_M, _AS_BAD_DEG = 0.25, 5.0
# The same image in two recordings of the same names has the same pose to rounding.
_SAME_POSE_M = 1e-3


@dataclass(frozen=True)
class WorstFrame:
    """A frame and the mapping image most like it, as the page shows them.

    Attributes:
        name: of the frame.
        error: of its answer, as text.
        note: what the localizer said of it.
        query: its image as a data URI, empty where it cannot be read.
        mapped_name: of the mapping image, empty where the scene has none.
        mapped_note: how far off it is.
        mapped: its image as a data URI, empty where no recording at hand has it.
    """

    name: str
    error: str
    note: str
    query: str
    mapped_name: str
    mapped_note: str
    mapped: str


def worst_frames(evaluation: Evaluation, mapping_recording: FrameSource | None) -> list[WorstFrame]:
    """The frames with the largest errors, at most ``_COUNT`` and none within a second of another.

    Args:
        evaluation: the run.
        mapping_recording: what the scene was mapped from, to show its images; the evaluated recording itself
            is searched as well.
    """
    recordings = [r for r in (mapping_recording, evaluation.recording) if r is not None]
    answers = evaluation.answers()
    return [_worst_frame(evaluation, recordings, i, answers[i]) for i in _worst(answers)]


def data_uri(data: bytes, kind: str) -> str:
    """Bytes of a media type as a link that needs no file."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _worst(answers: Sequence[Answer]) -> list[int]:
    ranked = sorted(
        (i for i, a in enumerate(answers) if a.T_map_true is not None and a.T_map_cam is not None),
        key=lambda i: -max(answers[i].error_m / _AS_BAD_M, answers[i].error_deg / _AS_BAD_DEG),
    )
    chosen: list[int] = []
    for i in ranked:
        apart = all(
            answers[i].sequence != answers[j].sequence
            or abs(answers[i].stamp_ns - answers[j].stamp_ns) >= _APART_NS
            for j in chosen
        )
        if apart:
            chosen.append(i)
        if len(chosen) == _COUNT:
            break
    return chosen


def _worst_frame(
    evaluation: Evaluation, recordings: Sequence[FrameSource], index: int, answer: Answer
) -> WorstFrame:
    frame = evaluation.frames[index]
    assert answer.T_map_true is not None
    sigma_m, sigma_deg = sigmas(answer.covariance)
    claimed = "" if sigma_m is None else f"claimed 1σ {length(sigma_m)}, {angle(sigma_deg)}"
    reason = frame.output.reason if frame.output is not None else ""
    mapped_name, mapped_note, mapped = "", "", ""
    if evaluation.baseline is not None and evaluation.mapping_poses:
        nearest, metres, degrees = view_change(answer.T_map_true, evaluation.mapping_poses)
        T_map_cam = evaluation.mapping_poses[nearest]
        mapped_name = evaluation.baseline.names[nearest]
        mapped_note = f"{length(metres)}, {angle(degrees)} away · {position(T_map_cam)}"
        mapped = _mapping_thumbnail(recordings, mapped_name, T_map_cam)
    return WorstFrame(
        name=frame.record.name,
        error=f"{length(answer.error_m)} · {angle(answer.error_deg)}",
        note=" · ".join(part for part in (claimed, reason) if part),
        query=_thumbnail(_read(evaluation.source, frame.index)),
        mapped_name=mapped_name,
        mapped_note=mapped_note,
        mapped=mapped,
    )


def _mapping_thumbnail(recordings: Sequence[FrameSource], name: str, T_map_cam: SE3) -> str:
    """The mapping image when one of the recordings has it: same name and same pose."""
    for recording in recordings:
        for index, record in enumerate(recording.records):
            if record.name == name and record.T_map_cam is not None:
                # Another recording may use the same names.
                if record.T_map_cam.distance_to(T_map_cam) < _SAME_POSE_M:
                    return _thumbnail(_read(recording, index))
                break
    return ""


def _read(source: FrameSource, index: int) -> Frame | None:
    try:
        return source.read(index)
    except LocalizerError:
        return None


def _thumbnail(frame: Frame | None) -> str:
    if frame is None:
        return ""
    height, width = frame.image.shape[:2]
    size = (_THUMBNAIL_PX, max(1, round(_THUMBNAIL_PX * height / width)))
    image = np.asarray(cv2.resize(frame.image, size, interpolation=cv2.INTER_AREA), np.uint8)
    if image.ndim == 3:
        image = image[..., ::-1]
    done, jpeg = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 82])
    return data_uri(jpeg.tobytes(), "image/jpeg") if done else ""
