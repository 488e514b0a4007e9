"""A scene opened for an evaluation, with its localizer and its baseline."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from localizer_ros.core.config.runtime import LocalizerConfig
from localizer_ros.datasets.derived import SourceWithCamera
from localizer_ros.datasets.source import FrameSource, camera_problem
from localizer_ros.evaluation.evaluate import OpenScene
from localizer_ros.localization.localizer import open_localizer
from localizer_ros.scene.bundle import Scene
from localizer_ros.scene.nearest_image import open_baseline


@contextmanager
def open_scene(path: Path, config: LocalizerConfig, with_baseline: bool = True) -> Iterator[OpenScene]:
    """The scene at a path, opened, and closed at the end.

    Args:
        path: folder of the scene.
        config: of the localizer.
        with_baseline: also open the nearest-neighbour baseline, where the scene has one.

    Raises:
        SceneError: the scene is missing, incomplete, changed or of another version.
        BackendError: no inference back end can run its network.
    """
    scene = Scene.load(path)
    localizer = open_localizer(path, config)
    try:
        yield OpenScene(
            scene, localizer, config, open_baseline(scene, config.backend) if with_baseline else None
        )
    finally:
        localizer.close()


def with_camera_of(scene: Path, recording: FrameSource) -> FrameSource:
    """A recording with the camera that a scene was mapped with for the frames whose own is not known; else as it is.

    Raises:
        SceneError: the scene is missing, incomplete, changed or of another version.
        SourceError: images of another size than those that were mapped.
    """
    if camera_problem(recording) is None:
        return recording
    return SourceWithCamera(recording, Scene.load(scene).camera)
