import numpy as np
import pytest

from dfkd_edge.results.confidence import FittedConfidence, pooled
from dfkd_edge.results.ladder import Ladder
from dfkd_edge.results.wording import Metric
from dfkd_edge.validation.confidence import reliability
from tests.fixtures.ladders import confidence, figures, ladder, rung

KEPT = confidence(temperature=4.0, fitted_temperature=4.0)
DROPPED = confidence(temperature=1.0, fitted_temperature=0.61, ece_after=0.153)


def measured(share_right: float, fitted: FittedConfidence, metric: Metric = "top1") -> Ladder:
    """A rung that is 95 % sure of everything."""
    logits_NK = np.tile([3.0, 0.0], (100, 1))
    right_N = np.arange(100) < 100 * share_right
    part = figures(
        reliability=reliability(logits_NK, right_N),
        reliability_scaled=reliability(logits_NK, right_N, fitted.temperature),
    )
    return ladder(
        rung("onnx-int8", {"photo": part, "sketch": part}), metric=metric, confidence=fitted
    )


@pytest.mark.parametrize(("share", "did"), [(0.95, "worse"), (0.6, "no worse")])
def test_labelled_pictures_tell_what_temperature_did_to_them(share: float, did: str) -> None:
    said = measured(share, KEPT).temperature_effect()
    assert f"temperature made the confidences {did}: calibration error" in said
    assert measured(share, DROPPED).temperature_effect() == ""
    assert measured(share, KEPT, "agreement").temperature_effect() == ""


def test_bins_of_domains_are_pooled_by_their_images() -> None:
    one = measured(0.6, KEPT)
    both = one.reliability(one.shipped)
    alone = one.shipped.domains["photo"].reliability
    assert both is not None
    assert both.ece == pytest.approx(alone.ece)
    assert sum(row[0] for row in both.bins) == 200
    assert pooled([alone, None]) is None


def test_the_fit_says_whether_it_is_kept_and_on_what_it_counts() -> None:
    assert (KEPT.is_kept, DROPPED.is_kept) == (True, False)
    for fitted in (KEPT, DROPPED):
        assert "by the class asked for, on 600 clean and corrupted views of" in fitted.sentence()
    assert "that of the best fit, 0.61, is not kept" in DROPPED.sentence()


def test_the_threshold_is_stated_with_how_well_it_tells_strangers_apart() -> None:
    able = confidence(reject_threshold=0.4213, unknown_auroc=0.807)
    assert able.unknown_sentence().startswith('below 0.421 the answer is "unknown"; ')
    assert "AUROC 0.81" in able.unknown_sentence()
    assert "AUROC" not in confidence(unknown_auroc=None).unknown_sentence()
    assert "no answer is unknown" in confidence(reject_threshold=0.0).unknown_sentence()
