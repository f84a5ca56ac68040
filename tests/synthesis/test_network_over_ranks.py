"""The network of amortized synthesis, trained by real ranks over gloo."""

from pathlib import Path

import pytest

from tests.fixtures.ranks import command_line, start_ranks

SETTINGS = (
    "synthesis.image_size_px=32",
    "synthesis.exemplar_share=0",
    "synthesis.num_images=32",
    "synthesis.num_training_steps=3",
    "synthesis.training_batch_size=14",
    "synthesis.replay_share=0.3",
    "synthesis.num_descent_steps=1",
    "synthesis.num_refinement_steps=1",
    "prompts.method=base",
)
WORDS = tuple(word for setting in SETTINGS for word in ("--set", setting))


def made_by(count: int, folder: Path, classes: Path) -> dict[str, bytes]:
    """Return the network and the images of so many ranks."""
    run = folder / "run"
    words = ("synthesize", "--classes", classes, "--output", run, "--workers", 1, *WORDS)
    ended = start_ranks(count, folder, command_line, *words).wait()
    assert [rank.code for rank in ended] == [0] * count, ended
    return {path.name: path.read_bytes() for path in (run / "surrogates").glob("*.safetensors")}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, quickstart: Path) -> dict[str, bytes]:
    return made_by(1, tmp_path_factory.mktemp("alone"), quickstart)


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 3])
def test_ranks_train_the_network_of_one_process_and_make_its_images_bit_for_bit(
    tmp_path: Path, quickstart: Path, alone: dict[str, bytes], count: int
) -> None:
    """Seven prompts a step, in four parts: ranks have unlike numbers of them."""
    assert {"network.safetensors", "shard-00000.safetensors"} <= set(alone)
    assert made_by(count, tmp_path, quickstart) == alone
