"""Model cards: a YAML file beside a network says what it is given and what it gives.

There is one format for the networks that mapping trains (:class:`ModelCard`) and for those that a user brings
(extractors, matchers and global descriptors, see ``features``). Every card names its network's file; the other keys
follow from what the network does. Two lines of each are::

    network: mobilenet_pooled.onnx   # a file beside the card
    sha256: 9f86d081884c7d65...      # optional; checked when given

A key that is missing, misspelt or of the wrong type is an error that names the card and the key.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

import msgspec
import yaml
from msgspec import Meta

from localizer_ros.core.files import read_yaml, sha256_of
from localizer_ros.core.types import BackendError, Camera, ConfigError

COPIED_CARD = "card.yaml"
"""Name of a user's card in a scene."""

K = TypeVar("K", bound="Card")
Size3 = Annotated[tuple[float, float, float], Meta(description="three numbers")]


class Card(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What every model card holds.

    Attributes:
        network: file of the network, beside the card.
        sha256: its checksum; empty = not checked.
    """

    network: Annotated[str, Meta(description="a file name")]
    sha256: Annotated[str, Meta(description="a checksum")] = ""

    def write(self, path: Path) -> None:
        """Write as YAML."""
        path.write_text(yaml.safe_dump(msgspec.to_builtins(self), sort_keys=False), encoding="utf-8")


class TensorSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Name and shape of one float32 tensor."""

    name: str
    shape: tuple[int, ...]


class ModelCard(Card, frozen=True, kw_only=True):
    """The card of a network that mapping has trained: ``NAME.yaml`` beside NAME.onnx and NAME.safetensors.

    Attributes:
        inputs: what the caller gives.
        outputs: what the caller gets, states included.
        states: input name -> output name; kept by the back end from one call to the next, zero after a reset.
        architecture: what ``networks.build.build_network`` needs to make the network again.
        mean: RGB mean of the 0..1 input image.
        std: RGB standard deviation of the 0..1 input image.
        camera: the ideal pinhole of the input image, as ``Camera.to_dict``.
        refined_camera: how that image was really taken, as far as a map has found out;
            ``RefinedCamera.to_dict``; empty when unknown.
        sigma_scale: factors on the predicted standard deviations, from the validation part: absolute
            [rotation, translation], motion [rotation, translation].
        weights_sha256: checksum of NAME.safetensors.
        made_from: of a network in lower precision: checksum of the ONNX file that it was made from.
        single_precision: layers that stay in single precision where others do not.
        parity: back end -> largest difference to PyTorch in single precision, [metres, degrees].
        accuracy: of a quantised network and of the one it was made from, on the part that decided whether it is used.
    """

    inputs: Annotated[tuple[TensorSpec, ...], Meta(description="names and shapes of tensors")]
    outputs: Annotated[tuple[TensorSpec, ...], Meta(description="names and shapes of tensors")]
    states: Annotated[dict[str, str], Meta(description="output names by input name")]
    architecture: Annotated[dict[str, Any], Meta(description="settings of a network")]
    mean: Size3
    std: Size3
    camera: Annotated[dict[str, Any], Meta(description="a camera")]
    refined_camera: Annotated[dict[str, list[float]], Meta(description="numbers of a camera")] = {}
    sigma_scale: Annotated[tuple[float, float, float, float], Meta(description="four numbers")] = (1, 1, 1, 1)
    weights_sha256: str = ""
    made_from: str = ""
    single_precision: Annotated[tuple[str, ...], Meta(description="names of layers")] = ()
    parity: Annotated[dict[str, tuple[float, float]], Meta(description="two numbers by back end")] = {}
    accuracy: Annotated[dict[str, float], Meta(description="numbers by name")] = {}

    @property
    def name(self) -> str:
        """Stem of the files of the network."""
        return Path(self.network).stem

    @property
    def weights(self) -> str:
        """File of the weights, beside the card."""
        return f"{self.name}.safetensors"


def card_path(folder: Path, name: str) -> Path:
    """Where the card of a network of a scene lies.

    Args:
        folder: of the scene's networks.
        name: of the network, e.g. ``posenet``.
    """
    return folder / f"{name}.yaml"


def variant_name(name: str, precision: str) -> str:
    """Name of the files of a network in lower precision, without their suffix."""
    return f"{name}.{precision}"


def read_card(path: Path, kind: type[K]) -> K:
    """The model card in a file.

    Args:
        path: of the card.
        kind: of the card.

    Raises:
        BackendError: it is missing or unreadable, or a key is missing, unknown or of the wrong type.
    """
    values = read_yaml(path, BackendError)
    fields = {field.name: field.required for field in msgspec.structs.fields(kind)}
    missing = [name for name, required in fields.items() if required and name not in values]
    if missing:
        raise BackendError(f"{path}: {', '.join(missing)} missing in the model card")
    unknown = [str(key) for key in values if key not in fields]
    if unknown:
        raise BackendError(
            f"{path}: unknown in a model card: {', '.join(unknown)}; known: {', '.join(fields)}"
        )
    for name, hint in get_type_hints(kind, include_extras=True).items():
        if name in values:
            _check_type(path, name, values[name], hint)
    if isinstance(camera := values.get("camera"), dict):
        try:
            Camera.from_dict(camera)
        except ConfigError as error:
            raise BackendError(f"{path}: {error}") from error
    return msgspec.convert(values, kind)


def network_of(path: Path, card: Card) -> Path:
    """The file of a card's network.

    Args:
        path: of the card.
        card: what it says.

    Raises:
        BackendError: the file is missing, or is not that of the card.
    """
    network = path.parent / card.network
    if not network.is_file():
        raise BackendError(f"{network}: is missing beside its model card")
    if card.sha256 and sha256_of(network, BackendError) != card.sha256:
        raise BackendError(f"{network}: is not the network of its model card (sha256 differs)")
    return network


def copy_card(path: Path, kind: type[Card], folder: Path) -> Path:
    """Copy a user's card and its network to a folder of a scene; returns where the card is then.

    The card is named :data:`COPIED_CARD`, the network keeps its own name.

    Args:
        path: of the card.
        kind: of the card.
        folder: where to; made where it is missing.

    Raises:
        BackendError: as of :func:`read_card` and :func:`network_of`.
    """
    card = read_card(path, kind)
    network = network_of(path, card)
    folder.mkdir(parents=True, exist_ok=True)
    copied = folder / network.name
    shutil.copyfile(network, copied)
    card = msgspec.structs.replace(card, network=network.name, sha256=sha256_of(copied, BackendError))
    card.write(folder / COPIED_CARD)
    return folder / COPIED_CARD


def _check_type(path: Path, key: str, value: Any, hint: Any) -> None:
    try:
        msgspec.convert(value, hint)
    except msgspec.ValidationError as error:
        meta = get_args(hint)[1:] if get_origin(hint) is Annotated else ()
        expected = next((m.description for m in meta if isinstance(m, Meta) and m.description), None)
        said = f"expected {expected}" if expected else str(error)
        raise BackendError(f"{path}: {key}: {said}, got {value!r:.60}") from error
