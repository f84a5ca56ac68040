"""What was fitted for the confidences of a bundle: a temperature and a reject threshold.

Reads the documents of `export` and `check`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dfkd_edge.results.certainty import CLEAN_AND_CORRUPTED, domains_of, measure_of, shown_text

Document = Mapping[str, Any]


def pooled_reliability(document: Document, rung: Document, key: str) -> dict[str, Any] | None:
    """Bins of all domains together: `ece`, `bins`, `temperature`; None where not measured.

    Args:
        document: that holds the rung.
        rung: whose confidences are asked for.
        key: `reliability`, or `reliability_scaled` for those after temperature.
    """
    parts = [rung["domains"][domain].get(key) for domain in domains_of(document)]
    if not all(part and part["ece"] is not None for part in parts):
        return None
    return _pooled([part for part in parts if part])


def _pooled(parts: Sequence[Document]) -> dict[str, Any]:
    bins: list[list[Any]] = []
    error, total = 0.0, sum(row[0] for part in parts for row in part["bins"])
    for rows in zip(*(part["bins"] for part in parts), strict=True):
        count = sum(row[0] for row in rows)
        if not count:
            bins.append([0, None, None])
            continue
        confidence, right = (
            sum(row[0] * row[column] for row in rows if row[0]) / count for column in (1, 2)
        )
        bins.append([count, confidence, right])
        error += count / total * abs(confidence - right)
    return {"temperature": parts[0]["temperature"], "ece": error, "bins": bins}


def error_text(before: float, after: float) -> str:
    """Two calibration errors that nobody takes for an interval."""
    return f"{before:.3f} before, {after:.3f} after temperature"


def is_kept(fitted: Document) -> bool:
    """Whether the bundle uses the temperature that was fitted."""
    return bool(fitted["temperature"] == fitted.get("fitted_temperature", fitted["temperature"]))


def fit_sentence(fitted: Document) -> str:
    """Say which temperature a bundle uses and why.

    Args:
        fitted: the `confidence` of a bundle.
    """
    if fitted["ece_before"] is None:
        return "temperature 1: there was no image to fit it on"
    error = f"calibration error {error_text(fitted['ece_before'], fitted['ece_after'])}"
    shown = f"{fitted_on(fitted)}, each at a temperature fitted on others"
    where = f"by the class asked for, on {shown}"
    if is_kept(fitted):
        return f"temperature {fitted['temperature']:.2f}: {error}, {where}"
    loss = f"{fitted['log_loss_before']:.3f} before, {fitted['log_loss_after']:.3f} after"
    return (
        f"temperature 1: that of the best fit, {fitted['fitted_temperature']:.2f}, is not kept, "
        f"for it does not lower both calibration error and log-loss {where} ({error}; log-loss "
        f"{loss})"
    )


def fitted_on(fitted: Document) -> str:
    """Say on what a bundle's confidence was fitted; older bundles count no pictures."""
    num_views, num_pictures = fitted["num_images"], fitted.get("num_pictures")
    if num_pictures is None:
        return f"{num_views:,} {CLEAN_AND_CORRUPTED} views of surrogate images"
    return shown_text(num_views, num_pictures, "surrogate image", CLEAN_AND_CORRUPTED)


def effect_sentence(document: Document) -> str:
    """Say what the bundle's temperature did on labelled pictures; empty where it is 1.

    Surrogates tell nothing of it: it was fitted on them, and they are held against the teacher's
    answers where the fit asked for the class.
    """
    if measure_of(document) != "top1":
        return ""
    rung, fitted = document["rungs"][-1], document.get("confidence")
    before = pooled_reliability(document, rung, "reliability")
    after = pooled_reliability(document, rung, "reliability_scaled")
    if not (fitted and before and after) or fitted["temperature"] == 1:
        return ""
    did = "worse" if after["ece"] > before["ece"] else "no worse"
    return (
        f"on these pictures temperature made the confidences {did}: calibration error "
        f"{error_text(before['ece'], after['ece'])}"
    )


def unknown_sentence(fitted: Document) -> str:
    """Say when a bundle answers "unknown", and how well that tells strangers apart."""
    threshold, auroc = fitted["reject_threshold"], fitted.get("unknown_auroc")
    below = (
        f'below {threshold:.3f} the answer is "unknown"' if threshold else "no answer is unknown"
    )
    if auroc is None:
        return f"{below}; how well that tells strangers apart was not measured"
    return (
        f"{below}; on surrogate images, confidence puts a class whose output was removed below the "
        f"others with AUROC {auroc:.2f} (0.5 is chance)"
    )


def temperature_lines(document: Document) -> list[str]:
    """Make the lines of a closing panel on the temperature."""
    fitted, effect = document.get("confidence"), effect_sentence(document)
    lines = [f"confidence  {fit_sentence(fitted)}"] if fitted else []
    return [*lines, f"            {effect}"] if effect else lines


def unknown_lines(document: Document) -> list[str]:
    """Make the line of a closing panel on pictures of no class."""
    fitted = document.get("confidence")
    return [f"unknown     {unknown_sentence(fitted)}"] if fitted else []
