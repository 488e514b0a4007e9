"""Settings of a running localizer: back end, fusion, gates, search and tracking, and the ROS node around them."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from localizer_ros.core.config.schema import Config


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


class BackendConfig(Config, frozen=True):
    """How the network of a scene is run."""

    kind: Annotated[
        Literal["auto", "torch", "openvino", "tensorrt"],
        Meta(
            description="inference back end; auto takes TensorRT on an NVIDIA GPU, else OpenVINO, else torch"
        ),
    ] = "auto"
    precision: Annotated[Literal["fp32", "fp16", "bf16"], Meta(description="arithmetic of the network")] = (
        "fp32"
    )
    threads: Annotated[int, Meta(ge=0, le=256, description="CPU threads of the network, 0 = all cores")] = 0


class EnsembleConfig(Config, frozen=True):
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
    ensemble: EnsembleConfig = EnsembleConfig()
    smoother: SmootherConfig = SmootherConfig()
    gate: GateConfig = GateConfig()
    status: StatusConfig = StatusConfig()
    odometry: OdometryConfig = OdometryConfig()
    search: SearchConfig = SearchConfig()
    tracking: TrackingConfig = TrackingConfig()


class RunConfig(LocalizerConfig, frozen=True):
    """The localizer and the ROS node around it: what ``localizer run``, ``eval`` and ``replay`` read."""

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
    transform_tolerance: Annotated[
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
