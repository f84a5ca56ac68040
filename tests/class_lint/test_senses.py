from __future__ import annotations

import pytest

from dfkd_edge.class_lint.scale import SCALE_WORDS, measure_scale
from dfkd_edge.class_lint.senses import Reading, read_senses, read_word
from dfkd_edge.class_names import ClassNames, folded
from dfkd_edge.config.settings import TeacherConfig
from dfkd_edge.networks.teacher import load_teacher


def test_words_are_in_order_and_have_several_senses() -> None:
    senses = read_senses()
    assert list(senses) == sorted(senses)
    assert all(word == folded(word) and len(set(found)) > 1 for word, found in senses.items())
    plain = "dog elephant giraffe chair bicycle guitar banana spoon laptop umbrella shark hammer"
    assert not senses.keys() & set(plain.split())


@pytest.mark.parametrize(
    ("others", "meant"),
    [
        ("dog cow horse", "a small animal with a long tail"),
        ("screen laptop printer", "a computer mouse"),
    ],
)
def test_the_other_classes_tell_which_mouse_is_meant(others: str, meant: str) -> None:
    teacher = load_teacher(TeacherConfig(), ClassNames(SCALE_WORDS, (None,) * len(SCALE_WORDS)))
    templates = TeacherConfig().templates
    names = ("mouse", *others.split())
    head_KD = teacher.zero_shot_head(ClassNames(names, (None,) * len(names)), templates)
    scale = measure_scale(teacher, templates)
    reading = read_word(teacher, read_senses()["mouse"], head_KD[0], head_KD[1:].sum(0), scale)
    assert reading.meant == meant
    assert reading.is_misread == (reading.read != meant)


def test_a_list_that_does_not_tell_the_sense_gets_the_prompt_of_the_one_that_is_not_read() -> None:
    senses = tuple(read_senses()["bat"])
    unclear, agrees = (Reading(senses, "a flying animal", meant) for meant in ("", senses[0]))
    told = 'give a prompt, such as "a photo of a bat, a wooden club for baseball"'
    assert unclear.sentence("bat").endswith(told)
    assert "prompt" not in agrees.sentence("bat")
