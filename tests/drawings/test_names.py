import pytest

from dfkd_edge.drawings.names import singulars


@pytest.mark.parametrize(
    ("plural", "singular"),
    [
        *(("buses", "bus"), ("boxes", "box"), ("strawberries", "strawberry"), ("knives", "knife")),
        *(("leaves", "leaf"), ("tomatoes", "tomato"), ("peaches", "peach"), ("brushes", "brush")),
        *(("horses", "horse"), ("glasses", "glass"), ("axes", "axe"), ("cafes", "cafe")),
    ],
)
def test_the_singular_is_among_the_forms_of_a_plural(plural: str, singular: str) -> None:
    assert singular in singulars(plural)


def test_what_is_no_plural_and_the_rest_of_a_word_give_no_form() -> None:
    assert [singulars(word) for word in ("glass", "bus", "zebra")] == [
        *(("glass",), ("bus",), ("zebra",))
    ]
    for plural, rest in (("toes", "to"), ("caves", "cafe"), ("apples", "appl")):
        assert rest not in singulars(plural)
