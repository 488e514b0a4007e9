"""One step of a network on a stream of images, with the motion network beside it where it has one."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from localizer_ros.core.config.runtime import BackendConfig
from localizer_ros.inference.backend import Backend, Tensors
from localizer_ros.inference.model_card import ModelCard, card_path
from localizer_ros.inference.open_backend import open_backend

MOTION = "motion"
"""Name of the motion network: it takes the image and the ``inverse_depth`` that the other one gives."""


class NetworkStep:
    """An open network and, where the scene has one, its motion network. Created, used and closed in one thread.

    Args:
        folder: of the networks of a scene.
        name: of the network.
        config: back end; the motion network runs in single precision whatever it says.
        samples: passes of Monte-Carlo dropout, see :class:`localizer_ros.inference.torch_backend.TorchBackend`.
        motion: open the motion network too, where the scene has one.

    Attributes:
        name: of the back end.
        card: of the network.

    Raises:
        SceneError: a file is missing or has changed.
        BackendError: the back end is not installed or cannot load a network.
    """

    def __init__(
        self, folder: Path, name: str, config: BackendConfig, samples: int = 0, motion: bool = True
    ) -> None:
        self._network = open_backend(folder, name, config, samples)
        self.name, self.card = self._network.name, self._network.card
        self._motion: Backend | None = None
        if motion and card_path(folder, MOTION).is_file():
            precise: BackendConfig = msgspec.structs.replace(config, precision="fp32")
            self._motion = open_backend(folder, MOTION, precise)

    @property
    def cards(self) -> list[ModelCard]:
        """The cards of all networks of a step."""
        return [self.card, *([self._motion.card] if self._motion else [])]

    def run(self, image_13HW: NDArray[np.float32]) -> Tensors:
        """Outputs of the networks by name, for the next (1, 3, H, W) image. Raises BackendError."""
        outputs = self._network.run({"image": image_13HW})
        if self._motion is None:
            return outputs
        given = {"image": image_13HW, "inverse_depth": outputs["inverse_depth"]}
        return {**outputs, **self._motion.run(given)}

    def warm_up(self) -> None:
        """Run on a black image and forget it: the first run allocates, and takes several times as long as the others.

        Raises BackendError.
        """
        image = next(spec for spec in self.card.inputs if spec.name == "image")
        self.run(np.zeros(image.shape, np.float32))
        self.reset()

    def see(self, image_13HW: NDArray[np.float32]) -> Tensors:
        """Outputs for one more view of the last image, from a network without states. Raises BackendError."""
        return self._network.run({"image": image_13HW})

    def reset(self) -> None:
        """Forget the images before."""
        self._network.reset()
        if self._motion is not None:
            self._motion.reset()

    def close(self) -> None:
        """Release the engines."""
        self._network.close()
        if self._motion is not None:
            self._motion.close()
