"""Every setting of the project, its default, unit, range and meaning: the only source of defaults.

Strict: an unknown key or a value outside its range is an error that names its path. The same metadata declares the ROS
parameters (``ros/parameters.py``) and writes ``config/localizer.param.yaml``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec
import yaml
from msgspec import Meta

from localizer_ros.core.types import ConfigError


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of all settings."""


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


class MappingImagesConfig(Config, frozen=True):
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
    refine_mounting: Annotated[
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
            description="of mapping images: mutual nearest with images.ratio, or the network of card (slow)"
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


class PoseFieldConfig(Config, frozen=True):
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
    images: MappingImagesConfig = MappingImagesConfig()
    matcher: MatcherConfig = MatcherConfig()
    bundle: BundleConfig = BundleConfig()
    points: MapPointConfig = MapPointConfig()
    retrieval: RetrievalConfig = RetrievalConfig()
    pose_field: PoseFieldConfig = PoseFieldConfig()
    seed: Annotated[int, Meta(ge=0, description="of everything drawn at random")] = 0


class SearchConfig(Config, frozen=True):
    """Full search: from an image and nothing else to a pose."""

    neighbours: Annotated[int, Meta(ge=1, le=1000, description="retrieved images")] = 12
    ratio: Annotated[
        float, Meta(gt=0.0, le=1.0, description="best over second best descriptor distance of a match")
    ] = 0.9
    matcher: Annotated[
        Literal["mutual", "lightglue"],
        Meta(
            description="of a frame with mapping images: mutual nearest with ratio, or the network that the scene "
            "brought along (structure.matcher.card)"
        ),
    ] = "mutual"
    max_error_px: Annotated[float, Meta(gt=0.0, le=100.0, description="of an inlier in RANSAC")] = 8.0
    min_inliers: Annotated[int, Meta(ge=4, le=10_000, description="fewer are no answer")] = 12
    max_iterations: Annotated[int, Meta(ge=10, le=1_000_000, description="of RANSAC")] = 2000
    min_confidence: Annotated[
        float, Meta(ge=0.0, le=1.0, description="an answer below is none (docs/structure.md)")
    ] = 0.5
    fine_features: Annotated[
        Literal["never", "fallback", "always"],
        Meta(description="search with the finest octave of keypoints too: four times the time of extraction"),
    ] = "fallback"
    rerank: Annotated[
        Literal["auto", "always", "never"],
        Meta(
            description="order retrieved images by how many keypoints match them through one homography; auto = in "
            "method retrieval only"
        ),
    ] = "auto"
    rerank_images: Annotated[
        int, Meta(ge=2, le=1000, description="retrieved images that are matched for re-ranking")
    ] = 20
    interpolation: Annotated[
        Literal["nearest", "equal", "cosine", "barycentric", "motion"],
        Meta(
            description="method retrieval: how poses of retrieved images are averaged; motion = such that their "
            "apparent motions from the query cancel (needs rerank)"
        ),
    ] = "motion"
    interpolation_neighbours: Annotated[
        int, Meta(ge=1, le=100, description="method retrieval: images averaged")
    ] = 12
    relative_neighbours: Annotated[
        int, Meta(ge=2, le=100, description="method relative: images an essential matrix is found to")
    ] = 8
    local_images: Annotated[
        int, Meta(ge=2, le=100, description="method local: images whose points are triangulated for a frame")
    ] = 10
    seed: Annotated[int, Meta(ge=0, description="of everything drawn at random")] = 0
    latency_s: Annotated[
        float,
        Meta(
            ge=0.0,
            le=10.0,
            description="0 = frames wait for their search; more = it runs beside them and its answer is used this much "
            "later, at its own frame. Longer than it takes, shorter than smoother.lag_s",
        ),
    ] = 0.0


class TrackingConfig(Config, frozen=True):
    """Guided search around the predicted pose, at camera rate."""

    enabled: Annotated[bool, Meta(description="false = full search for every frame")] = True
    max_keypoints: Annotated[int, Meta(ge=50, le=20_000, description="keypoints of a frame")] = 800
    window_px: Annotated[
        float, Meta(gt=1.0, le=500.0, description="largest search radius around a predicted point")
    ] = 40.0
    images: Annotated[
        int, Meta(ge=1, le=1000, description="nearest mapping images whose points are looked for")
    ] = 8
    match_every: Annotated[
        int,
        Meta(
            ge=1,
            le=100,
            description="keypoints are found and matched with the map in every so many frames, sooner where points get "
            "lost; in those between, the matched points are followed by optical flow. 1 = in every frame",
        ),
    ] = 3
    min_inliers: Annotated[int, Meta(ge=4, le=10_000, description="fewer end tracking")] = 20
    max_prior_sigma_deg: Annotated[
        float, Meta(gt=0.0, le=180.0, description="a less certain prediction is searched in full")
    ] = 6.0
    max_gap_s: Annotated[float, Meta(gt=0.0, le=60.0, description="a longer gap ends tracking")] = 0.5
    timing_sigma_ms: Annotated[
        float,
        Meta(
            ge=0.0,
            le=1000.0,
            description="how far the time of what a pixel shows is from the image's stamp (rolling shutter, exposure, "
            "clocks), 1 sigma: the faster the camera, the less certain its pose",
        ),
    ] = 10.0


class StructureLocalizationConfig(Config, frozen=True):
    """How frames are localised in a map of points."""

    search: SearchConfig = SearchConfig()
    tracking: TrackingConfig = TrackingConfig()


# --- running a localizer ---


class BackendConfig(Config, frozen=True):
    """How the network of a scene is run."""

    kind: Annotated[
        Literal["auto", "torch", "openvino", "tensorrt"],
        Meta(
            description="inference back end; auto takes TensorRT on an NVIDIA GPU, else OpenVINO, else torch"
        ),
    ] = "auto"
    precision: Annotated[
        Literal["fp32", "fp16", "bf16", "int8"], Meta(description="arithmetic of the network")
    ] = "fp32"
    threads: Annotated[int, Meta(ge=0, le=256, description="CPU threads of the network, 0 = all cores")] = 0


class NetworkLocalizationConfig(Config, frozen=True):
    """More than one answer of a pose network to a frame; slower, for the test bench rather than for a robot."""

    views: Annotated[
        int,
        Meta(
            ge=1,
            le=16,
            description="views of a frame, the others turned about the first, whose poses are averaged; each is a run "
            "of the network (posenet, anchors)",
        ),
    ] = 1
    samples: Annotated[
        int,
        Meta(
            ge=0,
            le=1000,
            description="passes through the pose head with dropout on (Monte-Carlo dropout): their mean is the answer, "
            "their scatter adds to its covariance; at least 2, 0 = off (posenet, anchors; backend.kind torch)",
        ),
    ] = 0


class SmootherConfig(Config, frozen=True):
    """Fixed-lag pose graph that fuses absolute and relative poses."""

    kind: Annotated[
        Literal["gtsam", "none"], Meta(description="gtsam = fixed-lag pose graph, none = raw absolute poses")
    ] = "gtsam"
    lag_s: Annotated[float, Meta(gt=0.0, le=60.0, description="seconds of past poses kept in the graph")] = (
        3.0
    )
    robust_kernel: Annotated[
        Literal["huber", "cauchy", "none"], Meta(description="robust kernel of absolute poses")
    ] = "huber"
    robust_width: Annotated[
        float, Meta(gt=0.0, le=100.0, description="width of the robust kernel in standard deviations")
    ] = 1.345
    correlation_s: Annotated[
        float,
        Meta(
            ge=0.0,
            le=60.0,
            description="errors of poses, and of motions, closer in time than this are taken as the same error, where "
            "a method does not say so itself (networks do of poses, maps of both): a camera at 30 Hz does not count "
            "one bias thirty times",
        ),
    ] = 1.0
    walk_rotation_deg_s: Annotated[
        float,
        Meta(gt=0.0, le=3600.0, description="turn rate (1 sigma) assumed where no motion was measured"),
    ] = 45.0
    walk_translation_m_s: Annotated[
        float, Meta(gt=0.0, le=100.0, description="speed (1 sigma) assumed where no motion was measured")
    ] = 1.0
    max_gap_s: Annotated[
        float, Meta(gt=0.0, le=60.0, description="a longer time between two frames starts the graph over")
    ] = 2.0


class GateConfig(Config, frozen=True):
    """Which absolute poses are believed."""

    probability: Annotated[
        float,
        Meta(
            gt=0.5,
            lt=1.0,
            description="an absolute pose outside this confidence region of the prediction is rejected",
        ),
    ] = 0.9999
    start_confidence: Annotated[
        float,
        Meta(
            ge=0.0,
            le=1.0,
            description="an absolute pose of lower confidence starts the graph only with two more that agree with it; "
            "for methods that tell a confidence",
        ),
    ] = 0.98
    agreeing_rejections: Annotated[
        int,
        Meta(
            ge=2,
            le=1000,
            description="this many rejected poses in a row that agree with each other start the graph over there",
        ),
    ] = 15


class StatusConfig(Config, frozen=True):
    """When the answer is called DEGRADED or LOST."""

    degraded_after_s: Annotated[
        float, Meta(gt=0.0, le=3600.0, description="seconds without an accepted absolute pose")
    ] = 0.5
    lost_after_s: Annotated[
        float, Meta(gt=0.0, le=3600.0, description="seconds without an accepted absolute pose")
    ] = 2.0
    degraded_sigma_m: Annotated[
        float, Meta(gt=0.0, le=1000.0, description="largest position sigma of TRACKING, metres")
    ] = 1.0
    lost_sigma_m: Annotated[
        float, Meta(gt=0.0, le=1000.0, description="largest position sigma of DEGRADED, metres")
    ] = 3.0
    time_jump_s: Annotated[
        float,
        Meta(
            gt=0.0,
            le=3600.0,
            description="a stamp further back than this resets; a smaller step back is dropped",
        ),
    ] = 0.5


class OdometryConfig(Config, frozen=True):
    """External odometry topic, where there is one."""

    use: Annotated[bool, Meta(description="fuse the odometry topic when it is published")] = True
    rotation_share: Annotated[
        float, Meta(ge=0.0, le=1.0, description="rotation error (1 sigma) as a share of the angle turned")
    ] = 0.05
    translation_share: Annotated[
        float, Meta(ge=0.0, le=1.0, description="translation error (1 sigma) as a share of the distance")
    ] = 0.05
    floor_deg: Annotated[
        float, Meta(gt=0.0, le=90.0, description="smallest rotation error between frames, degrees")
    ] = 0.05
    floor_m: Annotated[
        float, Meta(gt=0.0, le=1.0, description="smallest translation error between frames, metres")
    ] = 0.002
    max_gap_s: Annotated[
        float, Meta(gt=0.0, le=10.0, description="longest gap bridged between or after samples, seconds")
    ] = 0.2


class LocalizerConfig(Config, frozen=True):
    """Everything ``Localizer.process`` needs beside the scene."""

    backend: BackendConfig = BackendConfig()
    network: NetworkLocalizationConfig = NetworkLocalizationConfig()
    smoother: SmootherConfig = SmootherConfig()
    gate: GateConfig = GateConfig()
    status: StatusConfig = StatusConfig()
    odometry: OdometryConfig = OdometryConfig()
    structure: StructureLocalizationConfig = StructureLocalizationConfig()


class NodeConfig(Config, frozen=True):
    """The ROS node around the localizer."""

    map_frame: Annotated[
        str, Meta(description="frame of the published poses; empty = the scene's map frame")
    ] = ""
    odom_frame: Annotated[
        str,
        Meta(
            description="when set, TF is map -> odom_frame and odom_frame -> base_frame must come from elsewhere"
        ),
    ] = ""
    base_frame: Annotated[
        str, Meta(description="robot frame whose pose is published; empty = the camera's own frame")
    ] = ""
    publish_tf: Annotated[bool, Meta(description="broadcast the map transform")] = True
    transform_tolerance_s: Annotated[
        float,
        Meta(ge=0.0, le=10.0, description="seconds the map -> odom transform is dated ahead (REP-105 users)"),
    ] = 0.0
    image_transport: Annotated[
        Literal["raw", "compressed"], Meta(description="compressed subscribes to image/compressed")
    ] = "raw"
    image_reliability: Annotated[
        Literal["best_effort", "reliable"], Meta(description="QoS reliability of the image subscription")
    ] = "best_effort"
    camera_info_reliability: Annotated[
        Literal["best_effort", "reliable"],
        Meta(description="QoS reliability of the camera_info subscription"),
    ] = "best_effort"
    image_rectified: Annotated[
        bool,
        Meta(description="true = the image is rectified already: use P of camera_info, ignore distortion"),
    ] = False
    path_length: Annotated[int, Meta(ge=2, le=100_000, description="poses kept in the published path")] = 1000


class RunConfig(Config, frozen=True):
    """The whole tree behind ``localizer run``, ``eval`` and ``replay``."""

    localizer: LocalizerConfig = LocalizerConfig()
    node: NodeConfig = NodeConfig()


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
        Literal["placed", "pooled", "lstm", "atloc"],
        Meta(
            description="from features to a vector: with places kept, pooled as in PoseNet, LSTM-PoseNet, or AtLoc"
        ),
    ] = "placed"
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
    night: Annotated[
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

    method: Annotated[
        Literal[
            "hierarchical",
            "direct",
            "relative",
            "local",
            "retrieval",
            "posenet",
            "anchors",
            "lsg",
            "scene_coords",
        ],
        Meta(
            description="hierarchical, direct and relative build a map of points, local and retrieval keep posed "
            "images (seconds), the others train a network"
        ),
    ] = "hierarchical"
    structure: StructureConfig = StructureConfig()
    network: NetworkConfig = NetworkConfig()
    posenet: PosenetConfig = PosenetConfig()
    anchors: AnchorsConfig = AnchorsConfig()
    lsg: LsgConfig = LsgConfig()
    scene_coords: SceneCoordinatesConfig = SceneCoordinatesConfig()
    training: TrainingConfig = TrainingConfig()


# --- reading and writing ---

C = TypeVar("C", bound=Config)


def load_config(kind: type[C], path: Path | None = None, overrides: Iterable[str] = ()) -> C:
    """A config from a YAML file and ``key.path=value`` overrides, both optional.

    Raises:
        ConfigError: unreadable file, unknown key, wrong type or value out of range; names file and key path.
    """
    values: Any = {}
    if path is not None:
        try:
            values = yaml.safe_load(path.read_text())
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise ConfigError(f"{path}: cannot be read ({' '.join(str(error).split())})") from error
        if values is None:
            values = {}
        # Before overrides: what they are laid over must be right by itself.
        config_from_dict(kind, values, str(path))
    for override in overrides:
        values = _with_override(values, override)
    return config_from_dict(kind, values, "settings")


def config_from_dict(kind: type[C], values: Any, where: str = "settings") -> C:
    """A config from plain values; ``where`` begins the message of a ConfigError."""
    try:
        # YAML writes 3 where 3.0 is meant; anything else must have its own type.
        return msgspec.convert(values, kind, strict=True)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{where}: {error}") from error


def without_unknown(kind: type[Config], values: Any, at: str = "") -> tuple[Any, list[str]]:
    """Values without the keys that ``kind`` does not have (any more), and the paths of those; for what was written by
    another version. What the user writes is read by :func:`config_from_dict` alone, where such a key is an error.
    """
    if not isinstance(values, dict):
        return values, []
    fields = {field.encode_name: field.type for field in msgspec.structs.fields(kind)}
    known: dict[str, Any] = {}
    unknown: list[str] = []
    for key, value in values.items():
        if key not in fields:
            unknown.append(f"{at}{key}")
            continue
        inner = fields[key]
        if isinstance(inner, type) and issubclass(inner, Config):
            value, deeper = without_unknown(inner, value, f"{at}{key}.")
            unknown.extend(deeper)
        known[key] = value
    return known, unknown


def config_to_dict(config: Config) -> dict[str, Any]:
    """Plain values of the whole tree, for YAML and JSON."""
    values: dict[str, Any] = msgspec.to_builtins(config)
    return values


def dump_yaml(config: Config) -> str:
    """The whole tree as YAML, defaults included, in the order of definition."""
    return yaml.safe_dump(config_to_dict(config), sort_keys=False)


def _with_override(values: Any, override: str) -> dict[str, Any]:
    key, separator, text = override.partition("=")
    if not separator or not key.strip():
        raise ConfigError(f"--set {override}: expected key.path=value")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {override}: the value is not YAML") from error
    # YAML 1.1 reads 1e-3 as a string.
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            value = float(value)
    updated: dict[str, Any] = dict(values) if isinstance(values, dict) else {}
    node = updated
    *parents, last = key.strip().split(".")
    for parent in parents:
        child = node.get(parent)
        node[parent] = dict(child) if isinstance(child, dict) else {}
        node = node[parent]
    node[last] = value
    return updated
