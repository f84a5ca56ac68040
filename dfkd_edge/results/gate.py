"""The gate: what was lost between the FP32 student and the last rung, and what follows."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from dfkd_edge.errors import GateFailedError
from dfkd_edge.results.codec import Documented
from dfkd_edge.results.wording import METRICS, UNITS, Metric, points_text, shown_text
from dfkd_edge.runtime.counting import counted
from dfkd_edge.runtime.share_interval import is_too_wide


class GateState(StrEnum):
    """What a gate's pictures allow to say."""

    OFF = "off"  # The limit is so large that nothing can fail
    FAILED = "failed"
    DOUBTFUL = "doubtful"  # Passed, but so few pictures tell nothing
    PASSED = "passed"  # The measured loss is within the limit; its interval reaches beyond
    PROVEN = "proven"  # All of the interval is within the limit


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate(Documented):
    """The verdict on the last rung, in the domain where it loses most."""

    passed: bool
    is_off: bool
    """Whether nothing can fail: the FP32 student has no more to lose than the limit allows."""
    max_drop: float  # Largest loss that passes, a share
    drop: float  # Loss in the worst domain, a share; negative is a gain
    interval: tuple[float, float]
    domain: str
    rung: str
    reference: str  # The rung that it is compared with
    metric: Metric
    num_lost: int
    num_won: int
    num_images: int
    num_pictures: int
    p_value: float
    is_within_noise: bool

    @property
    def state(self) -> GateState:
        """What may be said."""
        if self.is_off:
            return GateState.OFF
        if not self.passed:
            return GateState.FAILED
        if is_too_wide(*self.interval):
            return GateState.DOUBTFUL
        return GateState.PASSED if self.interval[1] > self.max_drop else GateState.PROVEN

    @property
    def word(self) -> str:
        """What it decided; a gate that nothing can fail decides nothing."""
        if self.is_off:
            return f"off, for {self.off_reason}"
        return "passed" if self.passed else "FAILED"

    @property
    def doubt(self) -> str:
        """What its pictures are too few for; empty where they suffice."""
        if self.is_off:
            return ""
        few = f"too few {UNITS[self.metric]}s to"
        if is_too_wide(*self.interval):
            return f"{few} tell"
        if self.state is GateState.PASSED:
            return f"{few} exclude a loss above the {100 * self.max_drop:g}-point limit"
        return ""

    @property
    def off_reason(self) -> str:
        """Why nothing can fail it."""
        if self.max_drop >= 1:
            return f"its limit of {points_text(self.max_drop)} lets every loss pass"
        right = "right" if self.metric == "top1" else "in agreement with the teacher"
        share = points_text(self.max_drop)
        return f"the FP32 student is {right} on no more than the {share} that it may lose"

    @property
    def advice(self) -> str:
        """What to do where it failed; the bundle lies there, so another one needs --exist-ok."""
        ways = ["--precision fp16"] * self.rung.endswith("int8") + ["a larger --max-drop"]
        more = {
            "top1": "check with more pictures",
            # of held-out images: who has names alone has no others
            "agreement": "distill into another folder with a larger --set effort=, which holds "
            "more out",
        }[self.metric]
        doubt = f"{more}, for the loss is within noise; or " * self.is_within_noise
        return f"{doubt}export with --exist-ok and {' or '.join(ways)}"

    def headline(self, target: str = "") -> str:
        """Name what it decided, no firmer than its pictures allow."""
        whose = f" for {target}" if target else ""
        if self.state is GateState.OFF:
            return f"gate off{whose}: {self.off_reason}"
        if self.state is GateState.FAILED:
            return f"gate failed{whose}"
        is_proven = self.state is GateState.PROVEN
        return f"conversion proven{whose}" if is_proven else f"gate passed{whose}, {self.doubt}"

    def sentence(self) -> str:
        """Say all of it in one line."""
        figure, noun = METRICS[self.metric], UNITS[self.metric]
        allowed = f"allowed {points_text(self.max_drop)}"
        allowed += ", and there is no more to lose" * self.is_off
        shown = shown_text(self.num_images, self.num_pictures, noun)
        of_views = " of views" * (self.num_images > self.num_pictures)  # none of those shown whole
        against = f"against the FP32 student on its worst domain{of_views}, {self.domain}"
        low, high = (100 * end for end in self.interval)
        if not (self.num_lost or self.num_won):
            return (
                f"{self.rung} loses no points of {figure} {against}: no answer of {shown} became "
                f"right or wrong, which does not exclude a loss of up to {high:.1f} points (95%); "
                f"{allowed}"
            )
        noise = ", within noise" * self.is_within_noise
        lost = f"{'loses' if self.drop >= 0 else 'gains'} {abs(self.drop) * 100:.2f}"
        few = f": {self.doubt}" if self.doubt else ""
        unit = "view" if self.num_images > self.num_pictures else noun
        return (
            f"{self.rung} {lost} points of {figure} (95% interval of the loss {low:+.1f} to "
            f"{high:+.1f}, {shown}{few}) {against} ({counted(self.num_lost, unit)} lost, "
            f"{self.num_won} won, p = {self.p_value:.2g} by {noun}{noise}); {allowed}"
        )

    def require_passed(self, bundle: Path) -> None:
        """Stop with exit code 3 when it has failed.

        Raises:
            GateFailedError: it has; the bundle is kept and named.
        """
        if not self.passed:
            hint = f"the bundle is kept, marked failed; {self.advice}"
            what = f"{self.rung} loses {100 * self.drop:.2f} points on {self.domain}"
            allowed = f"{points_text(self.max_drop)} allowed"
            raise GateFailedError(f"gate failed: {what}, {allowed}", where=str(bundle), hint=hint)
