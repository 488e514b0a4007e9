"""Model cards of ONNX networks that are brought along: a YAML file beside the network says how to feed it."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from localizer_ros.core.types import BackendError
from localizer_ros.inference.backend import sha256_of

if TYPE_CHECKING:
    import onnxruntime

CARD = "card.yaml"


def read_card(path: Path, keys: Sequence[str]) -> dict[str, Any]:
    """A model card with at least these keys.

    Raises:
        BackendError: it is missing or malformed, a key is missing, or the network beside it is not the card's.
    """
    try:
        card = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BackendError(f"{path}: cannot be read ({' '.join(str(error).split())})") from error
    missing = [key for key in keys if not isinstance(card, dict) or key not in card]
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
    card = read_card(path, ("network",))
    folder.mkdir(parents=True, exist_ok=True)
    network = Path(str(card["network"]))
    shutil.copyfile(path.parent / network, folder / network.name)
    card.update(network=network.name, sha256=sha256_of(folder / network.name))
    (folder / CARD).write_text(yaml.safe_dump(card, sort_keys=False))


def open_session(path: Path, card: dict[str, Any]) -> onnxruntime.InferenceSession:
    """The network of a card, on the CPU. Raises BackendError when it cannot be opened."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(
            str(path.parent / str(card["network"])), options, providers=["CPUExecutionProvider"]
        )
    # ONNX Runtime's exceptions have no common base but this.
    except Exception as error:
        raise BackendError(f"{path}: the network cannot be opened ({str(error).splitlines()[0]})") from error


def run_session(
    session: onnxruntime.InferenceSession, card: dict[str, Any], wanted: list[str], given: dict[str, Any]
) -> list[Any]:
    """Outputs by name. Raises BackendError when the network fails."""
    try:
        return list(session.run(wanted, given))
    except Exception as error:
        raise BackendError(f"{card['network']}: {str(error).splitlines()[0]}") from error
