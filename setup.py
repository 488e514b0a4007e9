"""Build and install localizer_ros: with colcon as an ament_python package, or with pip into a venv."""

from pathlib import Path

from setuptools import find_packages, setup

PACKAGE = "localizer_ros"
SHARE = f"share/{PACKAGE}"
# What mapping, evaluation and localization in a map need, and networks that were trained elsewhere. Versions are those
# that are known to be needed; requirements/base.txt pins what everything was tested with.
NEEDED = [
    "faiss-cpu",
    "gtsam==4.3.0",
    "jinja2",
    "matplotlib",
    "msgspec",
    "numpy>=2.0",
    "opencv-python-headless<5",
    "openvino",
    "poselib",
    "psutil",
    "pycolmap",
    "pyyaml",
    "rich",
    "rosbags",
    "safetensors",
    "scipy>=1.16",
    "typer",
]
EXTRAS = {
    # Training of networks, and their export. The CPU build of torch is a fifth of the default one:
    # pip install torch --index-url https://download.pytorch.org/whl/cpu
    "train": ["lightning-fabric", "onnx", "onnxruntime", "onnxscript", "torch"],
    # Extractors, matchers and global descriptors that a user brings as ONNX files.
    "learned": ["onnxruntime"],
    # The viewer of `localizer view` and of `localizer run --view`; drawings need nothing.
    "view": ["rerun-sdk"],
    # rclpy and messages where no ROS 2 distribution is sourced; tf2_msgs and bond, which have no wheels,
    # are built by tools/build_messages.sh.
    "ros": [
        "ros-jazzy-diagnostic-msgs",
        "ros-jazzy-geometry-msgs",
        "ros-jazzy-lifecycle-msgs",
        "ros-jazzy-nav-msgs",
        "ros-jazzy-rclpy[fastrtps]",
        "ros-jazzy-rosgraph-msgs",
        "ros-jazzy-sensor-msgs",
        "ros-jazzy-std-srvs",
        "ros-jazzy-visualization-msgs",
    ],
}
CONFIG = ("config", "config/nav2", "config/robot_localization")


def files(folder: str) -> list[str]:
    """Every file directly inside `folder`, as setuptools wants it: relative to this file."""
    return sorted(str(path) for path in Path(folder).glob("*") if path.is_file())


setup(
    name=PACKAGE,
    version="0.1.0",
    description="Visual localization for ROS 2: the pose of a camera in a place that was mapped before.",
    license="Apache-2.0",
    maintainer="localizer_ros maintainers",
    maintainer_email="maintainers@localizer-ros.dev",
    python_requires=">=3.11,<3.13",
    packages=find_packages(include=[PACKAGE, f"{PACKAGE}.*"]),
    package_data={PACKAGE: ["py.typed"], f"{PACKAGE}.evaluation": ["*.jinja"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{PACKAGE}"]),
        (SHARE, ["package.xml"]),
        (f"{SHARE}/launch", files("launch")),
        *((f"{SHARE}/{folder}", files(folder)) for folder in CONFIG),
    ],
    install_requires=NEEDED,
    extras_require={
        **EXTRAS,
        # NVIDIA's bindings, to compare the names that the TensorRT back end uses with theirs: one version in an
        # environment of its own, see tools/make_tensorrt_venvs.sh. They run nothing without a GPU.
        "tensorrt-api": [
            "cuda-bindings>=12.9,<14",
            "tensorrt-cu12-bindings>=10.16,<12",
            "tensorrt-lean-cu12-bindings>=10.16,<12",
            "tensorrt-lean-cu12-libs>=10.16,<12",
        ],
    },
    entry_points={
        "console_scripts": [
            "localizer = localizer_ros.cli.main:main",
            "localizer_node = localizer_ros.ros.main:main",
        ],
    },
)
