import pytest

from dfkd_edge.results.class_answers import weak_classes, weak_classes_sentence
from dfkd_edge.results.ladder import Ladder
from dfkd_edge.results.wording import Metric
from tests.fixtures.ladders import figures, ladder, rung

ANSWERS = {
    "dog": {"dog": 90, "cat": 10},
    "cat": {"cat": 80, "dog": 20},
    "bench": {"bench": 36, "table": 40, "dog": 24},
    "table": {"table": 55, "bench": 45},
}


def answered(
    answers: dict[str, dict[str, int]],
    num_domains: int = 1,
    num_views: int = 1,
    metric: Metric = "agreement",
) -> Ladder:
    num = sum(sum(row.values()) for row in answers.values())
    part = figures(0.5, num, num // num_views, confusion=answers)
    domains = {f"domain {number}": part for number in range(num_domains)}
    return ladder(rung("onnx-int8", domains), metric=metric)


def test_a_class_that_mostly_fails_is_named_with_what_it_is_taken_for() -> None:
    (bench,) = weak_classes(answered(ANSWERS, num_domains=2))
    assert (bench.name, bench.num_images, bench.taken_for) == ("bench", 100, "table")
    assert bench.share == pytest.approx(0.36)
    assert weak_classes_sentence(answered(ANSWERS)) == (
        "by the teacher's answers: bench (36% of 100 images that it calls so, most often taken for "
        "table)"
    )
    assert "by the true classes" in weak_classes_sentence(answered(ANSWERS, metric="top1"))


def test_views_of_one_image_are_one_image() -> None:
    (bench,) = weak_classes(answered(ANSWERS, num_domains=2, num_views=2))
    assert (bench.num_images, bench.num_shown) == (50, 200)
    assert bench.share == pytest.approx(0.36)
    assert weak_classes(answered(ANSWERS, num_domains=2, num_views=50)) == []


def test_one_image_and_a_student_that_fails_everywhere_name_no_class() -> None:
    assert weak_classes_sentence(answered({**ANSWERS, "bench": {"table": 1}}, 5)) == ""
    everywhere = {name: {name: 30, "other": 70} for name in ANSWERS}
    assert weak_classes(answered(everywhere)) == []


def test_many_weak_classes_are_counted() -> None:
    good = {f"good {number}": {f"good {number}": 100} for number in range(20)}
    bad = {f"bad {number}": {"good 0": 100} for number in range(8)}
    said = weak_classes_sentence(answered(good | bad))
    assert said.count("taken for") == 5
    assert said.endswith("3 more, see the report")
