"""The checkpoint that continues a training bit for bit: a model and its optimiser's moments."""

import contextlib
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from dfkd_edge.artifacts import read_metadata
from dfkd_edge.files import atomic_write, file_hash
from dfkd_edge.machine.ranks import Ranks
from dfkd_edge.runs.shared import await_seen

NOTHING: Mapping[str, Tensor] = {}
_MOMENTS = ("step", "exp_avg", "exp_avg_sq")  # Of Adam and AdamW, a parameter each
SCALE = "scale/"  # Begins the names of what float16 has more than other types

INTERVAL_S, WRITING_SHARE = 5.0, 0.05
"""A stopped run loses seconds of work, or as much as keeps writing to a twentieth of the time."""


class SaveClock:
    """Says when the next checkpoint is due: the longer the last one took to write, the later."""

    def __init__(self) -> None:
        """Begin to wait for the first one."""
        self._since, self._took_s = time.monotonic(), 0.0

    @property
    def is_due(self) -> bool:
        """Whether one should be written now."""
        return time.monotonic() - self._since > max(INTERVAL_S, self._took_s / WRITING_SHARE)

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Time what is written inside, and begin to wait for the next one."""
        begun = time.monotonic()
        yield
        self._since = time.monotonic()
        self._took_s = self._since - begun


def _ordered(optimiser: torch.optim.Optimizer) -> Iterable[tuple[int, Tensor]]:
    return enumerate(p for group in optimiser.param_groups for p in group["params"])


def save_checkpoint(
    path: Path,
    key: str,
    step: int,
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    more: Mapping[str, Tensor] = NOTHING,
) -> None:
    """Write parameters, buffers and Adam's moments atomically, each in its own precision."""
    tensors = {f"model/{name}": value for name, value in model.state_dict().items()}
    tensors |= {f"more/{name}": value for name, value in more.items()}
    for number, parameter in _ordered(optimiser):
        for moment in _MOMENTS:
            tensors[f"adam/{number}.{moment}"] = optimiser.state[parameter][moment]
    # safetensors refuses strides, which weights in the channels-last format have
    on_host = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    atomic_write(path, save(on_host, metadata={"key": key, "step": str(step)}))


def load_checkpoint(
    path: Path,
    key: str,
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    more: Mapping[str, Tensor] = NOTHING,
) -> int:
    """Restore a checkpoint of the same stage key; the tensors of `more` are filled in place.

    Returns:
        The next step; 0 when there is none, or it is damaged or of other settings.
    """
    metadata = read_metadata(path)
    if metadata is None or metadata.get("key") != key or not metadata.get("step", "").isdigit():
        return 0
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError, MemoryError):
        return 0
    if not _fits(tensors, model, optimiser, more):
        return 0
    state = {k.removeprefix("model/"): v for k, v in tensors.items() if k.startswith("model/")}
    model.load_state_dict(state)  # strict: other layers would be another student
    for name, value in more.items():
        # a run that float16 goes on with may have begun in a type that has no scale
        if f"more/{name}" in tensors or not name.startswith(SCALE):
            value.copy_(tensors[f"more/{name}"])
    is_fused = any(group.get("fused") for group in optimiser.param_groups)
    for number, parameter in _ordered(optimiser):
        saved = {moment: tensors[f"adam/{number}.{moment}"] for moment in _MOMENTS}
        if is_fused:  # its kernel counts the steps, those that float16 leaves out excepted
            saved["step"] = saved["step"].to(parameter.device)
        for moment in ("exp_avg", "exp_avg_sq"):
            # in the parameter's memory format, and with it the order of every sum
            saved[moment] = torch.empty_like(parameter).copy_(saved[moment])
        optimiser.state[parameter] = saved
    return int(metadata["step"])


def _fits(
    tensors: Mapping[str, Tensor],
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    more: Mapping[str, Tensor],
) -> bool:
    """Whether a file holds what is restored, in its shapes: half of it would be no start at all."""
    wanted = {f"model/{name}": value.shape for name, value in model.state_dict().items()}
    others = {name for name in tensors if name.startswith("model/")} - set(wanted)
    wanted |= {f"more/{n}": value.shape for n, value in more.items() if not n.startswith(SCALE)}
    for number, parameter in _ordered(optimiser):
        wanted |= {f"adam/{number}.{moment}": parameter.shape for moment in _MOMENTS[1:]}
        wanted[f"adam/{number}.{_MOMENTS[0]}"] = torch.Size()
    return not others and all(
        name in tensors and tensors[name].shape == shape for name, shape in wanted.items()
    )


def load_for_all(
    path: Path,
    key: str,
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    more: Mapping[str, Tensor],
    ranks: Ranks,
) -> int:
    """Restore on every rank what the first one restores; returns the next step.

    Raises:
        EnvironmentLackingError: a rank does not see that file.
    """
    start = load_checkpoint(path, key, model, optimiser, more) if ranks.is_first else 0
    known = ranks.tell(file_hash(path) if start and ranks.count > 1 else "")
    if known and not ranks.is_first:
        await_seen(path, lambda: path.exists() and file_hash(path) == known, ranks.name)
        start = load_checkpoint(path, key, model, optimiser, more)
    return start
