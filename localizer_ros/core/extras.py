"""Modules that not every installation has, and what brings them."""

from __future__ import annotations

_TRAIN, _ROS = (
    "pip install 'localizer_ros[train]'",
    "source a ROS 2 distribution, or pip install 'localizer_ros[ros]'",
)
# What comes with an extra of the package, and the command that brings it.
_INSTALLED_BY = {
    "lightning_fabric": _TRAIN,
    "onnx": _TRAIN,
    "onnxruntime": "pip install 'localizer_ros[learned]'",
    "onnxscript": _TRAIN,
    "rclpy": _ROS,
    "rerun": "pip install 'localizer_ros[view]', or give --out NAME.png for a drawing",
    "tf2_msgs": "source a ROS 2 distribution, or run tools/build_messages.sh of the sources",
    "torch": f"{_TRAIN}; the CPU build from https://download.pytorch.org/whl/cpu is smaller",
}


def how_to_install(module: str) -> str | None:
    """That a module is missing, and what to do about it; None where it is none of the optional ones."""
    name = module.partition(".")[0]
    by = _INSTALLED_BY.get(name, _ROS if name.endswith(("_msgs", "_interfaces", "std_srvs")) else None)
    return None if by is None else f"{name} is not installed: {by}"
