from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from dfkd_edge.config.file import load_config, to_toml
from dfkd_edge.config.settings import DistillationConfig
from dfkd_edge.errors import ConfigError
from dfkd_edge.files import content_hash


def test_a_saved_config_loads_as_the_same_config(tmp_path: Path) -> None:
    config = load_config(None, ["prompts.num_styles=8", 'classes="a b.txt"', "seed=3"])
    path = tmp_path / "config.toml"
    path.write_text(to_toml(config), encoding="utf-8")
    assert load_config(path) == config


def test_later_overrides_win_over_the_file(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text("[distillation]\nnum_steps = 5\n", encoding="utf-8")
    config = load_config(path, ["distillation.num_steps=6", "distillation.num_steps=7"])
    assert config.distillation.num_steps == 7


def test_a_list_of_batch_sizes_survives_the_file(tmp_path: Path) -> None:
    config = load_config(None, ["export.batch=[1, 4, 8]"])
    path = tmp_path / "config.toml"
    path.write_text(to_toml(config), encoding="utf-8")
    assert load_config(path).export.batch == (1, 4, 8)


def test_bare_words_are_strings() -> None:
    assert load_config(None, ["prompts.method=base"]).prompts.method == "base"


@pytest.mark.parametrize(
    ("override", "fault"),
    [
        ("prompts.num_stiles=8", r"did you mean prompts\.num_styles"),
        ("num_images=8", r"did you mean synthesis\.num_images\?"),
        ("synthesis.batch_size=8", r"did you mean distillation\.batch_size\?"),
        ("prompts.method=mixed", r"prompts\.method"),
        ("prompts.num_styles=many", r"prompts\.num_styles"),
        ("prompts=3", "is a section"),
        ("seed.x.y=3", "valid integer"),
        ("distillation.num_steps=0", r"distillation\.num_steps"),
        ("distillation.temperature=-1", r"distillation\.temperature"),
        ("synthesis.heldout_share=0", r"synthesis\.heldout_share"),
        ("seed=-1", "seed"),
        ("no equals sign", "is not KEY=VALUE"),
    ],
)
def test_a_wrong_setting_is_named(override: str, fault: str) -> None:
    with pytest.raises(ConfigError, match=fault):
        load_config(None, [override])


def test_a_missing_or_broken_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such config file"):
        load_config(tmp_path / "missing.toml")
    broken = tmp_path / "broken.toml"
    broken.write_text("a = = 3", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"broken\.toml"):
        load_config(broken)


def test_the_hash_follows_content_and_order() -> None:
    one, two = DistillationConfig(), DistillationConfig(num_steps=7)
    assert content_hash(one, "a") == content_hash(DistillationConfig(), "a")
    assert content_hash(one, "a") != content_hash(two, "a")
    assert content_hash("a", "b") != content_hash("b", "a")


def test_configs_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        DistillationConfig().num_steps = 3  # type: ignore[misc]
