"""Synthesis by a text-to-image pipeline of diffusers, such as SD-Turbo.

The pipeline reads class and style as text. With `text_noise` the token embeddings of the text move
at random, so that one prompt has more varied pictures than start noise alone gives. The teacher
takes part in the filter alone.

Shape suffixes: N images, T tokens, W text width, C = 3 channels, H rows, W columns.
"""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dfkd_edge.errors import EnvironmentLackingError
from dfkd_edge.interfaces import SynthesisBatch, SynthesizedImages
from dfkd_edge.networks.draws import drawn
from dfkd_edge.networks.memory import Parts, made_in_parts
from dfkd_edge.networks.mixed_precision import has_fast_bfloat16
from dfkd_edge.networks.unloadable import UNLOADABLE, reason_of
from dfkd_edge.networks.weights import HubWeights
from dfkd_edge.synthesis.sampling import sampling_of, settings_of
from dfkd_edge.synthesis.setup import SynthesisSetup

IMAGES_TOGETHER = 8
"""Images a call of the pipeline, as long as there is memory for them."""
_ENCODED = (
    "prompt_embeds",
    "negative_prompt_embeds",
    "pooled_prompt_embeds",
    "negative_pooled_prompt_embeds",
)
"""What `encode_prompt` returns, in order; pipelines with one text tower stop after two."""
PIPELINE_FILES = tuple(
    f"{part}/diffusion_pytorch_model.safetensors" for part in ("unet", "transformer")
)


def prompt_text(class_name: str, own_prompt: str | None, style: str, num_styles: int) -> str:
    """Write class and style as a text; a prompt of the class's own replaces its name."""
    if num_styles == 1:  # prompts.method = base: the style is "a photo of a"
        return own_prompt or f"{style} {class_name}"
    return f"{own_prompt or f'a {class_name}'}, {style} style"


class DiffusionSynthesizer:
    """Draws pictures by a pipeline, a few at a time."""

    def __init__(self, pipeline: Any, setup: SynthesisSetup) -> None:
        self.pipeline, self.setup = pipeline, setup
        self.sampling = sampling_of(setup.config)
        pipeline.set_progress_bar_config(disable=True)  # the stage has a bar of its own
        self.image_size_px = setup.stored_side_px
        context = setup.context
        tell = context.reporter.note
        self.parts = Parts("drawing images", IMAGES_TOGETHER, context.device, tell)

    def __call__(self, batch: SynthesisBatch) -> SynthesizedImages:
        """Draw a picture for each prompt."""
        return made_in_parts(batch, self.parts, self._make)

    def _make(self, batch: SynthesisBatch, _: slice) -> SynthesizedImages:
        image_NCHW = self.draw(batch)
        embedding_ND = self.setup.teacher.embed_images(image_NCHW)
        batch.tell(1)
        return SynthesizedImages(image_NCHW, embedding_ND)

    def texts(self, batch: SynthesisBatch) -> list[str]:
        """Write the text of each prompt."""
        classes, styles = self.setup.teacher.classes, self.setup.prompts.style_labels
        return [
            prompt_text(classes.names[label], classes.prompts[label], styles[style], len(styles))
            for label, style in zip(batch.label_N.tolist(), batch.style_N.tolist(), strict=True)
        ]

    def draw(self, batch: SynthesisBatch) -> Tensor:
        """Run the pipeline; returns image_NCHW in [0, 1] of the stored size."""
        config, generator = self.setup.config, batch.generator
        seeds = drawn(partial(torch.randint, 2**62), (len(batch.label_N),), generator)
        texts = self.texts(batch)
        words = self.noisy_words(texts, generator) if config.text_noise else {"prompt": texts}
        image_NCHW: Tensor = self.pipeline(
            **words,
            num_inference_steps=self.sampling.num_steps,
            guidance_scale=self.sampling.guidance_scale,
            # a seed an image, on the CPU: the picture does not depend on its neighbours or device
            generator=[torch.Generator().manual_seed(seed) for seed in seeds.tolist()],
            output_type="pt",
        ).images
        size = (self.image_size_px, self.image_size_px)
        resized_NCHW = F.interpolate(image_NCHW.float(), size, mode="bilinear", antialias=True)
        return resized_NCHW.clamp(0, 1)

    def noisy_words(self, texts: list[str], generator: torch.Generator) -> dict[str, Tensor]:
        """Embed texts and move each token by `text_noise` of its length, in a random direction."""
        encoded = self.pipeline.encode_prompt(
            prompt=texts,
            device=self.setup.teacher.device,
            num_images_per_prompt=1,
            do_classifier_free_guidance=self.sampling.is_guided,
        )
        words = {k: v for k, v in zip(_ENCODED, encoded, strict=False) if v is not None}
        token_NTW = words["prompt_embeds"]
        noise_NTW = drawn(torch.randn, token_NTW.shape, generator)
        direction_NTW = F.normalize(noise_NTW, dim=2).to(token_NTW)
        length_NT1 = self.setup.config.text_noise * token_NTW.norm(dim=2, keepdim=True)
        return words | {"prompt_embeds": token_NTW + length_NT1 * direction_NTW}


@dataclass(frozen=True, slots=True)
class HubPipeline(HubWeights):
    """A text-to-image pipeline: several models, of which diffusers knows the files."""

    @property
    def command(self) -> str:
        """The command that fetches it; twins of the weights are left out."""
        twins = " ".join(f"--exclude '{pattern}'" for pattern in ("*fp16*", "*.bin", "*.ckpt"))
        return f"hf download {self.repo} {twins} --cache-dir weights"

    def fetch(self) -> None:
        """Download what loading will read.

        Raises:
            OSError: it cannot be reached.
        """
        from diffusers import DiffusionPipeline

        DiffusionPipeline.download(self.repo, use_safetensors=True)


def pipeline_weights(name: str) -> Iterator[HubWeights]:
    """Yield the weights of a pipeline, unless it is a local folder."""
    if not Path(name).exists():
        yield HubPipeline(f"pipeline {name}", name, "", PIPELINE_FILES, None, "*")


def require_pipeline(name: str) -> None:
    """Check what can be checked of a pipeline without reading its gigabytes.

    Raises:
        EnvironmentLackingError: transformers is missing, or the folder holds no pipeline.
    """
    if find_spec("transformers") is None:
        raise _lacks("transformers")
    if Path(name).is_dir() and not (Path(name) / "model_index.json").is_file():
        raise _not_loaded(name, "no model_index.json in the folder")


def _lacks(library: str) -> EnvironmentLackingError:
    return EnvironmentLackingError(
        f"diffusion needs {library}",
        where="--synthesis diffusion",
        hint="pip install 'dfkd-edge[diffusion]'",
    )


def _not_loaded(name: str, fault: str) -> EnvironmentLackingError:
    return EnvironmentLackingError(
        f"pipeline '{name}' cannot be loaded: {fault}",
        where="synthesis.pipeline",
        hint=f"where there is network: hf download {name} --local-dir pipeline; copy the "
        "folder here and use --set synthesis.pipeline=pipeline",
    )


def loading_options(name: str, device_type: str) -> dict[str, Any]:
    """Choose in which type a pipeline is loaded, and from which of its files.

    Accelerators compute in half precision; a CPU would emulate it. Weights that are stored in both
    are read in half, and only-half ones are read anywhere.
    """
    is_half = device_type != "cpu"
    made_in = settings_of(name, "text_encoder/config.json").get("torch_dtype")
    half = torch.float16  # T5 and the like overflow in it, and were made in bfloat16
    if is_half and made_in == "bfloat16" and has_fast_bfloat16(device_type):
        half = torch.bfloat16
    halves = {path.parent for path in Path(name).glob("*/*.fp16.safetensors")}
    whole = {p.parent for p in Path(name).glob("*/*.safetensors") if ".fp16." not in p.name}
    has_twins = bool(halves) and (whole <= halves if is_half else not whole)
    return {
        "torch_dtype": half if is_half else torch.float32,
        "variant": "fp16" if has_twins else None,
    }


def load_diffusion(setup: SynthesisSetup) -> DiffusionSynthesizer:
    """Load the pipeline; weights are read from safetensors only.

    Raises:
        EnvironmentLackingError: transformers is missing, or the weights are not here.
    """
    name, device = setup.config.pipeline, setup.teacher.device
    try:
        import transformers  # noqa: F401  its absence shows only inside diffusers otherwise
        from diffusers import AutoPipelineForText2Image
        from diffusers.utils import logging

        logging.disable_progress_bar()
        with warnings.catch_warnings(action="ignore"):  # diffusers passes the hub outdated names
            pipeline = AutoPipelineForText2Image.from_pretrained(
                name,
                use_safetensors=True,
                low_cpu_mem_usage=False,  # True needs accelerate
                **loading_options(name, device.type),
            )
    except ImportError as error:
        raise _lacks(error.name or str(error)) from error
    except UNLOADABLE as error:
        raise _not_loaded(name, reason_of(error)) from error
    synthesizer = DiffusionSynthesizer(pipeline.to(device), setup)
    setup.context.reporter.note(f"  {name}: {synthesizer.sampling}")
    return synthesizer
