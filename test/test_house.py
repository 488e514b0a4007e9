"""The floors and sizes of the house, and the tool that checks them."""

from pathlib import Path

import pytest
from check_house import faults


def written(root: Path, **files: str) -> Path:
    """A package of these modules (dots for folders) with these texts."""
    for name, text in files.items():
        path = root / "localizer_ros" / (name.replace("__", "/") + ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_the_house_is_in_order() -> None:
    assert [str(fault) for fault in faults()] == []


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"core__a": "from localizer_ros.ros.b import c", "ros__b": "c = 1"}, "stands above it"),
        ({"core__a": "def f():\n    import localizer_ros.mapping.b", "mapping__b": ""}, "stands above it"),
        ({"core__a": "import rclpy"}, "belongs elsewhere"),
        ({"scene__a": "def f():\n    import torch"}, "belongs elsewhere"),
        ({"smoothing__a": "from gtsam import Pose3"}, "belongs elsewhere"),
        (
            {"core__a": "from localizer_ros.core import b", "core__b": "from localizer_ros.core.a import x"},
            "circle: localizer_ros.core.a -> localizer_ros.core.b",
        ),
        (
            {
                "geometry__a": "from localizer_ros.networks.b import x",
                "networks__b": "",
                "networks__c": "from localizer_ros.geometry import d",
                "geometry__d": "",
            },
            "circle: localizer_ros.geometry -> localizer_ros.networks",
        ),
        ({"core__a": "x = 1\n" * 351}, "file has 351 lines, at most 350"),
        ({"core__a": "class A:\n" + "    x = 1\n" * 250}, "class has 251 lines, at most 250"),
        ({"core__a": "def f():\n" + "    x = 1\n" * 60}, "function has 61 lines, at most 60"),
        ({"core__a": "def f(a, b, c, d, *, e, f, g, h): ..."}, "arguments has 8, at most 7"),
    ],
)
def test_a_fault_is_found(tmp_path: Path, files: dict[str, str], expected: str) -> None:
    found = [str(fault) for fault in faults(written(tmp_path, **files))]
    assert any(expected in fault for fault in found), found


def test_options_of_a_command_and_self_are_no_arguments(tmp_path: Path) -> None:
    text = "@app.command()\ndef f(a, b, c, d, e, f, g, h): ...\n\nclass A:\n    def f(self, a, b, c, d, e, f, g): ..."
    assert faults(written(tmp_path, core__a=text)) == []
