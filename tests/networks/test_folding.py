import pytest
import timm
import torch
from torch import Tensor, nn

from dfkd_edge.networks import folding
from dfkd_edge.networks.folding import fold_norms, norms_folded


@pytest.fixture(autouse=True)
def _in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folding, "compute_type", lambda _: torch.float32)


def network(name: str) -> nn.Module:
    """Build a network whose norms do something, ready to answer."""
    torch.manual_seed(0)
    made: nn.Module = timm.create_model(name, num_classes=8)
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)
    return made.eval()


def folded(made: nn.Module) -> int:
    return sum("forward" in vars(module) for module in made.modules())


@pytest.mark.parametrize(
    ("name", "num_norms"), [("tf_efficientnet_lite0", 49), ("resnet18", 20), ("mobilevit_xxs", 32)]
)
def test_folded_norms_change_neither_answers_nor_gradients(name: str, num_norms: int) -> None:
    made, image_NCHW = network(name), torch.rand((2, 3, 64, 64))
    found: list[tuple[Tensor, list[Tensor]]] = []

    def learn() -> None:
        answer_NK = made(image_NCHW)
        gradients = torch.autograd.grad(answer_NK.square().sum(), list(made.parameters()))
        found.append((answer_NK.detach(), [*gradients]))

    learn()
    before = {key: value.clone() for key, value in made.state_dict().items()}
    with norms_folded(made, made):
        assert folded(made) == 2 * num_norms
        learn()
    assert folded(made) == 0
    (plain_NK, plain), (folded_NK, gradients) = found
    torch.testing.assert_close(folded_NK, plain_NK, rtol=1e-3, atol=1e-4)
    for one, other in zip(plain, gradients, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-2, atol=1e-3 * float(one.abs().max()) + 1e-6)
    torch.testing.assert_close(made.state_dict(), before, rtol=0, atol=0)


class ReadsTwice(nn.Module):
    """Takes what a convolution gives besides its norm."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
        nn.init.constant_(self.norm.weight, 2)

    def forward(self, image_NCHW: Tensor) -> Tensor:
        made_NCHW = self.convolution(image_NCHW)
        both: Tensor = made_NCHW + self.norm(made_NCHW)
        return both


def test_a_network_that_reads_its_convolutions_elsewhere_stays_as_it_is() -> None:
    made = ReadsTwice().eval()
    fold_norms(made, made)
    assert folded(made) == 0
