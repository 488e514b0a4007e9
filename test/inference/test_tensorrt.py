"""The TensorRT back end, driven against a double of NVIDIA's API that computes with ONNX Runtime: see there."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from inference.tensorrt_double import HEADER, CudaDouble, CudaError, TensorRtDouble

from localizer_ros.core.config.runtime import BackendConfig
from localizer_ros.core.types import BackendError
from localizer_ros.datasets.source import FrameSource
from localizer_ros.inference import tensorrt_library
from localizer_ros.inference.model_card import ModelCard, card_path, read_card
from localizer_ros.inference.network_step import NetworkStep
from localizer_ros.inference.tensorrt_backend import TensorRtBackend
from localizer_ros.inference.tensorrt_engine import LoggedProgress
from localizer_ros.scene.bundle import Scene
from localizer_ros.training import precision_gate
from localizer_ros.training.export_scene import export_scene


class Machine:
    """A machine with a GPU, as far as the back end can tell.

    Attributes:
        modules: what is installed.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, version: str) -> None:
        self.cuda = CudaDouble()
        self.trt = TensorRtDouble(self.cuda, version)
        self.lean = TensorRtDouble(self.cuda, version, lean=True)
        self.modules: dict[str, Any] = {"tensorrt": self.trt, "cuda.bindings.runtime": self.cuda}
        self.driver = True
        monkeypatch.setattr(tensorrt_library, "import_module", self._import)
        monkeypatch.setattr(tensorrt_library, "ctypes", SimpleNamespace(CDLL=self._load))

    def _import(self, name: str) -> Any:
        if name not in self.modules:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        found = self.modules[name]
        if isinstance(found, Exception):
            raise found
        return found

    def _load(self, name: str) -> Any:
        if not self.driver:
            raise OSError(f"{name}: cannot open shared object file")


@pytest.fixture(params=["10.16.1.11", "11.4.0.106"])
def machine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(monkeypatch, request.param)


@pytest.fixture
def networks(tiny_scene: Path, tmp_path: Path) -> Path:
    """A copy of the networks of the tiny scene, whose engines may be written."""
    return shutil.copytree(tiny_scene / "networks", tmp_path / "scene" / "networks")


def open_named(networks: Path, name: str, **settings: Any) -> TensorRtBackend:
    card = read_card(card_path(networks, name), ModelCard)
    return TensorRtBackend(networks, card, BackendConfig(kind="tensorrt", **settings))


def pictures(card: ModelCard, count: int) -> list[np.ndarray]:
    shape = next(spec.shape for spec in card.inputs if spec.name == "image")
    noise = np.random.default_rng(0).normal(0, 1, shape).astype(np.float32)
    return [np.roll(noise, (shift, 2 * shift), (2, 3)) for shift in range(count)]


def test_a_stream_gives_what_the_other_back_ends_give(machine: Machine, networks: Path) -> None:
    step = NetworkStep(networks, "posenet", BackendConfig(kind="tensorrt"))
    reference = NetworkStep(networks, "posenet", BackendConfig(kind="openvino", threads=1))
    images = pictures(step.card, 5)
    # Once, and again after a reset, at an odd number of frames: the states are in the other place then.
    for _ in range(2):
        for index, image in enumerate(images):
            expected, answer = reference.run(image), step.run(image)
            assert answer.keys() == expected.keys()
            for name, value in expected.items():
                # There is no motion to the first frame.
                if index or not name.startswith("rel"):
                    np.testing.assert_allclose(answer[name], value, atol=2e-4, rtol=1e-3)
        step.reset()
        reference.reset()
    step.close()
    cuda = machine.cuda
    assert not cuda.device and not cuda.pinned and not cuda.graphs and not cuda.streams


def test_a_frame_is_one_launch_and_states_are_not_copied(machine: Machine, networks: Path) -> None:
    motion = open_named(networks, "motion")
    given = {
        spec.name: np.zeros(spec.shape, np.float32)
        for spec in motion.card.inputs
        if spec.name not in motion.card.states
    }
    machine.cuda.calls.clear()
    machine.trt.calls.clear()
    for _ in range(3):
        outputs = motion.run(given)
    assert machine.cuda.calls == 3 * ["cudaGraphLaunch", "cudaStreamSynchronize"]
    assert not machine.trt.calls
    assert set(outputs) == {spec.name for spec in motion.card.outputs} - set(motion.card.states.values())
    # What the caller got is his: the next frame does not change it.
    before = {name: value.copy() for name, value in outputs.items()}
    motion.run({name: value + 1.0 for name, value in given.items()})
    for name, value in before.items():
        np.testing.assert_array_equal(outputs[name], value)


def test_without_graphs_it_runs_all_the_same(
    machine: Machine, networks: Path, caplog: pytest.LogCaptureFixture
) -> None:
    machine.cuda.fails["cudaGraphInstantiate"] = CudaError.cudaErrorStreamCaptureUnsupported
    plain, card = open_named(networks, "motion"), read_card(card_path(networks, "motion"), ModelCard)
    assert "cudaErrorStreamCaptureUnsupported: runs without a CUDA graph" in caplog.text
    machine.cuda.fails.clear()
    graphs = open_named(networks, "motion")
    depth = next(spec for spec in card.inputs if spec.name == "inverse_depth")
    for image in pictures(card, 3):
        given = {"image": image, "inverse_depth": np.full(depth.shape, 0.5, np.float32)}
        np.testing.assert_array_equal(plain.run(given)["rel"], graphs.run(given)["rel"])
    plain.close()
    graphs.close()
    machine.cuda.fails["cudaStreamBeginCapture"] = CudaError.cudaErrorStreamCaptureUnsupported
    open_named(networks, "motion").close()


def test_an_engine_is_built_once_and_strongly_typed(machine: Machine, networks: Path) -> None:
    for precision in ("fp32", "fp16", "fp32"):
        open_named(networks, "posenet", precision=precision).close()
    # Of two precisions the cache keeps the last, so the third is built again; then it is there.
    assert len(machine.trt.built) == 3
    open_named(networks, "posenet").close()
    assert len(machine.trt.built) == 3
    assert [len(flags) for flags, _ in machine.trt.built] == [0, 0, 0], "TF32 is off, nothing else is on"
    single, half, _ = (network for _, network in machine.trt.built)
    assert single == (networks / "posenet.onnx").read_bytes()
    assert len(half) < 0.7 * len(single)
    # Each build begins with the timings of the one before.
    assert machine.trt.timings == [b"", b".", b".."]


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_what_was_exported_and_judged_is_what_is_built(
    machine: Machine,
    networks: Path,
    tiny_scene: Path,
    tiny_source: FrameSource,
    precision: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(precision_gate, "MOST_ABOVE", 1.5)  # a network trained for a moment errs by chance
    monkeypatch.setattr(precision_gate, "_MOST_MOVED", 1.0)
    shutil.copytree(tiny_scene, networks.parent, dirs_exist_ok=True)
    config = BackendConfig(kind="tensorrt", precision=precision)
    # Of an export before; it is of use still, but none of this one's files.
    NetworkStep(networks, "posenet", BackendConfig(kind="tensorrt")).close()
    before = set((networks.parent / "engines").glob("posenet-*.engine"))
    result = export_scene(Scene.load(networks.parent), "tensorrt", config, tiny_source)
    file = networks / f"posenet.{precision}.onnx"
    assert file.read_bytes() in [network for _, network in machine.trt.built]
    engines = {path for path in result.files if path.suffix == ".engine"}
    assert file in result.files and all(path.is_file() for path in engines)
    assert {path.name.rsplit("-", 1)[0] for path in engines} == {f"posenet.{precision}", "motion"}
    assert before and all(path.exists() for path in before)
    card = read_card(card_path(networks, f"posenet.{precision}"), ModelCard)
    assert card.parity["tensorrt"] == pytest.approx((result.t_m, result.r_deg), rel=1e-3)
    # The engine that the export has left is the one that a robot takes.
    count = len(machine.trt.built)
    NetworkStep(networks, "posenet", config).close()
    assert len(machine.trt.built) == count


def test_timings_of_another_machine_are_dropped(machine: Machine, networks: Path) -> None:
    open_named(networks, "posenet").close()
    machine.trt.fails.add("set_timing_cache")
    open_named(networks, "posenet", precision="fp16").close()
    assert machine.trt.timings == [b"", b".", b""]


def test_a_damaged_engine_is_found_before_tensorrt_reads_it_and_built_again(
    machine: Machine, networks: Path, caplog: pytest.LogCaptureFixture
) -> None:
    open_named(networks, "posenet").close()
    (path,) = (networks.parent / "engines").glob("posenet-*.engine")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    open_named(networks, "posenet").close()
    assert f"{path}: is damaged" in caplog.text and len(machine.trt.built) == 2


def test_the_lean_runtime_runs_what_the_full_one_has_built(machine: Machine, networks: Path) -> None:
    machine.modules["tensorrt_lean"] = machine.lean
    backend = open_named(networks, "posenet", lean=True)
    assert machine.trt.built[0][0] == {"VERSION_COMPATIBLE", "EXCLUDE_LEAN_RUNTIME"}
    assert "deserialize_cuda_engine" in machine.lean.calls
    assert "deserialize_cuda_engine" not in machine.trt.calls
    image = pictures(backend.card, 1)[0]
    expected = backend.run({"image": image})
    backend.close()
    # On a robot: another version of the same major number, and no builder.
    del machine.modules["tensorrt"]
    machine.lean.__version__ = machine.lean.__version__.split(".")[0] + ".99"
    robot = open_named(networks, "posenet")
    np.testing.assert_array_equal(robot.run({"image": image})["t"], expected["t"])
    with pytest.raises(
        BackendError, match=r"lean runtime cannot build the engine of motion for Double sm_87.*--lean"
    ):
        open_named(networks, "motion")


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (lambda m: setattr(m, "driver", False), "no NVIDIA driver"),
        (lambda m: m.modules.pop("tensorrt"), "tensorrt or tensorrt_lean is not installed"),
        (
            lambda m: m.modules.update(tensorrt=ImportError("libnvinfer.so.11: cannot open", name=None)),
            r"tensorrt cannot be imported \(libnvinfer.so.11: cannot open\)",
        ),
        (lambda m: m.modules.pop("cuda.bindings.runtime"), "cuda-bindings .* is not installed"),
        (lambda m: setattr(m.cuda, "devices", 0), "finds no GPU"),
        (lambda m: m.cuda.fails.update(cudaGetDeviceCount=CudaError.cudaErrorNoDevice), "finds no GPU"),
        (
            lambda m: m.cuda.fails.update(cudaGetDeviceCount=CudaError.cudaErrorInsufficientDriver),
            "CUDA says: cudaErrorInsufficientDriver",
        ),
        (
            lambda m: m.cuda.fails.update(cudaMalloc=CudaError.cudaErrorMemoryAllocation),
            "CUDA says: cudaErrorMemoryAllocation",
        ),
        (lambda m: m.trt.fails.add("build_serialized_network"), "posenet could not be built"),
        (lambda m: m.trt.fails.add("create_execution_context"), "memory does not suffice"),
        (lambda m: m.trt.fails.add("set_tensor_address"), "does not take the memory of"),
        (lambda m: m.trt.fails.add("execute_async_v3"), "failed to run"),
        (lambda m: m.trt.types.update(t=m.trt.DataType.HALF), "t: expected FLOAT"),
        (lambda m: m.trt.shapes.update(t=(1, 4)), r"t: expected shape \(1, 3\) in the engine, got \(1, 4\)"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(machine: Machine, networks: Path, broken: Any, said: str) -> None:
    broken(machine)
    with pytest.raises(BackendError, match=f"^tensorrt: .*{said}") as raised:
        open_named(networks, "posenet")
    assert "\n" not in str(raised.value)


def test_lean_engines_without_the_lean_runtime_are_an_error(machine: Machine, networks: Path) -> None:
    with pytest.raises(BackendError, match="tensorrt_lean is not installed"):
        open_named(networks, "posenet", lean=True)


def test_a_network_that_is_none_and_an_engine_of_another_are_errors(machine: Machine, networks: Path) -> None:
    (networks / "posenet.onnx").write_bytes(b"no network")
    with pytest.raises(BackendError, match=r"cannot read posenet \(.*not an ONNX file\)"):
        open_named(networks, "posenet")
    shutil.copy(networks / "descriptor.onnx", networks / "posenet.onnx")
    with pytest.raises(
        BackendError, match=r"expected an engine with descriptor, image, .*, got descriptor, image"
    ):
        open_named(networks, "posenet")


def test_an_engine_that_does_not_load_is_an_error_that_says_where_it_lies(
    machine: Machine, networks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("inference.tensorrt_double.HEADER", b"of another platform")
    open_named(networks, "posenet").close()
    monkeypatch.setattr("inference.tensorrt_double.HEADER", HEADER)
    with pytest.raises(
        BackendError, match=rf"does not load on Double sm_87 with tensorrt .*{networks.parent}"
    ):
        open_named(networks, "posenet")


def test_wrong_inputs_are_said(machine: Machine, networks: Path) -> None:
    backend = open_named(networks, "posenet")
    with pytest.raises(BackendError, match="image is missing"):
        backend.run({})


def test_a_long_build_is_told_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "localizer_ros")
    tell = LoggedProgress(every_s=0.0)
    tell("posenet: Timing", 3, 8)
    assert "posenet: Timing, 3 of 8" in caplog.text
    caplog.clear()
    LoggedProgress()("posenet: Timing", 4, 8)
    assert not caplog.text
