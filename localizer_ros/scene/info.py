"""What is in a scene, for ``localizer info``: its map of points, its index, its networks, and where its bytes go."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from localizer_ros.core.types import SceneError
from localizer_ros.inference.engine_cache import ENGINES
from localizer_ros.inference.model_card import ModelCard, read_card
from localizer_ros.scene.bundle import INDEX_FOLDER, MAP_FOLDER, NETWORKS_FOLDER, Scene, has_map

# Upper ends of the bins of track lengths; the last one is open.
_TRACK_BINS = (2, 3, 5, 10, 20)
# What mapping counted and is counted here again, from the files that are there.
_COUNTED = (
    "images",
    "indexed",
    "points",
    "observations",
    "mean_track_length",
    "reprojection_error_px",
    "bytes",
)


def scene_info(path: Path) -> dict[str, Any]:
    """A summary of plain values, for people and for JSON.

    Args:
        path: of the scene.

    Returns:
        The manifest but its checksums (format version, method, map frame, camera, training data, what the method
        recorded when it was made: times, accuracy on the validation part, uncertainty; versions), and, each where the
        scene has it: ``point_map`` (see :func:`point_map_facts`), ``index`` (:func:`index_facts`), ``networks`` by
        name (:func:`network_facts`), and ``disk_mb`` by part.

    Raises:
        SceneError: not a scene, or a file of it is missing, changed or damaged; names it.
        BackendError: a model card is malformed.
    """
    scene = Scene.load(path)
    manifest = {key: value for key, value in scene.manifest.items() if key not in ("files", "versions")}
    if isinstance(manifest.get("map"), dict):
        manifest["map"] = {k: v for k, v in manifest["map"].items() if k not in _COUNTED}
    facts: dict[str, Any] = {"kind": "scene", "path": str(path), **manifest}
    # Late: a scene with a network needs none of the libraries of maps.
    if has_map(path):
        facts["point_map"] = point_map_facts(path)
    if (path / INDEX_FOLDER).is_dir():
        facts["index"] = index_facts(path)
    networks = {card.name: network_facts(card, path / NETWORKS_FOLDER) for card in _cards(path)}
    if networks:
        facts["networks"] = networks
    return {**facts, "disk_mb": disk_mb(path), "versions": scene.manifest.get("versions")}


def point_map_facts(path: Path) -> dict[str, Any]:
    """The map of points.

    Returns:
        ``images`` of the map, their stored ``keypoints``, ``points``, ``median_depth_m``, ``extent_m`` of the images,
        ``features``; and where there are points ``images_with_points``, ``observations`` (keypoints of points),
        ``track_length`` (images that see a point: mean, median, longest, histogram), ``points_per_image`` (median,
        fewest), ``reprojection_error_px`` (mean, median, p90).
    """
    from localizer_ros.geometry.triangulation import reprojection_errors
    from localizer_ros.scene.point_map import PointMap

    point_map = PointMap.load(path / MAP_FOLDER)
    features = point_map.settings.features
    facts: dict[str, Any] = {
        "images": len(point_map.names),
        "keypoints": len(point_map.observation_point),
        "points": len(point_map.points),
        "median_depth_m": point_map.median_depth,
        "extent_m": np.ptp(point_map.T_map_cam[:, :3, 3], axis=0).tolist(),
        "features": {"kind": features.kind, "dimensions": int(point_map.descriptors.shape[1])},
    }
    # A keypoint may have no point, and a map of posed images alone has none at all.
    observed = point_map.observation_point >= 0
    if not observed.any():
        return facts
    image, point = point_map.observation_image[observed], point_map.observation_point[observed]
    length = np.bincount(point, minlength=len(point_map.points))
    seen = np.bincount(image, minlength=len(point_map.names))
    error_px = point_map.camera.focal_px * reprojection_errors(
        point_map.T_map_refined,
        image.astype(np.intp),
        point_map.observation_ray[observed],
        point_map.points[point].astype(np.float64),
    )
    return {
        **facts,
        "images_with_points": int(np.count_nonzero(seen)),
        "observations": len(point),
        "track_length": {
            "mean": float(length.mean()),
            "median": float(np.median(length)),
            "longest": int(length.max()),
            "histogram": _histogram(length),
        },
        "points_per_image": {"median": float(np.median(seen)), "fewest": int(seen.min())},
        "reprojection_error_px": {
            "mean": float(error_px.mean()),
            "median": float(np.median(error_px)),
            "p90": float(np.percentile(error_px, 90)),
        },
    }


def index_facts(path: Path) -> dict[str, Any]:
    """The retrieval index: ``kind`` of search, ``images``, ``descriptor`` and its ``dimensions``."""
    from localizer_ros.scene.image_index import ImageDatabase

    database = ImageDatabase.load(path / INDEX_FOLDER)
    return {
        "kind": database.index.search_kind,
        "images": len(database.index),
        "descriptor": database.descriptor.summary,
        "dimensions": int(database.index.descriptors.shape[1]),
    }


def network_facts(card: ModelCard, folder: Path) -> dict[str, Any]:
    """A network: ``parameters``, size of its ``weights_mb``, ``inputs`` by name, and how it is built."""
    weights = folder / card.weights
    return {
        "parameters": _parameters(weights) if weights.is_file() else None,
        "weights_mb": round(weights.stat().st_size / 1e6, 2) if weights.is_file() else None,
        "inputs": {tensor.name: "x".join(map(str, tensor.shape)) for tensor in card.inputs},
        "architecture": dict(card.architecture),
    }


def disk_mb(path: Path) -> dict[str, float]:
    """Megabytes by part: top-level folders (those of ``map`` apart), other files, engines, and the total."""
    sizes: Counter[str] = Counter()
    for file in path.rglob("*"):
        if file.is_file():
            parts = file.relative_to(path).parts
            part = parts[0] if len(parts) > 1 else "other"
            if part == MAP_FOLDER and len(parts) > 2:
                part = "/".join(parts[:2])
            sizes[f"{part} (a cache)" if part == ENGINES else part] += file.stat().st_size
    total = sum(sizes.values())
    return {part: round(size / 1e6, 2) for part, size in (*sorted(sizes.items()), ("total", total))}


def _histogram(length: NDArray[np.int64]) -> dict[str, int]:
    """Points by the number of images that see them."""
    found: dict[str, int] = {}
    above = 0
    for last in _TRACK_BINS:
        name = str(last) if last == above + 1 else f"{above + 1}-{last}"
        found[name] = int(np.count_nonzero((length > above) & (length <= last)))
        above = last
    found[f">{above}"] = int(np.count_nonzero(length > above))
    return {name: count for name, count in found.items() if count}


def _cards(path: Path) -> list[ModelCard]:
    """Model cards of the scene's own networks, by name."""
    return [read_card(file, ModelCard) for file in sorted((path / NETWORKS_FOLDER).glob("*.yaml"))]


def _parameters(weights: Path) -> int:
    """Number of values, from the header alone."""
    try:
        with safe_open(weights, framework="np") as tensors:
            return sum(math.prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise SceneError(f"{weights}: cannot be read ({error})") from error
