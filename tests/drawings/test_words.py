from __future__ import annotations

import pytest

from dfkd_edge.drawings.words import singulars

PLURALS = {
    **{"buses": "bus", "boxes": "box", "strawberries": "strawberry", "knives": "knife"},
    **{"leaves": "leaf", "tomatoes": "tomato", "butterflies": "butterfly", "peaches": "peach"},
    **{"horses": "horse", "glasses": "glass", "axes": "axe", "brushes": "brush", "cafes": "cafe"},
}


@pytest.mark.parametrize(("plural", "singular"), PLURALS.items())
def test_the_singular_is_among_the_forms_of_a_plural(plural: str, singular: str) -> None:
    assert singular in singulars(plural)


@pytest.mark.parametrize("word", ["glass", "bus", "zebra"])
def test_a_word_that_is_no_plural_keeps_its_only_form(word: str) -> None:
    assert singulars(word) == (word,)


@pytest.mark.parametrize(
    ("plural", "rest"), [("toes", "to"), ("caves", "cafe"), ("apples", "appl")]
)
def test_the_rest_of_a_word_is_no_form(plural: str, rest: str) -> None:
    assert rest not in singulars(plural)
