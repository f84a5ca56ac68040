from __future__ import annotations

import io

import pytest
from rich.console import Console

from dfkd_edge.class_names import parse_class_names
from dfkd_edge.class_slips import find_slips, note_slips
from dfkd_edge.console import ConsoleReporter


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("rake a photo of a rake", "prompt-in-name"),
        ("A picture of a dog", "prompt-in-name"),
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
