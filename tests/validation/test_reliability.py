import numpy as np
import pytest

from dfkd_edge.validation.confidence import NUM_BINS, confusion, reliability


def test_confusion_counts_every_answer_once_and_no_answer_nowhere() -> None:
    expected, guess = np.array([0, 0, 1, 1, 1]), np.array([0, 1, 1, 1, -1])
    table = confusion(expected, guess, ("dog", "cat"))
    assert table == {"dog": {"dog": 1, "cat": 1}, "cat": {"cat": 2}}
    assert confusion(expected[:0], guess[:0], ("dog", "cat")) == {}


def test_a_confidence_that_is_true_has_no_calibration_error() -> None:
    chance = np.full(1000, 0.75)
    logits = np.stack([np.log(chance), np.log(1 - chance)], 1)
    right = np.arange(1000) % 4 != 0
    found = reliability(logits, right)
    assert found.ece == pytest.approx(0, abs=1e-9)
    count, confidence, share = found.bins[7]
    assert (count, share) == (1000, 0.75)
    assert confidence == pytest.approx(0.75)
    assert sum(count for count, _, _ in found.bins) == 1000
    assert len(found.bins) == NUM_BINS


def test_temperature_softens_and_broken_logits_are_left_out() -> None:
    logits = np.array([[9.0, 0.0], [9.0, 0.0], [np.nan, 0.0]])
    right = np.array([True, False, True])
    sharp, soft = reliability(logits, right), reliability(logits, right, temperature=100.0)
    assert sharp.ece == pytest.approx(0.5, abs=1e-3)
    assert soft.ece is not None
    assert soft.ece < 0.05
    assert sum(count for count, _, _ in sharp.bins) == 2
    assert reliability(logits[2:], right[2:]).ece is None
