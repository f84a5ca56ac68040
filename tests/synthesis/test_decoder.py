from pathlib import Path

import pytest
import torch

from dfkd_edge import assets
from dfkd_edge.errors import ConfigError
from dfkd_edge.synthesis.decoder import SCALE_SUFFIX, from_eight_bits, load_decoder


def test_eight_bit_weights_come_back_within_half_a_step() -> None:
    weight = torch.randn(6, 5, 3, 3, generator=torch.Generator().manual_seed(0))
    scale = weight.flatten(1).abs().amax(1) / 127
    stored = (weight / scale.view(-1, 1, 1, 1)).round().to(torch.int8)
    bias = torch.ones(6)
    found = from_eight_bits({"w": stored, "w" + SCALE_SUFFIX: scale, "b": bias})
    assert set(found) == {"w", "b"}
    assert bool(((found["w"] - weight).abs() <= scale.view(-1, 1, 1, 1) / 2 + 1e-6).all())
    assert found["b"] is bias


@pytest.mark.parametrize("lost", ["decoder.json", "autoencoder.safetensors", "prior.safetensors"])
def test_a_missing_file_is_one_clear_error(tmp_path: Path, lost: str) -> None:
    for name in {"decoder.json", "autoencoder.safetensors", "prior.safetensors"} - {lost}:
        (tmp_path / name).symlink_to(assets.DECODER / name)
    with pytest.raises(ConfigError, match="incomplete"):
        load_decoder(tmp_path)
