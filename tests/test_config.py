import dataclasses
from pathlib import Path

import pytest

from dfkd_edge.config.file import load_config, settings_of, to_toml
from dfkd_edge.config.presets import preset_names
from dfkd_edge.config.settings import DistillationConfig, PipelineConfig
from dfkd_edge.config.sizes import sized
from dfkd_edge.errors import ConfigError
from dfkd_edge.files import content_hash
from dfkd_edge.preflight import DistillRequest, plan_synthesize


def test_a_saved_config_loads_as_the_same_config(tmp_path: Path) -> None:
    texts = ["prompts.method=base", 'classes="a b.txt"', "seed=3", "export.batch=[1, 4, 8]"]
    config = load_config(None, settings_of(texts))
    assert (config.prompts.method, config.export.batch) == ("base", (1, 4, 8))
    path = tmp_path / "config.toml"
    path.write_text(to_toml(config), encoding="utf-8")
    assert load_config(path) == config


def test_flags_win_over_texts_later_texts_over_earlier_and_all_over_file_and_preset(
    tmp_path: Path,
) -> None:
    path = tmp_path / "run.toml"
    path.write_text('preset = "clip-b32"\n[prompts]\nnum_styles = 5\n', encoding="utf-8")
    texts = ["distillation.num_steps=6", "distillation.num_steps=7", "prompts.method=mix", "seed=1"]
    config = load_config(path, settings_of(texts, {"prompts": "base", "seed": None}))
    assert (config.teacher.name, config.distillation.student) == ("ViT-B-32", "resnet18")
    assert (config.prompts.num_styles, config.prompts.num_iterations) == (5, 100)
    assert (config.distillation.num_steps, config.prompts.method, config.seed) == (7, "base", 1)


def test_a_mapping_is_a_section_that_is_merged() -> None:
    flags = {"synthesis": {"num_images": 300}, "data": Path("pictures"), "steps": 7}
    config = load_config(None, settings_of(["synthesis.num_views=3"], flags))
    assert (config.synthesis.num_images, config.synthesis.num_views) == (300, 3)
    assert (config.data, config.distillation.num_steps) == ("pictures", 7)
    assert settings_of(flags={"calib_size": 8, "repair": False}, section="export.") == {
        "export": {"calibration_size": 8, "repair": False}
    }


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("prompts.num_stiles=8", r"unknown setting .* did you mean prompts\.num_styles\?"),
        ("num_images=8", r"did you mean synthesis\.num_images\?"),
        ("synthesis.batch_size=8", r"did you mean distillation\.batch_size\?"),
        ("few_shot.zzzz=8", r"known: images, max_per_class, share"),
        ("preset=clip-b23", "did you mean clip-b32"),
        (
            "prompts.method=mixed",
            r"'mixed' is .*\(prompts\.method \(--prompts\)\): did you mean mix",
        ),
        ("prompts.num_styles=many", r"prompts\.num_styles"),
        ('prompts.num_styles="8"', "is not a whole number"),
        ("prompts=3", "is a section"),
        ("seed.x.y=3", "is not a whole number"),
        ("distillation.num_steps=-1", r"-1 is .* \(distillation\.num_steps \(--steps\)\)"),
        ("distillation.temperature=-1", r"distillation\.temperature"),
        ("synthesis.heldout_share=0", r"synthesis\.heldout_share"),
        ("few_shot.share=1", r"few_shot\.share"),
        ("synthesis.image_size_px=31", "must be 0, or 32 to 2048 px"),
        ("synthesis.method=diffusion", r"synthesis\.pipeline"),
        ("distillation.image_size_px=31", "must be 0, or 32 to 512 px"),
        ("export.opset=12", "must be 0, or 13 to 25"),
        ("export.batch=[1, 0]", r"0 is .* \(export\.batch\)"),
        ("export.batch=[]", r"export\.batch"),
        ('teacher.templates=["a"]', "needs one {}"),
        ("seed=-1", "seed"),
        ("effort=0", r"0 is .* \(effort\)"),
        (r'data="C:\temp"', r"holds the control character U\+0009 \(data\): .* 'single quotes'"),
        (r'few_shot.images=["a\u0000b"]', r"control character U\+0000 \(few_shot.images\)"),
        (f"{'a.' * 5000}b=1", "sections lie too deep"),
        ("seed=1\nprompts.num_styles=2", "sets more than one thing"),
        ("distillation.num_steps=99999999999999999999", "is too large"),
        ("distillation.temperature=1e300", "is too large"),
        ("export.num_threads=99999", "is too large"),
        ("few_shot.images=\udcff", "a name that is not UTF-8"),
        ("no equals sign", "is not KEY=VALUE"),
    ],
)
def test_a_wrong_setting_is_named(text: str, fault: str) -> None:
    with pytest.raises(ConfigError, match=fault):
        load_config(None, settings_of([text]))


def test_a_missing_or_broken_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such TOML file"):
        load_config(tmp_path / "missing.toml")
    broken = tmp_path / "broken.toml"
    broken.write_text("a = = 3", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"broken\.toml"):
        load_config(broken)


def test_every_preset_is_a_valid_run_and_mini_is_the_default() -> None:
    presets = {name: load_config(None, {"preset": name}) for name in preset_names()}
    for config in (sized(config, 7) for config in presets.values()):
        assert config.distillation.num_warmup_steps < config.distillation.num_steps
    assert presets["mini"] == PipelineConfig()


@pytest.mark.parametrize(("few", "many"), [(7, 20), (20, 80), (80, 200), (200, 1_000)])
def test_images_and_steps_grow_with_the_classes_and_more_slowly(few: int, many: int) -> None:
    of_few, of_many = (sized(PipelineConfig(), num) for num in (few, many))
    for section, name in (("synthesis", "num_images"), ("distillation", "num_steps")):
        fewer, more = (getattr(getattr(each, section), name) for each in (of_few, of_many))
        assert fewer < more <= fewer * many / few


@pytest.mark.parametrize("num_classes", [2, 7, 40, 200, 1_000])
def test_more_effort_is_as_many_times_the_images_and_steps_of_any_list(num_classes: int) -> None:
    usual = sized(PipelineConfig(), num_classes)
    for text, times in (("preset=mini-high", 8.0), ("effort=0.5", 0.5)):
        much = sized(load_config(None, settings_of([text])), num_classes)
        assert much.synthesis.num_images == pytest.approx(times * usual.synthesis.num_images, abs=4)
        assert much.distillation.num_steps == pytest.approx(
            times * usual.distillation.num_steps, abs=4
        )


def test_numbers_that_are_given_hold_for_every_list() -> None:
    texts = ["synthesis.num_images=64", "distillation.num_steps=3"]
    config = load_config(None, settings_of(texts))
    assert sized(config, 200) == config
    assert sized(PipelineConfig(), 2) == sized(PipelineConfig(), 7)
    too_few = load_config(None, settings_of(["synthesis.num_images=31"]))
    with pytest.raises(ConfigError, match=r"must be 0, or at least 32 \(synthesis\.num_images\)"):
        sized(too_few, 7)


def test_a_plan_keeps_settings_apart_that_hold_for_every_list(tmp_path: Path) -> None:
    listed = tmp_path / "classes.txt"
    listed.write_text("dog\nhouse\n", encoding="utf-8")
    settings = {"classes": str(listed), **settings_of(["distillation.num_steps=7"])}
    plan = plan_synthesize(DistillRequest(settings=settings, output=tmp_path / "run"))
    assert plan.config == sized(plan.reusable, 2)
    assert sized(plan.reusable, 200).synthesis.num_images > plan.config.synthesis.num_images
    assert sized(plan.reusable, 200).distillation.num_steps == 7


def test_the_hash_follows_content_and_order() -> None:
    one, two = DistillationConfig(), DistillationConfig(num_steps=7)
    assert content_hash(one, "a") == content_hash(DistillationConfig(), "a")
    assert content_hash(one, "a") != content_hash(two, "a")
    assert content_hash("a", "b") != content_hash("b", "a")


def test_configs_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        DistillationConfig().num_steps = 3  # type: ignore[misc]


@pytest.mark.parametrize("value", ["[" * 5_000, "inf", "-inf", "nan", "9" * 5_000])
def test_a_value_without_end_is_refused(value: str) -> None:
    with pytest.raises(ConfigError, match="learning_rate"):
        load_config(None, settings_of([f"distillation.learning_rate={value}"]))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"preset = false", "unknown preset 'False'"),
        (b'classes = "C:\\Users\\x"', "write paths in single quotes"),
        ("seed = 1".encode("utf-16"), "save it as UTF-8"),
        (b"seed = 1\n#" + b"x" * (1 << 20) + b"\nseed = 2", "larger than 1 MiB"),
    ],
)
def test_a_file_is_read_whole_or_refused_with_what_to_do(
    tmp_path: Path, content: bytes, said: str
) -> None:
    path = tmp_path / "run.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=said):
        load_config(path)
    path.write_bytes(b"\xef\xbb\xbfseed = 3\r\n")
    assert load_config(path).seed == 3
