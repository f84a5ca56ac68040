import numpy as np
import pytest

from dfkd_edge.validation.corruptions import CORRUPTIONS, GROUPS, corrupt, corrupted_group


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    blocks = np.random.default_rng(0).integers(20, 235, (15, 10, 10, 3), np.uint8)
    return np.kron(blocks, np.ones((1, 13, 13, 1), np.uint8))


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_every_corruption_grows_with_severity_follows_its_seed_and_spares_the_input(
    images: np.ndarray, name: str
) -> None:
    distances, kept = [], images.copy()
    for severity in range(1, 6):
        spoilt = corrupt(images, name, severity, 0)
        assert spoilt.dtype == np.uint8
        assert spoilt.shape == images.shape
        distances.append(np.abs(spoilt.astype(float) - images).mean())
    assert distances[0] > 0
    assert distances[-1] > 1.5 * distances[0]
    assert np.array_equal(corrupt(images, name, 3, 7), corrupt(images, name, 3, 7))
    assert np.array_equal(images, kept)
    is_random = name not in {"defocus-blur", "pixelate", "low-contrast", "jpeg"}
    assert np.array_equal(corrupt(images, name, 3, 1), corrupt(images, name, 3, 2)) != is_random


def test_groups_hold_every_corruption_once() -> None:
    assert sorted(n for names in GROUPS.values() for n in names) == sorted(CORRUPTIONS)


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("count", [1, 4, 15])
def test_a_group_spoils_every_image(images: np.ndarray, group: str, count: int) -> None:
    spoilt = corrupted_group(images[:count], group, 0)
    assert (spoilt != images[:count]).any((1, 2, 3)).all()
