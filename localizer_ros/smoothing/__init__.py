"""Fusing absolute and relative poses over time. Only ``gtsam_smoother`` imports gtsam."""

from __future__ import annotations

from localizer_ros.core.config.runtime import SmootherConfig
from localizer_ros.smoothing.smoother import PassThroughSmoother, Smoother

__all__ = ["PassThroughSmoother", "Smoother", "open_smoother"]


def open_smoother(config: SmootherConfig) -> Smoother:
    """The smoother a config asks for.

    Raises:
        ConfigError: gtsam is asked for and cannot be imported.
    """
    if config.kind == "none":
        return PassThroughSmoother()
    from localizer_ros.smoothing.gtsam_smoother import GtsamSmoother

    return GtsamSmoother(config)
