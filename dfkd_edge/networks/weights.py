"""Which weights a run needs beyond this package: what, how large, whether here, how to get them.

A run that lacks some stops before its first stage, with the commands that fetch them elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import huggingface_hub
import open_clip
import timm
import torch
from huggingface_hub import constants
from torch import nn

from dfkd_edge.config.settings import PipelineConfig, SynthesisConfig, TeacherConfig
from dfkd_edge.errors import EnvironmentLackingError
from dfkd_edge.networks.students import student_entry
from dfkd_edge.networks.teacher import MINI, quiet_open_clip

OPEN_CLIP_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
KNOWN_DECODERS = {"amused/amused-256/vqvae": 146_244_675}
"""Parameters of decoders that presets name; counted from their published configuration."""
TIMM_FILES = ("model.safetensors", "pytorch_model.bin")
DECODER_FILES = ("diffusion_pytorch_model.safetensors",)
PIPELINE_FILES = tuple(f"{part}/{DECODER_FILES[0]}" for part in ("unet", "transformer"))
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")


@dataclass(frozen=True, slots=True)
class HubWeights:
    """Weights that lie in a repository of the Hugging Face hub."""

    what: str
    """What they are for, in the user's words."""
    repo: str
    """owner/name."""
    folder: str
    """Folder inside the repository; empty for its root."""
    files: tuple[str, ...]
    """Names that the weight file may have; one is enough."""
    num_parameters: int | None
    """Parameters of the model, where its architecture is known; a parameter takes 4 bytes."""
    pattern: str
    """What is fetched of the repository: the weight file and the settings beside it."""

    @property
    def size_mb(self) -> int | None:
        """Size of the file, from the number of parameters."""
        return None if self.num_parameters is None else round(self.num_parameters * 4 / 1e6)

    @property
    def path(self) -> Path | None:
        """Where the file lies in this machine's cache; None when it does not."""
        for name in self.files:
            found = huggingface_hub.try_to_load_from_cache(
                self.repo, f"{self.folder}/{name}".lstrip("/")
            )
            if isinstance(found, str):
                return Path(found)
        return None

    @property
    def command(self) -> str:
        """The command that fetches them into the folder `weights`, where there is network."""
        return f"hf download {self.repo} --include '{self.pattern}' --cache-dir weights"

    def fetch(self) -> None:
        """Download them into this machine's cache.

        Raises:
            OSError: they cannot be reached.
        """
        huggingface_hub.snapshot_download(self.repo, allow_patterns=self.pattern)


@dataclass(frozen=True, slots=True)
class HubPipeline(HubWeights):
    """A text-to-image pipeline: several models, of which diffusers knows the files."""

    @property
    def command(self) -> str:
        """The command that fetches it; half-precision twins of the weights are left out."""
        return f"hf download {self.repo} --exclude '*fp16*' --cache-dir weights"

    def fetch(self) -> None:
        """Download what loading will read.

        Raises:
            OSError: it cannot be reached.
        """
        from diffusers import DiffusionPipeline

        DiffusionPipeline.download(self.repo, use_safetensors=True)


def shapes_of_teacher(name: str) -> nn.Module:
    """Build an open_clip architecture on the meta device: shapes that take no memory.

    Raises:
        EnvironmentLackingError: its description is on the hub and out of reach.
    """
    try:
        with torch.device("meta"), quiet_open_clip():
            model: nn.Module = open_clip.create_model(name, load_weights=False, device="meta")
    except (OSError, RuntimeError) as error:
        raise EnvironmentLackingError(
            f"teacher '{name}' is not described here: {str(error).splitlines()[0]}",
            where="--teacher",
            hint="fetch it into a folder and name the folder",
        ) from error
    return model


def _teacher_weights(config: TeacherConfig) -> Iterator[HubWeights]:
    if config.name.startswith("hf-hub:"):
        repo = config.name.removeprefix("hf-hub:")
        yield HubWeights(f"teacher {repo}", repo, "", OPEN_CLIP_FILES, None, "*")
        return
    if config.name == MINI or ":" in config.name or Path(config.name).is_dir():
        return
    repo = open_clip.get_pretrained_cfg(config.name, config.pretrained).get("hf_hub", "")
    settings = open_clip.get_model_config(config.name) or {}
    if repo:
        owner, name, file = repo.split("/")
        files = (file,) if file else OPEN_CLIP_FILES
        what = f"teacher {config.name} {config.pretrained}"
        count = sum(p.numel() for p in shapes_of_teacher(config.name).parameters())
        yield HubWeights(what, f"{owner}/{name}", "", files, count, file or "open_clip_*")
    tokenizer = settings.get("text_cfg", {}).get("hf_tokenizer_name")
    if tokenizer:
        what = f"tokenizer of {config.name}"
        yield HubWeights(what, tokenizer, "", TOKENIZER_FILES, None, "*token*")


def _synthesis_weights(config: SynthesisConfig) -> Iterator[HubWeights]:
    pipeline, decoder = config.pipeline, config.decoder
    if config.method == "diffusion":
        if not Path(pipeline).exists():
            yield HubPipeline(f"pipeline {pipeline}", pipeline, "", PIPELINE_FILES, None, "*")
    elif decoder != MINI and not Path(decoder).exists() and decoder.count("/"):
        owner, name, *folder = decoder.split("/")
        yield HubWeights(
            what=f"decoder {decoder}",
            repo=f"{owner}/{name}",
            folder="/".join(folder),
            files=DECODER_FILES,
            num_parameters=KNOWN_DECODERS.get(decoder),
            pattern="/".join((*folder, "*")),
        )


def needed_weights(config: PipelineConfig) -> list[HubWeights]:
    """List the weights that a run takes from the hub, fetched or not."""
    wanted = list(_teacher_weights(config.teacher))
    wanted += _synthesis_weights(config.synthesis)
    student = config.distillation.student
    if student != MINI and config.distillation.student_init == "pretrained":
        name = student_entry(student, None).timm_name
        settings = timm.get_pretrained_cfg(name)
        if settings is not None and settings.hf_hub_id:
            what = f"student start {name}"
            wanted.append(HubWeights(what, settings.hf_hub_id, "", TIMM_FILES, None, "*model.*"))
    return wanted


def require_weights(config: PipelineConfig) -> None:
    """Fetch what is not here yet, before any long work.

    Raises:
        EnvironmentLackingError: something cannot be fetched; says how to do it elsewhere.
    """
    lacking = []
    for weights in needed_weights(config):
        if weights.path is None:
            try:
                weights.fetch()
            except (OSError, RuntimeError, ValueError):  # ValueError: no name of the hub
                lacking.append(weights)
    if lacking:
        raise EnvironmentLackingError(
            f"not on this machine, and out of its reach: {', '.join(w.what for w in lacking)}",
            hint=how_to_fetch(lacking),
        )


def how_to_fetch(lacking: list[HubWeights]) -> str:
    """Write the commands for a machine with network, and what to do here with the result."""
    return "\n".join(
        [
            "on a machine with network, run",
            *(f"  {weights.command}" for weights in lacking),
            "bring the folder 'weights' here, run",
            f"  mkdir -p {constants.HF_HUB_CACHE} && cp -r weights/. {constants.HF_HUB_CACHE}/",
            "and repeat this command",
        ]
    )
