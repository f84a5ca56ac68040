import dataclasses
from pathlib import Path

import pytest
import torch

from dfkd_edge.config.settings import SynthesisConfig
from dfkd_edge.errors import ConfigError, EnvironmentLackingError
from dfkd_edge.synthesis.diffusion import load_diffusion, prompt_text
from dfkd_edge.synthesis.synthesize import make_candidates
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
