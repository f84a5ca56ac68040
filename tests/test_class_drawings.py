from __future__ import annotations

import pytest

from dfkd_edge.class_drawings import NameIndex, drawings_given_up, read_name_index
from dfkd_edge.config import TeacherConfig
from dfkd_edge.console import ConsoleReporter, make_console
from dfkd_edge.synthesis.exemplars import distinct_names, read_sheets
from dfkd_edge.teacher import Teacher


@pytest.fixture(scope="module")
def index() -> NameIndex:
    return read_name_index()


def test_every_drawing_is_found_by_its_own_name(index: NameIndex) -> None:
    for name, places in distinct_names(read_sheets()).items():
        found = index.named_like(name)
        assert name in found.names
        assert found.num_exact >= len(places)


def test_longer_names_are_counted_apart_and_parts_of_words_not_at_all(index: NameIndex) -> None:
    horse = index.named_like("horse")
    assert (horse.num_exact, horse.num_longer) == (
        index.num_drawings["horse"],
        sum(n for name, n in index.num_drawings.items() if "horse" in name.split()[:-1])
        + sum(n for name, n in index.num_drawings.items() if name.endswith(" horse")),
    )
    assert "seahorse" not in horse.names
    assert index.named_like("horses") == horse
    assert not index.named_like("xqzt").names
    assert f"{horse}" == f"{horse.num_exact} (+{horse.num_longer} in longer names)"


@pytest.mark.parametrize(
    ("plural", "singular"),
    [
        *(("buses", "bus"), ("boxes", "box"), ("strawberries", "strawberry"), ("knives", "knife")),
        *(("leaves", "leaf"), ("tomatoes", "tomato"), ("butterflies", "butterfly")),
        ("peaches", "peach"),
    ],
)
def test_a_plural_counts_the_drawings_of_its_singular(
    index: NameIndex, plural: str, singular: str
) -> None:
    assert index.named_like(plural).num_exact >= index.num_drawings[singular] > 0
    assert set(index.named_like(singular).names) <= set(index.named_like(plural).names)


def test_a_prompt_costs_the_drawings_of_the_bare_name(index: NameIndex, teacher: Teacher) -> None:
    prompts = {"zebra": "an animal with stripes", "giraffe": "a drawing of a giraffe", "xqzt": "x"}
    reporter = ConsoleReporter(make_console(quiet=True))
    lost = drawings_given_up(teacher, prompts, TeacherConfig().templates, index, reporter)
    assert lost == {"zebra": index.num_drawings["zebra"], "giraffe": 0, "xqzt": 0}
