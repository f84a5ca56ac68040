import copy
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from dfkd_edge.runs.checkpoint import (
    INTERVAL_S,
    WRITING_SHARE,
    SaveClock,
    load_checkpoint,
    save_checkpoint,
)

MORE = {"order": torch.arange(4)}
DAMAGE = {
    "a moment is missing": ("adam/0.exp_avg", None),
    "a moment has another shape": ("adam/1.exp_avg_sq", torch.zeros(9)),
    "a count of steps is none": ("adam/0.step", torch.zeros(2)),
    "a weight is missing": ("model/weight", None),
    "a weight has another shape": ("model/weight", torch.zeros(1, 1)),
    "a weight is of no layer": ("model/other", torch.zeros(1)),
    "what lies beside has another shape": ("more/order", torch.zeros(5)),
}


@pytest.fixture
def trained() -> tuple[nn.Module, torch.optim.Optimizer]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Linear(3, 2)
    adam = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    adam.step()
    return model, adam


@pytest.mark.parametrize("what", DAMAGE)
def test_a_training_begins_anew_where_its_checkpoint_is_not_whole(
    trained: tuple[nn.Module, torch.optim.Optimizer], tmp_path: Path, what: str
) -> None:
    path, (model, adam) = tmp_path / "c.safetensors", trained
    save_checkpoint(path, "key", 3, model, adam, MORE)
    tensors, (name, value) = load_file(path), DAMAGE[what]
    tensors.pop(name, None)
    tensors |= {} if value is None else {name: value}
    save_file(tensors, path, {"key": "key", "step": "3"})
    before = copy.deepcopy(model.state_dict())
    more = {name: torch.zeros_like(value) for name, value in MORE.items()}
    assert load_checkpoint(path, "key", model, adam, more) == 0
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert not more["order"].any()


@pytest.mark.parametrize("step", ["", "-1", "3.5", "many"])
def test_a_checkpoint_of_no_step_is_none(
    trained: tuple[nn.Module, torch.optim.Optimizer], tmp_path: Path, step: str
) -> None:
    path, (model, adam) = tmp_path / "c.safetensors", trained
    save_checkpoint(path, "key", 3, model, adam)
    assert load_checkpoint(path, "key", model, adam) == 3
    save_file(load_file(path), path, {"key": "key", "step": step})
    assert load_checkpoint(path, "key", model, adam) == 0


def test_writing_takes_a_bounded_share_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now_s)
    for write_s in (0.01, 10.0):
        clock, begun_s, written_s = SaveClock(), now_s, 0.0
        while now_s - begun_s < 1000:
            if clock.is_due:
                with clock.writing():
                    now_s += write_s
                    written_s += write_s
            now_s += 1.0
        assert written_s / (now_s - begun_s) <= WRITING_SHARE + write_s / 1000
        assert written_s >= min(1000 / (INTERVAL_S + 2), 4) * write_s  # and none is left out
