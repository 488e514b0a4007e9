"""Running a network: the same answers on every back end, states kept, damage named, nothing unfinite published."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest

from localizer_ros.core.config.runtime import BackendConfig, LocalizerConfig
from localizer_ros.core.config.schema import config_from_dict
from localizer_ros.core.files import sha256_of
from localizer_ros.core.types import BackendError, ConfigError, Frame, SceneError
from localizer_ros.datasets.source import FrameSource
from localizer_ros.export import PARITY, check_parity, export_scene
from localizer_ros.inference.backend import automatic_backend
from localizer_ros.inference.engine_cache import cached_engine, engine_key
from localizer_ros.inference.model_card import ModelCard, card_path, read_card
from localizer_ros.inference.network_step import NetworkStep
from localizer_ros.inference.open_backend import BACKENDS, open_backend
from localizer_ros.localization.learned.front_end import NetworkFrontEnd
from localizer_ros.localization.localizer import open_localizer
from localizer_ros.scene.bundle import Scene


def images(card: ModelCard, count: int, rng: np.random.Generator) -> np.ndarray:
    shape = next(spec.shape for spec in card.inputs if spec.name == "image")
    return rng.normal(0, 1, (count, *shape[1:])).astype(np.float32)


@pytest.mark.parametrize("kind", ["torch", "openvino"])
def test_back_ends_agree_and_keep_states(tiny_scene: Path, rng: np.random.Generator, kind: str) -> None:
    folder = tiny_scene / "networks"
    reference = NetworkStep(folder, "posenet", BackendConfig(kind="torch"))
    step = NetworkStep(folder, "posenet", BackendConfig(kind=kind, threads=1))
    shape = images(reference.card, 1, rng).shape[1:]
    blurred = cv2.GaussianBlur(rng.normal(0, 1, (*shape[1:], 3)), (0, 0), 2.0) * 8.0
    still = blurred.transpose(2, 0, 1).astype(np.float32)
    batch = [np.roll(still, moved_px, 2)[None] for moved_px in (0, 1, 3)]
    moved = None
    for index, image in enumerate(batch):
        expected, answer = (s.run(image) for s in (reference, step))
        for name in expected:
            # There is no motion to the first frame; what is given in its place is of no meaning.
            if index > 0 or not name.startswith("rel"):
                np.testing.assert_allclose(answer[name], expected[name], atol=2e-4, rtol=1e-3)
        moved = answer["rel"] if index == 1 else moved
    # The same step again after a reset gives the same motion; without it, another.
    assert moved is not None and not np.allclose(step.run(batch[1])["rel"], moved, atol=1e-6)
    step.reset()
    step.run(batch[0])
    np.testing.assert_allclose(step.run(batch[1])["rel"], moved, atol=1e-6)
    step.close()


def test_the_parity_gate_passes_the_right_network_and_stops_a_wrong_one(
    tiny_scene: Path, tmp_path: Path, rng: np.random.Generator
) -> None:
    folder = tmp_path / "networks"
    shutil.copytree(tiny_scene / "networks", folder)
    path = card_path(folder, "posenet")
    card = read_card(path, ModelCard)
    config = BackendConfig(kind="openvino")
    t_m, r_deg = check_parity(folder, "posenet", config, images(card, 3, rng))
    assert t_m < PARITY["fp32"][0] and r_deg < PARITY["fp32"][1]
    # The same ONNX file beside other weights: what a stale export looks like.
    from safetensors.numpy import load_file, save_file

    weights = load_file(folder / "posenet.safetensors")
    weights["absolute.position.bias"] = weights["absolute.position.bias"] + 0.5
    save_file(weights, folder / "posenet.safetensors")
    msgspec.structs.replace(card, weights_sha256=sha256_of(folder / card.weights)).write(path)
    with pytest.raises(BackendError, match="differs from torch by"):
        check_parity(folder, "posenet", config, images(card, 1, rng))


def test_export_checks_half_precision_too(tiny_scene: Path, tiny_source: FrameSource) -> None:
    result = export_scene(
        Scene.load(tiny_scene), BackendConfig(kind="openvino", precision="fp16"), tiny_source
    )
    assert result.t_m < PARITY["fp16"][0]
    assert all(path.exists() for path in result.files)


def test_a_changed_file_is_named(tiny_scene: Path, tmp_path: Path) -> None:
    scene = tmp_path / "scene"
    shutil.copytree(tiny_scene, scene)
    onnx = scene / "networks" / "posenet.onnx"
    onnx.write_bytes(onnx.read_bytes()[:-1])
    with pytest.raises(SceneError, match=r"posenet\.onnx: has changed"):
        Scene.load(scene)
    with pytest.raises(SceneError, match=r"posenet\.onnx: has changed"):
        open_backend(scene / "networks", "posenet", BackendConfig(kind="openvino"))
    onnx.unlink()
    with pytest.raises(SceneError, match=r"posenet\.onnx: is missing"):
        Scene.load(scene)
    card_path(scene / "networks", "posenet").write_text("{}")
    with pytest.raises(BackendError, match=r"posenet\.yaml: network, inputs, .* missing in the model card"):
        open_backend(scene / "networks", "posenet", BackendConfig())


def test_a_scene_can_be_moved_and_its_cache_deleted(tiny_scene: Path, tmp_path: Path) -> None:
    scene = tmp_path / "elsewhere"
    shutil.copytree(tiny_scene, scene)
    shutil.rmtree(scene / "engines", ignore_errors=True)
    open_localizer(scene, LocalizerConfig()).close()
    assert str(tiny_scene.parent) not in (scene / "scene.yaml").read_text()


def test_wrong_inputs_are_said(tiny_scene: Path) -> None:
    folder = tiny_scene / "networks"
    backend = open_backend(folder, "posenet", BackendConfig(kind="openvino"))
    with pytest.raises(BackendError, match="image is missing"):
        backend.run({})
    with pytest.raises(BackendError, match="expected shape"):
        backend.run({"image": np.zeros((1, 3, 8, 8), np.float32)})


def test_a_precision_that_no_back_end_has_is_an_error() -> None:
    with pytest.raises(ConfigError, match="int8"):
        config_from_dict(BackendConfig, {"precision": "int8"})


def test_tensorrt_where_it_is_missing_says_so_and_what_auto_would_take(tiny_scene: Path) -> None:
    pytest.importorskip("openvino")
    try:
        import tensorrt  # noqa: F401
    except ImportError:
        with pytest.raises(BackendError, match=f"not installed.*{automatic_backend()}"):
            open_backend(tiny_scene / "networks", "posenet", BackendConfig(kind="tensorrt"))
    else:  # on a machine with a GPU the real thing must pass the gate
        assert export_scene(Scene.load(tiny_scene), BackendConfig(kind="tensorrt"), None).t_m < 1e-3


def test_automatic_back_end_is_one_that_exists() -> None:
    assert automatic_backend() in BACKENDS


def test_an_unfinite_output_gives_no_pose_and_the_stream_starts_over(
    tiny_scene: Path, tiny_source: FrameSource
) -> None:
    backend = NetworkStep(tiny_scene / "networks", "posenet", BackendConfig(kind="openvino"))

    class Broken:
        """The real back end, with one bad answer."""

        name, card, bad, resets = backend.name, backend.card, False, 0

        def run(self, image: np.ndarray) -> dict[str, np.ndarray]:
            outputs = backend.run(image)
            return {k: v * np.nan if k == "t" else v for k, v in outputs.items()} if self.bad else outputs

        def reset(self) -> None:
            self.resets += 1
            backend.reset()

        def close(self) -> None:
            backend.close()

    broken = Broken()
    front_end = NetworkFrontEnd(broken, "posenet")
    assert front_end.observe(tiny_source.read(0), None).absolute is not None
    broken.bad = True
    observation = front_end.observe(tiny_source.read(1), None)
    assert observation.absolute is None and observation.relative is None
    assert "not finite" in observation.reason and broken.resets == 1
    broken.bad = False
    after = front_end.observe(tiny_source.read(2), None)
    assert after.absolute is not None and after.relative is None  # no motion over the hole


def test_warming_up_leaves_no_trace(tiny_scene: Path, tiny_source: FrameSource) -> None:
    networks, config = tiny_scene / "networks", BackendConfig(kind="openvino", threads=1)
    cold, warm = (NetworkStep(networks, "posenet", config) for _ in range(2))
    warm.warm_up()
    image = np.random.default_rng(0).normal(size=warm.card.inputs[0].shape).astype(np.float32)
    for _ in range(2):
        expected, outputs = cold.run(image), warm.run(image)
        assert outputs.keys() == expected.keys()
        for name, value in expected.items():
            np.testing.assert_array_equal(outputs[name], value)


def test_images_of_another_size_of_the_same_view_give_nearly_the_same_pose(
    tiny_scene: Path, tiny_source: FrameSource
) -> None:
    step = NetworkStep(tiny_scene / "networks", "posenet", BackendConfig(kind="openvino"))
    front_end = NetworkFrontEnd(step, "posenet")
    frame = tiny_source.read(0)
    larger = Frame(
        frame.stamp_ns + 1,
        np.asarray(cv2.resize(frame.image, (320, 240), interpolation=cv2.INTER_CUBIC), np.uint8),
        frame.camera.scaled(320, 240),
    )
    a, b = (front_end.observe(f, None).absolute for f in (frame, larger))
    assert a.T_map_cam.distance_to(b.T_map_cam) < 0.2


def test_engines_are_rebuilt_when_anything_they_depend_on_changes(tmp_path: Path) -> None:
    keys = {
        engine_key("a" * 64, gpu, library, precision)
        for gpu in ("Orin sm_87", "RTX 4090 sm_89")
        for library in ("tensorrt 10.3", "tensorrt 10.7")
        for precision in ("fp16", "fp32")
    }
    assert len(keys) == 8 and engine_key("b" * 64, "Orin sm_87", "tensorrt 10.3", "fp16") not in keys
    builds = []

    def build() -> bytes:
        builds.append(1)
        return b"engine"

    first, second = sorted(keys)[:2]
    for key in (first, first, second, second):
        assert cached_engine(tmp_path, "posenet", key, build) == b"engine"
    assert len(builds) == 2
    assert [p.name for p in tmp_path.iterdir()] == [f"posenet-{second}.engine"]


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "engines").write_text("a file where the folder should be")
    assert cached_engine(tmp_path / "engines", "posenet", "key", lambda: b"engine") == b"engine"
