"""The extractor of a configuration."""

from __future__ import annotations

from pathlib import Path

from localizer_ros.core.config.mapping import LocalFeatureConfig
from localizer_ros.core.types import ConfigError
from localizer_ros.features.local_features import Extractor
from localizer_ros.features.rootsift import RootSift


def open_extractor(config: LocalFeatureConfig, folder: Path | None = None) -> Extractor:
    """The extractor of a config.

    Args:
        config: which one.
        folder: where a relative model card lies (the scene); None = the working folder.

    Raises:
        ConfigError: kind onnx without a model card.
        BackendError: the network cannot be opened.
    """
    if config.kind == "rootsift":
        return RootSift(config.contrast, config.max_image_px)
    if not config.card:
        raise ConfigError("structure.features.card: kind onnx needs a model card")
    from localizer_ros.features.onnx_extractor import OnnxExtractor

    return OnnxExtractor((folder or Path()) / config.card, config.max_image_px)
