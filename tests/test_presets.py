from __future__ import annotations

from pathlib import Path

import pytest

from dfkd_edge.config.file import load_config
from dfkd_edge.config.presets import preset_names
from dfkd_edge.config.settings import PipelineConfig
from dfkd_edge.errors import ConfigError


def test_the_mini_preset_is_the_default() -> None:
    assert load_config(None, ["preset=mini"]) == PipelineConfig()


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_is_a_valid_run(name: str) -> None:
    config = load_config(None, [f"preset={name}"])
    assert config.distillation.num_warmup_steps < config.distillation.num_steps


def test_the_users_settings_lie_on_the_preset(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text('preset = "clip-b32"\n[prompts]\nnum_styles = 5\n', encoding="utf-8")
    config = load_config(path, ["distillation.num_steps=900"])
    assert config.teacher.name == "ViT-B-32"
    assert (config.prompts.num_styles, config.prompts.num_iterations) == (5, 100)
    assert (config.distillation.num_steps, config.distillation.student) == (900, "resnet18")


def test_an_unknown_preset_gets_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match="did you mean clip-b32"):
        load_config(None, ["preset=clip-b23"])
