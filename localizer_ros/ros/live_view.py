"""Eyes without RViz: rerun's viewer in a browser, live. Imported only when it is asked for.

The newest answer is drawn a few times a second in a thread of its own; the localizer's thread only leaves it there.
"""

from __future__ import annotations

import socket
import threading
import urllib.parse
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain, groupby, repeat
from pathlib import Path

import cv2
import numpy as np
import rerun as rr
import rerun.blueprint as rrb

from localizer_ros.core.preprocess import to_rgb
from localizer_ros.core.seen import Pixels
from localizer_ros.core.types import Camera, ConfigError, Frame, LocalizerOutput, PoseEstimate, Status
from localizer_ros.evaluation.rerun_drawing import APPLICATION, log_camera, log_map, log_pose
from localizer_ros.evaluation.result_content import scene_content
from localizer_ros.ros.conversions import frame_from_msg
from localizer_ros.ros.debug_image import COLOURS, INLIER, KEYPOINT, PROJECTED, REJECTED
from localizer_ros.ros.diagnosis import Diagnosis
from localizer_ros.ros.frame_assembler import Job

PERIOD_S = 0.2
# The ports that rerun's pages name; where one is taken, any that is free.
_WEB_PORT, _DATA_PORT = 9090, 9876
# What viewers that come late are shown of the past. Of the node's memory, so not much: some minutes.
_MEMORY = "64MB"
# What is shown of the state beside the message.
_FIGURES = (
    "confidence",
    "inliers",
    "sigma m",
    "sigma deg",
    "out-of-distribution score",
    "image rate Hz",
    "answer rate Hz",
    "last answer s ago",
)
_LARGEST_WIDTH_PX = 640
_JPEG_QUALITY = 75
_PATH_LENGTH = 2000
_PATH_COLOUR = (40, 110, 220)
_SIGMAS = 3.0
_SIGMA_COLOUR = (230, 150, 25, 90)


@dataclass(frozen=True, slots=True, eq=False)
class _Shown:
    """An answer and what belongs to it."""

    job: Job
    output: LocalizerOutput


def serve(scene: Path) -> LiveView:
    """A view that browsers can open.

    Args:
        scene: whose map is shown.

    Raises:
        ConfigError: nothing can be served.
    """
    web, data = _free_port(_WEB_PORT), _free_port(_DATA_PORT)
    host = socket.gethostname()
    # Pages that may read the data, beside those of this machine itself: those that it serves to others.
    pages = [f"http://{name}:{web}" for name in (host, f"{host}.local")]
    recording = rr.RecordingStream(APPLICATION)
    try:
        recording.serve_grpc(
            grpc_port=data,
            default_blueprint=blueprint(),
            server_memory_limit=_MEMORY,
            newest_first=True,
            cors_allow_origin=pages,
        )
        rr.serve_web_viewer(web_port=web, open_browser=False)
    except Exception as error:  # the viewer's own errors have no base class in common
        raise ConfigError(f"view: nothing can be served ({error})") from error
    return LiveView(recording, scene, address("localhost", web, data))


def address(host: str, web: int, data: int) -> str:
    """What to open in a browser: the viewer, told where its data are."""
    source = urllib.parse.quote(f"rerun+http://{host}:{data}/proxy", safe="")
    return f"http://{host}:{web}/?url={source}"


def blueprint() -> rrb.Blueprint:
    """What is seen where: the map beside the image, the state and the rates."""
    beside = rrb.Vertical(
        rrb.Spatial2DView(origin="image", name="Image"),
        rrb.TextDocumentView(origin="status", name="Status"),
        rrb.Horizontal(
            rrb.TimeSeriesView(origin="rates", name="Images and answers, Hz"),
            rrb.TextLogView(origin="events", name="Events"),
        ),
        row_shares=[4, 4, 3],
    )
    return rrb.Blueprint(
        rrb.Horizontal(rrb.Spatial3DView(origin="map", name="Map"), beside, column_shares=[3, 2]),
        collapse_panels=True,
    )


def _free_port(wanted: int) -> int:
    """The port, or any where that is taken."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise ConfigError("view: no port is free")


class LiveView:
    """Draws answers into a recording.

    Args:
        recording: that is drawn into, with its sink.
        scene: whose map is shown.
        address: under which browsers find it.
    """

    def __init__(self, recording: rr.RecordingStream, scene: Path, address: str = "") -> None:
        self._recording, self._scene, self.address = recording, scene, address
        self._newest: _Shown | None = None
        self._drawn: _Shown | None = None
        self._camera: Camera | None = None
        # Positions, with None where the path begins anew.
        self._path: deque[list[float] | None] = deque(maxlen=_PATH_LENGTH)
        self._said = ""
        self._end = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, diagnose: Callable[[], Diagnosis], tell: Callable[[str], None]) -> None:
        """Draw from now on.

        Args:
            diagnose: gives the state in words.
            tell: is told what went wrong while drawing.
        """
        self._thread = threading.Thread(
            target=self._run, args=(diagnose, tell), name="live view", daemon=True
        )
        self._thread.start()

    def add(self, job: Job, output: LocalizerOutput) -> None:
        """Leave an answer to be drawn, in place of one that was not yet; takes no time."""
        self._newest = _Shown(job, output)

    def close(self) -> None:
        """End the thread."""
        self._end.set()
        if self._thread is not None:
            self._thread.join()

    def draw_map(self) -> None:
        """Draw what does not change."""
        log_map(self._recording, scene_content(self._scene))

    def draw(self, diagnosis: Diagnosis) -> None:
        """Draw the state in words, and the newest answer where there is a new one."""
        self._draw_state(diagnosis)
        shown = self._newest
        if shown is None or shown is self._drawn:
            return
        self._drawn = shown
        self._draw_image(frame_from_msg(shown.job.message, shown.job.camera), shown.output)
        lost = shown.output.status is Status.LOST
        if lost or shown.output.reset:
            # No line joins two places between which nobody knows the way.
            self._begin_path()
        self._draw_pose(None if lost else shown.output.estimate, shown.job.camera)

    def _run(self, diagnose: Callable[[], Diagnosis], tell: Callable[[str], None]) -> None:
        """What cannot be drawn is told and costs nothing else: the node of a moving robot does not die of a picture."""
        told = ""
        draws: Iterator[Callable[[], None]] = chain([self.draw_map], repeat(lambda: self.draw(diagnose())))
        for draw in draws:
            try:
                draw()
            except Exception as error:
                text = f"view: {type(error).__name__}: {error}"
                if text != told:
                    tell(text)
                told = text
            if self._end.wait(PERIOD_S):
                return

    def _begin_path(self) -> None:
        if self._path and self._path[-1] is not None:
            self._path.append(None)

    def _draw_state(self, diagnosis: Diagnosis) -> None:
        log, values = self._recording.log, diagnosis.summary
        # The message holds the reason and what would help.
        rows = "".join(f"| {key} | {values[key]} |\n" for key in _FIGURES if values[key])
        why = diagnosis.message.removeprefix(values["status"]).lstrip(": ")
        text = f"## {values['status']}\n\n{why}\n\n| | |\n|---|---|\n{rows}"
        log("status", rr.TextDocument(text, media_type=rr.MediaType.MARKDOWN))
        if values["status"] != self._said:
            self._said = values["status"]
            level = {"OK": "INFO", "ERROR": "ERROR"}.get(diagnosis.level, "WARN")
            log("events", rr.TextLog(diagnosis.message, level=level))
        for name, key in (("images", "image rate Hz"), ("answers", "answer rate Hz")):
            if values[key]:
                log(f"rates/{name}", rr.Scalars(float(values[key])))

    def _draw_image(self, frame: Frame, output: LocalizerOutput) -> None:
        height_px, width_px = frame.image.shape[:2]
        scale = min(1.0, _LARGEST_WIDTH_PX / width_px)
        size = (max(1, round(width_px * scale)), max(1, round(height_px * scale)))
        small = to_rgb(np.asarray(cv2.resize(frame.image, size, interpolation=cv2.INTER_AREA), np.uint8))
        image = rr.Image(small).compress(jpeg_quality=_JPEG_QUALITY)
        self._recording.log("image", image)
        seen = output.seen
        points: dict[str, tuple[Pixels, tuple[int, int, int], float]] = {}
        if seen is not None:
            points = {
                "keypoints": (seen.keypoints_px, KEYPOINT, 1.0),
                "inliers": (seen.matched_px[seen.inliers], INLIER, 2.5),
                "outliers": (seen.matched_px[~seen.inliers], REJECTED, 2.5),
                "map_points": (seen.projected_px, PROJECTED, 1.5),
            }
        for name in ("keypoints", "inliers", "outliers", "map_points"):
            pixels, colour, radius = points.get(name, (np.zeros((0, 2)), KEYPOINT, 1.0))
            # A point's place is the centre of its pixel, in rerun half a pixel from its corner.
            drawn = rr.Points2D((pixels + 0.5) * scale, colors=colour, radii=radius)
            self._recording.log(f"image/{name}", drawn)
        edge = rr.Boxes2D(
            array=[0, 0, *size], array_format=rr.Box2DFormat.XYWH, colors=COLOURS[output.status]
        )
        self._recording.log("image/status", edge)

    def _draw_pose(self, pose: PoseEstimate | None, camera: Camera) -> None:
        log = self._recording.log
        if pose is None or not np.all(np.isfinite(pose.T_map_cam.matrix())):
            # Where it was is not where it is.
            log("map/camera", rr.Clear(recursive=False))
            log("map/position_3_sigma", rr.Clear(recursive=False))
            self._camera = None
            return
        if camera is not self._camera:
            self._camera = camera
            log_camera(self._recording, "map/camera", camera, static=False)
        log_pose(self._recording, "map/camera", pose.T_map_cam)
        self._path.append(pose.T_map_cam.t.tolist())
        strips = [list(part) for known, part in groupby(self._path, lambda place: place is not None) if known]
        log("map/path", rr.LineStrips3D(strips, colors=_PATH_COLOUR, radii=0.008))
        if pose.covariance is None:
            log("map/position_3_sigma", rr.Clear(recursive=False))
            return
        R = pose.T_map_cam.R
        values, vectors = np.linalg.eigh(R @ pose.covariance[3:, 3:] @ R.T)
        # Columns of a rotation, not of a reflection.
        vectors = vectors * np.sign(np.linalg.det(vectors))
        log("map/position_3_sigma", rr.Transform3D(translation=pose.T_map_cam.t, mat3x3=vectors))
        halves = _SIGMAS * np.sqrt(np.maximum(values, 0.0))
        log("map/position_3_sigma", rr.Ellipsoids3D(half_sizes=[halves], colors=_SIGMA_COLOUR))
