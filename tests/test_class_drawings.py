from __future__ import annotations

from collections.abc import Sequence

import pytest

from dfkd_edge.class_drawings import (
    EmbeddedList,
    NameIndex,
    most_given_up,
    read_name_index,
)
from dfkd_edge.class_names import ClassNames
from dfkd_edge.config import TeacherConfig
from dfkd_edge.console import ConsoleReporter, make_console
from dfkd_edge.synthesis.exemplars import MAX_DRAWINGS, distinct_names, read_sheets
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


def given_up(
    teacher: Teacher, index: NameIndex, names: Sequence[str], prompts: dict[str, str]
) -> dict[str, int]:
    classes = ClassNames(tuple(names), (None,) * len(names))
    templates = TeacherConfig().templates
    listed = EmbeddedList(classes, teacher.zero_shot_head(classes, templates), templates)
    reporter = ConsoleReporter(make_console(quiet=True))
    return most_given_up(teacher, listed, prompts, index, reporter)


def test_a_prompt_costs_the_drawings_of_the_bare_name(index: NameIndex, teacher: Teacher) -> None:
    prompts = {"zebra": "an animal with stripes", "giraffe": "a drawing of a giraffe", "xqzt": "x"}
    lost = given_up(teacher, index, [*prompts, "horse"], prompts)
    assert lost == {"zebra": index.num_drawings["zebra"], "giraffe": 0, "xqzt": 0}


def test_a_prompt_costs_no_more_than_a_class_has_room_for(
    index: NameIndex, teacher: Teacher
) -> None:
    hand = index.named_like("hand")
    assert hand.num_exact + hand.num_longer > MAX_DRAWINGS
    assert given_up(teacher, index, ["hand", "zebra"], {"hand": "xqzt"}) == {"hand": MAX_DRAWINGS}


def test_a_prompt_does_not_cost_the_drawings_of_a_nearer_class(
    index: NameIndex, teacher: Teacher
) -> None:
    alone = given_up(teacher, index, ["horse", "zebra"], {"horse": "xqzt"})
    beside = given_up(teacher, index, ["horse", "horse face", "zebra"], {"horse": "xqzt"})
    assert alone["horse"] - beside["horse"] >= index.num_drawings["horse face"]
