"""The gate: how much the last rung may lose against the FP32 student, in its worst domain."""

from dfkd_edge.results.gate import Gate
from dfkd_edge.results.ladder import STUDENT
from dfkd_edge.validation.ladder import Predictions

ROUNDING = 1e-9  # A drop of exactly the limit passes, whatever binary fractions make of it


def judge(predictions: Predictions, max_drop: float) -> Gate:
    """Compare the last rung with the FP32 student, domain by domain.

    A domain in which the teacher collapses counts, too: hardly any loss shows there, but one that
    does is real, and the worst domain decides, so it hides none of another.
    """
    final, metric = predictions.rungs[-1], predictions.metric
    losses = {domain: predictions.drop(STUDENT, final, domain) for domain in predictions.judged}
    worst = max(losses, key=lambda domain: losses[domain].drop.mean)
    loss, allowed = losses[worst], max_drop + ROUNDING
    parts = (predictions.domains[domain] for domain in predictions.judged)
    to_lose = max(part.right(STUDENT, metric).mean() for part in parts)
    return Gate(
        passed=loss.drop.mean <= allowed,
        is_off=bool(to_lose <= allowed),
        max_drop=max_drop,
        drop=loss.drop.mean,
        interval=(loss.drop.low, loss.drop.high),
        domain=worst,
        rung=final,
        reference=STUDENT,
        metric=metric,
        num_lost=loss.num_lost,
        num_won=loss.num_won,
        num_images=loss.num_images,
        num_pictures=loss.num_pictures,
        p_value=loss.p_value,
        is_within_noise=loss.is_within_noise,
    )
