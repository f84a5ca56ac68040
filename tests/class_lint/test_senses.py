import pytest

from dfkd_edge.class_lint.scale import SCALE_WORDS, Scale, measure_scale
from dfkd_edge.class_lint.senses import find_ambiguous, read_senses
from dfkd_edge.class_names import ClassNames, folded
from dfkd_edge.config.settings import TeacherConfig
from dfkd_edge.networks.teacher import Teacher, load_teacher

ANIMAL = "a small animal with a long tail"
COLOUR = "a bright colour between red and yellow"


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
