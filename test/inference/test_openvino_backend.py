"""OpenVINO runs a network in the precision that it is asked for, whatever it ran before."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from localizer_ros.core.config.runtime import BackendConfig
from localizer_ros.core.files import sha256_of
from localizer_ros.inference.model_card import ModelCard, card_path, read_card
from localizer_ros.inference.onnx_precision import network_in
from localizer_ros.inference.open_backend import open_backend
from localizer_ros.inference.processor import has_native_bf16

HALVES = ["fp16", *(["bf16"] if has_native_bf16() else [])]
# Of a network in half precision but for its last layers.
BOUNDS_M = {"fp32": 1e-4, "fp16": 5e-3, "bf16": 3e-2}
FAR_M = 1000.0


@pytest.fixture
def networks(tiny_scene: Path, tmp_path: Path) -> Path:
    """A copy of the networks of the tiny scene, whose engines may be written."""
    return shutil.copytree(tiny_scene / "networks", tmp_path / "scene" / "networks")


def position(networks: Path, precision: str) -> np.ndarray:
    backend = open_backend(
        networks, "posenet", BackendConfig(kind="openvino", precision=precision, threads=1)
    )
    shape = next(spec.shape for spec in backend.card.inputs if spec.name == "image")
    answer = backend.run({"image": np.random.default_rng(0).normal(0, 1, shape).astype(np.float32)})
    backend.close()
    return answer["t"][0]


@pytest.mark.parametrize("half", HALVES)
def test_what_was_compiled_in_one_precision_is_not_run_in_another(networks: Path, half: str) -> None:
    exact = position(networks, "fp32")
    rounded = position(networks, half)
    assert not np.array_equal(rounded, exact)
    # The other way round, with what is in the cache now and with nothing in it.
    np.testing.assert_array_equal(position(networks, "fp32"), exact)
    shutil.rmtree(networks.parent / "engines")
    np.testing.assert_array_equal(position(networks, half), rounded)
    np.testing.assert_array_equal(position(networks, "fp32"), exact)
    assert list((networks.parent / "engines").rglob("*.blob"))


# In a process of its own, as only the first import of one counts; as of a user whom no file of CI's is there for.
SCRIPT = """
import sys, threading
from localizer_ros.inference import openvino_backend
from localizer_ros.inference.openvino_library import openvino
assert openvino.Core().available_devices
print([name for name in sys.modules if name.startswith("openvino_telemetry.")], threading.active_count())
"""


def test_a_start_is_reported_to_nobody(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "CI"} | {
        "HOME": str(tmp_path)
    }
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, env=environment
    )
    assert done.stdout == "[] 1\n"
    assert not list(tmp_path.iterdir()), "an identity of the user was written"


def test_a_scene_that_cannot_be_written_runs_and_is_compiled_once(
    networks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    expected = position(networks, "fp32")
    shutil.rmtree(networks.parent / "engines")
    (networks.parent / "engines").write_text("a file where the folder should be")
    # Nowhere to keep anything, and then the user's cache.
    monkeypatch.setenv("XDG_CACHE_HOME", str(networks.parent / "engines"))
    np.testing.assert_array_equal(position(networks, "fp32"), expected)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for _ in range(2):
        np.testing.assert_array_equal(position(networks, "fp32"), expected)
        assert len(list((tmp_path / "cache" / "localizer_ros").rglob("*.blob"))) == 1
    assert [message.rpartition("; ")[2].partition(" in ")[0] for message in caplog.messages] == [
        "networks are compiled at every start",
        "what is compiled is kept",
    ]


@pytest.mark.parametrize("precision", ["fp32", *HALVES])
def test_positions_are_exact_far_from_the_origin(networks: Path, precision: str) -> None:
    near = position(networks, "fp32")
    card = read_card(card_path(networks, "posenet"), ModelCard)
    model = onnx.load(str(networks / card.network))
    (centre,) = (t for t in model.graph.initializer if t.name == "absolute.centre")
    moved = numpy_helper.to_array(centre) + np.float32(FAR_M)
    centre.CopyFrom(numpy_helper.from_array(moved, centre.name))
    onnx.save(model, str(networks / card.network))
    changed: ModelCard = msgspec.structs.replace(card, sha256=sha256_of(networks / card.network))
    changed.write(card_path(networks, "posenet"))
    assert np.max(np.abs(position(networks, precision) - FAR_M - near)) < BOUNDS_M[precision]


def test_a_precision_that_was_not_judged_is_said(networks: Path, caplog: pytest.LogCaptureFixture) -> None:
    position(networks, "fp32")
    assert not caplog.messages
    position(networks, "fp16")
    assert caplog.messages[0].startswith(
        "posenet: what fp16 costs this network was not judged; `localizer export"
    )
    caplog.clear()
    # What an export has written is taken as it is.
    card = read_card(card_path(networks, "posenet"), ModelCard)
    file = networks / "posenet.fp16.onnx"
    file.write_bytes(network_in(networks, card, "fp16"))
    exported: ModelCard = msgspec.structs.replace(
        card, network=file.name, sha256=sha256_of(file), made_from=card.sha256
    )
    exported.write(card_path(networks, "posenet.fp16"))
    position(networks, "fp16")
    assert not caplog.messages
    # An export of another network is not.
    msgspec.structs.replace(exported, made_from="0" * 64).write(card_path(networks, "posenet.fp16"))
    position(networks, "fp16")
    assert "was not judged" in caplog.text
