"""Settings of a running localizer: back end, fusion, gates and status, and what is published."""

from __future__ import annotations

from itertools import combinations
from typing import Annotated, Literal

from msgspec import Meta

from localizer_ros.core.camera_frames import Convention
from localizer_ros.core.config.map_based import SearchConfig, TrackingConfig
from localizer_ros.core.config.schema import RESEARCH, USER, Config
from localizer_ros.core.types import ConfigError

Reliability = Literal["best_effort", "reliable"]


class BackendConfig(Config, frozen=True):
    """How the network of a scene is run."""

    kind: Annotated[
        Literal["auto", "torch", "openvino", "tensorrt"],
        Meta(
            extra=USER,
            description="Inference back end; auto takes OpenVINO on an x86 CPU, and the fastest, timed once, beside an "
            "NVIDIA GPU or on other processors",
        ),
    ] = "auto"
    precision: Annotated[
        Literal["fp32", "fp16", "bf16", "int8"],
        Meta(
            extra=USER,
            description="Arithmetic of the network; bf16 needs a processor that has it, int8 a network exported so",
        ),
    ] = "fp32"
    threads: Annotated[
        int,
        Meta(
            ge=0,
            le=256,
            extra=USER,
            description="CPU threads of the network, and of image processing; 0 = all cores",
        ),
    ] = 0
    lean: Annotated[
        bool,
        Meta(
            description="TensorRT engines that its lean runtime alone can run, for a robot without the builder; they "
            "are run by it here too"
        ),
    ] = False


class EnsembleConfig(Config, frozen=True):
    """More than one answer of a pose network to a frame; slower, for the test bench rather than for a robot."""

    views: Annotated[
        int,
        Meta(
            ge=1,
            le=16,
            extra=RESEARCH,
            description="Views of a frame whose poses are averaged, all but the first turned; each is a run of the "
            "network (posenet, anchors)",
        ),
    ] = 1
    samples: Annotated[
        int,
        Meta(
            ge=0,
            le=1000,
            extra=RESEARCH,
            description="Passes through the pose head with dropout on (Monte-Carlo dropout): their mean is the answer, "
            "their scatter adds to its covariance. 0 = off, else at least 2 (posenet, anchors; backend.kind torch)",
        ),
    ] = 0


class SmootherConfig(Config, frozen=True):
    """Fixed-lag pose graph that fuses absolute and relative poses."""

    kind: Annotated[
        Literal["gtsam", "none"],
        Meta(extra=USER, description="Smoother: gtsam = fixed-lag pose graph, none = raw absolute poses"),
    ] = "gtsam"
    lag_s: Annotated[
        float, Meta(gt=0.0, le=60.0, extra=USER, description="Time that past poses are kept in the graph")
    ] = 3.0
    robust_kernel: Annotated[
        Literal["huber", "cauchy", "none"], Meta(description="Robust kernel of absolute poses")
    ] = "huber"
    robust_width: Annotated[
        float, Meta(gt=0.0, le=100.0, description="Width of the robust kernel in standard deviations")
    ] = 1.345
    correlation_s: Annotated[
        float,
        Meta(
            ge=0.0,
            le=60.0,
            description="Time within which the errors of poses, and of motions, are taken as one and the same, where "
            "a method does not say so itself (networks do of poses, maps of both): a camera at 30 Hz does not count "
            "one bias thirty times",
        ),
    ] = 1.0
    walk_rotation_deg_s: Annotated[
        float, Meta(gt=0.0, le=3600.0, description="Turn rate (1 sigma) assumed where no motion was measured")
    ] = 45.0
    walk_translation_m_s: Annotated[
        float, Meta(gt=0.0, le=100.0, description="Speed (1 sigma) assumed where no motion was measured")
    ] = 1.0
    max_gap_s: Annotated[
        float, Meta(gt=0.0, le=60.0, description="Time between two frames beyond which the graph starts over")
    ] = 2.0


class GateConfig(Config, frozen=True):
    """Which absolute poses are believed."""

    probability: Annotated[
        float,
        Meta(
            gt=0.5,
            lt=1.0,
            description="Confidence region of the prediction: an absolute pose outside it is rejected",
        ),
    ] = 0.9999
    start_confidence: Annotated[
        float,
        Meta(
            ge=0.0,
            le=1.0,
            description="Confidence below which an absolute pose starts the graph only with two more that agree with "
            "it; for methods that tell a confidence",
        ),
    ] = 0.999
    agreeing_rejections: Annotated[
        int,
        Meta(
            ge=2,
            le=1000,
            description="Rejected poses that are sure enough to start from, agreeing with each other and with the "
            "motion between them, after which the graph starts over there, once the camera has moved further than "
            "their uncertainty; more of less sure ones, and of those that frames without an answer lie between",
        ),
    ] = 3


class StatusConfig(Config, frozen=True):
    """When the answer is called DEGRADED or LOST."""

    degraded_after_s: Annotated[
        float,
        Meta(
            gt=0.0, le=3600.0, description="Time without an accepted absolute pose after which it is DEGRADED"
        ),
    ] = 0.3
    lost_after_s: Annotated[
        float,
        Meta(
            gt=0.0,
            le=3600.0,
            extra=USER,
            description="Time without an accepted absolute pose after which it is LOST, unless odometry, external "
            "or visual, carries the pose on: then its uncertainty alone decides",
        ),
    ] = 2.0
    degraded_sigma_m: Annotated[
        float, Meta(gt=0.0, le=1000.0, description="Position sigma above which it is DEGRADED")
    ] = 1.0
    lost_sigma_m: Annotated[
        float, Meta(gt=0.0, le=1000.0, description="Position sigma above which it is LOST")
    ] = 3.0
    lost_sigma_deg: Annotated[
        float, Meta(gt=0.0, le=180.0, description="Orientation sigma above which it is LOST")
    ] = 45.0
    time_jump_s: Annotated[
        float,
        Meta(
            gt=0.0,
            le=3600.0,
            description="Step back of the stamps that starts everything over; a frame of a smaller step is dropped",
        ),
    ] = 0.5


class OdometryConfig(Config, frozen=True):
    """External odometry, where there is one."""

    use: Annotated[
        bool, Meta(extra=USER, description="External odometry is fused where its topic is published")
    ] = True
    rotation_share: Annotated[
        float, Meta(ge=0.0, le=1.0, description="Rotation error (1 sigma) as a share of the angle turned")
    ] = 0.05
    translation_share: Annotated[
        float, Meta(ge=0.0, le=1.0, description="Translation error (1 sigma) as a share of the distance")
    ] = 0.05
    floor_deg: Annotated[
        float, Meta(gt=0.0, le=90.0, description="Smallest rotation error (1 sigma) between two frames")
    ] = 0.05
    floor_m: Annotated[
        float, Meta(gt=0.0, le=1.0, description="Smallest translation error (1 sigma) between two frames")
    ] = 0.002
    max_gap_s: Annotated[
        float, Meta(gt=0.0, le=10.0, description="Longest gap that is bridged between or after samples")
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
    refine: Annotated[
        Literal["map", "none"],
        Meta(
            description="Refinement of a network's poses: map = refined and verified by the map where the scene holds "
            "one; none = as the network gives them"
        ),
    ] = "map"
    planar: Annotated[
        bool,
        Meta(
            extra=USER,
            description="The robot drives on the flat floor that it was mapped on, with the camera where it was then: "
            "height and tilt of the camera vary by no more than they did while mapping",
        ),
    ] = False
    independent: Annotated[
        bool,
        Meta(
            description="Every frame stands for itself, as pictures taken one by one do: it is searched in full, no "
            "motion is assumed from the one before, and nothing is smoothed"
        ),
    ] = False

    def __post_init__(self) -> None:
        """Raise ConfigError where settings contradict each other; names them."""
        search, status, tracking = self.search, self.status, self.tracking
        if search.latency_s >= self.smoother.lag_s:
            raise ConfigError(
                f"search.latency_s = {search.latency_s:g} s: expected less than smoother.lag_s = "
                f"{self.smoother.lag_s:g} s, or every answer comes too late"
            )
        if status.degraded_after_s > status.lost_after_s:
            raise ConfigError(
                f"status.degraded_after_s = {status.degraded_after_s:g} s: expected at most status.lost_after_s = "
                f"{status.lost_after_s:g} s"
            )
        if status.degraded_sigma_m > status.lost_sigma_m:
            raise ConfigError(
                f"status.degraded_sigma_m = {status.degraded_sigma_m:g} m: expected at most status.lost_sigma_m = "
                f"{status.lost_sigma_m:g} m"
            )
        if tracking.min_inliers > tracking.max_keypoints:
            raise ConfigError(
                f"tracking.min_inliers = {tracking.min_inliers}: expected at most tracking.max_keypoints = "
                f"{tracking.max_keypoints}"
            )
        if self.ensemble.samples == 1:
            raise ConfigError("ensemble.samples = 1: expected 0 or at least 2, one has no scatter")
        if self.ensemble.samples and self.backend.kind not in ("auto", "torch"):
            raise ConfigError(
                f"ensemble.samples = {self.ensemble.samples}: needs backend.kind = torch, got {self.backend.kind}"
            )


class RunConfig(LocalizerConfig, frozen=True):
    """The localizer and what is published of it: what ``localizer run``, ``eval`` and ``replay`` read."""

    map_frame: Annotated[
        str, Meta(extra=USER, description="Frame of the published poses; empty = the scene's map frame")
    ] = ""
    odom_frame: Annotated[
        str,
        Meta(
            extra=USER,
            description="Odometry frame: when set, TF is map_frame -> odom_frame, and odom_frame -> base_frame must "
            "come from elsewhere; empty = TF is map_frame -> the outermost frame above base_frame that others publish",
        ),
    ] = ""
    base_frame: Annotated[
        str,
        Meta(extra=USER, description="Robot frame whose pose is published; empty = the camera's own frame"),
    ] = ""
    publish_tf: Annotated[bool, Meta(extra=USER, description="The transform of the map is broadcast")] = True
    transform_tolerance: Annotated[
        float,
        Meta(
            ge=0.0,
            le=10.0,
            extra={**USER, "unit": "s"},
            description="Time that the transform map_frame -> odom_frame is dated ahead (REP-105)",
        ),
    ] = 0.0
    correction_m_s: Annotated[
        float, Meta(gt=0.0, le=100.0, description="Rate of small corrections of the odometry, 50 deg a metre")
    ] = 0.3
    image_transport: Annotated[
        Literal["raw", "compressed"],
        Meta(extra=USER, description="Transport of images; compressed subscribes to image/compressed"),
    ] = "raw"
    image_reliability: Annotated[
        Reliability, Meta(extra=USER, description="QoS reliability of the image subscription")
    ] = "best_effort"
    camera_info_reliability: Annotated[
        Reliability, Meta(extra=USER, description="QoS reliability of the camera_info subscription")
    ] = "best_effort"
    image_rectified: Annotated[
        bool,
        Meta(
            extra=USER,
            description="Images are rectified already: P of camera_info is used, not its distortion",
        ),
    ] = False
    camera_convention: Convention = "optical"
    path_length: Annotated[int, Meta(ge=2, le=100_000, description="Poses kept in the published path")] = 1000

    def __post_init__(self) -> None:
        """Raise ConfigError where settings contradict each other; names them."""
        super().__post_init__()
        if self.odom_frame and not self.base_frame:
            raise ConfigError(
                f"odom_frame = {self.odom_frame}: needs base_frame as well, to know what moves in it"
            )
        self._check_frames(self.map_frame)

    def frame_of_map(self, scene_frame: str) -> str:
        """The frame of the poses in a scene whose own map frame is ``scene_frame``.

        Raises:
            ConfigError: it is that of the odometry, or the robot's.
        """
        frame = self.map_frame or scene_frame
        self._check_frames(frame)
        return frame

    def _check_frames(self, map_frame: str) -> None:
        frames = {"map_frame": map_frame, "odom_frame": self.odom_frame, "base_frame": self.base_frame}
        given = [(name, frame.lstrip("/")) for name, frame in frames.items() if frame]
        for (name, frame), (other, same) in combinations(given, 2):
            if frame == same:
                raise ConfigError(f"{name} and {other}: expected two frames, got {frame} for both")
