"""Local features by an ONNX network that a model card describes.

The card is a YAML file beside the network::

    network: xfeat_sparse_2048.onnx
    sha256: ...                 # optional; checked when given
    input: images               # (1, 3, H, W) float RGB, 0..1
    multiple_of: 32             # H and W
    keypoints: keypoints        # (N, 2) pixels
    descriptors: descriptors    # (N, D) unit length
    scores: scores              # (N,)
    dimensions: 64
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml

from localizer_ros.core.types import BackendError
from localizer_ros.inference.backend import sha256_of
from localizer_ros.localization.features import LocalFeatures, UInt8, no_features

_KEYS = ("network", "input", "multiple_of", "keypoints", "descriptors", "scores", "dimensions")


def read_card(path: Path) -> dict[str, Any]:
    """A model card. Raises BackendError when it is missing, malformed, or not that of the network beside it."""
    try:
        card = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BackendError(f"{path}: cannot be read ({' '.join(str(error).split())})") from error
    missing = [key for key in _KEYS if not isinstance(card, dict) or key not in card]
    if missing:
        raise BackendError(f"{path}: {', '.join(missing)} missing in the model card")
    network = path.parent / str(card["network"])
    if not network.is_file():
        raise BackendError(f"{network}: is missing beside its model card")
    if "sha256" in card and sha256_of(network) != card["sha256"]:
        raise BackendError(f"{network}: is not the network of its model card (sha256 differs)")
    return dict(card)


def copy_card(path: Path, folder: Path) -> None:
    """Copy a card and its network to a scene, as ``card.yaml`` and under the network's own name."""
    card = read_card(path)
    folder.mkdir(parents=True, exist_ok=True)
    network = Path(str(card["network"]))
    shutil.copyfile(path.parent / network, folder / network.name)
    card.update(network=network.name, sha256=sha256_of(folder / network.name))
    (folder / "card.yaml").write_text(yaml.safe_dump(card, sort_keys=False))


class OnnxExtractor:
    """Implements ``Extractor`` with ONNX Runtime.

    Args:
        card: path of the model card.
        max_image_px: a longer image side is scaled down to this first.

    Raises:
        BackendError: the card or the network cannot be used.
    """

    signed = True

    def __init__(self, card: Path, max_image_px: int) -> None:
        import onnxruntime

        self._card = read_card(card)
        self._max_image_px = max_image_px
        self.dimensions = int(self._card["dimensions"])
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(
                str(card.parent / str(self._card["network"])), options, providers=["CPUExecutionProvider"]
            )
        # ONNX Runtime's exceptions have no common base but this.
        except Exception as error:
            raise BackendError(
                f"{card}: the network cannot be opened ({str(error).splitlines()[0]})"
            ) from error

    def extract(self, image: UInt8, max_keypoints: int, fine: bool) -> LocalFeatures:
        """See ``Extractor.extract``; ``fine`` makes no difference: the network has one resolution."""
        colour = image if image.ndim == 3 else np.repeat(image[:, :, None], 3, axis=2)
        height, width = colour.shape[:2]
        scale = min(1.0, self._max_image_px / max(height, width))
        step = int(self._card["multiple_of"])
        size = (
            max(step, int(width * scale) // step * step),
            max(step, int(height * scale) // step * step),
        )
        if size != (width, height):
            colour = np.asarray(cv2.resize(colour, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
        tensor = np.ascontiguousarray(colour.transpose(2, 0, 1)[None], dtype=np.float32) / 255.0
        names = [str(self._card[key]) for key in ("keypoints", "descriptors", "scores")]
        try:
            keypoints, descriptors, scores = self._session.run(names, {str(self._card["input"]): tensor})
        except Exception as error:
            raise BackendError(f"{self._card['network']}: {str(error).splitlines()[0]}") from error
        keypoints = np.asarray(keypoints, dtype=np.float64).reshape(-1, 2)
        descriptors = np.asarray(descriptors, dtype=np.float32).reshape(-1, self.dimensions)
        if len(keypoints) == 0:
            return no_features(self.dimensions)
        order = np.argsort(-np.asarray(scores).reshape(-1), kind="stable")[:max_keypoints]
        shrink = np.array([width / size[0], height / size[1]])
        xy = (keypoints[order] + 0.5) * shrink - 0.5
        unit = descriptors[order] / np.maximum(
            np.linalg.norm(descriptors[order], axis=1, keepdims=True), 1e-9
        )
        return LocalFeatures(xy.astype(np.float32), unit.astype(np.float32), np.ones(len(order), dtype=bool))
