"""The viewer for browsers: what is drawn, in which thread, and what it is told."""

from __future__ import annotations

import socket
import threading
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rerun")

import rerun as rr
from fake_robot import CAMERA, SECOND, TIMEOUT_S
from rerun.chunk import RrdReader

from localizer_ros.core.se3 import SE3
from localizer_ros.core.seen import SeenPoints
from localizer_ros.core.types import LocalizerOutput, PoseEstimate, Status
from localizer_ros.ros import conversions as convert
from localizer_ros.ros import live_view
from localizer_ros.ros.frame_assembler import Job
from localizer_ros.ros.health import Health
from localizer_ros.ros.live_view import LiveView
from localizer_ros.scene.point_map import PointMap

pytestmark = pytest.mark.ros

MESSAGE = convert.image_msg(np.zeros((CAMERA.height_px, CAMERA.width_px), np.uint8), SECOND, "camera")
JOB = Job(MESSAGE, CAMERA, "camera", "camera", SE3.identity(), None, "", 0.0)
PIXELS = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
SEEN = SeenPoints(PIXELS, PIXELS, np.array([True, True, False]), PIXELS + 0.5)


def answer(status: Status = Status.TRACKING, x_m: float = 1.0) -> LocalizerOutput:
    T = SE3(np.eye(3), np.array([x_m, 2.0, 3.0]))
    covariance = np.diag([1e-4, 1e-4, 1e-4, 0.01, 0.04, 0.09])
    pose = None if status is Status.LOST else PoseEstimate(SECOND, T, covariance, "test")
    return LocalizerOutput(SECOND, status, pose, None, None, "", {}, seen=SEEN)


class Recorded:
    """A view that draws into memory."""

    def __init__(self, scene: Path) -> None:
        self.stream = rr.RecordingStream("test")
        self.memory = self.stream.memory_recording()
        self.view = LiveView(self.stream, scene)
        self.health = Health(lambda: 0.0)

    def draw(self, output: LocalizerOutput | None = None) -> None:
        if output is not None:
            self.health.frame_received(SECOND)
            self.health.frame_processed(output, 0.0)
            self.view.add(JOB, output)
        self.view.draw(self.health.diagnose())

    def columns(self, folder: Path) -> dict[str, list[Any]]:
        """All that was drawn, by entity and component; the last value of each last."""
        (folder / "drawn.rrd").write_bytes(self.memory.drain_as_bytes())
        chunks = RrdReader(folder / "drawn.rrd").stream()
        found: dict[str, list[Any]] = {}
        for chunk in chunks:
            batch = chunk.to_record_batch()
            for name in (n for n in batch.schema.names if ":" in n):
                values = batch.column(name).to_pylist()
                found.setdefault(f"{chunk.entity_path}:{name}", []).extend(values)
        return found


@pytest.fixture
def recorded(tiny_map: Path) -> Recorded:
    return Recorded(tiny_map)


def test_the_map_the_pose_the_image_and_the_state_are_drawn(
    recorded: Recorded, tiny_map: Path, tmp_path: Path
) -> None:
    recorded.health.active = True
    recorded.view.draw_map()
    for x_m in (1.0, 2.0):
        recorded.draw(answer(x_m=x_m))
    drawn = recorded.columns(tmp_path)
    points = drawn["/map/points:Points3D:positions"][0]
    assert len(points) == len(PointMap.load(tiny_map / "map").points)
    assert len(drawn["/map/mapping:LineStrips3D:strips"][0]) > 1
    np.testing.assert_allclose(np.ravel(drawn["/map/camera:Transform3D:translation"][-1]), [2.0, 2.0, 3.0])
    assert len(drawn["/map/path:LineStrips3D:strips"][-1][0]) == 2
    assert sorted(np.ravel(drawn["/map/position_3_sigma:Ellipsoids3D:half_sizes"][-1])) == pytest.approx(
        [0.3, 0.6, 0.9]
    )
    # Places between pixels count from the corner of the image.
    np.testing.assert_allclose(drawn["/image/inliers:Points2D:positions"][-1], PIXELS[:2] + 0.5)
    np.testing.assert_allclose(drawn["/image/outliers:Points2D:positions"][-1], PIXELS[2:] + 0.5)
    np.testing.assert_allclose(drawn["/image/map_points:Points2D:positions"][-1], PIXELS + 1.0)
    assert len(drawn["/image/keypoints:Points2D:positions"][-1]) == 3
    assert drawn["/image:EncodedImage:blob"]
    assert "TRACKING" in drawn["/status:TextDocument:text"][-1][0]
    assert "TRACKING" in drawn["/events:TextLog:text"][-1][0]


def test_what_is_lost_is_drawn_nowhere(recorded: Recorded, tmp_path: Path) -> None:
    recorded.health.active = True
    for status in (Status.TRACKING, Status.LOST, Status.LOST, Status.TRACKING, Status.TRACKING):
        recorded.draw(answer(status))
    drawn = recorded.columns(tmp_path)
    # No line joins what was before with what came after.
    assert [len(strip) for strip in drawn["/map/path:LineStrips3D:strips"][-1]] == [1, 2]
    for entity in ("/map/camera", "/map/position_3_sigma"):
        assert drawn[f"{entity}:Clear:is_recursive"] == [[False]] * 2
    assert "LOST" in drawn["/status:TextDocument:text"][1][0]
    assert len(drawn["/image:EncodedImage:blob"]) == 5


def test_only_the_newest_answer_is_drawn_and_none_twice(recorded: Recorded, tmp_path: Path) -> None:
    for x_m in (1.0, 2.0, 3.0):
        recorded.view.add(JOB, answer(x_m=x_m))
    recorded.draw()
    recorded.draw()
    drawn = recorded.columns(tmp_path)
    assert np.ravel(drawn["/map/camera:Transform3D:translation"]).tolist() == [3.0, 2.0, 3.0]
    # The state goes on without answers.
    assert len(drawn["/status:TextDocument:text"]) == 2


def test_it_draws_in_a_thread_of_its_own_and_survives_what_cannot_be_drawn(
    recorded: Recorded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    threads: set[str] = set()
    drawn_after = threading.Event()
    monkeypatch.setattr(live_view, "PERIOD_S", 0.001)

    def diagnose() -> Any:
        threads.add(threading.current_thread().name)
        if len(told) < 2:
            raise ValueError(f"cannot {len(told)}")
        drawn_after.set()
        return recorded.health.diagnose()

    recorded.view.start(diagnose, told.append)
    recorded.view.add(JOB, answer())
    assert drawn_after.wait(TIMEOUT_S)
    recorded.view.close()
    assert threads == {"live view"}
    assert told == ["view: ValueError: cannot 0", "view: ValueError: cannot 1"]


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as other:
        other.bind(("", 0))
        other.listen()
        yield other.getsockname()[1]


def test_it_is_served_where_a_port_is_free(
    tiny_map: Path, taken: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_view, "_WEB_PORT", taken)
    monkeypatch.setattr(live_view, "_DATA_PORT", taken)
    view = live_view.serve(tiny_map)
    parts = urllib.parse.urlsplit(view.address)
    source = urllib.parse.urlsplit(urllib.parse.parse_qs(parts.query)["url"][0])
    assert source.scheme == "rerun+http" and source.path == "/proxy"
    for port in (parts.port, source.port):
        assert port is not None and port != taken
        socket.create_connection(("localhost", port), TIMEOUT_S).close()
    view.close()
