"""What the page says of a figure beside it: by which truth it counts, and on what images."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dfkd_edge.artifacts import save_tensors
from dfkd_edge.report import write_report
from dfkd_edge.report.figures import SpeedPoint, speed_figure
from dfkd_edge.runs.surrogates import selection_path

UNSURE, EMPTY = 'class="picture unsure"', '<span class="none">'


def page_of(run: Path) -> str:
    return html.unescape(write_report(run).read_text(encoding="utf-8"))


def ladder_of(evaluation: dict[str, Any], measure: str, temperature: float) -> dict[str, Any]:
    """The evaluation as `export` would write it, every image shown twice."""
    for rung in evaluation["rungs"]:
        for figures in rung["domains"].values():
            figures["num_pictures"] = figures["num_images"] // 2
            figures["reliability_scaled"] = figures["reliability"] | {"temperature": temperature}
    fitted = dict.fromkeys(("ece_before", "ece_after"), 0.1) | {"unknown_auroc": 0.8}
    fitted |= {"temperature": temperature, "num_images": 40, "reject_threshold": 0.4}
    return {**evaluation, "measure": measure, "confidence": fitted, "images": "some images"}


def test_ticks_of_small_shares_differ() -> None:
    figure = speed_figure(
        [SpeedPoint("teacher", 9.0, 0.0), SpeedPoint("engine", 2.0, 0.0)], "top-1"
    )
    ticks = re.findall(r'text-anchor="end">([\d.]+%)<', figure)
    assert len(set(ticks)) == len(ticks) > 2


def test_stand_ins_are_counted(run: Path) -> None:
    told = "1 of them stand-ins, which the teacher takes for another class."
    assert f"5 of 6 synthesized images were kept; {told}" in page_of(run)


def test_the_sheet_shows_kept_images_alone_and_explains_the_marks_that_it_has(run: Path) -> None:
    page = page_of(run)
    assert page.count(UNSURE) == page.count('; a stand-in"><img') == 1
    assert page.count(EMPTY) == 1  # the rejected candidate
    assert "A dashed frame: a stand-in. A dash: no image of that class and style" in page
    save_tensors(selection_path(run / "surrogates"), {"is_kept": np.arange(6) > 1})
    page = page_of(run)
    assert UNSURE not in page
    assert page.count(EMPTY) == 2
    assert "A dashed frame" not in page


@pytest.mark.parametrize(("measure", "is_shown"), [("agreement", False), ("top1", True)])
def test_what_temperature_does_is_shown_by_labelled_pictures_alone(
    run: Path, evaluation: dict[str, Any], measure: str, is_shown: bool
) -> None:
    document = ladder_of(evaluation, measure, 1.5)
    (run / "evaluation.json").write_text(json.dumps(document), encoding="utf-8")
    page = page_of(run)
    truth = {"agreement": "the teacher's answers", "top1": "the true classes"}[measure]
    assert f"by {truth}: ECE" in page
    assert f"when it is this sure, by {truth}." in page
    assert ("the same, temperature 1.50: ECE" in page) is is_shown
    assert ("its effect above" in page) is is_shown
    assert "temperature 1.50: calibration error 0.100 before" in page


def test_the_ladder_says_how_many_views_of_each_domain_it_was_climbed_on(
    run: Path, evaluation: dict[str, Any]
) -> None:
    document = ladder_of(evaluation, "agreement", 1.0)
    for rung in document["rungs"]:
        made = rung["domains"]["held-out surrogates"]
        rung["domains"]["held-out surrogates"] = {**made, "num_images": 1_440}
    (run / "evaluation.json").write_text(json.dumps(document), encoding="utf-8")
    page = page_of(run)
    assert "held-out surrogates, 1,440 views" in page
    assert ", 40 views" in page


def test_an_evaluation_that_does_not_say_by_which_truth_it_counts_claims_none(
    run: Path, evil: str, evaluation: dict[str, Any]
) -> None:
    for rung in evaluation["rungs"]:
        del rung["domains"][f"photo {evil}"]
    evaluation |= {"retention": None, "truth": "agreement"}
    (run / "evaluation.json").write_text(json.dumps(evaluation), encoding="utf-8")
    stated = page_of(run)
    assert "Rows are the teacher's answers on" in stated
    assert "by the teacher's answers: ECE" in stated
    del evaluation["truth"]
    (run / "evaluation.json").write_text(json.dumps(evaluation), encoding="utf-8")
    older = page_of(run)
    assert "Rows are the teacher's answers or the classes asked for (an earlier version" in older
    assert "as it is: ECE" in older
    assert "the teacher's answers: ECE" not in older
