"""What Mix, Random and Contrastive draw."""

from pathlib import Path

import pytest
import torch

from dfkd_edge.config.settings import PromptConfig
from dfkd_edge.errors import ConfigError
from dfkd_edge.networks.teacher import Teacher
from dfkd_edge.prompts.styles import (
    draw_pairs,
    instance_loss,
    mix_styles,
    mixing_weights,
    random_styles,
)
from dfkd_edge.prompts.vocabulary import (
    DOMAINS,
    NEUTRAL,
    read_style_words,
    word_vectors,
)

TEST_DOMAINS = """photo photograph real realistic art painting painted cartoon sketch drawing
clipart product infograph infographic quickdraw doodle synthetic render rendering webcam dslr amazon
caltech"""


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_default_words_name_no_test_domain() -> None:
    assert not set(NEUTRAL) & set(TEST_DOMAINS.split())
    assert set(DOMAINS) & set(TEST_DOMAINS.split())
    assert read_style_words(PromptConfig().style_words) == NEUTRAL


def test_beta_weights_are_shares_and_mostly_all_or_nothing() -> None:
    weight_SL = mixing_weights(200, 2, seeded())
    torch.testing.assert_close(weight_SL.sum(1), torch.ones(200))
    middle = ((weight_SL > 0.2) & (weight_SL < 0.45)).float().mean()
    assert middle < 0.15


def test_a_words_vector_is_the_mean_of_all_its_sub_tokens(teacher: Teacher) -> None:
    ids = teacher.tokenizer.encode("chiaroscuro")
    assert len(ids) > 1
    expected = teacher.token_embedding.weight[ids].mean(0)
    torch.testing.assert_close(word_vectors(teacher, ["chiaroscuro"])[0], expected)


def test_mixed_styles_lie_between_the_users_words(teacher: Teacher, tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text("# mine\nvelvet\n\nbronze\nvelvet\n", encoding="utf-8")
    config = PromptConfig(method="mix", num_styles=8, style_words=str(path))
    style_SW, word_LW = (
        mix_styles(teacher, config, seeded()),
        word_vectors(teacher, ["velvet", "bronze"]),
    )
    ways_SL = torch.cdist(style_SW, word_LW)
    torch.testing.assert_close(ways_SL.sum(1), torch.cdist(word_LW[:1], word_LW)[0, 1].expand(8))


def test_fewer_than_two_words_and_a_missing_list_cannot_be_mixed(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    for text in ("# none\n\n", "one\none\n"):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(ConfigError, match="fewer than two"):
            read_style_words(str(path))
    with pytest.raises(ConfigError, match="neutral, domains"):
        read_style_words("neutrl")


def test_random_styles_have_the_statistics_of_the_token_table(teacher: Teacher) -> None:
    table_VW = teacher.token_embedding.weight
    style_SW = random_styles(teacher, PromptConfig(method="random", num_styles=300), seeded())
    standard_SW = (style_SW - table_VW.mean(0)) / table_VW.std(0)
    assert abs(float(standard_SW.mean())) < 0.02
    spread = standard_SW.std(1)
    assert 0.8 < float(spread.min()) < float(spread.max()) < 1.7
    bounded = standard_SW.abs().amax(1) < 1.74
    assert 0.25 < float(bounded.float().mean()) < 0.42  # a third is Xavier's uniform


def test_every_style_meets_a_class_in_every_step() -> None:
    for num_classes, num_styles in ((3, 16), (1000, 40), (2, 2), (1000, 1)):
        class_N, style_N = draw_pairs(num_classes, num_styles, seeded())
        meetings = torch.bincount(style_N, minlength=num_styles)
        assert int(meetings.min()) >= 1
        assert int(meetings.max() - meetings.min()) <= 1
        assert len(class_N) == len(style_N) <= max(32, num_styles)


def test_right_angles_end_the_repulsion() -> None:
    assert float(instance_loss(torch.eye(4))) == 0
    assert float(instance_loss(torch.ones(3, 1))) == 1
    assert float(instance_loss(torch.ones(1, 1))) == 0
