import pytest

from dfkd_edge.drawings.names import carries_name, is_kind_of, is_of_qualifier, singulars


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
    assert all(singulars(word) == (word,) for word in ("glass", "bus", "zebra"))
    for plural, rest in (("toes", "to"), ("caves", "cafe"), ("apples", "appl")):
        assert rest not in singulars(plural)


@pytest.mark.parametrize(
    ("drawing", "name", "prompt"),
    [
        *(("guide dog", "dog", ""), ("hands", "Hand", ""), ("tooth brush", "toothbrush", "")),
        *(("couch", "sofa", ""), ("automobile", "car", ""), ("crane", "crane, bird", "")),
        ("computer mouse", "mouse", "a photo of a computer mouse"),
        ("bird", "crow", "a photo of a crow, a black bird"),
    ],
)
def test_a_name_is_carried_whole_as_a_synonym_or_in_the_prompt(
    drawing: str, name: str, prompt: str
) -> None:
    assert carries_name(drawing, name, prompt)


@pytest.mark.parametrize(
    ("drawing", "name"),
    [("wheel", "wheelbarrow"), ("dog", "guide dog"), ("traffic", "traffic light"), ("dog", "犬")],
)
def test_no_part_of_a_name_carries_it(drawing: str, name: str) -> None:
    assert not carries_name(drawing, name)


@pytest.mark.parametrize(
    ("drawing", "name", "is_kind"),
    [
        *(("elephant", "African elephant", True), ("clocks", "digital clock", True)),
        ("fox squirrel", "eastern fox squirrel, Sciurus niger", True),
        *(("wheel", "wheelbarrow", False), ("manhole", "manhole cover", False)),
        ("elephant", "elephant", False),
    ],
)
def test_a_kind_is_how_the_name_of_a_class_ends(drawing: str, name: str, is_kind: bool) -> None:
    assert is_kind_of(drawing, name) is is_kind


@pytest.mark.parametrize(
    ("drawing", "name", "is_alone"),
    [
        *(("horizontal traffic", "traffic cone", True), ("fire", "fire extinguisher", True)),
        *(("hand", "hand truck", True), ("fire engine", "fire truck", False)),
        *(("pickup truck", "hand truck", False), ("wheel", "wheelbarrow", False)),
        *(("fire", "fire", False), ("crane", "crane, bird", False)),
    ],
)
def test_what_only_qualifies_a_class_is_left_out(drawing: str, name: str, is_alone: bool) -> None:
    assert is_of_qualifier(drawing, name) is is_alone
