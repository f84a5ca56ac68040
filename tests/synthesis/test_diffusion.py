import dataclasses
import json
from pathlib import Path

import diffusers
import pytest
import torch

from dfkd_edge.config.file import load_config
from dfkd_edge.config.settings import SynthesisConfig
from dfkd_edge.errors import ConfigError, EnvironmentLackingError
from dfkd_edge.synthesis.diffusion import load_diffusion, loading_options, prompt_text
from dfkd_edge.synthesis.sampling import USUAL, Sampling, own_sampling, sampling_of
from dfkd_edge.synthesis.synthesize import make_candidates
from dfkd_edge.synthesis.synthesizers import SYNTHESIZERS
from tests.fixtures.synthesis import MakeSetup


@pytest.fixture(scope="module")
def pipeline_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save a Stable Diffusion of the real classes with a few weights."""
    transformers = pytest.importorskip("transformers")
    from diffusers import (
        AutoencoderKL,
        EulerDiscreteScheduler,
        StableDiffusionPipeline,
        UNet2DConditionModel,
    )

    folder = tmp_path_factory.mktemp("pipeline")
    words = ["<|startoftext|>", "<|endoftext|>", *(chr(c) for c in range(97, 123))]
    words += [f"{chr(c)}</w>" for c in range(97, 123)] + [",</w>"]
    tokenizer = transformers.CLIPTokenizer(
        vocab={word: index for index, word in enumerate(words)}, merges=[], model_max_length=77
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        text = transformers.CLIPTextModel(
            transformers.CLIPTextConfig(
                vocab_size=len(words),
                hidden_size=16,
                intermediate_size=16,
                num_hidden_layers=1,
                num_attention_heads=2,
                bos_token_id=0,
                eos_token_id=1,
                pad_token_id=1,
            )
        )
        unet = UNet2DConditionModel(
            sample_size=8,
            block_out_channels=(8, 16),
            layers_per_block=1,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            cross_attention_dim=16,
            attention_head_dim=4,
            norm_num_groups=4,
        )
        vae = AutoencoderKL(
            block_out_channels=(8, 8),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            latent_channels=4,
            norm_num_groups=4,
        )
    StableDiffusionPipeline(
        vae=vae,
        text_encoder=text,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=EulerDiscreteScheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def turbo_folder(pipeline_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save the same networks in half precision only, with the scheduler of SD-Turbo."""
    from diffusers import EulerDiscreteScheduler, StableDiffusionPipeline

    folder = tmp_path_factory.mktemp("fast")
    pipeline = StableDiffusionPipeline.from_pretrained(pipeline_folder, low_cpu_mem_usage=False)
    pipeline.scheduler = EulerDiscreteScheduler(timestep_spacing="trailing")
    pipeline.save_pretrained(folder, variant="fp16")
    return folder


def config_with(folder: Path | str, **changes: float) -> SynthesisConfig:
    config = SynthesisConfig(
        method="diffusion", pipeline=str(folder), num_images=32, num_sampling_steps=1
    )
    return dataclasses.replace(config, **changes)  # type: ignore[arg-type]


def test_a_class_and_its_style_become_words() -> None:
    assert prompt_text("dog", None, "a photo of a", 1) == "a photo of a dog"
    assert prompt_text("dog", "a wet dog", "a photo of a", 1) == "a wet dog"
    assert prompt_text("dog", None, "ink wash", 4) == "a dog, ink wash style"


def test_the_same_seed_draws_the_same_pictures_and_noise_on_the_text_moves_them(
    pipeline_folder: Path, make_setup: MakeSetup
) -> None:
    config = config_with(pipeline_folder, guidance_scale=1.0)
    setup = make_setup(config)
    first, again = (make_candidates(0, setup, load_diffusion(setup)) for _ in range(2))
    assert first["images"].shape == (32, 37, 37, 3)
    assert (first["images"] == again["images"]).all()
    assert len({image.tobytes() for image in first["images"]}) == 32
    noisy = dataclasses.replace(setup, config=config_with(pipeline_folder, text_noise=0.5))
    moved = make_candidates(0, noisy, load_diffusion(noisy))
    assert (moved["images"] != first["images"]).any()


def test_a_pipeline_that_is_not_named_or_not_here_stops_with_the_next_step(
    make_setup: MakeSetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("transformers")
    with pytest.raises(ConfigError, match="sd-turbo"):
        config_with("")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    absent = make_setup(config_with("nobody/turbo"))
    with pytest.raises(EnvironmentLackingError, match="hf download nobody/turbo --local-dir"):
        load_diffusion(absent)


def test_a_pipeline_takes_the_steps_and_guidance_that_it_was_made_for(
    pipeline_folder: Path, turbo_folder: Path
) -> None:
    assert own_sampling(str(pipeline_folder)) == Sampling(50, 7.5)  # of Stable Diffusion's class
    assert own_sampling(str(turbo_folder)) == Sampling(2, 1.0)
    assert own_sampling("ByteDance/SDXL-Lightning") == Sampling(2, 1.0)
    assert own_sampling("somebody/sdxl_lightning_4step") == Sampling(4, 1.0)
    assert own_sampling("somebody/fulcrum") == Sampling(*USUAL)


@pytest.mark.parametrize(
    ("scheduler", "options", "sampling"),
    [
        ("EulerAncestralDiscreteScheduler", {"timestep_spacing": "trailing"}, Sampling(2, 1.0)),
        ("LCMScheduler", {}, Sampling(4, 1.0)),
        ("DDIMScheduler", {"timestep_spacing": "trailing"}, Sampling(50, 7.5)),
        (
            "EulerDiscreteScheduler",
            {"timestep_spacing": "trailing", "prediction_type": "v_prediction"},
            Sampling(50, 7.5),
        ),
    ],
)
def test_the_scheduler_tells_a_distilled_pipeline_from_one_of_many_steps(
    tmp_path: Path, scheduler: str, options: dict[str, str], sampling: Sampling
) -> None:
    getattr(diffusers, scheduler)(**options).save_pretrained(tmp_path / "scheduler")
    index = {"_class_name": "StableDiffusionPipeline"}
    (tmp_path / "model_index.json").write_text(json.dumps(index), encoding="utf-8")

    assert own_sampling(str(tmp_path)) == sampling


def test_a_consistency_model_is_told_its_guidance_and_runs_once_a_step(tmp_path: Path) -> None:
    parts = {
        "model_index.json": {"_class_name": "LatentConsistencyModelPipeline"},
        "scheduler/scheduler_config.json": {"_class_name": "LCMScheduler"},
        "unet/config.json": {"time_cond_proj_dim": 256},
    }
    for name, values in parts.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(json.dumps(values), encoding="utf-8")
    found = own_sampling(str(tmp_path))

    assert found == Sampling(4, 8.5, takes_guidance=True)
    assert found.num_passes == 4


def test_what_the_user_sets_wins_over_what_a_pipeline_was_made_for(turbo_folder: Path) -> None:
    config = config_with(turbo_folder, num_sampling_steps=3, guidance_scale=4.0)
    assert sampling_of(config) == Sampling(3, 4.0)
    assert sampling_of(config_with(turbo_folder, num_sampling_steps=0)).num_passes == 2


def test_accelerators_read_half_precision_and_a_cpu_computes_in_full(
    pipeline_folder: Path, turbo_folder: Path, make_setup: MakeSetup
) -> None:
    half = {"torch_dtype": torch.float16, "variant": "fp16"}
    assert loading_options(str(turbo_folder), "cuda") == half
    assert loading_options(str(pipeline_folder), "cuda") == {**half, "variant": None}
    setup = make_setup(config_with(turbo_folder, num_sampling_steps=0))
    synthesizer = load_diffusion(setup)

    assert synthesizer.pipeline.unet.dtype == torch.float32
    assert (
        synthesizer.pipeline.unet.config.sample_size * synthesizer.pipeline.vae_scale_factor == 16
    )
    assert make_candidates(0, setup, synthesizer)["images"].shape == (32, 37, 37, 3)


def test_presets_leave_a_pipelines_pictures_room_for_crops() -> None:
    for preset in ("clip-b32", "clip-l14"):
        settings = {"preset": preset, "synthesis": {"method": "diffusion", "pipeline": "x"}}
        config = load_config(None, settings).synthesis
        assert SYNTHESIZERS["diffusion"].stored_side_px(config, 224) == 256
        assert SYNTHESIZERS["amortized"].stored_side_px(config, 224) == 224
