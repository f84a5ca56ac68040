"""The slot and the token table are found in every kind of text tower, not assumed."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from dfkd_edge.class_names import parse_class_names
from dfkd_edge.config.settings import PromptConfig, TeacherConfig
from dfkd_edge.networks.teacher import TEXTS_TOGETHER, Teacher, load_teacher
from dfkd_edge.prompts import style_slot
from dfkd_edge.prompts.style_names import STYLE_NAMES, name_styles
from dfkd_edge.prompts.style_slot import StyledPrompts
from dfkd_edge.prompts.styles import learn_styles
from dfkd_edge.prompts.vocabulary import word_vectors

DESCRIBED = "dog\njaguar\ta photo of a jaguar, a big cat\n{brace}\n"


@pytest.fixture(scope="module", params=["clip", "mobileclip", "siglip"])
def tower(request: pytest.FixtureRequest, small_tower: Callable[[str], Path]) -> Teacher:
    folder = str(small_tower(request.param))
    return load_teacher(TeacherConfig(name=folder), parse_class_names(DESCRIBED, "three"))


def test_a_word_in_the_slot_gives_the_sentence_with_the_word(tower: Teacher) -> None:
    bronze_1W = word_vectors(tower, ["foggy"])
    sentences = [
        "a foggy style of a dog",
        "a foggy style of a photo of a jaguar, a big cat",
        "a foggy style of a {brace}",
    ]
    embedded_K1D = StyledPrompts(tower).embed_all(bronze_1W)
    torch.testing.assert_close(embedded_K1D[:, 0], tower.embed_texts(sentences))


def test_the_style_of_a_words_vector_is_named_after_the_word(tower: Teacher) -> None:
    words = ["foggy", "neon"]
    assert name_styles(StyledPrompts(tower), word_vectors(tower, words), STYLE_NAMES) == words


def test_styles_are_learnt_through_the_tower(tower: Teacher) -> None:
    losses: list[float] = []
    style_SW = learn_styles(
        StyledPrompts(tower),
        PromptConfig(num_styles=4, num_iterations=12),
        torch.Generator().manual_seed(0),
        lambda _, values: losses.append(float(values["style_loss"])),
    )
    assert style_SW.shape == (4, tower.token_embedding.weight.shape[1])
    assert losses[-1] < losses[0]


def test_a_thousand_classes_are_embedded_a_bounded_number_at_a_time(
    small_tower: Callable[[str], Path],
) -> None:
    names = "\n".join(f"thing {number}" for number in range(1000))
    config = TeacherConfig(name=str(small_tower("clip")), templates=("{}",))
    teacher = load_teacher(config, parse_class_names(names, "many"))
    sizes: list[int] = []
    table = teacher.token_embedding
    handle = table.register_forward_hook(lambda _, args, __: sizes.append(len(args[0])))
    embedded_KSD = StyledPrompts(teacher).embed_all(table.weight[:2])
    handle.remove()
    assert embedded_KSD.shape == (1000, 2, 16)
    assert max(sizes) == TEXTS_TOGETHER


def test_styles_learnt_in_parts_are_those_learnt_at_once(
    teacher: Teacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    def learn() -> torch.Tensor:
        generator = torch.Generator().manual_seed(0)
        config = PromptConfig(num_styles=7, num_iterations=2)
        return learn_styles(StyledPrompts(teacher), config, generator, lambda *_: None)

    at_once = learn()
    monkeypatch.setattr(style_slot, "TRAINED_TOGETHER", 3)
    torch.testing.assert_close(learn(), at_once)
