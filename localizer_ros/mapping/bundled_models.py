"""Models that a user gives for a map (networks of features and matchers, a static mask) become part of the scene."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec

from localizer_ros.core.config.mapping import StructureConfig
from localizer_ros.core.types import ConfigError
from localizer_ros.features.masks import STATIC_MASK
from localizer_ros.features.matchers import MATCHER_FOLDER, MatcherCard, check_matcher
from localizer_ros.features.onnx_descriptor import NETWORK_FOLDER, open_network_descriptor
from localizer_ros.features.onnx_extractor import ExtractorCard
from localizer_ros.inference.model_card import COPIED_CARD, copy_card
from localizer_ros.scene.bundle import INDEX_FOLDER

FEATURES_FOLDER = "networks/features"


def check_networks(config: StructureConfig, dimensions: int) -> None:
    """Check the cards of matcher and retrieval before hours of work.

    Args:
        config: names the cards.
        dimensions: of the extractor's descriptors.

    Raises:
        ConfigError: a card that is needed is not named, or the matcher was trained with other descriptors.
        BackendError: a card or its network is missing or malformed.
    """
    if config.matcher.kind == "lightglue" and not config.matcher.card:
        raise ConfigError("structure.matcher.card: kind lightglue needs a model card")
    if config.matcher.card:
        check_matcher(Path(config.matcher.card), dimensions)
    if config.retrieval.kind == "onnx":
        open_network_descriptor(config.retrieval.card)


def bundle_models(config: StructureConfig, folder: Path) -> StructureConfig:
    """The config with places in a scene folder, to which everything that it names has been copied."""
    features, matcher, masks, retrieval = config.features, config.matcher, config.masks, config.retrieval
    if features.kind == "onnx":
        copy_card(Path(features.card), ExtractorCard, folder / FEATURES_FOLDER)
        features = msgspec.structs.replace(features, card=f"{FEATURES_FOLDER}/{COPIED_CARD}")
    if matcher.card:
        copy_card(Path(matcher.card), MatcherCard, folder / MATCHER_FOLDER)
        matcher = msgspec.structs.replace(matcher, card=f"{MATCHER_FOLDER}/{COPIED_CARD}")
    if retrieval.kind == "onnx":
        # The index has copied it.
        retrieval = msgspec.structs.replace(retrieval, card=f"{INDEX_FOLDER}/{NETWORK_FOLDER}/{COPIED_CARD}")
    if masks.static:
        (folder / STATIC_MASK).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(masks.static, folder / STATIC_MASK)
        masks = msgspec.structs.replace(masks, static=STATIC_MASK)
    # The frames' masks stay with the recording.
    masks = msgspec.structs.replace(masks, folder=Path(masks.folder).name)
    return msgspec.structs.replace(
        config, features=features, matcher=matcher, masks=masks, retrieval=retrieval
    )
