"""Networks that a user brings along (features, matchers) become part of the scene."""

from __future__ import annotations

from pathlib import Path

import msgspec

from localizer_ros.core.config import StructureConfig
from localizer_ros.localization.matchers import MATCHER_FOLDER, check_matcher
from localizer_ros.localization.model_card import CARD, copy_card

FEATURES_FOLDER = "networks/features"


def check_networks(config: StructureConfig, dimensions: int) -> None:
    """Check the matcher's card before hours of work.

    Args:
        config: names the cards.
        dimensions: of the extractor's descriptors.

    Raises:
        ConfigError: the matcher was trained with other descriptors.
        BackendError: a card or its network is missing or malformed.
    """
    if config.matcher.card:
        check_matcher(Path(config.matcher.card), dimensions)


def take_networks_along(config: StructureConfig, folder: Path) -> StructureConfig:
    """Copy the networks of a config to a scene folder; returns the config with the cards' places there."""
    features, matcher = config.features, config.matcher
    if features.kind == "onnx":
        copy_card(Path(features.card), folder / FEATURES_FOLDER)
        features = msgspec.structs.replace(features, card=f"{FEATURES_FOLDER}/{CARD}")
    if matcher.card:
        copy_card(Path(matcher.card), folder / MATCHER_FOLDER)
        matcher = msgspec.structs.replace(matcher, card=f"{MATCHER_FOLDER}/{CARD}")
    return msgspec.structs.replace(config, features=features, matcher=matcher)
