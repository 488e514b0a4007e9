"""The config tree: strict, one source of defaults, errors that name the path."""

from pathlib import Path

import msgspec
import pytest
import yaml

from localizer_ros.core.config.mapping import MapConfig
from localizer_ros.core.config.runtime import LocalizerConfig, RunConfig
from localizer_ros.core.config.schema import Config, config_from_dict, config_to_dict, dump_yaml, load_config
from localizer_ros.core.types import ConfigError

TREES: list[type[Config]] = [RunConfig, LocalizerConfig, MapConfig]


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
    with pytest.raises(ConfigError, match=r"robot\.yaml: .*lag.*smoother"):
        load_config(RunConfig, file)


@pytest.mark.parametrize(
    ("override", "path"),
    [
        ("smoother.lag_s=0", "smoother.lag_s"),
        ("smoother.lag_s=-1", "smoother.lag_s"),
        ("smoother.lag_s=three", "smoother.lag_s"),
        ("smoother.kind=kalman", "smoother.kind"),
        ("gate.probability=1.0", "gate.probability"),
        ("gate.agreeing_rejections=1.5", "gate.agreeing_rejections"),
        ("backend.threads=-1", "backend.threads"),
        ("publish_tf=1", "publish_tf"),
        ("path_length=1", "path_length"),
        ("smoother=5", "smoother"),
        ("smoother.lag_s=.nan", "smoother.lag_s"),
        ("smoother.lag_s=.inf", "smoother.lag_s"),
    ],
)
def test_value_out_of_range_names_its_path(override: str, path: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(RunConfig, overrides=[override])
    assert path in str(caught.value)


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
