import pytest

from dfkd_edge.class_lint.spelling import KnownWords, known_words
from dfkd_edge.networks.teacher import Teacher

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
