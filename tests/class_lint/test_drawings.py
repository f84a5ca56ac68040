from __future__ import annotations

from collections.abc import Sequence

import pytest

from dfkd_edge.class_lint.lint import EmbeddedList, given_up
from dfkd_edge.class_names import ClassNames, parse_class_names
from dfkd_edge.config.settings import TeacherConfig
from dfkd_edge.console import ConsoleReporter, make_console
from dfkd_edge.drawings.drawn_class import drawn_classes
from dfkd_edge.drawings.memory import MAX_DRAWINGS, DrawingMemory, retrieve_drawings
from dfkd_edge.networks.teacher import Teacher, load_teacher

REPORTER = ConsoleReporter(make_console(quiet=True))


def num_drawings(memory: DrawingMemory, classes: ClassNames) -> dict[str, int]:
    head_KD = memory.teacher.zero_shot_head(classes, TeacherConfig().templates)
    return {each.name: each.num_drawings for each in drawn_classes(memory, classes, head_KD)}


@pytest.fixture(scope="module")
def memory(teacher: Teacher) -> DrawingMemory:
    return DrawingMemory(teacher, REPORTER)


def embedded(teacher: Teacher, classes: ClassNames) -> EmbeddedList:
    templates = TeacherConfig().templates
    return EmbeddedList(classes, teacher.zero_shot_head(classes, templates), templates)


def costs(memory: DrawingMemory, names: Sequence[str], prompts: dict[str, str]) -> dict[str, int]:
    classes = ClassNames(tuple(names), (None,) * len(names))
    return given_up(memory, embedded(memory.teacher, classes), prompts)


def test_as_many_drawings_are_counted_as_synthesis_starts_from(memory: DrawingMemory) -> None:
    lines = "traffic light\nhorse\nxqzt\nmouse\ta photo of a computer mouse\nhand"
    classes = parse_class_names(lines, "classes")
    counted = num_drawings(memory, classes)
    found = retrieve_drawings(DrawingMemory(load_teacher(TeacherConfig(), classes), REPORTER))
    assert counted == dict(zip(classes.names, map(len, found), strict=True))
    assert counted["traffic light"] > 0
    assert counted["horse"] > 0 == counted["xqzt"]
    assert max(counted.values()) <= MAX_DRAWINGS


def test_a_prompt_costs_the_drawings_of_the_bare_name(memory: DrawingMemory) -> None:
    prompts = {"zebra": "an animal with stripes", "giraffe": "a drawing of a giraffe", "xqzt": "x"}
    names = [*prompts, "horse"]
    classes = ClassNames(tuple(names), (None,) * len(names))
    counted = num_drawings(memory, classes)
    lost = costs(memory, names, prompts)
    assert lost == {"zebra": counted["zebra"], "giraffe": 0, "xqzt": 0}
    assert lost["zebra"] > 0


def test_a_prompt_costs_no_drawings_of_something_else(memory: DrawingMemory) -> None:
    prompts = {"wheelbarrow": "a photo of a wheelbarrow, a cart for carrying soil"}
    classes = ClassNames(("wheelbarrow", "tractor"), (None, None))
    assert num_drawings(memory, classes)["wheelbarrow"] > 0
    assert costs(memory, classes.names, prompts) == {"wheelbarrow": 0}


def test_a_prompt_does_not_cost_the_drawings_of_a_nearer_class(memory: DrawingMemory) -> None:
    alone = costs(memory, ["horse", "zebra"], {"horse": "xqzt"})
    beside = costs(memory, ["horse", "horse face", "zebra"], {"horse": "xqzt"})
    assert alone["horse"] > beside["horse"]
    assert costs(memory, ["horse"], {}) == {}
