from dfkd_edge.class_names import parse_class_names
from dfkd_edge.config.settings import SynthesisConfig, TeacherConfig
from dfkd_edge.drawings import drawn_class
from dfkd_edge.drawings.drawn_class import DrawnClass, drawings_note, drawings_text
from dfkd_edge.drawings.memory import MAX_DRAWINGS, DrawingMemory, retrieve_drawings
from dfkd_edge.networks.teacher import load_teacher
from dfkd_edge.synthesis.amortized import uses_drawings
from tests.fixtures.typed import class_count

WHEELS = DrawnClass("wheelbarrow", {"wheel": 6}, 0)
HORSE = DrawnClass("horse", {"horse": 7, "horse racing": 9}, 16)
COMPUTER = DrawnClass("computer", {"computer": 1, "laptop": 7}, 1)
RHINOCEROS = DrawnClass("rhinoceros", {"mammoth": 5, "elephant": 9}, 0, 0, 14)
ONE, NONE = DrawnClass("fork", {"fork": 1}, 1), DrawnClass("hoe", {}, 0)


def test_a_class_is_drawn_as_another_where_next_to_no_drawing_is_of_its_name() -> None:
    drawn = [WHEELS, HORSE, COMPUTER, ONE, NONE]
    assert [each.is_of_others for each in drawn] == [True, False, True, False, False]
    assert not DrawnClass("fork", {"fork": 1, "knife": 1}, 1).is_of_others
    assert not DrawnClass("African elephant", {"elephant": 9, "trunk": 8}, 0, 9).is_of_others
    assert drawings_text(drawn) == (
        "wheelbarrow 6 (wheel), horse 16 (horse racing, horse), computer 8 (laptop, computer), "
        "fork 1, hoe 0"
    )
    assert drawings_note(drawn) == (
        "drawings of another name: wheelbarrow (wheel), computer (laptop, computer); no drawing or "
        "only one of: fork, hoe; dfkd-edge classes lint says more"
    )
    assert drawings_note([HORSE, RHINOCEROS]) == (
        "what looks alike, for want of drawings: rhinoceros (elephant, mammoth); "
        "dfkd-edge classes lint says more"
    )
    assert not RHINOCEROS.is_of_others
    assert drawings_note([HORSE]) == ""
    text = "19 of 20 classes; none for hoe; of another name for wheelbarrow 6 (wheel)"
    assert drawings_text([HORSE] * 18 + [WHEELS, NONE]) == text
    text = "20 of 20 classes; what looks alike for rhinoceros 14 (elephant, mammoth)"
    assert drawings_text([HORSE] * 19 + [RHINOCEROS]) == text


def test_a_summary_gives_back_what_it_keeps() -> None:
    for each in (HORSE, RHINOCEROS):
        assert drawn_class.read_drawn_class(class_count(each.name, **each.to_json())) == each
    assert drawn_class.read_drawn_class(class_count("horse")).named == {}


def drawn(lines: str) -> tuple[DrawingMemory, list[DrawnClass]]:
    teacher = load_teacher(TeacherConfig(), parse_class_names(lines, "classes"))
    memory = DrawingMemory(teacher)
    return memory, drawn_class.drawn_classes(memory, teacher.classes, teacher.head_KD)


def test_no_class_starts_from_drawings_of_what_qualifies_it() -> None:
    memory, (_, extinguisher, ladder) = drawn("traffic cone\nfire extinguisher\nladder\n")
    cone, *_ = memory.search(memory.teacher.head_KD, memory.teacher.classes)
    assert not [name for name in memory.named(cone.named) if "traffic" in name]
    assert set(extinguisher.named) == {"fire extinguisher"}
    assert ladder.num_own


def test_as_many_drawings_are_counted_as_synthesis_starts_from() -> None:
    lines = "traffic light\nhorse\nxqzt\nmouse\ta photo of a computer mouse\nwheelbarrow"
    memory, found = drawn(lines)
    counted = [each.num_drawings for each in found]
    assert counted == [len(drawings) for drawings in retrieve_drawings(memory)]
    light, horse, xqzt, _, wheels = found
    assert 0 < light.num_drawings <= MAX_DRAWINGS
    assert horse.num_own == horse.num_drawings > 0 == horse.num_alike
    assert xqzt.num_alike == xqzt.num_drawings > 0
    assert (wheels.num_own, set(wheels.named)) == (0, {"wheel"})


def test_drawings_are_used_only_by_the_embedded_prior() -> None:
    assert uses_drawings("mini", SynthesisConfig())
    for other in (SynthesisConfig(exemplar_share=0), SynthesisConfig(method="per-image")):
        assert not uses_drawings("mini", other)
    assert not uses_drawings("ViT-B-32", SynthesisConfig())
