from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dfkd_edge.results.certainty import (
    GateState,
    certainty_line,
    certainty_of,
    gate_headline,
    gate_state,
    gate_word,
    unit_of,
)
from dfkd_edge.runtime.share_interval import TOO_FEW, mean_interval, wilson_interval
from dfkd_edge.validation.gate import Verdict
from dfkd_edge.validation.statistics import paired_drop


def document(num_right: int, num_images: int, *, num_domains: int = 1) -> dict[str, Any]:
    figures = {"num_images": num_images, "top1": num_right / num_images}
    domains = {f"domain {number}": figures for number in range(num_domains)}
    return {"measure": "top1", "rungs": [{"name": "onnx-int8", "domains": domains}]}


@pytest.mark.parametrize(
    ("right", "num", "low", "high"), [(0, 10, 0.0, 0.278), (7, 10, 0.397, 0.892), (3, 3, 0.438, 1)]
)
def test_the_interval_of_a_share_is_wilsons(right: int, num: int, low: float, high: float) -> None:
    assert wilson_interval(right / num, num) == pytest.approx((low, high), abs=0.001)


def test_three_pictures_all_right_are_not_certain_and_three_thousand_are() -> None:
    few, many = certainty_of(document(3, 3)), certainty_of(document(2700, 3000))
    assert few.low < 0.5
    assert few.high == 1
    assert few.is_too_wide
    assert not many.is_too_wide
    assert "100.0% top-1" in few.sentence()
    assert "on 3 labelled pictures: too few pictures to tell within 10 points" in few.sentence()
    assert TOO_FEW not in certainty_line(document(2700, 3000))
    assert "on 3,000 labelled pictures" in certainty_line(document(2700, 3000))


def test_agreement_on_a_few_surrogates_states_its_interval_and_claims_no_accuracy() -> None:
    few = document(3, 3)
    figures = few["rungs"][0]["domains"]["domain 0"]
    figures["agreement"] = figures.pop("top1")
    line = certainty_line({**few, "measure": "agreement"})
    assert line.endswith("95% interval 43.8% to 100.0%, on 3 clean surrogate images")


def test_more_domains_make_the_mean_surer() -> None:
    one, four = certainty_of(document(70, 100)), certainty_of(document(70, 100, num_domains=4))
    assert four.high - four.low == pytest.approx((one.high - one.low) / 2)
    assert four.num_images == 400
    assert mean_interval([(0.5, 0.4, 0.6)]) == pytest.approx((0.5, 0.4, 0.6))


def test_a_wider_interval_of_the_document_counts_and_surrogates_beside_pictures_do_not() -> None:
    wide = document(900, 1000)
    wide["rungs"][0]["domains"]["domain 0"]["top1_interval"] = [0.5, 0.95]
    assert certainty_of(wide).low == pytest.approx(0.5)
    mixed = document(900, 1000, num_domains=2)
    del mixed["measure"]
    assert certainty_of({**mixed, "retention": 0.9}).num_images == 1000


def test_views_and_corruptions_are_told_from_the_images_that_they_show() -> None:
    shown = document(700, 1000, num_domains=5)
    figures = shown["rungs"][0]["domains"]["domain 0"]  # the same object in every domain
    figures |= {"agreement": figures.pop("top1"), "num_pictures": 200}
    line = certainty_line({**shown, "measure": "agreement"})
    assert line.endswith("on 5,000 clean and corrupted views of 200 surrogate images")
    assert unit_of({**shown, "measure": "agreement"}) == "view"
    assert unit_of(document(7, 10)) == "picture"


def gate_without_flips(num_pictures: int) -> dict[str, Any]:
    correct = np.ones(num_pictures, bool)
    loss = paired_drop(correct, correct, np.arange(num_pictures))
    return Verdict(True, 0.01, "photo", "onnx-int8", "top1", loss).document()


def test_a_sentence_of_the_gate_counts_in_one_unit() -> None:
    before = np.ones(1_200, bool)
    after = np.arange(1_200) >= 3
    twice = paired_drop(before, after, np.arange(1_200) // 2)
    once = paired_drop(before, after)
    made = Verdict(True, 0.01, "noise", "onnx-int8", "agreement", twice).sentence()
    assert "1,200 views of 600 images" in made
    assert "(3 views lost, 0 won" in made
    assert "picture" not in made
    taken = Verdict(True, 0.01, "photo", "onnx-int8", "top1", once).sentence()
    assert "1,200 pictures" in taken
    assert "(3 pictures lost, 0 won" in taken
    assert "image" not in taken
    few = paired_drop(before[:60], before[:60], np.arange(60) // 2)
    doubt = Verdict(True, 0.01, "noise", "onnx-int8", "agreement", few).sentence()
    assert "no answer of 60 views of 30 images became right or wrong" in doubt
    assert f"does not exclude a loss of up to {100 * few.drop.high:.1f} points" in doubt


@pytest.mark.parametrize("num_pictures", [10, 1_000])
def test_a_gate_that_nothing_can_fail_is_off_and_not_passed(num_pictures: int) -> None:
    gate = {**gate_without_flips(num_pictures), "max_drop": 1.0, "off": True}
    assert gate_state(gate) is GateState.OFF
    assert gate_headline(gate, "a board") == (
        "gate off for a board: its limit of 100 points lets every loss pass"
    )
    assert gate_word(gate) == "off, for its limit of 100 points lets every loss pass"
    nothing_right = {**gate, "max_drop": 0.01}
    assert gate_headline(nothing_right) == (
        "gate off: the FP32 student is right on no more than the 1 point that it may lose"
    )


def test_a_conversion_is_proven_once_its_interval_lies_within_the_limit() -> None:
    few, some, many = (gate_without_flips(num) for num in (10, 100, 1_000))
    states = (GateState.DOUBTFUL, GateState.PASSED, GateState.PROVEN)
    assert tuple(map(gate_state, (few, some, many))) == states
    assert gate_headline(few, "a board") == f"gate passed for a board, {TOO_FEW}"
    doubt = "too few pictures to exclude a loss above the 1-point limit"
    assert gate_headline(some) == f"gate passed, {doubt}"
    assert "no answer of 100 pictures became right or wrong, which does not" in some["sentence"]
    assert gate_headline(many) == "conversion proven"
    assert "too few" not in many["sentence"]


@pytest.mark.parametrize("num_pictures", [10, 100, 1_000])
def test_a_gate_that_failed_is_never_called_passed(num_pictures: int) -> None:
    gate = {**gate_without_flips(num_pictures), "passed": False}
    assert gate_state(gate) is GateState.FAILED
    assert gate_headline(gate, "a board") == "gate failed for a board"
