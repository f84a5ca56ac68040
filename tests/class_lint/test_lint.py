import json
from pathlib import Path

import pytest
from typer.testing import Result

from dfkd_edge.class_lint.findings import ClassListReport
from dfkd_edge.class_lint.lint import lint_classes
from dfkd_edge.class_lint.scale import SCALE_WORDS, Scale, measure_scale
from dfkd_edge.class_lint.senses import find_ambiguous, read_senses
from dfkd_edge.class_names import ClassNames, folded, parse_class_names, read_class_names
from dfkd_edge.commands.classes import SHOWN
from dfkd_edge.config.settings import TeacherConfig
from dfkd_edge.console import ConsoleReporter, make_console
from dfkd_edge.drawings.names import FEW
from dfkd_edge.errors import ClassNamesError
from dfkd_edge.networks.teacher import Teacher, load_teacher
from tests.fixtures.command import invoke

FRUIT = "apple banana pear lemon peach orange grape date xqzt ../../pear <script> sofa couch"
NUT = "a photo of a nut, a metal ring"
CAR = "a photo of a jaguar, a car"
ANIMAL, COLOUR = "a small animal with a long tail", "a bright colour between red and yellow"
MOUSE = f"a photo of a mouse, {ANIMAL}"


def linted(text: str) -> ClassListReport:
    reporter = ConsoleReporter(make_console(quiet=True))
    return lint_classes(parse_class_names(text, "list"), TeacherConfig(), reporter)


def rules(report: ClassListReport) -> dict[str, list[tuple[str, ...]]]:
    found = report.findings
    return {one.rule: [f.names for f in found if f.rule == one.rule] for one in found}


def lint(path: Path, text: str, *flags: str) -> Result:
    path.write_text(text, encoding="utf-8")
    return invoke("classes", "lint", path, *flags)


@pytest.fixture(scope="module")
def fruit() -> ClassListReport:
    return linted(FRUIT.replace(" ", "\n") + "\nlong\t" + 70 * "no ")


def test_each_rule_finds_its_names(fruit: ClassListReport) -> None:
    found = rules(fruit)
    assert found["near-duplicate"] == [("sofa", "couch")] == [fruit.pairs[0][:2]]
    assert found["unknown-word"] == [("xqzt",)]
    assert found["too-long"] == [("long",)]
    assert found["odd-characters"] == [("../../pear",), ("<script>",)]
    assert ("date",) in found["ambiguous"]
    scale = fruit.scale
    assert scale.synonyms > scale.confusing > scale.siblings > scale.unrelated


def test_a_misread_word_gets_the_prompt_that_the_list_suggests(fruit: ClassListReport) -> None:
    assert fruit.better_lines() == {
        "date": ("date", "a photo of a date, a sweet brown fruit"),
    }


@pytest.mark.parametrize(
    ("names", "is_kept"), [("apple banana pear", True), ("crane duck flamingo", False)]
)
def test_a_prompt_is_not_suggested_where_it_costs_drawings_that_show_what_is_meant(
    names: str, is_kept: bool
) -> None:
    report = linted(names.replace(" ", "\n"))
    [found] = [each for each in report.findings if each.names == (names.split()[0],)]
    assert report.drawn[0].num_own > FEW
    assert ("fit the bare name" in found.text) == is_kept
    assert (not found.better_line) == found.is_fine == is_kept


def test_a_class_whose_drawings_show_something_else_is_named_with_them() -> None:
    report = linted("wheelbarrow\nhoe\ntractor\nAfrican elephant\n")
    found = rules(report)
    assert found["drawn-as-other"] == [("wheelbarrow",)]
    assert 'named "wheel"' in report.findings[0].text
    assert found["few-drawings"] == [("hoe",)]
    assert found["drawn-as-kind"] == [("African elephant",)]
    wheels, _, tractor, _ = report.drawn
    assert (set(wheels.named), wheels.num_own) == ({"wheel"}, 0)
    assert tractor.num_own > 0


def test_a_better_list_is_written_with_prompts_of_its_own_kept_and_no_typo_repeated(
    tmp_path: Path,
) -> None:
    improved = tmp_path / "improved.txt"
    text = f"dog\ncow\nmouse\njaguar\t{CAR}\nelefant\nnut {NUT}\n叉\n"
    done = lint(tmp_path / "list.txt", text, "--output", str(improved), "--json")
    names = read_class_names(improved)
    assert names.names == ("dog", "cow", "mouse", "jaguar", "elefant", "nut", "叉")
    assert names.prompts == (None, None, MOUSE, CAR, None, NUT, None)
    document = json.loads(done.stdout)
    assert list(document) == ["classes", "findings", "pairs", "scale"]
    dog, _, mouse, jaguar, *_, nut, _ = document["classes"]
    assert dog["folder"] == "000-dog"
    assert dog["drawings"]["found"] == sum(dog["drawings"]["named"].values()) > 0
    assert dog["drawings"]["of_its_name"] > 0
    suggested = [row["suggested_prompt"] for row in (dog, mouse, jaguar, nut)]
    assert suggested == [None, MOUSE, None, NUT]
    assert [row["suggested_name"] for row in (mouse, nut)] == [None, "nut"]
    assert jaguar["prompt"] == CAR
    texts = {finding["rule"]: finding["text"] for finding in document["findings"]}
    assert texts["typo"] == "did you mean 'elephant'?"
    assert texts["unknown-word"].endswith("translate this one")
    assert set(document["scale"]) == {"synonyms", "confusing", "siblings", "unrelated"}
    assert set(document["pairs"][0]) == {"names", "similarity"}


def test_every_rule_is_shown_before_a_rule_is_shown_again(tmp_path: Path) -> None:
    digits = [f"digit {number}" for number in ("one", "two", "three", "four", "five", "six")]
    text = "\n".join([*digits, f"nut {NUT}", "girafe"])
    table, rest = lint(tmp_path / "list.txt", text).stdout.split(" in all: ")
    listed = rest.partition(";")[0].split(",")
    found = {rule: int(number) for number, rule in map(str.split, listed)}
    assert sum(found.values()) > SHOWN
    assert found["near-duplicate"] > 1 == found["typo"]
    first_words = {word for line in table.splitlines() for word in line.strip("│┃ ").split()[:1]}
    assert found.keys() <= first_words
    assert "did you mean 'giraffe'?" in table
    assert f"nut\t{NUT}\n" in rest


def test_findings_are_advice_and_failures_only_when_strict(tmp_path: Path) -> None:
    listed, text = tmp_path / "list.txt", "elefant\nhouse\n"
    assert lint(listed, text).exit_code == 0
    strict = lint(listed, text, "--strict").exception
    assert isinstance(strict, ClassNamesError)
    assert (strict.what, strict.where, strict.exit_code) == ("1 finding", str(listed), 2)


def test_what_no_other_list_would_mend_does_not_fail_a_strict_lint(tmp_path: Path) -> None:
    text = "orange\nbanana\npear\nlemon\n"
    done = lint(tmp_path / "list.txt", text, "--json", "--strict")
    assert done.exit_code == 0
    found = json.loads(done.stdout)["findings"]
    assert all(finding["is_fine"] for finding in found)
    assert [f["names"] for f in found if f["text"].endswith("the list agrees")] == [["orange"]]


def test_words_are_in_order_and_have_several_senses() -> None:
    senses = read_senses()
    assert list(senses) == sorted(senses)
    assert all(word == folded(word) and len(set(found)) > 1 for word, found in senses.items())
    plain = "dog elephant giraffe chair bicycle guitar banana spoon laptop umbrella shark hammer"
    assert not senses.keys() & set(plain.split())


@pytest.fixture(scope="module")
def scaled() -> tuple[Teacher, Scale]:
    teacher = load_teacher(TeacherConfig(), ClassNames(SCALE_WORDS, (None,) * len(SCALE_WORDS)))
    return teacher, measure_scale(teacher, TeacherConfig().templates)


@pytest.mark.parametrize(
    ("text", "end", "prompt"),
    [
        ("mouse dog cow horse", f"computer mouse, the list suggests {ANIMAL}", f"mouse, {ANIMAL}"),
        ("mouse laptop printer", "reads a computer mouse, the list agrees", ""),
        ("orange digit elephant", f'prompt, such as "a photo of an orange, {COLOUR}"', ""),
    ],
)
def test_the_other_classes_tell_which_sense_is_meant(
    scaled: tuple[Teacher, Scale], text: str, end: str, prompt: str
) -> None:
    (teacher, scale), names = scaled, tuple(text.split())
    classes = ClassNames(names, (None,) * len(names))
    head_KD = teacher.zero_shot_head(classes, TeacherConfig().templates)
    (found,) = find_ambiguous(teacher, classes, head_KD, scale)
    assert found.text.endswith(end)
    assert found.is_fine == end.endswith("agrees")
    assert found.better_line == ((names[0], f"a photo of a {prompt}") if prompt else None)
    told = ClassNames(names, ("a prompt of its own", *classes.prompts[1:]))
    assert list(find_ambiguous(teacher, told, head_KD, scale)) == []
