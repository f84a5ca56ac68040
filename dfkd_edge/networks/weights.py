"""Weights that a run takes from the Hugging Face hub: what, how large, whether here, how to fetch.

A run that lacks some and cannot fetch them stops before its first stage, with the commands that do
so elsewhere.
"""

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import huggingface_hub
import open_clip
import timm
import torch
from huggingface_hub import constants
from torch import nn

from dfkd_edge.config.settings import MINI, DistillationConfig, TeacherConfig
from dfkd_edge.errors import EnvironmentLackingError
from dfkd_edge.machine.process import muted
from dfkd_edge.networks.students import student_entry
from dfkd_edge.networks.unloadable import UNLOADABLE, reason_of

OPEN_CLIP_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
TIMM_FILES = ("model.safetensors", "pytorch_model.bin")
WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".onnx")
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")


@dataclass(frozen=True, slots=True)
class HubWeights:
    """Weights that lie in a repository of the Hugging Face hub."""

    what: str  # What they are for, in the user's words
    repo: str  # owner/name
    folder: str  # Folder inside the repository; empty for its root
    files: tuple[str, ...]  # Names that the weight file may have; one is enough
    num_parameters: int | None
    """Parameters of the model, where its architecture is known; a parameter takes 4 bytes."""
    pattern: str
    """Files of the repository that are fetched: the weights and the settings beside them."""

    @property
    def size_mb(self) -> int | None:
        """Size of the file in float32."""
        return None if self.num_parameters is None else round(self.num_parameters * 4 / 1e6)

    @property
    def path(self) -> Path | None:
        """Where the file lies in this machine's cache; None when it does not."""
        for name in self.files:
            found = huggingface_hub.try_to_load_from_cache(
                self.repo, f"{self.folder}/{name}".lstrip("/")
            )
            if isinstance(found, str):  # a sentinel object stands for "known to be absent"
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
        try:
            listed = huggingface_hub.list_repo_files(self.repo)
        except Exception as error:  # of requests, httpx or httpx2, by the hub's version
            raise OSError(str(error)) from error
        unread = unread_weights(listed, self.folder, self.files)
        huggingface_hub.snapshot_download(
            self.repo, allow_patterns=self.pattern, ignore_patterns=unread
        )


def unread_weights(listed: Iterable[str], folder: str, files: tuple[str, ...]) -> list[str]:
    """List the weight files of a repository beside the first of `files` that it has.

    Most hold the same weights again: in pickles, in half precision, for other libraries.
    """
    names = [f"{folder}/{file}".lstrip("/") for file in files]
    weights = [name for name in listed if name.endswith(WEIGHT_SUFFIXES)]
    read = next((name for name in names if name in weights), None)
    return [name for name in weights if name != read] if read else []


def shapes_of_teacher(name: str) -> nn.Module:
    """Build an open_clip architecture on the meta device, where tensors have no memory.

    Raises:
        EnvironmentLackingError: its description is on the hub and out of reach.
    """
    try:
        with torch.device("meta"), muted(logging.WARNING):
            model: nn.Module = open_clip.create_model(name, load_weights=False, device="meta")
    except UNLOADABLE as error:
        raise EnvironmentLackingError(
            f"teacher '{name}' is not described here: {reason_of(error)}",
            where="--teacher",
            hint="fetch it into a folder and name the folder",
        ) from error
    return model


def teacher_weights(config: TeacherConfig) -> Iterator[HubWeights]:
    """Yield the weights of a teacher, and its tokenizer if that is a download of its own."""
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


def start_weights(config: DistillationConfig) -> Iterator[HubWeights]:
    """Yield the weights that a student starts from; the embedded one's are in this package."""
    if config.student == MINI or config.student_init == "random":
        return
    name = student_entry(config.student, None).timm_name
    settings = timm.get_pretrained_cfg(name)
    if settings is not None and settings.hf_hub_id:
        what = f"student start {name}"
        yield HubWeights(what, settings.hf_hub_id, "", TIMM_FILES, None, "*model.*")


def require_weights(wanted: Iterable[HubWeights]) -> None:
    """Fetch what is not here yet, before any long work.

    Raises:
        EnvironmentLackingError: something cannot be fetched; says how to do it elsewhere.
    """
    lacking = []
    for weights in wanted:
        if weights.path is None:
            try:
                weights.fetch()
            except Exception:  # clients of networks share no base class; OSError is one of many
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
