"""Names of styles: what a pipeline reads and a person sees."""

from dfkd_edge.networks.teacher import Teacher
from dfkd_edge.prompts.style_names import STYLE_NAMES, listed_names, name_styles
from dfkd_edge.prompts.style_slot import StyledPrompts
from dfkd_edge.prompts.vocabulary import word_vectors


def test_the_list_is_long_and_of_lower_case_words_without_a_repetition() -> None:
    assert len(STYLE_NAMES) == len(set(STYLE_NAMES)) > 80
    assert all(name.replace(" ", "").isalpha() and name.islower() for name in STYLE_NAMES)


def test_a_name_that_shares_a_word_with_a_class_is_left_out() -> None:
    assert listed_names(("stained glass", "foggy"), ("Wine Glass", "dog")) == ["foggy"]
    assert listed_names(("glass", "dog"), ("glass", "dog")) == ["glass", "dog"]  # better than none


def test_styles_share_a_name_only_when_there_are_more_of_them(teacher: Teacher) -> None:
    prompts = StyledPrompts(teacher)
    words = ["matte", "foggy", "neon"]
    three_SW, seven_SW = (word_vectors(teacher, ["matte"] * num) for num in (3, 7))

    assert sorted(name_styles(prompts, three_SW, words)) == sorted(words)
    assert name_styles(prompts, seven_SW, words).count("matte") == 3
