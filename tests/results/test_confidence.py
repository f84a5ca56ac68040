from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dfkd_edge.report.confidence import confidence_facts
from dfkd_edge.results.confidence import (
    effect_sentence,
    fit_sentence,
    temperature_lines,
    unknown_lines,
)
from dfkd_edge.validation.confidence import reliability

KEPT = {
    "temperature": 4.0,
    "fitted_temperature": 4.0,
    "ece_before": 0.072,
    "ece_after": 0.041,
    "log_loss_before": 0.5,
    "log_loss_after": 0.4,
    "num_images": 400,
    "num_pictures": 80,
    "reject_threshold": 0.5,
    "unknown_auroc": None,
}
DROPPED = {**KEPT, "temperature": 1.0, "fitted_temperature": 0.61, "ece_after": 0.153}


def document(share_right: float, fitted: dict[str, Any], measure: str = "top1") -> dict[str, Any]:
    """A rung that is 95 % sure of everything."""
    logits_NK = np.tile([3.0, 0.0], (100, 1))
    right_N = np.arange(100) < 100 * share_right
    figures = {
        "reliability": reliability(logits_NK, right_N),
        "reliability_scaled": reliability(logits_NK, right_N, fitted["temperature"]),
    }
    rungs = [{"name": "onnx-int8", "domains": {"photo": figures, "sketch": figures}}]
    return {"measure": measure, "rungs": rungs, "confidence": fitted}


@pytest.mark.parametrize(("share", "did"), [(0.95, "worse"), (0.6, "no worse")])
def test_labelled_pictures_tell_what_temperature_did_to_them(share: float, did: str) -> None:
    measured = document(share, KEPT)
    _, line = temperature_lines(measured)
    assert f"on these pictures temperature made the confidences {did}: calibration" in line
    assert " before, " in line
    assert " to " not in line
    assert effect_sentence(measured) in dict(confidence_facts(measured).pairs)["its effect above"]


def test_a_temperature_that_was_not_kept_is_said_and_has_no_effect() -> None:
    (line,) = temperature_lines(document(0.95, DROPPED))
    assert line.startswith("confidence  temperature 1: that of the best fit, 0.61, is not kept")
    assert "calibration error 0.072 before, 0.153 after temperature" in line
    assert fit_sentence(KEPT).startswith("temperature 4.00: calibration error 0.072 before, 0.041")


def test_the_fit_says_by_what_truth_and_on_what_images_it_counts() -> None:
    for fitted in (KEPT, DROPPED):
        said = fit_sentence(fitted)
        assert "by the class asked for, on 400 clean and corrupted views of 80 surr" in said
    older = {name: value for name, value in KEPT.items() if name != "num_pictures"}
    assert "on 400 clean and corrupted views of surrogate images, each" in fit_sentence(older)


def test_the_threshold_is_stated_with_how_well_it_tells_strangers_apart() -> None:
    able = {**KEPT, "reject_threshold": 0.4213, "unknown_auroc": 0.807}
    below = 'unknown     below 0.421 the answer is "unknown"; '
    told = (
        "on surrogate images, confidence puts a class whose output was removed below the others "
        "with AUROC 0.81 (0.5 is chance)"
    )
    assert unknown_lines(document(0.6, able)) == [below + told]
    assert "AUROC" not in unknown_lines(document(0.6, KEPT))[0]
    assert (
        "no answer is unknown" in unknown_lines(document(0.6, {**able, "reject_threshold": 0}))[0]
    )
    assert unknown_lines({**document(0.6, KEPT), "confidence": None}) == []


def test_images_that_were_fitted_on_prove_nothing() -> None:
    made = document(0.6, KEPT, "agreement")
    assert len(temperature_lines(made)) == 1
    assert "its effect above" not in dict(confidence_facts(made).pairs)
    assert temperature_lines({**document(0.6, KEPT), "confidence": None}) == []
