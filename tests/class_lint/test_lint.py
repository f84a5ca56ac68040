from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from dfkd_edge.class_lint.findings import as_document
from dfkd_edge.class_lint.lint import KINDS, lint_classes
from dfkd_edge.class_names import parse_class_names, read_class_names
from dfkd_edge.cli import app
from dfkd_edge.commands.classes import SHOWN
from dfkd_edge.config.settings import TeacherConfig
from dfkd_edge.console import ConsoleReporter, make_console
from dfkd_edge.errors import ClassNamesError

FRUIT = (
    "apple banana pear lemon peach orange grape date xqzt ../../pear <script> sofa couch".replace(
        " ", "\n"
    )
)
FRUIT += "\nlong\t" + 70 * "no "


@pytest.fixture(scope="module")
def fruit() -> dict[str, Any]:
    names = parse_class_names(FRUIT, "fruit")
    report = lint_classes(names, TeacherConfig(), ConsoleReporter(make_console(quiet=True)))
    return as_document(names, report)


def rules(document: dict[str, Any]) -> dict[str, list[list[str]]]:
    found: dict[str, list[list[str]]] = {}
    for finding in document["findings"]:
        found.setdefault(finding["rule"], []).append(finding["names"])
    return found


def test_two_names_of_one_thing_are_near_duplicates(fruit: dict[str, Any]) -> None:
    assert rules(fruit)["near-duplicate"] == [["sofa", "couch"]]
    assert fruit["pairs"][0]["names"] == ["sofa", "couch"]


def test_a_word_of_several_senses_gets_the_prompt_that_the_list_suggests(
    fruit: dict[str, Any],
) -> None:
    assert ["date"] in rules(fruit)["ambiguous"]
    suggested = {row["name"]: row["suggested_prompt"] for row in fruit["classes"]}
    assert suggested["date"] == "a photo of a date, a sweet brown fruit"
    assert suggested["banana"] is None


def test_words_outside_of_the_vocabulary_and_prompts_that_are_cut_are_named(
    fruit: dict[str, Any],
) -> None:
    assert rules(fruit)["unknown-word"] == [["xqzt"]]
    assert rules(fruit)["too-long"] == [["long"]]
    assert rules(fruit)["odd-characters"] == [["../../pear"], ["<script>"]]


def test_the_scale_of_the_teacher_is_in_order(fruit: dict[str, Any]) -> None:
    scale = fruit["scale"]
    assert scale["synonyms"] > scale["confusing"] > scale["siblings"] > scale["unrelated"]


def test_the_improved_list_is_a_class_list_with_the_suggested_prompts(tmp_path: Path) -> None:
    listed, improved = tmp_path / "animals.txt", tmp_path / "improved.txt"
    listed.write_text("dog\ncow\nmouse\njaguar\ta photo of a jaguar, a car\n", encoding="utf-8")
    arguments = ["classes", "lint", str(listed), "--output", str(improved), "--json"]
    document = json.loads(CliRunner().invoke(app, arguments).stdout)
    names = read_class_names(improved)
    assert names.names == read_class_names(listed).names
    assert names.prompts[2:] == (
        "a photo of a mouse, a small animal with a long tail",
        "a photo of a jaguar, a car",
    )
    assert [row["suggested_prompt"] for row in document["classes"]][2] == names.prompts[2]
    assert [row["prompt"] for row in document["classes"]][3] == names.prompts[3]


def test_typos_orange_and_costly_prompts_are_found_and_drawings_counted(tmp_path: Path) -> None:
    listed = tmp_path / "list.txt"
    listed.write_text("elefant\norange\nhorse\nzebra\tan animal with stripes\n", encoding="utf-8")
    done = CliRunner().invoke(app, ["classes", "lint", str(listed), "--json"])
    document = json.loads(done.stdout)
    found = rules(document)
    assert found["typo"] == [["elefant"]]
    assert found["ambiguous"] == [["orange"]]
    assert found["costs-drawings"] == [["zebra"]]
    drawings = {row["name"]: row["drawings"] for row in document["classes"]}
    assert drawings["zebra"]["found"] == 0 < drawings["zebra"]["given_up_by_prompt"]
    assert drawings["horse"]["found"] > 0 == drawings["horse"]["given_up_by_prompt"]
    shown = CliRunner().invoke(app, ["classes", "lint", str(listed)]).stdout
    assert "did you mean 'elephant'?" in shown
    assert f"horse {drawings['horse']['found']} (horse" in " ".join(shown.split())
    assert drawings["horse"]["of_its_name"] == sum(drawings["horse"]["named"].values())


def test_no_suggestion_repeats_a_typo_or_a_prompt_that_stands_in_a_name(tmp_path: Path) -> None:
    listed, improved = tmp_path / "list.txt", tmp_path / "improved.txt"
    prompt = "a photo of a nut, a metal ring"
    listed.write_text(f"pliars\nhammer\nnut {prompt}\nmandoline\n叉\n", encoding="utf-8")
    arguments = ["classes", "lint", str(listed), "--output", str(improved), "--json"]
    document = json.loads(CliRunner().invoke(app, arguments).stdout)
    rows = {row["name"]: row for row in document["classes"]}
    assert [rows[name]["suggested_prompt"] for name in ("pliars", "mandoline")] == [None, None]
    assert rules(document)["typo"] == [["mandoline"]]
    assert ["mandoline"] in rules(document)["few-drawings"]
    assert rows[f"nut {prompt}"]["suggested_name"] == "nut"
    assert read_class_names(improved).names == ("pliars", "hammer", "nut", "mandoline", "叉")
    assert read_class_names(improved).prompts[2] == prompt
    told = [f["text"] for f in document["findings"] if f["rule"] == "unknown-word"]
    assert told == ["names are English words to the teacher: translate this one"]
    shown = CliRunner().invoke(app, arguments[:3]).stdout
    assert f"nut\t{prompt}\n" in shown


def test_a_kind_is_not_suggested_where_it_would_cost_drawings() -> None:
    names = parse_class_names("computer mouse\nmouse\ncat\n", "list")
    report = lint_classes(names, TeacherConfig(), ConsoleReporter(make_console(quiet=True)))
    assert [finding.names for finding in report.findings][:1] == [("computer mouse", "mouse")]
    assert not set(report.suggested_prompts) & report.kind_prompts
    assert report.drawn[0].num_own > 0


def test_every_rule_is_shown_before_a_rule_is_shown_again(tmp_path: Path) -> None:
    listed = tmp_path / "list.txt"
    names = ["digit one", "digit two", "digit three", "digit four", "digit five", "digit six"]
    listed.write_text("\n".join([*names, "orange", "girafe"]) + "\n", encoding="utf-8")
    arguments = ["classes", "lint", str(listed)]
    found = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).stdout)["findings"]
    assert len(found) > SHOWN
    table, _ = CliRunner().invoke(app, arguments).stdout.split(f"{len(found)} in all: ")
    rules_shown = {word for line in table.splitlines() for word in line.strip("│┃ ").split()[:1]}
    assert {finding["rule"] for finding in found} <= rules_shown


def test_findings_are_advice_and_failures_only_when_strict(tmp_path: Path) -> None:
    listed = tmp_path / "list.txt"
    listed.write_text("elefant\nhouse\n", encoding="utf-8")
    arguments = ["classes", "lint", str(listed)]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    strict = CliRunner().invoke(app, [*arguments, "--strict"])
    assert isinstance(strict.exception, ClassNamesError)
    assert strict.exception.exit_code == 2
    assert str(strict.exception) == f"1 finding ({listed}): mend the list, or leave --strict out"
    assert "did you mean 'elephant'?" in strict.stdout
    listed.write_text("elephant\nhouse\n", encoding="utf-8")
    assert CliRunner().invoke(app, [*arguments, "--strict"]).exit_code == 0


def test_a_class_whose_drawings_show_something_else_is_named_with_them(tmp_path: Path) -> None:
    listed = tmp_path / "list.txt"
    listed.write_text("wheelbarrow\nhoe\ntractor\nhot  dog\n", encoding="utf-8")
    arguments = ["classes", "lint", str(listed)]
    document = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).stdout)
    found = rules(document)
    assert found["drawn-as-other"] == [["wheelbarrow"]]
    assert ["hoe"] in found["few-drawings"]
    assert ["tractor"] not in found["few-drawings"]
    assert found["wide-gap"] == [["hot  dog"]]
    rows = {row["name"]: row["drawings"] for row in document["classes"]}
    assert set(rows["wheelbarrow"]["named"]) == {"wheel"}
    assert rows["wheelbarrow"]["of_its_name"] == 0 < rows["tractor"]["of_its_name"]
    shown = " ".join(CliRunner().invoke(app, arguments).stdout.split())
    assert "(wheel), hoe 0, tractor" in shown
    assert 'named "wheel"' in shown


def test_what_no_other_list_would_mend_does_not_fail_a_strict_lint(tmp_path: Path) -> None:
    listed = tmp_path / "list.txt"
    listed.write_text("orange\nbanana\npear\nlemon\n", encoding="utf-8")
    arguments = ["classes", "lint", str(listed)]
    found = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).stdout)["findings"]
    fine = {finding["names"][0]: finding["text"] for finding in found if finding["is_fine"]}
    assert [name for name, text in fine.items() if text.endswith("the list agrees")]
    assert len(fine) == len(found)
    assert CliRunner().invoke(app, [*arguments, "--strict"]).exit_code == 0


def test_kinds_are_distinct() -> None:
    assert len(set(KINDS)) == len(KINDS)
