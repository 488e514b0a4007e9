"""Settings of `localizer map`: how maps of points are built and networks are trained."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from localizer_ros.core.config.schema import Config
from localizer_ros.core.methods import METHODS, method_help, unknown_method

# --- structure ---
# Maps of points or of posed images, and what localises in them: hierarchical, direct, relative, local, retrieval.


class LocalFeatureConfig(Config, frozen=True):
    """Keypoints and descriptors of an image."""

    kind: Annotated[
        Literal["rootsift", "onnx"], Meta(description="rootsift needs no download; onnx runs card")
    ] = "rootsift"
    card: Annotated[
        str, Meta(description="model card of the ONNX extractor (kind onnx), beside its network")
    ] = ""
    max_keypoints: Annotated[
        int, Meta(ge=100, le=20_000, description="keypoints of a mapping image, the strongest")
    ] = 2000
    contrast: Annotated[float, Meta(gt=0.0, le=0.2, description="least contrast of a SIFT keypoint")] = 0.012
    max_image_px: Annotated[
        int, Meta(ge=160, le=8192, description="a longer image side is scaled down to this before extraction")
    ] = 1280


class KeyframeConfig(Config, frozen=True):
    """Which images carry the map, and which of them are matched with each other."""

    max_images: Annotated[
        int, Meta(ge=4, le=100_000, description="mapping images, spread as evenly over the views as possible")
    ] = 150
    min_spacing_deg: Annotated[
        float,
        Meta(
            gt=0.0,
            le=90.0,
            description="nearer views (by turn, or a move of like effect) add nothing",
        ),
    ] = 1.5
    neighbours: Annotated[int, Meta(ge=2, le=1000, description="images that each image is matched with")] = 18
    max_angle_deg: Annotated[
        float, Meta(gt=0.0, le=180.0, description="largest angle between the views of a matched pair")
    ] = 45.0
    ratio: Annotated[
        float, Meta(gt=0.0, le=1.0, description="best over second best descriptor distance of a match")
    ] = 0.85
    epipolar_px: Annotated[
        float,
        Meta(gt=0.0, le=100.0, description="largest distance of a match from its epipolar line"),
    ] = 12.0


class MaskConfig(Config, frozen=True):
    """What of the images is not to be used: moving things, the robot itself."""

    folder: Annotated[
        str,
        Meta(
            description="masks of the recording's frames, NAME.png each, 0 = ignored; empty = the folder masks in the "
            "recording where there is one"
        ),
    ] = ""
    static: Annotated[
        str,
        Meta(
            description="mask image of what every frame shows of the robot itself, 0 = ignored; kept in the scene and "
            "used for live frames too"
        ),
    ] = ""


class BundleConfig(Config, frozen=True):
    """Bundle adjustment of a map whose image poses were given, with the error they have."""

    refine_poses: Annotated[
        bool, Meta(description="let poses move against their prior; false keeps them as they were given")
    ] = True
    refine_intrinsics: Annotated[
        bool, Meta(description="refine focal lengths, principal point and distortion against their prior")
    ] = True
    refine_extrinsics: Annotated[
        bool,
        Meta(
            description="find the camera's place on the body whose poses were given (depth camera, marker): "
            "one rigid offset for all images"
        ),
    ] = True
    pose_sigma_deg: Annotated[
        float, Meta(gt=0.0, le=90.0, description="error of given rotations, against 1 px of a keypoint")
    ] = 0.03
    pose_sigma_m: Annotated[
        float,
        Meta(ge=0.0, le=100.0, description="error of given positions; 0 = 0.0006 of the median depth"),
    ] = 0.0
    keypoint_sigma_px: Annotated[float, Meta(gt=0.0, le=100.0, description="error of a keypoint")] = 1.0
    iterations: Annotated[int, Meta(ge=1, le=1000, description="at most, in each round")] = 12
    rounds: Annotated[
        int, Meta(ge=1, le=10, description="of adjusting, dropping bad observations, finding new ones")
    ] = 2


class MatcherConfig(Config, frozen=True):
    """How keypoints of two mapping images are matched, and the matching network that the scene brings along."""

    kind: Annotated[
        Literal["mutual", "lightglue"],
        Meta(
            description="of mapping images: mutual nearest with keyframes.ratio, or the network of card (slow)"
        ),
    ] = "mutual"
    card: Annotated[
        str,
        Meta(
            description="model card of a LightGlue network, beside it; taken into the scene, where search.matcher can "
            "use it"
        ),
    ] = ""


class MapPointConfig(Config, frozen=True):
    """Which points stay in the map."""

    max_error_px: Annotated[float, Meta(gt=0.0, le=100.0, description="of an observation that is kept")] = 4.0
    min_angle_deg: Annotated[float, Meta(ge=0.0, le=90.0, description="between the rays of a point")] = 1.0
    max_megabytes: Annotated[
        float, Meta(gt=0.0, le=1e6, description="size of the map; the least useful observations are pruned")
    ] = 20.0


class RetrievalConfig(Config, frozen=True):
    """Global descriptors and their index."""

    kind: Annotated[
        Literal["vlad", "bow", "onnx"],
        Meta(
            description="vlad = residuals to visual words, bow = histogram of words, onnx = the network of card"
        ),
    ] = "vlad"
    card: Annotated[
        str, Meta(description="model card of a network of global descriptors (kind onnx), beside it")
    ] = ""
    words: Annotated[int, Meta(ge=4, le=65536, description="visual words, trained on this scene")] = 64
    dimensions: Annotated[
        int, Meta(ge=0, le=65536, description="of the stored descriptor after projection, 0 = all")
    ] = 512
    index: Annotated[
        Literal["auto", "flat", "hnsw", "ivf"],
        Meta(description="auto = exact search up to 10 000 images, then hnsw"),
    ] = "auto"


class PoseCorrectionConfig(Config, frozen=True):
    """Smooth correction that carries the map's poses to the given ones."""

    enabled: Annotated[bool, Meta(description="answer as the given poses would, local drift included")] = True
    reach_deg: Annotated[
        float, Meta(gt=0.0, le=180.0, description="turn (or move of like effect) it is smooth over")
    ] = 20.0
    noise: Annotated[
        float, Meta(gt=0.0, le=100.0, description="variance of one image's correction over that of the field")
    ] = 0.3


class StructureConfig(Config, frozen=True):
    """How a map of points is built."""

    features: LocalFeatureConfig = LocalFeatureConfig()
    masks: MaskConfig = MaskConfig()
    keyframes: KeyframeConfig = KeyframeConfig()
    matcher: MatcherConfig = MatcherConfig()
    bundle: BundleConfig = BundleConfig()
    points: MapPointConfig = MapPointConfig()
    retrieval: RetrievalConfig = RetrievalConfig()
    pose_correction: PoseCorrectionConfig = PoseCorrectionConfig()
    seed: Annotated[int, Meta(ge=0, description="of everything drawn at random")] = 0


# --- building a scene ---


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
        Meta(description="auto = the encoder that --weights fits, else mobilenet_v2"),
    ] = "auto"
    stride_padding: Annotated[
        Literal["symmetric", "same"],
        Meta(
            description="padding of stride-2 convolutions: symmetric (PyTorch) or same (TensorFlow weights)"
        ),
    ] = "symmetric"
    width_px: Annotated[int, Meta(ge=64, le=1024, multiple_of=32)] = 256
    height_px: Annotated[int, Meta(ge=64, le=1024, multiple_of=32)] = 192
    head: Annotated[
        Literal["spatial", "pooled", "lstm", "atloc"],
        Meta(
            description="from features to a vector: with places kept, pooled as in PoseNet, LSTM-PoseNet, or AtLoc"
        ),
    ] = "spatial"
    hidden: Annotated[int, Meta(ge=16, le=8192, description="width of the layer before the pose")] = 1024
    dropout: Annotated[float, Meta(ge=0.0, lt=1.0)] = 0.2
    freeze_fine: Annotated[
        bool, Meta(description="keep loaded weights up to stride 8: half the training time")
    ] = True


class AugmentationConfig(Config, frozen=True):
    """What is done to training images; poses change with them where the geometry does."""

    colour: Annotated[
        float, Meta(ge=0.0, le=1.0, description="strength of brightness, contrast, colour, gamma")
    ] = 0.5
    blur_px: Annotated[float, Meta(ge=0.0, le=20.0, description="largest motion blur")] = 4.0
    noise: Annotated[float, Meta(ge=0.0, le=0.5, description="largest noise sigma, 1 = full range")] = 0.03
    crop: Annotated[
        float,
        Meta(
            ge=0.0,
            le=0.9,
            description="up to this share of the width and height is black, as for a camera that sees less; intrinsics "
            "and pose stay",
        ),
    ] = 0.0
    low_light: Annotated[
        float,
        Meta(
            ge=0.0,
            le=1.0,
            description="share of the sequences shown at night: dark, noisy, tinted, lit by lamps here and there",
        ),
    ] = 0.0
    virtual_rotation_deg: Annotated[
        float, Meta(ge=0.0, le=60.0, description="views turned by up to this about each axis (K R K^-1)")
    ] = 20.0
    virtual_move: Annotated[
        float,
        Meta(
            ge=0.0,
            le=0.5,
            description="views moved by up to this share of the scene's depth along each axis, from the depth of a "
            "map of points that is built first; 0 = none",
        ),
    ] = 0.15


class TrainingConfig(Config, frozen=True):
    """The training loop."""

    epochs: Annotated[int, Meta(ge=1, le=100_000)] = 100
    batch_size: Annotated[int, Meta(ge=2, le=4096)] = 16
    learning_rate: Annotated[float, Meta(gt=0.0, le=1.0)] = 1e-3
    encoder_learning_rate: Annotated[float, Meta(ge=0.0, le=1.0, description="0 freezes the encoder")] = 3e-4
    weight_decay: Annotated[float, Meta(ge=0.0, le=1.0)] = 1e-4
    validation_fraction: Annotated[
        float, Meta(ge=0.0, le=0.5, description="share of the training part held out in contiguous blocks")
    ] = 0.1
    patience: Annotated[
        int, Meta(ge=1, le=100_000, description="validations without a better model before an early stop")
    ] = 12
    validate_every: Annotated[int, Meta(ge=1, le=1000, description="epochs between validations")] = 10
    time_budget_min: Annotated[
        float,
        Meta(ge=0.0, le=100_000.0, description="minutes before training stops at its best model, 0 = none"),
    ] = 25.0
    sequence: Annotated[
        int, Meta(ge=2, le=1000, description="frames of a training sequence, for losses over more than one")
    ] = 8
    stride: Annotated[
        int, Meta(ge=1, le=100, description="frames of a training sequence are up to this far apart")
    ] = 4
    stored_views: Annotated[
        int,
        Meta(
            ge=0,
            le=1000,
            description="0 trains the encoder too; otherwise it stays as loaded, and what stands behind it trains in "
            "minutes on so many stored views of each frame",
        ),
    ] = 0
    fine_tune: Annotated[
        bool,
        Meta(
            description="go on from all of --weights, a network of the same place and settings, instead of from its "
            "encoder and its depth; it is kept where no validation is better"
        ),
    ] = False
    seed: Annotated[int, Meta(ge=0, description="of everything drawn at random")] = 0
    precision: Annotated[
        Literal["fp32", "bf16"], Meta(description="arithmetic of the encoder while training")
    ] = "bf16"
    augmentation: AugmentationConfig = AugmentationConfig()


class PosenetConfig(Config, frozen=True):
    """PoseNet: absolute pose regression with a VO head on the same encoder."""

    loss: Annotated[
        Literal["sigma", "beta", "mapnet", "geometric"],
        Meta(
            description="learned balance (2017), the fixed beta of 2015, MapNet's (poses and relative poses of a "
            "sequence), or the reprojection of map points, which needs training.fine_tune"
        ),
    ] = "sigma"
    beta: Annotated[
        float,
        Meta(
            gt=0.0, le=1e5, description="weight of rotation in the beta loss, metres per unit of quaternion"
        ),
    ] = 5.0


class AnchorsConfig(Config, frozen=True):
    """Anchor points: the pose relative to every n-th training pose, and which of these is relevant."""

    every: Annotated[int, Meta(ge=1, le=10_000, description="every n-th training frame is an anchor")] = 10
    orientation: Annotated[
        Literal["absolute", "relative"],
        Meta(description="absolute as in the paper, or relative to each anchor's"),
    ] = "absolute"
    answer: Annotated[
        Literal["argmax", "mean"],
        Meta(description="of the most probable anchor, or the mean weighted by probability"),
    ] = "mean"
    alpha: Annotated[float, Meta(gt=0.0, le=1e5, description="weight of positions")] = 2.4
    kappa: Annotated[
        float,
        Meta(
            gt=0.0, le=1e5, description="weight of orientations; 0.5 in the paper, whose places are streets"
        ),
    ] = 20.0
    cross_entropy: Annotated[
        float,
        Meta(ge=0.0, le=1e5, description="weight of telling the nearest anchor; 0 = it finds out by itself"),
    ] = 0.0


class LsgConfig(Config, frozen=True):
    """Local Supports Global."""

    size: Annotated[
        Literal["light", "full"],
        Meta(description="light: 96 channels behind the encoder; full: 512, for resnet34 as in the paper"),
    ] = "light"
    memory: Annotated[
        int, Meta(ge=0, le=100, description="hidden states attended; 0 = without content augmentation")
    ] = 5
    odometry: Annotated[
        Literal["aligned", "fused"],
        Meta(
            description="motion between frames: images aligned by depth, as with the other networks, or read off the "
            "hidden state as in the paper, which is less exact"
        ),
    ] = "aligned"


class SceneCoordinatesConfig(Config, frozen=True):
    """Scene coordinates: where in the map lies what each cell shows; the pose follows by PnP in RANSAC."""

    width: Annotated[int, Meta(ge=16, le=2048, description="channels of the head")] = 256


class MapConfig(Config, frozen=True):
    """Everything ``localizer map`` needs beside the recording."""

    method: Annotated[str, Meta(description=f"How to localise in the place. {method_help()}")] = (
        "hierarchical"
    )
    structure: StructureConfig = StructureConfig()
    network: NetworkConfig = NetworkConfig()
    posenet: PosenetConfig = PosenetConfig()
    anchors: AnchorsConfig = AnchorsConfig()
    lsg: LsgConfig = LsgConfig()
    scene_coords: SceneCoordinatesConfig = SceneCoordinatesConfig()
    training: TrainingConfig = TrainingConfig()

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(unknown_method(self.method))
