"""The config tree: strict, one source of defaults, errors that name the path."""

from pathlib import Path

import msgspec
import pytest
import yaml

from localizer_ros.core.config.mapping import MapConfig
from localizer_ros.core.config.node import NodeConfig
from localizer_ros.core.config.runtime import LocalizerConfig, RunConfig
from localizer_ros.core.config.schema import (
    Config,
    config_from_dict,
    config_to_dict,
    dump_yaml,
    load_config,
    with_setting,
)
from localizer_ros.core.types import ConfigError

TREES: list[type[Config]] = [RunConfig, LocalizerConfig, NodeConfig, MapConfig]


@pytest.mark.parametrize("kind", TREES)
def test_defaults_are_valid_and_round_trip(kind: type[Config], tmp_path: Path) -> None:
    default = kind()
    assert config_from_dict(kind, config_to_dict(default)) == default
    file = tmp_path / "config.yaml"
    file.write_text(dump_yaml(default))
    assert load_config(kind, file) == default
    assert load_config(kind) == default


@pytest.mark.parametrize("kind", TREES)
def test_every_section_is_strict_and_frozen(kind: type[Config]) -> None:
    def sections(config: Config, at: list[str]) -> list[tuple[Config, list[str]]]:
        inner = [(getattr(config, name), [*at, name]) for name in config.__struct_fields__]
        return [(config, at)] + [
            found for value, path in inner if isinstance(value, Config) for found in sections(value, path)
        ]

    for section, path in sections(kind(), []):
        values = config_to_dict(kind())
        node = values
        for name in path:
            node = node[name]
        node["no_such_key"] = 1
        with pytest.raises(ConfigError, match="no_such_key"):
            config_from_dict(kind, values)
        with pytest.raises(AttributeError):
            setattr(section, section.__struct_fields__[0], None)
        assert not isinstance(section, dict) and isinstance(section, msgspec.Struct)


def test_unknown_key_names_file_and_path(tmp_path: Path) -> None:
    file = tmp_path / "robot.yaml"
    file.write_text("smoother:\n  lag: 3.0\n")
    expected = r"robot\.yaml: unknown setting smoother\.lag \(did you mean smoother\.lag_s\?\)$"
    with pytest.raises(ConfigError, match=expected):
        load_config(RunConfig, file)


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [
        ("smoother.lag", "smoother.lag_s"),
        ("lag_s", "smoother.lag_s"),
        ("localizer.search.latency_s", "search.latency_s"),
        ("node.odom_frame", "odom_frame"),
        ("odomframe", "odom_frame"),
        ("smother.max_gap_s", "smoother.max_gap_s"),
        ("quite_another_thing", None),
        # Of mapping: nothing of running is meant.
        ("training.epochs", None),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest_there_is(name: str, suggestion: str | None) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(RunConfig, overrides=[f"{name}=1"])
    said = f" (did you mean {suggestion}?)" if suggestion else ""
    assert str(caught.value) == f"settings: unknown setting {name}{said}"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("smoother.lag_s=0", "smoother.lag_s: expected a number > 0, <= 60 (s), got 0"),
        ("smoother.lag_s=-1", "smoother.lag_s: expected a number > 0, <= 60 (s), got -1"),
        ("smoother.lag_s=three", "smoother.lag_s: expected a number > 0, <= 60 (s), got 'three'"),
        ("smoother.kind=kalman", "smoother.kind: expected gtsam | none, got 'kalman'"),
        ("gate.probability=1.0", "gate.probability: expected a number > 0.5, < 1, got 1.0"),
        (
            "gate.agreeing_rejections=1.5",
            "gate.agreeing_rejections: expected a whole number >= 2, <= 1000, got 1.5",
        ),
        ("backend.threads=-1", "backend.threads: expected a whole number >= 0, <= 256, got -1"),
        ("publish_tf=1", "publish_tf: expected true or false, got 1"),
        ("path_length=1", "path_length: expected a whole number >= 2, <= 100000, got 1"),
        ("map_frame=1", "map_frame: expected text, got 1"),
        ("smoother=5", "smoother: expected settings by name, got 5"),
        ("smoother.lag_s=.nan", "smoother.lag_s: expected a number > 0, <= 60 (s), got nan"),
        ("smoother.lag_s=.inf", "smoother.lag_s: expected a number > 0, <= 60 (s), got inf"),
    ],
)
def test_a_wrong_value_is_named_with_what_was_expected(override: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(RunConfig, overrides=[override])
    assert str(caught.value) == f"settings: {message}"


@pytest.mark.parametrize(
    ("kind", "overrides", "names"),
    [
        (RunConfig, ["search.latency_s=2", "smoother.lag_s=2"], ["search.latency_s", "smoother.lag_s"]),
        (LocalizerConfig, ["search.latency_s=3"], ["search.latency_s", "smoother.lag_s"]),
        (RunConfig, ["odom_frame=odom"], ["odom_frame", "base_frame"]),
        (RunConfig, ["odom_frame=a", "base_frame=a"], ["odom_frame", "base_frame"]),
        (RunConfig, ["odom_frame=a", "base_frame=b", "map_frame=a"], ["odom_frame", "map_frame"]),
        (RunConfig, ["base_frame=map", "map_frame=map"], ["base_frame", "map_frame"]),
        (RunConfig, ["ensemble.samples=1"], ["ensemble.samples"]),
        (RunConfig, ["ensemble.samples=8", "backend.kind=openvino"], ["ensemble.samples", "backend.kind"]),
        (RunConfig, ["status.lost_after_s=0.2"], ["status.lost_after_s", "status.degraded_after_s"]),
        (RunConfig, ["status.degraded_sigma_m=4"], ["status.lost_sigma_m", "status.degraded_sigma_m"]),
        (
            RunConfig,
            ["tracking.min_inliers=90", "tracking.max_keypoints=60"],
            ["tracking.min_inliers", "tracking.max_keypoints"],
        ),
        (MapConfig, ["method=magic"], ["method", "hierarchical"]),
        (
            MapConfig,
            ["structure.keyframes.min_spacing_deg=50"],
            ["structure.keyframes.min_spacing_deg", "structure.keyframes.max_angle_deg"],
        ),
        (
            MapConfig,
            ["structure.keyframes.max_angle_deg=1.5", "structure.points.min_angle_deg=2"],
            ["structure.keyframes.max_angle_deg"],
        ),
        (MapConfig, ["network.head=lstm", "network.hidden=1000"], ["network.head", "network.hidden"]),
    ],
)
def test_settings_that_contradict_each_other_are_named(
    kind: type[Config], overrides: list[str], names: list[str], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"^settings: ") as caught:
        load_config(kind, overrides=overrides)
    assert all(name in str(caught.value) for name in names)
    values: dict[str, object] = {}
    for override in overrides:
        name, _, value = override.partition("=")
        values = with_setting(values, name, yaml.safe_load(value))
    file = tmp_path / "wrong.yaml"
    file.write_text(yaml.safe_dump(values))
    with pytest.raises(ConfigError, match=r"wrong\.yaml: ") as caught:
        load_config(kind, file)
    assert all(name in str(caught.value) for name in names)


def test_settings_that_fit_each_other_are_taken() -> None:
    config = load_config(
        RunConfig,
        overrides=["odom_frame=odom", "base_frame=base_link", "map_frame=map", "search.latency_s=1"],
    )
    assert config.odom_frame == "odom" and config.search.latency_s == 1.0
    assert (
        load_config(RunConfig, overrides=["ensemble.samples=8", "backend.kind=torch"]).ensemble.samples == 8
    )


def test_overrides_win_over_the_file_and_keep_the_rest(tmp_path: Path) -> None:
    file = tmp_path / "robot.yaml"
    file.write_text("smoother: {lag_s: 5, robust_kernel: cauchy}\nbase_frame: base_link\n")
    config = load_config(RunConfig, file, ["smoother.lag_s=2.5", "odom_frame=odom"])
    assert config.smoother.lag_s == 2.5
    assert config.smoother.robust_kernel == "cauchy"
    assert (config.base_frame, config.odom_frame) == ("base_link", "odom")
    assert config.gate == RunConfig().gate
    # Whole numbers are fine where a float is meant.
    assert load_config(RunConfig, file).smoother.lag_s == 5.0


def test_override_values_are_yaml() -> None:
    config = load_config(
        MapConfig,
        overrides=["training.learning_rate=1e-4", "training.precision=fp32", "network.freeze_fine=false"],
    )
    assert config.training.learning_rate == 1e-4
    assert config.training.precision == "fp32"
    assert config.network.freeze_fine is False


def test_last_override_wins_and_the_defaults_stay() -> None:
    config = load_config(RunConfig, overrides=["smoother.lag_s=1", "smoother.lag_s=2"])
    assert config.smoother.lag_s == 2.0
    assert RunConfig().smoother.lag_s == 3.0


@pytest.mark.parametrize("override", ["smoother.lag_s", "=3", "  =3", "a.b=[1"])
def test_malformed_override_is_named(override: str) -> None:
    with pytest.raises(ConfigError, match="--set"):
        load_config(RunConfig, overrides=[override])


@pytest.mark.parametrize("text", ["smoother: [1, 2]\n", "- 1\n", "just words\n", "a: b: c\n", "\tx: 1\n"])
def test_malformed_file_is_one_line_with_its_name(tmp_path: Path, text: str) -> None:
    file = tmp_path / "broken.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(RunConfig, file)
    assert "broken.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["- 1\n", "just words\n", "smoother: 3\n", "[]\n", "false\n"])
def test_a_malformed_file_stays_an_error_beneath_overrides(tmp_path: Path, text: str) -> None:
    file = tmp_path / "broken.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"broken\.yaml"):
        load_config(RunConfig, file, ["smoother.lag_s=2.0"])


def test_empty_file_is_all_defaults_and_a_missing_one_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "empty.yaml"
    file.write_text("# nothing\n")
    assert load_config(RunConfig, file) == RunConfig()
    with pytest.raises(ConfigError, match=r"missing\.yaml"):
        load_config(RunConfig, tmp_path / "missing.yaml")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(RunConfig, tmp_path)


def test_dump_is_in_the_order_of_definition_and_readable() -> None:
    text = dump_yaml(RunConfig())
    assert list(yaml.safe_load(text))[:2] == ["backend", "ensemble"]
    assert text.index("backend:") < text.index("smoother:") < text.index("status:")
    assert "!!" not in text
