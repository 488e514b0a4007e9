"""Compiled engines on disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from localizer_ros.core.types import BackendError, Camera
from localizer_ros.inference.engine_cache import (
    cached_engine,
    engine_folders,
    engine_key,
    engine_name,
    forget_unused,
    openvino_folder,
)
from localizer_ros.inference.model_card import ModelCard, card_path


def test_engines_are_rebuilt_when_anything_they_depend_on_changes(tmp_path: Path) -> None:
    keys = {
        engine_key("a" * 64, gpu, library, precision)
        for gpu in ("Orin sm_87", "RTX 4090 sm_89")
        for library in ("tensorrt 10.3", "tensorrt 10.7")
        for precision in ("fp16", "fp32")
    }
    assert len(keys) == 8 and engine_key("b" * 64, "Orin sm_87", "tensorrt 10.3", "fp16") not in keys
    builds = []

    def build(folder: Path) -> bytes:
        builds.append(folder)
        return b"engine"

    networks, engines = tmp_path / "networks", tmp_path / "engines"
    # An engine for the lean runtime is another's, and so is one of a network with a longer name.
    others = [engine_name(name, "key") for name in ("posenet-lean", "posenet.fp16", "motion")]
    for other in others:
        cached_engine(networks, other, build)
    first, second = (engine_name("posenet", part) for part in "ab")
    for name in (first, first, second, second):
        assert cached_engine(networks, name, build) == b"engine"
    assert builds == (len(others) + 2) * [engines]
    assert {path.name for path in engines.iterdir()} == {*others, second}


@pytest.fixture
def users_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where engines of scenes lie that cannot be written to."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "localizer_ros"


def test_engines_of_a_scene_that_cannot_be_written_lie_in_the_users_cache(
    tmp_path: Path, users_cache: Path, lock: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    scene = tmp_path / "scene"
    brought = cached_engine(scene / "networks", "brought.engine", lambda _: b"brought")
    lock(scene)
    # What the scene brings is run.
    assert cached_engine(scene / "networks", "brought.engine", lambda _: pytest.fail("built")) == brought
    assert not caplog.messages
    for name in ("posenet", "motion"):
        built = cached_engine(scene / "networks", engine_name(name, "key"), lambda _: b"engine")
        # Kept, and of this scene only.
        assert cached_engine(scene / "networks", engine_name(name, "key"), lambda _: b"other") == built
        other = cached_engine(tmp_path / "other" / "networks", engine_name(name, "key"), lambda _: b"other")
        assert other == b"other"
    (folder,) = users_cache.iterdir()
    assert len(list(folder.iterdir())) == 2
    (told,) = caplog.messages
    assert (
        told
        == f"{scene}/engines: cannot be written (Read-only file system); what is compiled is kept in {folder}"
    )


def test_a_cache_that_cannot_be_written_anywhere_is_no_error(
    tmp_path: Path, users_cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    scene = tmp_path / "scene"
    for folder in (scene, users_cache.parent):
        folder.mkdir()
    for file in (scene / "engines", users_cache):
        file.write_text("a file where the folder should be")
    for _ in range(2):
        name = engine_name("posenet", "key")
        assert cached_engine(scene / "networks", name, lambda _: b"engine") == b"engine"
    told = f"{scene}/engines: cannot be written (File exists); networks are compiled at every start"
    assert caplog.messages.count(told) == 1


def written_card(networks: Path, name: str, network: str, sha256: str) -> ModelCard:
    card = ModelCard(
        network=network,
        sha256=sha256,
        inputs=(),
        outputs=(),
        states={},
        architecture={},
        mean=(0, 0, 0),
        std=(1, 1, 1),
        camera=Camera(8, 8, np.eye(3)).to_dict(),
    )
    card.write(card_path(networks, name))
    return card


@pytest.mark.parametrize("of_scene", [True, False])
def test_only_engines_of_networks_that_are_gone_are_removed(
    tmp_path: Path, users_cache: Path, of_scene: bool
) -> None:
    networks = tmp_path / "networks"
    engines = engine_folders(networks)[0 if of_scene else 1]
    networks.mkdir()
    cards = [
        written_card(networks, "posenet", "posenet.onnx", "a" * 64),
        written_card(networks, "posenet.fp16", "posenet.fp16.onnx", "b" * 64),
        # Stayed in single precision.
        written_card(networks, "posenet.int8", "posenet.onnx", "a" * 64),
    ]
    kept = [openvino_folder(engines, card) / "1.blob" for card in cards]
    kept += [
        engines / engine_name(name, gpu)
        for name in ("posenet", "posenet-lean", "posenet.fp16")
        for gpu in "ab"
    ]
    kept += [engines / name for name in ("backend_times.json", "tensorrt-0123.timings", "mine.engine")]
    before = written_card(tmp_path, "before", "posenet.fp16.onnx", "c" * 64)
    trial = written_card(tmp_path, "trial", "posenet.int8.trial.onnx", "b" * 64)
    gone = [openvino_folder(engines, card) / "1.blob" for card in (before, trial)]
    gone += [engines / engine_name("posenet.int8", "a"), engines / "openvino" / "2.blob", engines / "4.blob"]
    for path in (*kept, *gone):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"engine")
    opened = gone[0].open("rb")
    forget_unused(networks)
    left = {path for path in engines.rglob("*") if path.is_file()}
    assert left == set(kept)
    assert not any(path.parent.exists() for path in gone[:2])
    # Another process that runs one goes on.
    assert opened.read() == b"engine"
    opened.close()
    card_path(networks, "motion").write_text("{")
    kept[0].with_name("3.blob").write_bytes(b"engine")
    with pytest.raises(BackendError):
        forget_unused(networks)
    assert set(kept) < {path for path in engines.rglob("*") if path.is_file()}
    # Nothing was ever compiled: nothing to do.
    card_path(networks, "motion").unlink()
    forget_unused(tmp_path / "none")
