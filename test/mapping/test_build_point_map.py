"""A map of a slice of a real recording: building it, and going on with an interrupted build."""

from pathlib import Path

import pytest
from kitchen import CONFIG, Kitchen, Part

from localizer_ros.core.types import SourceError
from localizer_ros.mapping import build_point_map as builder
from localizer_ros.mapping import matching
from localizer_ros.mapping.build_point_map import build_point_map
from localizer_ros.mapping.feature_store import FeatureStore

pytestmark = pytest.mark.slow


def test_the_report_says_what_was_made(kitchen: Kitchen) -> None:
    report = kitchen.report
    assert report.images <= 20
    assert report.images <= report.indexed <= 40
    assert report.points > 500
    assert report.mean_track_length > 3.0
    assert report.reprojection_error_px < 1.5
    on_disk = sum(f.stat().st_size for f in kitchen.scene.rglob("*") if f.is_file())
    assert report.bytes == on_disk
    assert (kitchen.scene / "map" / "colmap" / "points3D.bin").is_file()


def test_the_colmap_model_agrees_with_the_map(kitchen: Kitchen) -> None:
    import pycolmap

    model = pycolmap.Reconstruction(str(kitchen.scene / "map" / "colmap"))
    assert model.num_points3D() == kitchen.report.points
    model.update_point_3d_errors()
    assert model.compute_mean_reprojection_error() < 1.5


def test_a_second_build_takes_what_the_first_left(
    kitchen: Kitchen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def must_not_run(*_: object) -> None:
        raise AssertionError("features were extracted or matched again")

    monkeypatch.setattr(FeatureStore, "_write", must_not_run)
    monkeypatch.setattr(builder, "_VALIDATION_IMAGES", 0)
    monkeypatch.setattr(builder, "examine", lambda *_: [])
    monkeypatch.setattr(matching, "open_matcher", must_not_run)
    report = build_point_map(kitchen.source, CONFIG, tmp_path / "again", kitchen.work)
    assert report.points == kitchen.report.points


def test_too_few_poses_are_an_error(kitchen: Kitchen, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="expected at least 3"):
        build_point_map(Part(kitchen.queries.whole, [0, 1]), CONFIG, tmp_path / "scene", tmp_path / "work")
