"""Settings of the methods that train a network: the networks and the training loop."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from localizer_ros.core.config.schema import RESEARCH, USER, Config


class NetworkConfig(Config, frozen=True):
    """Encoder and heads of a regression network."""

    encoder: Annotated[
        Literal[
            "auto",
            "resnet18",
            "resnet34",
            "googlenet",
            "mobilenet_v2",
            "mobilenet_v3_small",
            "mobilenet_v3_large",
        ],
        Meta(extra=USER, description="Encoder; auto = the one that --weights fits, else mobilenet_v2"),
    ] = "auto"
    stride_padding: Annotated[
        Literal["symmetric", "same"],
        Meta(
            extra=RESEARCH,
            description="Padding of stride-2 convolutions: symmetric (PyTorch) or same (TensorFlow's weights)",
        ),
    ] = "symmetric"
    width_px: Annotated[
        int, Meta(ge=64, le=1024, multiple_of=32, description="Width of the network's input image")
    ] = 256
    height_px: Annotated[
        int, Meta(ge=64, le=1024, multiple_of=32, description="Height of the network's input image")
    ] = 192
    head: Annotated[
        Literal["spatial", "pooled", "lstm", "atloc"],
        Meta(
            extra=RESEARCH,
            description="Way from the feature map to a vector: spatial keeps a few channels at their place in the "
            "image, pooled as in PoseNet, lstm as in LSTM-PoseNet, atloc as in AtLoc",
        ),
    ] = "spatial"
    hidden: Annotated[
        int, Meta(ge=16, le=8192, extra=RESEARCH, description="Width of the layer before the pose")
    ] = 1024
    dropout: Annotated[
        float, Meta(ge=0.0, lt=1.0, extra=RESEARCH, description="Dropout before the pose while training")
    ] = 0.2
    freeze_fine: Annotated[
        bool,
        Meta(description="Loaded weights stay as they are up to stride 8, which halves the training time"),
    ] = True


class AugmentationConfig(Config, frozen=True):
    """What is done to training images; poses change with them where the geometry does."""

    colour: Annotated[
        float,
        Meta(ge=0.0, le=1.0, description="Strength of changes of brightness, contrast, colour and gamma"),
    ] = 0.5
    blur_px: Annotated[float, Meta(ge=0.0, le=20.0, description="Largest motion blur")] = 4.0
    noise: Annotated[
        float, Meta(ge=0.0, le=0.5, description="Largest sigma of image noise, 1 = the full range of values")
    ] = 0.03
    crop: Annotated[
        float,
        Meta(
            ge=0.0,
            le=0.9,
            description="Largest share of the width and height that is black, as for a camera that sees less; "
            "intrinsics and pose stay",
        ),
    ] = 0.0
    low_light: Annotated[
        float,
        Meta(
            ge=0.0,
            le=1.0,
            extra=USER,
            description="Share of the training sequences shown in low light: dark, noisy, tinted, lit by lamps here "
            "and there; for a robot that drives at night",
        ),
    ] = 0.0
    virtual_rotation_deg: Annotated[
        float,
        Meta(ge=0.0, le=60.0, description="Largest turn of a virtual view about each axis (K R K^-1)"),
    ] = 20.0
    virtual_move: Annotated[
        float,
        Meta(
            ge=0.0,
            le=0.5,
            description="Largest move of a virtual view along each axis as a share of the scene's depth, from the "
            "depth of a map of points that is built first; 0 = none",
        ),
    ] = 0.15


class TrainingConfig(Config, frozen=True):
    """The training loop."""

    epochs: Annotated[int, Meta(ge=1, le=100_000, description="Epochs at most")] = 100
    batch_size: Annotated[int, Meta(ge=2, le=4096, description="Images of a training step")] = 16
    learning_rate: Annotated[
        float, Meta(gt=0.0, le=1.0, description="Largest learning rate of what stands behind the encoder")
    ] = 1e-3
    encoder_learning_rate: Annotated[
        float, Meta(ge=0.0, le=1.0, description="Largest learning rate of the encoder; 0 freezes it")
    ] = 3e-4
    weight_decay: Annotated[float, Meta(ge=0.0, le=1.0, description="Weight decay of the optimizer")] = 1e-4
    validation_fraction: Annotated[
        float,
        Meta(
            ge=0.0,
            le=0.5,
            description="Share of the training part that is held out for validation, in contiguous blocks",
        ),
    ] = 0.1
    patience: Annotated[
        int,
        Meta(ge=1, le=100_000, description="Validations without a better model after which training stops"),
    ] = 12
    validate_every: Annotated[
        int, Meta(ge=1, le=1000, description="Epochs from one validation to the next")
    ] = 10
    time_budget_min: Annotated[
        float,
        Meta(
            ge=0.0,
            le=100_000.0,
            extra=USER,
            description="Time after which training stops at its best model; 0 = no limit",
        ),
    ] = 25.0
    sequence: Annotated[
        int,
        Meta(
            ge=2,
            le=1000,
            extra=RESEARCH,
            description="Frames of a training sequence, for losses over more than one",
        ),
    ] = 8
    stride: Annotated[
        int,
        Meta(
            ge=1,
            le=100,
            extra=RESEARCH,
            description="Largest step, in frames, from one frame of a training sequence to the next",
        ),
    ] = 4
    stored_views: Annotated[
        int,
        Meta(
            ge=0,
            le=1000,
            description="Stored views of each frame: with any, the encoder stays as loaded, and what stands behind it "
            "trains on them in minutes; 0 trains the encoder too",
        ),
    ] = 0
    fine_tune: Annotated[
        bool,
        Meta(
            description="Training goes on from all of --weights, a network of the same place and settings, instead of "
            "from its encoder and its depth; that network is kept where no validation is better"
        ),
    ] = False
    seed: Annotated[int, Meta(ge=0, extra=RESEARCH, description="Seed of everything drawn at random")] = 0
    precision: Annotated[
        Literal["auto", "fp32", "bf16"],
        Meta(
            description="Arithmetic of the encoder while training; auto = bf16 where the processor has it itself, else "
            "fp32, as emulating it is slower"
        ),
    ] = "auto"
    augmentation: AugmentationConfig = AugmentationConfig()


class PosenetConfig(Config, frozen=True):
    """PoseNet: absolute pose regression with a VO head on the same encoder."""

    loss: Annotated[
        Literal["sigma", "beta", "mapnet", "geometric"],
        Meta(
            extra=RESEARCH,
            description="Loss: sigma = learned balance (2017), beta = fixed balance (2015), mapnet = poses and "
            "relative poses of a sequence, geometric = reprojection of map points, which needs training.fine_tune",
        ),
    ] = "sigma"
    beta: Annotated[
        float,
        Meta(
            gt=0.0,
            le=1e5,
            extra={**RESEARCH, "unit": "m"},
            description="Weight of rotation in the beta loss, per unit of the quaternion",
        ),
    ] = 5.0


class AnchorsConfig(Config, frozen=True):
    """Anchor points: the pose relative to every n-th training pose, and which of these is relevant."""

    every: Annotated[
        int, Meta(ge=1, le=10_000, extra=RESEARCH, description="Training frames from one anchor to the next")
    ] = 10
    orientation: Annotated[
        Literal["absolute", "relative"],
        Meta(
            extra=RESEARCH, description="Orientation: absolute as in the paper, or relative to each anchor's"
        ),
    ] = "absolute"
    answer: Annotated[
        Literal["argmax", "mean"],
        Meta(
            extra=RESEARCH,
            description="Answer: that of the most probable anchor, or the mean weighted by probability",
        ),
    ] = "mean"
    alpha: Annotated[
        float, Meta(gt=0.0, le=1e5, extra=RESEARCH, description="Weight of positions in the loss")
    ] = 2.4
    kappa: Annotated[
        float,
        Meta(
            gt=0.0,
            le=1e5,
            extra=RESEARCH,
            description="Weight of orientations in the loss; 0.5 in the paper, whose places are streets",
        ),
    ] = 20.0
    cross_entropy: Annotated[
        float,
        Meta(
            ge=0.0,
            le=1e5,
            extra=RESEARCH,
            description="Weight of naming the nearest anchor in the loss; 0 = which anchor is relevant is learned from "
            "the poses alone",
        ),
    ] = 0.0


class LsgConfig(Config, frozen=True):
    """Local Supports Global."""

    size: Annotated[
        Literal["light", "full"],
        Meta(
            extra=RESEARCH,
            description="Size: light = 96 channels behind the encoder, full = 512, for resnet34 as in the paper",
        ),
    ] = "light"
    memory: Annotated[
        int,
        Meta(
            ge=0,
            le=100,
            extra=RESEARCH,
            description="Hidden states attended to; 0 = without content augmentation",
        ),
    ] = 5
    odometry: Annotated[
        Literal["aligned", "fused"],
        Meta(
            extra=RESEARCH,
            description="Motion between frames: aligned = images aligned by depth, as with the other networks, fused "
            "= read off the hidden state as in the paper, which is less exact",
        ),
    ] = "aligned"


class SceneCoordinatesConfig(Config, frozen=True):
    """Scene coordinates: where in the map lies what each cell shows; the pose follows by PnP in RANSAC."""

    width: Annotated[int, Meta(ge=16, le=2048, extra=RESEARCH, description="Channels of the head")] = 256
