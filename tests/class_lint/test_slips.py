import pytest
from open_clip.zero_shot_metadata import IMAGENET_CLASSNAMES

from dfkd_edge.class_lint.slips import KnownWords, find_slips, known_words, note_slips
from dfkd_edge.class_names import parse_class_names
from dfkd_edge.drawings.names import things
from dfkd_edge.networks.teacher import Teacher
from tests.conftest import SilentReporter

RING = "a photo of a nut, a metal ring"


@pytest.mark.parametrize(
    ("name", "rule", "better_line"),
    [
        (f"nut {RING}", "prompt-in-name", ("nut", RING)),
        ("hex nut A drawing of a nut", "prompt-in-name", ("hex nut", "A drawing of a nut")),
        ("a photo of a rake", "prompt-in-name", None),  # it has no name of its own
        ("cow a photo of a cow", "prompt-in-name", None),  # cow is another class
        *(("hot  dog", "wide-gap", None), ("crane, bird", "many-in-one", None)),
        ("dog; cat", "many-in-one", None),
    ],
)
def test_what_may_be_a_slip_is_told_of_and_read_all_the_same(
    name: str, rule: str, better_line: tuple[str, str] | None
) -> None:
    (slip,) = find_slips(parse_class_names(f"cow\n{name}\n", "list").names)
    assert (slip.rule, slip.names, slip.better_line) == (rule, (name,), better_line)
    assert slip.is_fine == (rule == "many-in-one")


def test_the_list_of_another_tool_is_told_no_remedy_that_it_has_no_place_for() -> None:
    names, reporter = (f"nut {RING}", "hot  dog"), SilentReporter()
    ours, theirs = ([slip.text for slip in find_slips(names, form)] for form in (True, False))
    assert all("put one tab" in text for text in ours)
    assert "classes lint FILE --output LIST" in theirs[0]
    assert theirs[1] == "several spaces in a name: write one"
    note_slips(names, reporter, holds_prompts=False)
    assert "put one tab" not in reporter.stages[0]


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


PLAIN_WORDS = (
    *("solder", "spatter", "pitted", "crimp", "spalling", "contactor", "spacer", "fraying"),
    *("crazing", "blistering", "porosity", "delamination", "undercut", "burr", "scuffed"),
    *("tombstoning", "bridging", "flaking", "pinhole", "misrun", "grommet", "ferrule"),
    *("turnbuckle", "pinion", "reamer", "sander", "trowel", "chisel", "squeegee", "busbar"),
    *("thermistor", "whisk", "colander", "grater", "peeler", "zester", "ramekin", "trivet"),
    *("pierogi", "gnocchi", "tteokbokki", "focaccia"),
)
"""Many lie one letter from a common name: crimp from chimp, contactor from contractor."""


@pytest.fixture(scope="module")
def words(teacher: Teacher) -> KnownWords:
    return known_words(teacher)


@pytest.mark.parametrize(
    ("typo", "meant"),
    [
        *(("elefant", "elephant"), ("girafe", "giraffe"), ("bycicle", "bicycle")),
        *(("gutiar", "guitar"), ("tomatoe", "tomato"), ("wheelbarow", "wheelbarrow")),
        *(("bannana", "banana"), ("scisors", "scissors"), ("screwdrver", "screwdriver")),
        *(("hamer", "hammer"), ("dolfin", "dolphin"), ("wrentch", "wrench"), ("mosue", "mouse")),
        *(("toaser", "toaster"), ("Golden Retreiver", "Golden retriever")),
    ],
)
def test_a_slip_of_the_finger_or_the_ear_gets_the_word_that_was_meant(
    words: KnownWords, typo: str, meant: str
) -> None:
    assert words.corrections(typo) == [meant]


@pytest.mark.parametrize(
    "name",
    [
        *("axolotl", "okapi", "zebras", "wolves", "xqzt", "quadcopter", "great dane", "éléphant"),
        *("pliers", "tuk-tuk", *PLAIN_WORDS),
        "pliars",  # the teacher has hardly seen "pliers" either
    ],
)
def test_plain_and_rare_words_plurals_and_words_far_from_any_are_left_alone(
    words: KnownWords, name: str
) -> None:
    assert words.corrections(name) == []


def test_a_name_of_many_unknown_words_gets_two_suggestions(words: KnownWords) -> None:
    assert words.corrections("butterfy chesse") == ["butterfly cheese", "buttery cheese"]


def test_most_slips_in_names_of_the_memory_are_found(words: KnownWords) -> None:
    names = sorted(w for w in words.things & words.usual if len(w) >= 8)[::10]
    slips = {name: name[:4] + name[5] + name[4] + name[6:] for name in names}
    changed = {name: slip for name, slip in slips.items() if slip != name}
    found = [name for name, slip in changed.items() if name in words.corrections(slip)]
    assert len(changed) > 100
    assert len(found) > 0.9 * len(changed)
