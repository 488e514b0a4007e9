"""Settings of localization in a map: the full search of a frame, and tracking between searches."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from localizer_ros.core.config.schema import RESEARCH, USER, Config


class SearchConfig(Config, frozen=True):
    """Full search: from an image and nothing else to a pose."""

    neighbours: Annotated[
        int, Meta(ge=1, le=1000, description="Retrieved images whose points a frame is matched with")
    ] = 12
    ratio: Annotated[
        float,
        Meta(
            gt=0.0,
            le=1.0,
            description="Ratio test of a match: largest ratio of the best to the second-best descriptor distance",
        ),
    ] = 0.9
    matcher: Annotated[
        Literal["mutual", "lightglue"],
        Meta(
            description="Matcher of a frame with keyframes: mutual nearest neighbours, or the network that the scene "
            "was made with (structure.matcher.card)"
        ),
    ] = "mutual"
    max_error_px: Annotated[
        float, Meta(gt=0.0, le=100.0, description="Largest reprojection error of an inlier in RANSAC")
    ] = 8.0
    min_inliers: Annotated[
        int, Meta(ge=4, le=10_000, description="Inliers below which there is no answer")
    ] = 12
    max_iterations: Annotated[int, Meta(ge=10, le=1_000_000, description="Iterations of RANSAC at most")] = (
        2000
    )
    max_wrong: Annotated[
        float,
        Meta(
            gt=0.0,
            lt=1.0,
            extra=USER,
            description="Probability of being wrong above which an answer is dropped, by what the scene has learned of "
            "its own answers",
        ),
    ] = 0.001
    fine_features: Annotated[
        Literal["never", "fallback", "always"],
        Meta(
            description="Search with the finest octave of keypoints too, at four times the time of extraction: never, "
            "where a search without it fails and the pose is not well known otherwise, or always"
        ),
    ] = "fallback"
    rerank: Annotated[
        Literal["auto", "always", "never"],
        Meta(
            description="Retrieved images are ordered by how many keypoints match them through one homography; auto "
            "does it in method retrieval only"
        ),
    ] = "auto"
    rerank_images: Annotated[
        int, Meta(ge=2, le=1000, description="Retrieved images that are matched for re-ranking")
    ] = 20
    interpolation: Annotated[
        Literal["nearest", "equal", "cosine", "barycentric", "motion"],
        Meta(
            extra=RESEARCH,
            description="Weights of the averaged poses of retrieved images (method retrieval); motion makes their "
            "apparent motions from the query cancel, and needs search.rerank",
        ),
    ] = "motion"
    interpolation_neighbours: Annotated[
        int,
        Meta(
            ge=1,
            le=100,
            extra=RESEARCH,
            description="Images whose poses are averaged at most (method retrieval)",
        ),
    ] = 12
    relative_neighbours: Annotated[
        int,
        Meta(
            ge=2,
            le=100,
            extra=RESEARCH,
            description="Images that an essential matrix is estimated to (method relative)",
        ),
    ] = 8
    local_images: Annotated[
        int,
        Meta(
            ge=2,
            le=100,
            extra=RESEARCH,
            description="Images among which points are triangulated for a frame (method local)",
        ),
    ] = 10
    seed: Annotated[int, Meta(ge=0, extra=RESEARCH, description="Seed of everything drawn at random")] = 0
    latency_s: Annotated[
        float,
        Meta(
            ge=0.0,
            le=10.0,
            extra=USER,
            description="Time that a search is given to run beside the frames; its answer is used this much later, at "
            "its own frame. 0 = every frame waits for its search. Choose more than a search takes, less than "
            "smoother.lag_s",
        ),
    ] = 0.0


class TrackingConfig(Config, frozen=True):
    """Guided search around the predicted pose, at camera rate."""

    enabled: Annotated[
        bool,
        Meta(description="Frames are tracked from the predicted pose; false searches every frame in full"),
    ] = True
    max_keypoints: Annotated[int, Meta(ge=50, le=20_000, description="Keypoints of a frame at most")] = 800
    window_px: Annotated[
        float, Meta(gt=1.0, le=500.0, description="Largest search radius around a predicted point")
    ] = 40.0
    images: Annotated[
        int, Meta(ge=1, le=1000, description="Nearest keyframes whose points are looked for in a frame")
    ] = 8
    match_every: Annotated[
        int,
        Meta(
            ge=1,
            le=100,
            description="Frames from one detection and matching of keypoints to the next, fewer where points get "
            "lost; in between, the matched points are followed by optical flow. 1 = in every frame",
        ),
    ] = 3
    latency_s: Annotated[
        float,
        Meta(
            ge=0.0,
            le=1.0,
            description="Time that matching is given to run beside the frames; what it finds is followed into the "
            "frame this much later. 0 = in place, every few frames take several times as long",
        ),
    ] = 0.03
    # Of the 150 points that are followed most frames keep 80 % and more.
    min_inliers: Annotated[int, Meta(ge=4, le=100, description="Inliers below which tracking ends")] = 20
    max_prior_sigma_deg: Annotated[
        float,
        Meta(gt=0.0, le=180.0, description="Sigma of a prediction beyond which a frame is searched in full"),
    ] = 6.0
    max_gap_s: Annotated[
        float, Meta(gt=0.0, le=60.0, description="Time between two frames beyond which tracking ends")
    ] = 0.5
    timing_sigma_ms: Annotated[
        float,
        Meta(
            ge=0.0,
            le=1000.0,
            description="Sigma of the time between what a pixel shows and the image's stamp (rolling shutter, "
            "exposure, clocks): the faster the camera, the less certain its pose",
        ),
    ] = 10.0
