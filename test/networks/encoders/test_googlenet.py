"""GoogLeNet in the key names of its published weights."""

from __future__ import annotations

import torch

from localizer_ros.networks.encoders.build import (
    build_encoder,
)


def test_googlenet_has_the_keys_and_the_input_of_its_published_weights() -> None:
    encoder = build_encoder("googlenet")
    keys = set(encoder.state_dict())
    assert {"conv1.conv.weight", "conv3.bn.running_var", "inception4e.branch4.1.conv.weight"} <= keys
    # torchvision's model without auxiliary classifiers has these and fc.weight, fc.bias.
    assert len(keys) == 342
    assert encoder.inception3a.branch3[1].conv.weight.shape == (32, 16, 3, 3)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    raw = torch.rand(2, 3, 4, 4)
    normalized = (raw - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    torch.testing.assert_close(encoder.scale(normalized), 2.0 * raw - 1.0)
