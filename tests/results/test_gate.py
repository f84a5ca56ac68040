import dataclasses
from pathlib import Path

import numpy as np
import pytest

from dfkd_edge.errors import GateFailedError
from dfkd_edge.results.gate import Gate, GateState
from dfkd_edge.results.wording import Metric
from dfkd_edge.runtime.share_interval import TOO_FEW
from dfkd_edge.validation.statistics import PairedDrop, paired_drop
from tests.fixtures.ladders import gate


def judged(loss: PairedDrop, metric: Metric = "top1", domain: str = "photo") -> Gate:
    return gate(
        drop=loss.drop.mean, interval=(loss.drop.low, loss.drop.high), domain=domain, metric=metric,
        num_lost=loss.num_lost, num_won=loss.num_won, num_images=loss.num_images,
        num_pictures=loss.num_pictures, p_value=loss.p_value, is_within_noise=loss.is_within_noise,
    )  # fmt: skip


def without_flips(num_pictures: int) -> Gate:
    correct = np.ones(num_pictures, bool)
    return judged(paired_drop(correct, correct, np.arange(num_pictures)))


def test_a_sentence_counts_in_one_unit() -> None:
    before, after = np.ones(1_200, bool), np.arange(1_200) >= 3
    views = judged(paired_drop(before, after, np.arange(1_200) // 2), "agreement", "noise")
    assert "1,200 views of 600 images" in views.sentence()
    assert "(3 views lost, 0 won" in views.sentence()
    assert "picture" not in views.sentence()
    pictures = judged(paired_drop(before, after)).sentence()
    assert "(3 pictures lost, 0 won" in pictures
    assert "image" not in pictures


@pytest.mark.parametrize("num_pictures", [10, 1_000])
def test_a_gate_that_nothing_can_fail_is_off_and_not_passed(num_pictures: int) -> None:
    off = dataclasses.replace(without_flips(num_pictures), max_drop=1.0, is_off=True)
    assert off.state is GateState.OFF
    assert off.headline("a board").startswith("gate off for a board: its limit of 100 points")
    nothing_right = dataclasses.replace(off, max_drop=0.01)
    assert "is right on no more than the 1 point" in nothing_right.headline()


def test_a_conversion_is_proven_once_its_interval_lies_within_the_limit() -> None:
    few, some, many = (without_flips(num) for num in (10, 100, 1_000))
    states = (GateState.DOUBTFUL, GateState.PASSED, GateState.PROVEN)
    assert (few.state, some.state, many.state) == states
    assert few.headline("a board") == f"gate passed for a board, {TOO_FEW}"
    assert some.doubt == "too few pictures to exclude a loss above the 1-point limit"
    assert many.doubt == ""


@pytest.mark.parametrize("num_pictures", [10, 100, 1_000])
def test_a_gate_that_failed_is_never_called_passed(num_pictures: int) -> None:
    failed = dataclasses.replace(without_flips(num_pictures), passed=False)
    assert (failed.state, failed.word) == (GateState.FAILED, "FAILED")
    with pytest.raises(GateFailedError, match="gate failed: onnx-int8 loses") as caught:
        failed.require_passed(Path("bundle"))
    assert caught.value.exit_code == 3
    assert len(str(caught.value)) < 250  # the panel above it has all of it


def test_a_gate_of_fp16_is_not_sent_to_fp16() -> None:
    fp16, int8 = gate(rung="onnx-fp16", passed=False), gate(passed=False, is_within_noise=False)
    assert "--precision" not in fp16.advice
    assert fp16.advice.startswith("check with more pictures")
    of_names_alone = gate(passed=False, metric="agreement")
    assert of_names_alone.advice.startswith(
        "distill into another folder with a larger --set effort"
    )
    assert int8.advice == "export with --exist-ok and --precision fp16 or a larger --max-drop"
