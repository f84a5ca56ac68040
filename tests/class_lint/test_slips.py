import pytest
from open_clip.zero_shot_metadata import IMAGENET_CLASSNAMES

from dfkd_edge.class_lint.slips import find_slips, note_slips
from dfkd_edge.class_names import parse_class_names
from dfkd_edge.drawings.names import things
from tests.conftest import SilentReporter

RING = "a photo of a nut, a metal ring"


@pytest.mark.parametrize(
    ("name", "rule", "better_line"),
    [
        (f"nut {RING}", "prompt-in-name", ("nut", RING)),
        ("hex nut A drawing of a nut", "prompt-in-name", ("hex nut", "A drawing of a nut")),
        ("a photo of a rake", "prompt-in-name", None),  # it has no name of its own
        ("cow a photo of a cow", "prompt-in-name", None),  # cow is another class
        ("hot  dog", "wide-gap", None),
        ("crane, bird", "many-in-one", None),
        ("dog; cat", "many-in-one", None),
    ],
)
def test_what_may_be_a_slip_is_told_of_and_read_all_the_same(
    name: str, rule: str, better_line: tuple[str, str] | None
) -> None:
    (slip,) = find_slips(parse_class_names(f"cow\n{name}\n", "list").names)
    assert (slip.rule, slip.names, slip.better_line) == (rule, (name,), better_line)
    assert slip.is_fine == (rule == "many-in-one")


def test_usual_names_are_no_slips() -> None:
    text = "traffic light\npick-up truck\nO'Reilly\n1,\nphoto of the day\ncamera\ta photo, big\n"
    text += "cup of tea\ncat with a red collar\nWinnie the Pooh bear\nhepatitis a\na dog that barks"
    assert not list(find_slips(parse_class_names(text, "list").names))


def test_no_name_of_imagenet_is_taken_for_a_prompt() -> None:
    names = [lemma for lemmas in things() for lemma in lemmas]
    assert len(names) > 40_000
    assert {slip.rule for slip in find_slips([*names, *IMAGENET_CLASSNAMES])} <= {"many-in-one"}


def test_slips_are_noted_in_one_line_however_many() -> None:
    reporter = SilentReporter()
    note_slips(["dog", "cow"], reporter)
    note_slips([f"dog {n}, cat {n}" for n in range(5)], reporter)
    (line,) = reporter.stages
    assert line.startswith("  look at the class list: 'dog 0, cat 0': one class, not 2")
    assert line.endswith("; and 2 more")
