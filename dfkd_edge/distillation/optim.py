"""AdamW with warm-up and a half cosine, and the checkpoint that continues a run bit for bit."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from dfkd_edge.artifacts import read_metadata
from dfkd_edge.config import DistillationConfig
from dfkd_edge.run_dir import atomic_write

_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


def make_optimiser(student: nn.Module, config: DistillationConfig) -> torch.optim.AdamW:
    """Decay weights, not biases and norms."""
    parameters = [p for p in student.parameters() if p.requires_grad]
    return torch.optim.AdamW(
        [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": config.weight_decay},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ],
        lr=config.peak_learning_rate,
    )


def learning_rate_at(step: int, config: DistillationConfig) -> float:
    """Rate of a step: linear warm-up to the peak, then a half cosine towards zero."""
    if step < config.num_warmup_steps:
        return config.peak_learning_rate * (step + 1) / config.num_warmup_steps
    span = max(config.num_steps - config.num_warmup_steps, 1)
    return (
        config.peak_learning_rate
        * 0.5
        * (1 + math.cos(math.pi * (step - config.num_warmup_steps) / span))
    )


def _ordered(optimiser: torch.optim.Optimizer) -> Iterable[tuple[int, Tensor]]:
    return enumerate(p for group in optimiser.param_groups for p in group["params"])


def save_checkpoint(
    path: Path, key: str, step: int, student: nn.Module, optimiser: torch.optim.Optimizer
) -> None:
    """Write the student, its statistics and Adam's moments atomically, in full precision."""
    tensors = {f"student/{name}": value for name, value in student.state_dict().items()}
    for number, parameter in _ordered(optimiser):
        for moment in _MOMENTS:
            tensors[f"adam/{number}.{moment}"] = optimiser.state[parameter][moment]
    on_host = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    atomic_write(path, save(on_host, metadata={"key": key, "step": str(step)}))


def load_checkpoint(
    path: Path, key: str, student: nn.Module, optimiser: torch.optim.Optimizer
) -> int:
    """Restore a checkpoint of the same stage key.

    Returns:
        The next step; 0 when there is none, or it is damaged or of other settings.
    """
    metadata = read_metadata(path)
    if metadata is None or metadata.get("key") != key:
        return 0
    try:
        tensors = load_file(path)
    except SafetensorError:
        return 0
    state = {k.removeprefix("student/"): v for k, v in tensors.items() if k.startswith("student/")}
    student.load_state_dict(state)
    for number, parameter in _ordered(optimiser):
        saved = {moment: tensors[f"adam/{number}.{moment}"] for moment in _MOMENTS}
        moments = {
            name: torch.empty_like(parameter).copy_(value) if name != "step" else value
            for name, value in saved.items()
        }  # copies keep the parameter's memory format, and with it the order of every sum
        optimiser.state[parameter] = moments
    return int(metadata["step"])
