import math

import pytest
import torch
from torch import Tensor

from dfkd_edge.networks.draws import PartGenerator
from dfkd_edge.synthesis.scenes import SLOPE, backgrounds, in_scenes, shadows, spectral_noise

SIDE = 96


def generator(seed: int = 0) -> torch.Generator:
    """Make one that stands at its beginning."""
    return torch.Generator().manual_seed(seed)


def disc(num: int) -> tuple[Tensor, Tensor, Tensor]:
    """Draw a red disc in the middle, a green one that may lie beside it, and a grey background."""
    across = torch.linspace(-1, 1, SIDE)
    alpha = (across.square() + across[:, None].square() < 0.3).float().expand(num, 1, -1, -1)
    red, green = torch.tensor([1.0, 0, 0]), torch.tensor([0, 1.0, 0])
    one, other = (
        torch.cat((colour[:, None, None].expand(num, 3, SIDE, SIDE), alpha), 1)
        for colour in (red, green)
    )
    return one, other, torch.full((num, 3, SIDE, SIDE), 0.5)


def test_noise_has_the_spectrum_of_photographs_and_unit_deviation() -> None:
    noise = spectral_noise(200, 3, SIDE, generator())
    torch.testing.assert_close(noise.mean((2, 3)), torch.zeros(200, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(noise.std((2, 3)), torch.ones(200, 3))
    power = torch.fft.rfft2(noise).abs().square().mean(1)
    low, high = (power[:, 0, at].log() for at in (slice(2, 6), slice(20, 36)))
    fall = (low.mean(1) - high.mean(1)) / 2 / math.log(28 / 4)  # of the amplitude, in powers of f
    assert SLOPE[0] < float(fall.mean()) < SLOPE[1]
    assert float(fall.std()) > 0.2  # not one texture for all


@pytest.mark.parametrize("size", [1, 7, 20])
def test_a_scene_made_in_parts_is_bit_for_bit_what_it_is_at_once(size: int) -> None:
    given = disc(20)
    whole = in_scenes(*given, generator())
    for start in range(0, 20, size):
        rows = slice(start, min(start + size, 20))
        drawing, other, picture = (each[rows] for each in given)
        part = in_scenes(drawing, other, picture, PartGenerator.of_rows(generator(), 20, rows))
        assert torch.equal(part, whole[rows])


def test_scenes_differ_and_show_the_drawing() -> None:
    drawing, other, picture = disc(60)
    image, alpha = in_scenes(drawing, other, picture, generator()), drawing[:, 3:]
    assert float(image.min()) >= 0
    assert float(image.max()) <= 1
    redness = image[:, 0] - image[:, 1:].mean(1)
    inside = alpha[:, 0] > 0
    drawn, behind = ((redness * on).sum((1, 2)) / on.sum((1, 2)) for on in (inside, ~inside))
    assert int((drawn > behind + 0.2).sum()) >= 55  # a box hides no more than a part of few
    corner = image[:, :, :20, :20].flatten(2)
    assert float(corner.mean(2).std(0).min()) > 0.1  # bright and dark
    assert int((corner.std(2).amax(1) > 0.02).sum()) >= 30  # a picture, here grey, is behind some


def test_some_scenes_have_a_picture_behind_them_and_some_another_drawing_beside() -> None:
    drawing, other, picture = disc(200)
    blue = torch.tensor([0.1, 0.1, 0.9])[:, None, None]
    seen = backgrounds(picture * blue * 2, generator())
    is_blue = (seen - blue).abs().amax((1, 2, 3)) < 1e-4
    assert 50 <= int(is_blue.sum()) <= 90  # PICTURE_SHARE
    image = in_scenes(drawing, other, picture, generator())
    greenness = (image[:, 1] - image[:, [0, 2]].amax(1) > 0.3).flatten(1).float().mean(1)
    assert 40 <= int((greenness > 0.01).sum()) <= 100  # BEHIND_SHARE and BEFORE_SHARE
    assert float(greenness.max()) < 0.3  # it is the smaller one


def test_shadows_are_soft_and_thrown_by_some_drawings() -> None:
    drawing, *_ = disc(200)
    light = shadows(drawing[:, 3:], generator())
    darkest = light.amin((1, 2, 3))
    assert 70 <= int((darkest < 1).sum()) <= 130
    assert float(darkest.min()) >= 0.4
    thrown = light[darkest < 0.5]
    assert float((thrown[..., 1:] - thrown[..., :-1]).abs().max()) < 0.2  # no edge
