"""Settings of ``localizer map``: how a map of points or of posed images is built, and the network of a method."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from localizer_ros.core.config.schema import RESEARCH, USER, Config
from localizer_ros.core.config.training import (
    AnchorsConfig,
    LsgConfig,
    NetworkConfig,
    PosenetConfig,
    SceneCoordinatesConfig,
    TrainingConfig,
)
from localizer_ros.core.methods import METHODS, method_help, unknown_method
from localizer_ros.core.types import ConfigError


class LocalFeatureConfig(Config, frozen=True):
    """Keypoints and descriptors of an image."""

    kind: Annotated[
        Literal["rootsift", "onnx"],
        Meta(
            description="Local features: rootsift needs no download, onnx runs the network of "
            "structure.features.card"
        ),
    ] = "rootsift"
    card: Annotated[
        str,
        Meta(
            description="Model card of the ONNX extractor (structure.features.kind onnx), beside its network"
        ),
    ] = ""
    max_keypoints: Annotated[
        int, Meta(ge=100, le=20_000, description="Keypoints of a keyframe at most, the strongest")
    ] = 2000
    contrast: Annotated[float, Meta(gt=0.0, le=0.2, description="Least contrast of a SIFT keypoint")] = 0.012
    max_image_px: Annotated[
        int,
        Meta(ge=160, le=8192, description="Longer side of an image beyond which it is scaled down first"),
    ] = 1280


class KeyframeConfig(Config, frozen=True):
    """Which images become keyframes, and which of them are matched with each other."""

    max_images: Annotated[
        int,
        Meta(
            ge=0,
            le=100_000,
            extra=USER,
            description="Keyframes at most, spread as evenly over the views as possible; 0 = as many as the path and "
            "the directions seen need",
        ),
    ] = 0
    min_spacing_deg: Annotated[
        float,
        Meta(
            gt=0.0,
            le=90.0,
            description="Turn (or move of like effect) from the nearest keyframe below which a view adds nothing",
        ),
    ] = 1.5
    spacing_deg: Annotated[
        float,
        Meta(
            gt=0.0,
            le=90.0,
            description="The same where a recording has more than structure.keyframes.dense_images keyframes",
        ),
    ] = 5.0
    dense_images: Annotated[
        int,
        Meta(
            ge=4,
            le=100_000,
            description="Keyframes that are spaced by structure.keyframes.min_spacing_deg, or as far apart as so many "
            "can be; further ones by structure.keyframes.spacing_deg",
        ),
    ] = 150
    neighbours: Annotated[
        int, Meta(ge=2, le=1000, description="Keyframes that each keyframe is matched with")
    ] = 18
    max_angle_deg: Annotated[
        float, Meta(gt=0.0, le=180.0, description="Largest angle between the views of a matched pair")
    ] = 45.0
    ratio: Annotated[
        float,
        Meta(
            gt=0.0,
            le=1.0,
            description="Ratio test of a match: largest ratio of the best to the second-best descriptor distance",
        ),
    ] = 0.85
    epipolar_px: Annotated[
        float, Meta(gt=0.0, le=100.0, description="Largest distance of a match from its epipolar line")
    ] = 12.0


class MaskConfig(Config, frozen=True):
    """What of the images is not to be used: moving things, the robot itself."""

    folder: Annotated[
        str,
        Meta(
            extra=USER,
            description="Folder with a mask of each frame, NAME.png, 0 = ignored; empty = the folder named masks in "
            "the recording, where there is one",
        ),
    ] = ""
    static: Annotated[
        str,
        Meta(
            extra=USER,
            description="Mask image of what every frame shows of the robot itself, 0 = ignored; kept in the scene and "
            "used for live frames too",
        ),
    ] = ""


class BundleConfig(Config, frozen=True):
    """Bundle adjustment of a map whose image poses were given, with the error they have."""

    refine_poses: Annotated[
        bool, Meta(description="Poses move against their prior; false keeps them as they were given")
    ] = True
    refine_intrinsics: Annotated[
        bool,
        Meta(description="Focal lengths, principal point and distortion are refined against their prior"),
    ] = True
    refine_extrinsics: Annotated[
        bool,
        Meta(
            description="The camera's place on the body whose poses were given (depth camera, marker) is refined: one "
            "rigid transform for all images"
        ),
    ] = True
    camera_freedom: Annotated[
        float,
        Meta(
            gt=0.0,
            le=100.0,
            description="Sigma of intrinsics and extrinsics, over how far a data sheet is off; 0.03 = a calibration "
            "that tens of thousands of keypoints do not outvote, taken where poses are made from images",
        ),
    ] = 1.0
    pose_sigma_deg: Annotated[
        float, Meta(gt=0.0, le=90.0, description="Sigma of given rotations, against 1 px of a keypoint")
    ] = 0.03
    pose_sigma_m: Annotated[
        float, Meta(ge=0.0, le=100.0, description="Sigma of given positions; 0 = 0.0006 of the median depth")
    ] = 0.0
    keypoint_sigma_px: Annotated[float, Meta(gt=0.0, le=100.0, description="Sigma of a keypoint")] = 1.0
    iterations: Annotated[
        int, Meta(ge=1, le=1000, description="Iterations of bundle adjustment in each round at most")
    ] = 12
    rounds: Annotated[
        int,
        Meta(ge=1, le=10, description="Rounds of adjusting, dropping bad observations and finding new ones"),
    ] = 2


class MatcherConfig(Config, frozen=True):
    """How keypoints of two keyframes are matched, and the matching network that is bundled with the scene."""

    kind: Annotated[
        Literal["mutual", "lightglue"],
        Meta(
            description="Matcher of keyframes with each other: mutual nearest neighbours with "
            "structure.keyframes.ratio, or the network of structure.matcher.card (slow)"
        ),
    ] = "mutual"
    card: Annotated[
        str,
        Meta(
            description="Model card of a LightGlue network, beside it; bundled with the scene, where search.matcher "
            "can use it"
        ),
    ] = ""


class MapPointConfig(Config, frozen=True):
    """Which points stay in the map."""

    max_error_px: Annotated[
        float, Meta(gt=0.0, le=100.0, description="Largest reprojection error of an observation that is kept")
    ] = 4.0
    min_angle_deg: Annotated[
        float, Meta(ge=0.0, le=90.0, description="Least angle between the rays of a point")
    ] = 1.0
    max_megabytes: Annotated[
        float,
        Meta(
            gt=0.0,
            le=1e6,
            extra=USER,
            description="Size of the map at most, of more than 150 keyframes for each 150 of them; the least useful "
            "observations are pruned",
        ),
    ] = 20.0


class RetrievalConfig(Config, frozen=True):
    """Global descriptors and their index."""

    kind: Annotated[
        Literal["vlad", "bow", "onnx"],
        Meta(
            description="Global descriptor: vlad = residuals to visual words, bow = histogram of words, onnx = the "
            "network of structure.retrieval.card"
        ),
    ] = "vlad"
    card: Annotated[
        str,
        Meta(
            description="Model card of a network of global descriptors (structure.retrieval.kind onnx), beside it"
        ),
    ] = ""
    words: Annotated[int, Meta(ge=4, le=65536, description="Visual words, trained on this scene")] = 64
    dimensions: Annotated[
        int, Meta(ge=0, le=65536, description="Dimensions of the stored descriptor after projection, 0 = all")
    ] = 512
    index: Annotated[
        Literal["auto", "flat", "hnsw", "ivf"],
        Meta(description="Index of descriptors; auto = exact search (flat) up to 10 000 images, then hnsw"),
    ] = "auto"


class PoseCorrectionConfig(Config, frozen=True):
    """Smooth correction (Gaussian process) from the map's adjusted poses to the given ones."""

    enabled: Annotated[
        bool, Meta(description="Answers agree with the given poses, their local drift included")
    ] = True
    reach_deg: Annotated[
        float,
        Meta(
            gt=0.0, le=180.0, description="Turn (or move of like effect) over which the correction is smooth"
        ),
    ] = 20.0
    noise: Annotated[
        float,
        Meta(
            gt=0.0,
            le=100.0,
            extra=RESEARCH,
            description="Variance of one keyframe's correction over that of the Gaussian process",
        ),
    ] = 0.3


class StructureConfig(Config, frozen=True):
    """How a map of points or of posed images is built."""

    features: LocalFeatureConfig = LocalFeatureConfig()
    masks: MaskConfig = MaskConfig()
    keyframes: KeyframeConfig = KeyframeConfig()
    matcher: MatcherConfig = MatcherConfig()
    bundle: BundleConfig = BundleConfig()
    points: MapPointConfig = MapPointConfig()
    retrieval: RetrievalConfig = RetrievalConfig()
    pose_correction: PoseCorrectionConfig = PoseCorrectionConfig()
    seed: Annotated[int, Meta(ge=0, extra=RESEARCH, description="Seed of everything drawn at random")] = 0


class MapConfig(Config, frozen=True):
    """Everything ``localizer map`` needs beside the recording."""

    method: Annotated[str, Meta(extra=USER, description=f"Method of localization, which {method_help()}")] = (
        "hierarchical"
    )
    structure: StructureConfig = StructureConfig()
    network: NetworkConfig = NetworkConfig()
    posenet: PosenetConfig = PosenetConfig()
    anchors: AnchorsConfig = AnchorsConfig()
    lsg: LsgConfig = LsgConfig()
    scene_coords: SceneCoordinatesConfig = SceneCoordinatesConfig()
    training: TrainingConfig = TrainingConfig()
    refine: Annotated[
        Literal["map", "none"],
        Meta(
            description="Refinement that a network's scene is made for: map = it keeps a map of points, some ten "
            "megabytes; none = the network alone"
        ),
    ] = "map"

    def __post_init__(self) -> None:
        """Raise ConfigError where the method does not exist or settings contradict each other; names them."""
        if self.method not in METHODS:
            raise ConfigError(unknown_method(self.method))
        keyframes, points = self.structure.keyframes, self.structure.points
        for name, angle_deg in (
            ("structure.keyframes.min_spacing_deg", keyframes.min_spacing_deg),
            ("structure.points.min_angle_deg", points.min_angle_deg),
        ):
            if angle_deg >= keyframes.max_angle_deg:
                raise ConfigError(
                    f"{name} = {angle_deg:g} deg: expected less than structure.keyframes.max_angle_deg = "
                    f"{keyframes.max_angle_deg:g} deg"
                )
        if self.network.head == "lstm" and self.network.hidden % 32:
            raise ConfigError(
                f"network.head = lstm: needs a multiple of 32 as network.hidden, got {self.network.hidden}"
            )
