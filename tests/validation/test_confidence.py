from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dfkd_edge.results.confidence import FittedConfidence
from dfkd_edge.runtime.confidence import Confidence, read_confidence
from dfkd_edge.runtime.faults import Fault
from dfkd_edge.validation.confidence import (
    NUM_BINS,
    best_temperature,
    confusion,
    fit,
    reliability,
    unknown_auroc,
)


def fit_apart(logits_NK: np.ndarray, label_N: np.ndarray) -> FittedConfidence:
    """Fit on clean images, each of a picture of its own."""
    return fit(logits_NK, label_N, np.ones(len(label_N), bool), np.arange(len(label_N)))


def sampled(num: int, scale: float, num_classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Logits whose softmax is the truth, times a scale, and labels drawn from the truth."""
    rng = np.random.default_rng(0)
    logits_NK = rng.normal(0, 2, (num, num_classes))
    probability_NK = Confidence().probabilities(logits_NK)
    label_N = np.array([rng.choice(num_classes, p=p) for p in probability_NK])
    return logits_NK * scale, label_N


@pytest.mark.parametrize("scale", [0.5, 1.0, 6.0])
def test_the_temperature_undoes_a_scale(scale: float) -> None:
    logits_NK, label_N = sampled(4000, scale)
    assert best_temperature(logits_NK, label_N) == pytest.approx(scale, rel=0.08)


def test_scaling_mends_an_overconfident_model_and_rejects_few_right_answers() -> None:
    logits_NK, label_N = sampled(4000, 6.0)
    fitted = fit_apart(logits_NK, label_N)
    assert (fitted.ece_after or 1) < (fitted.ece_before or 0) / 3
    confidence = Confidence(fitted.temperature, fitted.reject_threshold)
    right_N = logits_NK.argmax(1) == label_N
    assert (~confidence.is_known(logits_NK[right_N])).mean() == pytest.approx(0.05, abs=0.01)


def test_a_temperature_that_spoils_pictures_it_was_not_fitted_on_is_not_kept() -> None:
    logits_NK, label_N = sampled(400, 1.0)
    pictures = np.arange(400) % 2  # each asks for a temperature that is wrong for the other
    logits_NK *= np.where(pictures == 1, 12.0, 0.5)[:, None]
    fitted = fit(logits_NK, label_N, np.ones(400, bool), pictures)
    assert fitted.fitted_temperature == pytest.approx(best_temperature(logits_NK, label_N))
    assert fitted.fitted_temperature > 2
    assert fitted.temperature == 1.0
    by_other = [best_temperature(logits_NK[pictures != n], label_N[pictures != n]) for n in (0, 1)]
    scaled_NK = logits_NK / np.array(by_other)[pictures][:, None]
    right_N = logits_NK.argmax(1) == label_N
    assert fitted.ece_before == reliability(logits_NK, right_N).ece
    assert fitted.ece_after == pytest.approx(reliability(scaled_NK, right_N).ece)
    assert "temperature 1: that of the best fit" in fitted.sentence()


def test_a_lower_log_loss_alone_keeps_no_temperature() -> None:
    rng = np.random.default_rng(0)
    wild_N = rng.random(4000) < 0.02  # few, but so surely wrong that they outweigh all others
    right_N = ~wild_N & (rng.random(4000) < 1 / (1 + np.exp(-3)))
    margin_N = np.where(wild_N, 40.0, 3.0)
    logits_NK = np.stack([margin_N, np.zeros(4000)], 1)
    fitted = fit_apart(logits_NK, (~right_N).astype(int))
    assert (fitted.log_loss_after or 9) < (fitted.log_loss_before or 0)
    assert (fitted.ece_after or 0) > (fitted.ece_before or 1)
    assert fitted.temperature == 1.0


def test_answers_that_are_all_right_ask_for_no_temperature() -> None:
    margin_N = np.linspace(1, 9, 200)
    logits_NK = np.stack([margin_N, np.zeros(200)], 1)
    fitted = fit_apart(logits_NK, np.zeros(200, np.int64))
    assert (fitted.temperature, fitted.fitted_temperature) == (1.0, 1.0)
    assert Confidence(1.0, fitted.reject_threshold).is_known(np.array([[2.0, 0.0]])).all()


def test_one_picture_or_none_fits_no_temperature() -> None:
    logits_NK, label_N = sampled(40, 6.0)
    alone = fit(logits_NK, label_N, np.ones(40, bool), np.zeros(40, int))
    assert (alone.num_images, alone.num_pictures) == (40, 1)
    assert "on 40 clean and corrupted views of 1 surrogate image," in alone.sentence()
    none = fit_apart(logits_NK[:0], label_N[:0])
    assert (alone.temperature, none.temperature, none.ece_before) == (1.0, 1.0, None)
    assert none.sentence().endswith("no image to fit it on")


def test_strangers_are_told_apart_only_if_logits_say_so() -> None:
    label_N = np.arange(300) % 3
    clear_NK = 8.0 * np.eye(3)[label_N]
    noise_NK = np.random.default_rng(0).normal(size=(300, 3))
    clear, noise = unknown_auroc(clear_NK, label_N), unknown_auroc(noise_NK, label_N)
    assert clear == 1.0
    assert noise == pytest.approx(0.5, abs=0.06)
    assert unknown_auroc(clear_NK[:, :2], label_N % 2) is None


def test_logits_that_are_no_numbers_are_left_out() -> None:
    logits_NK, label_N = sampled(500, 1.0)
    logits_NK[7] = np.nan
    fitted = fit_apart(logits_NK, label_N)
    assert fitted.num_images == 499
    assert np.isfinite(fitted.temperature)


@pytest.mark.parametrize(
    "fitted",
    [
        {"temperature": 0, "reject_threshold": 0.5},
        {"temperature": float("nan"), "reject_threshold": 0.5},
        {"temperature": 1, "reject_threshold": 2},
        {"temperature": 1},
        "hot",
    ],
)
def test_damaged_confidence_is_a_fault_and_none_at_all_always_answers(fitted: Any) -> None:
    assert read_confidence(None, Path("m")).is_known(np.zeros((2, 5))).all()
    with pytest.raises(Fault, match="confidence"):
        read_confidence(fitted, Path("manifest.json"))


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
    assert found.bins[7] == pytest.approx((1000, 0.75, 0.75))
    assert sum(count for count, _, _ in found.bins) == 1000
    assert len(found.bins) == NUM_BINS


def test_temperature_softens_and_broken_logits_are_left_out() -> None:
    logits = np.array([[9.0, 0.0], [9.0, 0.0], [np.nan, 0.0]])
    right = np.array([True, False, True])
    sharp, soft = reliability(logits, right), reliability(logits, right, temperature=100.0)
    assert sharp.ece == pytest.approx(0.5, abs=1e-3)
    assert 0 < (soft.ece or 0) < 0.05
    assert sum(count for count, _, _ in sharp.bins) == 2
    assert reliability(logits[2:], right[2:]).ece is None
