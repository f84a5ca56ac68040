"""The gate: how much the last rung may lose against the FP32 student, in its worst domain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dfkd_edge.errors import GateFailedError
from dfkd_edge.results.certainty import (
    MEASURES,
    UNITS,
    failed_gate_advice,
    gate_doubt,
    points_text,
    shown_text,
)
from dfkd_edge.runtime.counting import counted
from dfkd_edge.validation.evaluation_images import Measure
from dfkd_edge.validation.ladder import STUDENT, Predictions
from dfkd_edge.validation.statistics import PairedDrop

ROUNDING = 1e-9
"""A drop of exactly the limit passes, whatever binary fractions make of it."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the gate says and why."""

    passed: bool
    max_drop: float
    domain: str
    """Where the last rung loses most."""
    rung: str
    """The rung that is judged."""
    measure: Measure
    loss: PairedDrop
    """Against the FP32 student, in that domain."""
    is_off: bool = False
    """Whether the FP32 student has no more to lose, in any domain, than the limit allows."""

    @property
    def drop(self) -> float:
        """Loss in the worst domain, absolute; negative is a gain."""
        return self.loss.drop.mean

    def document(self) -> dict[str, Any]:
        """Describe the verdict; the `gate` of `check --json`."""
        return {
            "passed": self.passed,
            "off": self.is_off,
            "max_drop": self.max_drop,
            "drop": self.drop,
            "interval": [self.loss.drop.low, self.loss.drop.high],
            "domain": self.domain,
            "rung": self.rung,
            "reference": STUDENT,
            "measure": self.measure,
            "num_lost": self.loss.num_lost,
            "num_won": self.loss.num_won,
            "num_images": self.loss.num_images,
            "num_pictures": self.loss.num_pictures,
            "p_value": self.loss.p_value,
            "within_noise": self.loss.is_within_noise,
            "sentence": self.sentence(),
        }

    def sentence(self) -> str:
        """Say it in one line."""
        figure, noun, loss = MEASURES[self.measure], UNITS[self.measure], self.loss
        allowed = f"allowed {points_text(self.max_drop)}"
        allowed += ", and there is no more to lose" * self.is_off
        shown = shown_text(loss.num_images, loss.num_pictures, noun)
        against = f"against the FP32 student on its worst domain, {self.domain}"
        low, high = loss.drop.low, loss.drop.high
        if not (loss.num_lost or loss.num_won):
            up_to = f"a loss of up to {high * 100:.1f} points"
            return (
                f"{self.rung} loses no points of {figure} {against}: no answer of {shown} became "
                f"right or wrong, which does not exclude {up_to} (95%); {allowed}"
            )
        noise = ", within noise" if self.loss.is_within_noise else ""
        lost = f"{'loses' if self.drop >= 0 else 'gains'} {abs(self.drop) * 100:.2f}"
        judged = {
            "passed": self.passed,
            "off": self.is_off,
            "max_drop": self.max_drop,
            "measure": self.measure,
            "interval": (low, high),
        }
        doubt = gate_doubt(judged)
        few = f": {doubt}" if doubt else ""
        unit = "view" if loss.num_images > loss.num_pictures else noun
        return (
            f"{self.rung} {lost} points of {figure} (95% interval of the loss {low * 100:+.1f} to "
            f"{high * 100:+.1f}, {shown}{few}) {against} ({counted(loss.num_lost, unit)} lost, "
            f"{loss.num_won} won, p = {loss.p_value:.2g} by {noun}{noise}); {allowed}"
        )


def judge(predictions: Predictions, max_drop: float) -> Verdict:
    """Compare the last rung with the FP32 student, domain by domain.

    A domain in which the teacher collapses counts, too: hardly any loss shows there, but one that
    does is real, and the worst domain decides, so it hides none of another.
    """
    final = predictions.rungs[-1]
    losses = {domain: predictions.drop(STUDENT, final, domain) for domain in predictions.judged}
    worst = max(losses, key=lambda domain: losses[domain].drop.mean)
    measure, allowed = predictions.measure, max_drop + ROUNDING
    passed = losses[worst].drop.mean <= allowed
    parts = (predictions.domains[domain] for domain in predictions.judged)
    to_lose = max(part.right(STUDENT, measure).mean() for part in parts)
    is_off = bool(to_lose <= allowed)
    return Verdict(passed, max_drop, worst, final, measure, losses[worst], is_off)


def require_passed(gate: Mapping[str, Any], bundle: Path) -> None:
    """Stop with exit code 3 when the gate has failed.

    Args:
        gate: what `Verdict.document` wrote.
        bundle: named in the error.

    Raises:
        GateFailedError: it has; the bundle is kept.
    """
    if gate["passed"]:
        return
    raise GateFailedError(
        f"gate failed: {gate['sentence']}",
        where=str(bundle),
        hint=f"the bundle is kept, marked failed; {failed_gate_advice(gate)}",
    )
