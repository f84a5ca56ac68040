"""Amortized synthesis at the real size of the presets, with its network, on a fake card."""

from collections.abc import Iterator

import pytest

from dfkd_edge.estimates.card import view_bytes
from dfkd_edge.estimates.distill import VQGAN_BYTES, VQGAN_WEIGHT_BYTES
from dfkd_edge.networks.weights import shapes_of_teacher
from dfkd_edge.synthesis.amortized import DESCENDED_TOGETHER, sized_synthesizer
from dfkd_edge.synthesis.network_training import trained_network
from dfkd_edge.synthesis.synthesize import make_candidates
from tests.fixtures.clip_line import CARD_GIB, NUM_CANDIDATES, Line, open_line
from tests.fixtures.fake_device import FakePartGenerator

SLOW = {"clip-l14": (pytest.mark.slow,)}


@pytest.fixture(
    scope="module", params=[pytest.param(n, marks=SLOW.get(n, ())) for n in sorted(CARD_GIB)]
)
def line(request: pytest.FixtureRequest) -> Iterator[Line]:
    with open_line(request.param) as opened:
        yield opened


@pytest.fixture(autouse=True)
def _of_the_card(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw for parts on the card, and save by no clock: a checkpoint copies every tensor."""
    training = "dfkd_edge.synthesis.network_training"
    monkeypatch.setattr(f"{training}.PartGenerator", FakePartGenerator)
    monkeypatch.setattr(f"{training}.CHECKPOINT_INTERVAL_S", 1e9)


def test_the_latent_network_trains_without_a_wait(line: Line) -> None:
    def train(num_steps: int) -> None:
        trained_network(line.decoder, line.setup(num_training_steps=num_steps))

    line.gpu.resize(1024)
    assert not line.waits_of_steps(train)


def test_training_the_latent_network_fits_the_card_of_its_preset(line: Line) -> None:
    line.gpu.resize(line.card_gib)
    setup = line.setup(num_training_steps=1, training_rate=2e-3)
    assert line.gpu.peak_gib(lambda: trained_network(line.decoder, setup)) <= line.card_gib


def test_a_dry_run_foretells_the_memory_of_the_descent(line: Line) -> None:
    """Within 15 % of what is counted on a card that holds as many images as go together."""
    line.gpu.resize(1024)
    setup = line.setup(num_images=DESCENDED_TOGETHER, num_descent_steps=1, num_refinement_steps=0)
    synthesizer = sized_synthesizer(None, line.decoder, setup)
    counted_gib = line.gpu.peak_gib(lambda: make_candidates(0, setup, synthesizer))
    shapes = shapes_of_teacher(line.config.teacher.name)
    of_image = VQGAN_BYTES + setup.config.num_descent_views * view_bytes(shapes)
    of_weights = VQGAN_WEIGHT_BYTES + 4 * sum(p.numel() for p in shapes.parameters())
    foretold = of_weights + DESCENDED_TOGETHER * of_image
    assert foretold / 2**30 == pytest.approx(counted_gib, rel=0.15)


@pytest.mark.slow
def test_images_are_made_and_refined_on_the_card_of_the_preset(line: Line) -> None:
    setup = line.setup(num_training_steps=1, num_descent_steps=1, num_refinement_steps=1)
    line.gpu.resize(1024)
    network = trained_network(line.decoder, setup)
    line.gpu.resize(line.card_gib)
    synthesizer = sized_synthesizer(network, line.decoder, setup)
    assert synthesizer.refine.refining.size > 1
    assert synthesizer.refine.decoding.size >= synthesizer.refine.refining.size

    def make() -> None:
        made = make_candidates(0, setup, synthesizer)
        assert made["images"].shape == (NUM_CANDIDATES, 224, 224, 3)

    assert line.gpu.peak_gib(make) <= line.card_gib
