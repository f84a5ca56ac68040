from __future__ import annotations

from typing import Any

import pytest

from dfkd_edge.results.class_answers import truth_of, weak_classes, weak_classes_lines

ANSWERS = {
    "dog": {"dog": 90, "cat": 10},
    "cat": {"cat": 80, "dog": 20},
    "bench": {"bench": 36, "table": 40, "dog": 24},
    "table": {"table": 55, "bench": 45},
}


def document(
    answers: dict[str, dict[str, int]], num_domains: int = 1, num_views: int = 1
) -> dict[str, Any]:
    num = sum(sum(row.values()) for row in answers.values())
    figures = {"confusion": answers, "num_images": num, "num_pictures": num // num_views}
    domains = {f"domain {number}": figures for number in range(num_domains)}
    return {"measure": "agreement", "rungs": [{"name": "onnx-int8", "domains": domains}]}


def test_a_class_that_mostly_fails_is_named_with_what_it_is_taken_for() -> None:
    (bench,) = weak_classes(document(ANSWERS, num_domains=2))
    assert (bench.name, bench.num_images, bench.taken_for) == ("bench", 100, "table")
    assert bench.share == pytest.approx(0.36)
    (line,) = weak_classes_lines(document(ANSWERS))
    named = "bench (36% of 100 images that it calls so, most often taken for table)"
    assert line == f"weak        by the teacher's answers: {named}"
    labelled = {**document(ANSWERS), "measure": "top1"}
    assert "by the true classes: bench (36% of 100 pictures," in weak_classes_lines(labelled)[0]


def test_views_of_one_image_are_one_image() -> None:
    (bench,) = weak_classes(document(ANSWERS, num_domains=2, num_views=2))
    assert bench.num_images == 50
    assert bench.share == pytest.approx(0.36)
    assert weak_classes(document(ANSWERS, num_domains=2, num_views=50)) == []


def test_answers_under_corruption_are_told_from_clean_ones_and_counted_as_shown() -> None:
    (line,) = weak_classes_lines(document(ANSWERS, num_domains=2, num_views=2))
    assert line.startswith("weak        by the teacher's answers on clean and corrupted images: ")
    assert "bench (36% of 200 views that it calls so," in line


def test_an_older_file_that_names_no_truth_claims_none() -> None:
    distilled = {**document(ANSWERS), "retention": None}
    del distilled["measure"]
    assert truth_of({**distilled, "truth": "agreement"}) == "the teacher's answers"
    assert truth_of({**distilled, "retention": 0.9}) == "the true classes"
    (line,) = weak_classes_lines(distilled)
    assert line.startswith("weak        by the teacher's answers or the classes asked for (an earl")
    assert "bench (36% of 100 images, most often" in line


def test_one_image_and_a_student_that_fails_everywhere_name_no_class() -> None:
    assert weak_classes_lines(document({**ANSWERS, "bench": {"table": 1}}, 5)) == []
    everywhere = {name: {name: 30, "other": 70} for name in ANSWERS}
    assert weak_classes(document(everywhere)) == []


def test_many_weak_classes_are_counted_and_an_older_file_names_none() -> None:
    good = {f"good {number}": {f"good {number}": 100} for number in range(20)}
    bad = {f"bad {number}": {"good 0": 100} for number in range(8)}
    (line,) = weak_classes_lines(document(good | bad))
    assert line.count("taken for") == 5
    assert line.endswith("3 more, see the report")
    assert weak_classes({"measure": "top1", "rungs": [{"domains": {"photo": {}}}]}) == []
