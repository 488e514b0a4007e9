"""Re-ranking of retrieved images by geometry: how many keypoints match the query through one homography.

The homography is loose, because scenes are not planar: it asks whether matches move together, not whether they are
exact. Every image that passes is left with the matches it passed by, which say how the view differs from the query's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import poselib

from localizer_ros.core.config.map_based import SearchConfig
from localizer_ros.core.types import Array
from localizer_ros.features.matchers import Matcher
from localizer_ros.scene.map_scene import MapScene, View

# Largest error of a match, on the plane z = 1: what parallax may add to one plane's motion.
_LOOSE = 0.04
# Iterations of RANSAC.
_ITERATIONS = 300
RERANK_KEYPOINTS = 800
"""Keypoints of a keyframe that are enough to see whether it matches."""
# Fewer matches are not worth a homography.
_FEWEST = 8


@dataclass(frozen=True, slots=True, eq=False)
class MatchedImage:
    """A retrieved image and what it has in common with the query.

    Attributes:
        image: number of the keyframe.
        query_rays: (K, 2) matched keypoints of the query on the plane z = 1.
        keyframe_rays: (K, 2) the same of the image.
    """

    image: int
    query_rays: Array
    keyframe_rays: Array

    def __len__(self) -> int:
        return len(self.query_rays)


def matched_images(
    scene: MapScene, view: View, images: Sequence[int], matcher: Matcher, config: SearchConfig
) -> list[MatchedImage]:
    """Images by the number of matches that agree with a homography, the most first.

    Args:
        scene: keyframes with keypoints.
        view: the query.
        images: numbers of keyframes, most similar first; ties keep this order.
        matcher: of keypoints.
        config: seed.
    """
    focal = scene.focal_px
    options = {"max_reproj_error": _LOOSE * focal, "max_iterations": _ITERATIONS, "seed": config.seed}
    found: list[MatchedImage] = []
    for image in images:
        pairs = matcher.match(view.side, scene.keyframe_side(image, RERANK_KEYPOINTS))
        a = view.rays[pairs[:, 0]]
        b = scene.keyframe_rays(image)[pairs[:, 1]]
        inliers = np.zeros(len(pairs), dtype=bool)
        if len(pairs) >= _FEWEST:
            _, report = poselib.estimate_homography(a * focal, b * focal, options, {})
            inliers = np.asarray(report["inliers"], dtype=bool)
        found.append(MatchedImage(image, a[inliers], b[inliers]))
    return sorted(found, key=len, reverse=True)
