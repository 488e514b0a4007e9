"""The double of TensorRT and CUDA has nothing that the real ones have not: names, members and parameters.

What the real ones have stands in ``tensorrt_record.json``, and is compared with NVIDIA's own bindings where they are:
``tools/make_tensorrt_venvs.sh`` makes an environment for each version, and LOCALIZER_TENSORRT_API names their folder.
No GPU is needed. The full bindings want libraries that no registry has, so they are imported with empty ones in their
place and asked for their names and signatures only.
"""

from __future__ import annotations

import enum
import functools
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from inference.tensorrt_double import CudaDouble, TensorRtDouble

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
VENVS = Path(os.environ.get("LOCALIZER_TENSORRT_API", REPOSITORY / ".tensorrt-api"))
RECORD = HERE / "tensorrt_record.json"
VERSIONS = ("10", "11")
# Classes that the back end makes objects of, or is derived from.
CONSTRUCTED = ("Logger", "Runtime", "Builder", "OnnxParser", "IProgressMonitor")
# What the full bindings' libraries would bring along.
EMPTY_LIBRARIES = ("nvinfer", "nvinfer_plugin", "nvonnxparser")
EMPTY_FUNCTIONS = (
    "createInferBuilder_INTERNAL",
    "createInferRefitter_INTERNAL",
    "createInferRuntime_INTERNAL",
    "createNvOnnxParserRefitter_INTERNAL",
    "createNvOnnxParser_INTERNAL",
    "getBuilderPluginRegistry",
    "getNvOnnxParserVersion",
    "getPluginRegistry",
    "initLibNvInferPlugins",
)


def used_names() -> dict[str, list[str] | None]:
    """``Class.member`` or ``function`` -> names of its parameters in the double; None for what is not called."""
    cuda = CudaDouble()
    trt = TensorRtDouble(cuda)
    found: dict[str, list[str] | None] = {}
    kinds = [value for value in vars(trt).values() if inspect.isclass(value)]
    for kind in kinds:
        if issubclass(kind, enum.Enum):
            found.update({f"{kind.__name__}.{member}": None for member in kind.__members__})
            continue
        for name, value in vars(kind).items():
            if not name.startswith("_") or (name == "__init__" and kind.__name__ in CONSTRUCTED):
                function = value.fget if isinstance(value, property) else value
                called = callable(value) and not isinstance(value, property)
                found[f"{kind.__name__}.{name}"] = parameters(function) if called else None
    found["IBuilderConfig.progress_monitor"] = found["OnnxParser.num_errors"] = None
    for name in dir(cuda):
        if re.match(r"cuda[A-Z]\w+$", name):
            value = getattr(cuda, name)
            if inspect.ismethod(value):
                found[name] = parameters(value)
            elif name == "cudaError_t":
                found.update({f"{name}.{member}": None for member in value.__members__})
            elif not isinstance(value, int):
                found.update({f"{name}.{member}": None for member in vars(value)})
            else:
                found[name] = None
    return found


def parameters(function: Any) -> list[str]:
    return [name for name in inspect.signature(function).parameters if name != "self"]


def parameters_in(signature: str) -> list[str]:
    """Names of the parameters in a signature as the bindings write it, in Python's or in C's way."""
    inside = signature[signature.index("(") + 1 :]
    depth, end = 1, 0
    for end, letter in enumerate(inside):  # noqa: B007  # the end is used below
        depth += {"(": 1, ")": -1}.get(letter, 0)
        if depth == 0:
            break
    names = [part.partition(":")[0].partition("=")[0].split() for part in inside[:end].split(",")]
    return [words[-1] for words in names if words and words[-1] != "self"]


@functools.cache
def real_names(version: str) -> dict[str, str]:
    """``Class.member`` or ``function`` -> signature, of the real bindings; skips where they are not installed."""
    python = VENVS / version / "bin" / "python"
    if not python.exists():
        pytest.skip(f"the bindings of TensorRT {version} are not in {VENVS} (tools/make_tensorrt_venvs.sh)")
    found: dict[str, str] = {}
    for which in ("lean", "cuda", "full"):
        environment = dict(os.environ)
        if which == "full":
            environment["LD_LIBRARY_PATH"] = str(empty_libraries(version))
        command = [str(python), str(HERE / "tensorrt_names.py"), which]
        answer = subprocess.run(
            command, capture_output=True, text=True, env=environment, check=False, timeout=120
        )
        assert answer.returncode == 0, answer.stderr
        for name, members in json.loads(answer.stdout).items():
            if isinstance(members, dict):
                prefix = "" if name in ("functions", "constants") else f"{name}."
                found.update({prefix + member: signature for member, signature in members.items()})
    return found


def empty_libraries(version: str) -> Path:
    """A folder of libraries that do nothing, by the names that the full bindings ask for."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("needs a C compiler, to stand in for the libraries of the full bindings")
    folder = VENVS / version / "empty"
    folder.mkdir(exist_ok=True)
    source = folder / "empty.c"
    source.write_text("".join(f"void *{name}(void) {{ return 0; }}\n" for name in EMPTY_FUNCTIONS))
    for name in EMPTY_LIBRARIES:
        library = folder / f"lib{name}.so.{version}"
        subprocess.run([compiler, "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
    return folder


@pytest.mark.parametrize("version", VERSIONS)
def test_the_double_has_only_what_was_recorded_of_the_real_ones(version: str) -> None:
    recorded = json.loads(RECORD.read_text())[version]
    used = used_names()
    assert set(used) == set(recorded)
    for name, expected in used.items():
        if expected is not None:
            assert parameters_in(recorded[name])[: len(expected)] == expected, name


@pytest.mark.parametrize("version", VERSIONS)
def test_the_record_is_what_the_real_bindings_say(version: str) -> None:
    real = real_names(version)
    missing = sorted(name for name in used_names() if name not in real)
    assert not missing
    assert json.loads(RECORD.read_text())[version] == {name: real[name] for name in used_names()}


@pytest.mark.parametrize("version", VERSIONS)
def test_without_a_driver_the_real_lean_runtime_is_never_touched(version: str) -> None:
    (site,) = (
        (VENVS / version / "lib").glob("python3*/site-packages") if (VENVS / version).is_dir() else (None,)
    )
    if site is None or site.parent.name != f"python3.{sys.version_info.minor}":
        pytest.skip(f"the bindings of TensorRT {version} for this Python are not in {VENVS}")
    if Path("/dev/nvidiactl").exists():
        pytest.skip("this machine has a driver")
    code = (
        f"import sys; sys.path[:0] = [{str(REPOSITORY)!r}]; sys.path.append({str(site)!r})\n"
        "from localizer_ros.core.types import BackendError\n"
        "from localizer_ros.inference import tensorrt_library as library\n"
        "def said(lean):\n"
        "    try:\n        library.open_library(lean)\n"
        "    except BackendError as error:\n        print(error)\n"
        "said(True)\n"
        # As if there were a driver of no use: CUDA's own answer comes next, before TensorRT's runtime.
        "import types; library.ctypes = types.SimpleNamespace(CDLL=lambda name: None)\n"
        "said(True)\n"
        "import tensorrt_lean_bindings as trt; trt.Logger(trt.Logger.WARNING); print(trt.__version__)\n"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120
    )
    assert answer.returncode == 0, answer.stderr
    first, second, real = answer.stdout.splitlines()
    assert "no NVIDIA driver" in first and "CUDA says" in second and real.startswith(version)


if __name__ == "__main__":
    # Writes the record anew, of the bindings that are there.
    wanted = used_names()
    RECORD.write_text(
        json.dumps({v: {name: real_names(v)[name] for name in wanted} for v in VERSIONS}, indent=1) + "\n"
    )
