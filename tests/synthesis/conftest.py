"""Tiny models of the real classes: an open_clip teacher and a VQGAN, random weights, no network."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import open_clip
import pytest
import torch
from diffusers import VQModel
from open_clip.model import set_model_preprocess_cfg

from dfkd_edge.class_names import ClassNames
from dfkd_edge.config import PromptConfig, SynthesisConfig, TeacherConfig
from dfkd_edge.interfaces import Reporter, StageContext
from dfkd_edge.prompts import diversify_prompts
from dfkd_edge.run_dir import open_run
from dfkd_edge.synthesis.setup import SynthesisSetup
from dfkd_edge.teacher import Teacher

MakeSetup = Callable[..., SynthesisSetup]


@pytest.fixture(scope="session")
def tiny_teacher(classes: ClassNames) -> Teacher:
    """Make a CLIP of a few thousand weights besides its token table."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        vision = {"image_size": 32, "layers": 1, "width": 32, "patch_size": 8, "head_width": 16}
        text = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
        model = open_clip.CLIP(embed_dim=24, vision_cfg=vision, text_cfg=text)
    mean_std = {"mean": open_clip.OPENAI_DATASET_MEAN, "std": open_clip.OPENAI_DATASET_STD}
    set_model_preprocess_cfg(model, {"size": 32, **mean_std})
    tokenizer = open_clip.get_tokenizer("ViT-B-32")
    return Teacher(model, tokenizer, TeacherConfig(name="tiny"), classes)


@pytest.fixture(scope="session")
def tiny_vqgan() -> VQModel:
    """Make a VQ autoencoder with attention at its coarse level, as VQGAN has."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = VQModel(
            down_block_types=("DownEncoderBlock2D", "AttnDownEncoderBlock2D"),
            up_block_types=("AttnUpDecoderBlock2D", "UpDecoderBlock2D"),
            block_out_channels=(32, 64),
            layers_per_block=1,
            latent_channels=8,
            vq_embed_dim=4,
            num_vq_embeddings=16,
        )
        torch.nn.init.normal_(model.quantize.embedding.weight)
    return model.eval()


@pytest.fixture(scope="session")
def vqgan_folder(tiny_vqgan: VQModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save it as diffusers does."""
    folder = tmp_path_factory.mktemp("vqgan")
    tiny_vqgan.save_pretrained(folder)
    return folder


@pytest.fixture
def make_setup(tmp_path: Path, tiny_teacher: Teacher, context: StageContext) -> Iterator[MakeSetup]:
    """Prepare the stage for the tiny teacher, each time in the run directory of that name."""
    with ExitStack() as stack:

        def make(config: SynthesisConfig, run: str = "other") -> SynthesisSetup:
            run_dir = stack.enter_context(
                open_run(tmp_path / run, "key", resume=True, exist_ok=False)
            )
            reporter: Reporter = context.reporter
            here = StageContext(run_dir, reporter, seed=0, device="cpu")
            prompts = diversify_prompts(tiny_teacher, PromptConfig(method="base"), here)
            return SynthesisSetup(prompts, tiny_teacher, config, here)

        yield make
