"""Scenes of learned families: trained for a moment, localised in."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import TINY_NETWORK

from localizer_ros.core.config.mapping import MapConfig
from localizer_ros.core.config.runtime import LocalizerConfig
from localizer_ros.core.config.schema import config_from_dict
from localizer_ros.core.types import ConfigError
from localizer_ros.datasets.source import FrameSource
from localizer_ros.localization.localizer import open_localizer
from localizer_ros.mapping.build import build_scene


@pytest.mark.slow
@pytest.mark.parametrize(
    "method, odometry", [("lsg", "aligned"), ("lsg", "fused"), ("scene_coords", "aligned")]
)
def test_a_scene_of_a_family_localises(
    method: str, odometry: str, tiny_source: FrameSource, tmp_path: Path
) -> None:
    config = config_from_dict(
        MapConfig,
        {
            "method": method,
            "network": TINY_NETWORK,
            "lsg": {"odometry": odometry},
            "scene_coords": {"width": 32},
            "structure": {
                "features": {"max_keypoints": 400},
                "keyframes": {"max_images": 12},
                "retrieval": {"words": 16},
            },
            "training": {
                "epochs": 1,
                "batch_size": 8,
                "sequence": 3,
                "stored_views": 1,
                "augmentation": {"virtual_move": 0.0},
            },
        },
    )
    facts = build_scene(tiny_source, "all", config, tmp_path / "scene")
    assert facts["parity"]["openvino_fp32"]["t_m"] < 1e-3
    assert not (tmp_path / "scene" / "engines").exists(), "compiled for the folder that it was made in"
    # Trained for a moment, it proposes nothing that the map could confirm.
    localizer = open_localizer(tmp_path / "scene", LocalizerConfig(refine="none"))
    outputs = [localizer.process(tiny_source.read(index)) for index in range(4)]
    localizer.close()
    if method == "lsg":
        assert all(output.absolute is not None for output in outputs)
    # Trained for a moment, coordinates agree on nothing: no answer, with the reason, and never a wrong one.
    assert all(output.absolute is not None or output.reason for output in outputs)
    assert outputs[1].relative is not None


def test_fine_tuning_needs_something_to_go_on_from(tiny_source: FrameSource, tmp_path: Path) -> None:
    config = config_from_dict(MapConfig, {"method": "posenet", "training": {"fine_tune": True}})
    with pytest.raises(ConfigError, match="needs the network to go on from: --weights"):
        build_scene(tiny_source, "all", config, tmp_path / "scene")
    assert not list(tmp_path.iterdir())
