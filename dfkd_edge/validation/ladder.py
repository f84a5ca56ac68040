"""The conversion ladder: teacher -> student -> onnx-fp32 -> onnx-int8 -> engine, on equal images.

Every rung sees the same images in the same order, so each loss is a paired comparison and belongs
to one rung: the one after which it is there and before which it is not.

Shape suffixes: N images, K classes.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dfkd_edge.interfaces import Progress, Runner
from dfkd_edge.machine.doctor import describe_environment
from dfkd_edge.pictures.labelled import no_readable_picture
from dfkd_edge.results.gate import Gate
from dfkd_edge.results.ladder import (
    START,
    STUDENT,
    TEACHER,
    Collapse,
    DomainFigures,
    Ladder,
    MeasuredRung,
    StepLoss,
)
from dfkd_edge.results.wording import Metric
from dfkd_edge.validation.confidence import confusion, reliability
from dfkd_edge.validation.evaluation_images import EvaluationSet, refuse_leakage
from dfkd_edge.validation.predictions import (
    DomainPredictions,
    Logits,
    Predictions,
)
from dfkd_edge.validation.statistics import (
    mean_divergence,
    share_interval,
)

BATCH_SIZE = 32  # Images that are in memory at a time, at every rung's size
ROUNDING = 1e-9  # A drop of exactly the limit passes, whatever binary fractions make of it


@dataclass(frozen=True, slots=True)
class Rung:
    """One step of the ladder: a model that can be run."""

    name: str
    runner: Runner
    side_px: int  # Side of the images that the runner is given
    size_bytes: int | None = None
    latency_ms: float | None = None  # Median, one image
    latency_caveats: tuple[str, ...] = ()
    """Why that time may mislead, or why there is none; a sentence each."""
    onnx_latency_ms: float | None = None
    """Of the teacher, which is no conversion: the same as an FP32 graph in ONNX Runtime."""
    onnx_latency_caveats: tuple[str, ...] = ()  # Why that one may mislead


def climb(
    rungs: Sequence[Rung],
    evaluation: EvaluationSet,
    calibrated: frozenset[str],
    progress: Progress,
) -> Predictions:
    """Show every image to every rung.

    Args:
        rungs: in the order of the ladder.
        evaluation: the images.
        calibrated: digests of the images that set activation ranges, at the last rung's size.
        progress: moves on by images.

    Raises:
        ConfigError: a calibration image is among them, or no picture of a domain can be read.
    """
    domains: dict[str, DomainPredictions] = {}
    unreadable: list[Path] = []
    for source in evaluation.sources:
        labels, pictures = [], []
        logits: dict[str, list[Logits]] = {rung.name: [] for rung in rungs}
        for batch in source.batches(BATCH_SIZE, unreadable):
            refuse_leakage(batch.at(rungs[-1].side_px), calibrated, source.name)  # as calibrated
            for rung in rungs:
                logits[rung.name].append(rung.runner(batch.at(rung.side_px)).logits)
            labels.append(batch.labels)
            pictures.append(batch.pictures)
            progress.advance(len(batch.labels), source.name)
        if not labels:
            raise no_readable_picture(source.name, unreadable)
        part = DomainPredictions(
            np.concatenate(labels),
            np.concatenate(pictures),
            {name: np.concatenate(parts) for name, parts in logits.items()},
        )
        known = domains.get(source.name)
        domains[source.name] = known.extended(part) if known else part
    return Predictions(evaluation.metric, domains, unreadable)


def _domain_figures(
    part: DomainPredictions,
    rung: str,
    previous: str | None,
    metric: Metric,
    class_names: Sequence[str],
    temperature: float | None,
) -> DomainFigures:
    top1 = share_interval(part.right(rung, "top1"), part.pictures)
    agreement = share_interval(part.right(rung, "agreement"), part.pictures)
    logits_NK, counted_N = part.logits[rung], part.right(rung, metric)
    scaled = reliability(logits_NK, counted_N, temperature) if temperature is not None else None
    return DomainFigures(
        num_images=len(part.labels),
        num_pictures=len(np.unique(part.pictures)),
        top1=top1.mean,
        top1_interval=(top1.low, top1.high),
        agreement=agreement.mean,
        agreement_interval=(agreement.low, agreement.high),
        kl_to_previous=mean_divergence(part.logits[previous], logits_NK) if previous else None,
        num_nan=int((~np.isfinite(logits_NK).all(1)).sum()),
        confusion=confusion(part.expected(metric), part.guess(rung), class_names),
        reliability=reliability(logits_NK, counted_N),
        reliability_scaled=scaled,
    )


def measured_rung(
    rung: Rung,
    predictions: Predictions,
    class_names: Sequence[str],
    temperature: float | None = None,
) -> MeasuredRung:
    """Turn what one rung said into figures, beside the rung before it."""
    names, domains = predictions.rungs, {}
    position = names.index(rung.name)
    previous = names[position - 1] if position else None
    for key, part in predictions.domains.items():
        metric = predictions.metric_of(key)
        domains[key] = _domain_figures(part, rung.name, previous, metric, class_names, temperature)
    shares = {key: domains[key].share(predictions.metric) for key in predictions.averaged}
    has_labels = predictions.metric == "top1"
    mean, difference = predictions.mean_share(rung.name), None
    if previous and previous != TEACHER:  # a student is no conversion of its teacher
        difference = max(
            float(np.nan_to_num(np.abs(p.logits[rung.name] - p.logits[previous]), nan=np.inf).max())
            for p in predictions.domains.values()
        )
    return MeasuredRung(
        name=rung.name,
        domains=domains,
        mean_top1=float(np.mean(list(shares.values()))) if has_labels else None,
        mean_agreement=float(np.mean([domains[key].agreement for key in predictions.averaged])),
        worst_domain=min(shares, key=shares.__getitem__),
        mean_interval=(mean.low, mean.high),
        size_bytes=rung.size_bytes,
        latency_ms=rung.latency_ms,
        onnx_latency_ms=rung.onnx_latency_ms,
        latency_caveats=rung.latency_caveats,
        onnx_latency_caveats=rung.onnx_latency_caveats,
        max_logit_difference=difference,
    )


def step_loss(before: str, after: str, predictions: Predictions) -> StepLoss:
    """Compare two rungs on the same images."""
    drops = {d: predictions.drop(before, after, d).drop.mean for d in predictions.judged}
    mean = predictions.drop(before, after, *predictions.averaged)
    worst = max(drops, key=drops.__getitem__)
    return StepLoss(
        rung=after,
        previous=before,
        drop=mean.drop.mean,
        interval=(mean.drop.low, mean.drop.high),
        worst_domain=worst,
        worst_drop=drops[worst],
        num_lost=mean.num_lost,
        num_won=mean.num_won,
        p_value=mean.p_value,
        is_within_noise=mean.is_within_noise,
    )


def summarise(
    class_names: Sequence[str],
    rungs: Sequence[Rung],
    predictions: Predictions,
    temperature: float | None = None,
) -> Ladder:
    """Turn what every rung said into figures, without the gate."""
    losses = [step_loss(*pair, predictions) for pair in itertools.pairwise(predictions.rungs)]
    conversions = [loss for loss in losses if loss.rung not in (STUDENT, START) and loss.drop > 0]
    charged = max(conversions, key=lambda loss: loss.drop, default=None)
    return Ladder(
        classes=tuple(class_names),
        metric=predictions.metric,
        rungs=tuple(measured_rung(rung, predictions, class_names, temperature) for rung in rungs),
        losses=tuple(losses),
        charged_to=charged.rung if charged else None,
        num_unreadable=len(predictions.unreadable),
        mean_over=predictions.averaged,
        collapsed={
            name: Collapse(answer=class_names[answer], share=share)
            for name, (answer, share) in predictions.collapsed.items()
        },
        environment=describe_environment(),
    )


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
