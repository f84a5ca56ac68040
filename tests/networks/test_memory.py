import torch
from torch import Tensor, nn

from dfkd_edge.networks.memory import WORKING_FACTOR, images_that_fit, kept_bytes

LAYER = nn.Linear(64, 64, bias=False)


def loss_of(num: int) -> Tensor:
    """One layer keeps its input (requires grad through it) and the square its output."""
    image = torch.ones(num, 64, requires_grad=True)
    loss: Tensor = LAYER(image).square().sum()
    return loss


def test_what_a_graph_keeps_grows_by_the_activations_of_each_image() -> None:
    assert kept_bytes(loss_of, 3) - kept_bytes(loss_of, 2) == 2 * 64 * 4


def test_the_batch_fills_the_budget_and_is_never_empty() -> None:
    per_image = 2 * 64 * 4 * WORKING_FACTOR
    assert images_that_fit(loss_of, 1, 10**6) == 2**20 // per_image
    assert images_that_fit(loss_of, 1, 5) == 5
    assert images_that_fit(loss_of, 0, 5) == 1
