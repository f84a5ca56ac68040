from __future__ import annotations

import io

import pytest
from open_clip.zero_shot_metadata import IMAGENET_CLASSNAMES
from rich.console import Console

from dfkd_edge.class_lint.slips import find_slips, note_slips
from dfkd_edge.class_names import parse_class_names
from dfkd_edge.console import ConsoleReporter
from dfkd_edge.drawings.words import things


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("rake a photo of a rake", "prompt-in-name"),
        ("A picture of a dog", "prompt-in-name"),
        ("crane a machine that lifts loads", "prompt-in-name"),
        ("crane a machine that lifts", "prompt-in-name"),
        ("crane a big machine", "prompt-in-name"),
        ("tree house an old hut", "prompt-in-name"),
        ("crane the bird that wades", "prompt-in-name"),
        ("hot  dog", "wide-gap"),
        ("crane, bird", "many-in-one"),
        ("dog; cat", "many-in-one"),
    ],
)
def test_what_may_be_a_slip_is_told_of_and_read_all_the_same(name: str, rule: str) -> None:
    classes = parse_class_names(f"cow\n{name}\n", "list")
    assert [(slip.rule, slip.name) for slip in find_slips(classes.names)] == [(rule, name)]


def test_usual_names_are_no_slips() -> None:
    text = "traffic light\npick-up truck\nO'Reilly\n1,\nphoto of the day\ncamera\ta photo, big\n"
    assert find_slips(parse_class_names(text, "list").names) == []


@pytest.mark.parametrize(
    ("name", "mended"),
    [
        ("nut a photo of a nut, a metal ring", ("nut", "a photo of a nut, a metal ring")),
        ("hex nut A drawing of a nut", ("hex nut", "A drawing of a nut")),
        ("a photo of a rake", None),  # it has no name of its own
        ("cow a photo of a cow", None),  # cow is another class
        ("crane a machine that lifts loads", None),  # it may be a name
    ],
)
def test_a_prompt_in_a_name_is_parted_from_it_where_that_is_plain(
    name: str, mended: tuple[str, str] | None
) -> None:
    assert [slip.mended for slip in find_slips(["cow", name])] == [mended]


NAMES_WITH_ARTICLES = (
    *(
        "jack in the box",
        "cup of tea",
        "fire on the mountain",
        "man in the moon",
        "chicken a la king",
    ),
    *("lily of the valley", "black and white cat", "cat with a red collar", "hen of the woods"),
    *("Winnie the Pooh bear", "person riding a mountain bike", "not a hot dog", "hepatitis a"),
    *("a dog that barks", "the man in a blue hat", "vitamin A in a green bottle"),
)


def test_what_may_be_a_name_with_an_article_is_fine_for_a_strict_list() -> None:
    for name in ("grade a milk carton", "crane a machine that lifts loads"):
        assert [slip.is_fine for slip in find_slips([name])] == [True]


@pytest.mark.parametrize("name", NAMES_WITH_ARTICLES)
def test_an_article_inside_a_name_is_no_slip(name: str) -> None:
    assert find_slips([name]) == []


def test_no_name_of_imagenet_is_taken_for_a_prompt() -> None:
    names = [lemma for lemmas in things() for lemma in lemmas]
    assert len(names) > 40_000
    assert {slip.rule for slip in find_slips([*names, *IMAGENET_CLASSNAMES])} <= {"many-in-one"}


def noted(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_slips_are_noted_in_one_line_however_many() -> None:
    console = Console(file=io.StringIO(), width=500)
    reporter = ConsoleReporter(console)
    note_slips(["dog", "cow"], reporter)
    assert noted(console) == ""
    note_slips([f"dog {n}, cat {n}" for n in range(5)], reporter)
    line = noted(console).removesuffix("\n")
    assert "\n" not in line
    assert line.startswith("  look at the class list: 'dog 0, cat 0': one class, not 2")
    assert line.endswith("; and 2 more")
