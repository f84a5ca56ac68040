"""What was fitted for the confidences of a bundle: a temperature and a reject threshold."""

from collections.abc import Sequence
from dataclasses import dataclass

from dfkd_edge.results.wording import CLEAN_AND_CORRUPTED, shown_text

Bin = tuple[int, float | None, float | None]
"""Images, mean confidence, share right; the latter two None where it is empty."""


@dataclass(frozen=True, slots=True)
class Reliability:
    """Confidence beside the share of right answers, bin by bin (Guo et al., ICML 2017)."""

    temperature: float
    ece: float | None  # Expected calibration error; None without an image
    bins: tuple[Bin, ...]  # Ten of equal width from 0 to 1


@dataclass(frozen=True, kw_only=True, slots=True)
class FittedConfidence:
    """What was fitted on all pictures, and what it buys on pictures that were not fitted on.

    Right is the class that was asked of the synthesizer, not the teacher's answer. The errors are
    cross-validated: each picture is measured at a temperature fitted on others.
    """

    temperature: float
    """Logits are divided by it; 1 where the fitted one does not lower both errors."""
    fitted_temperature: float  # The one with the least log-loss on all pictures
    reject_threshold: float  # Probability of the first class below which the answer is "unknown"
    ece_before: float | None  # Expected calibration error at temperature 1
    ece_after: float | None  # The same, each picture at the temperature fitted on others
    log_loss_before: float | None
    """Mean negative log-likelihood of the class asked for, at temperature 1."""
    log_loss_after: float | None  # The same, each picture at the temperature fitted on others
    unknown_auroc: float | None
    """Known against unknown pictures by confidence, each class left out in turn; 0.5 is chance."""
    num_images: int  # Surrogate images, clean and corrupted
    num_pictures: int  # Different ones among these

    @property
    def is_kept(self) -> bool:
        """Whether the bundle uses the temperature that was fitted."""
        return self.temperature == self.fitted_temperature

    @property
    def fitted_on(self) -> str:
        """On what it was fitted, in words."""
        kind = CLEAN_AND_CORRUPTED
        return shown_text(self.num_images, self.num_pictures, "surrogate image", kind)

    def sentence(self) -> str:
        """Say which temperature a bundle uses and why."""
        if self.ece_before is None or self.ece_after is None:
            return "temperature 1: there was no image to fit it on"
        error = f"calibration error {error_text(self.ece_before, self.ece_after)}"
        others = "each at a temperature fitted on others"
        where = f"by the class asked for, on {self.fitted_on}, {others}"
        if self.is_kept:
            return f"temperature {self.temperature:.2f}: {error}, {where}"
        loss = f"{self.log_loss_before:.3f} before, {self.log_loss_after:.3f} after"
        return (
            f"temperature 1: that of the best fit, {self.fitted_temperature:.2f}, is not kept, "
            f"for it does not lower both calibration error and log-loss {where} ({error}; log-loss "
            f"{loss})"
        )

    def unknown_sentence(self) -> str:
        """Say when a bundle answers "unknown", and how well that tells strangers apart."""
        limit = self.reject_threshold
        below = f'below {limit:.3f} the answer is "unknown"' if limit else "no answer is unknown"
        if self.unknown_auroc is None:
            return f"{below}; how well that tells strangers apart was not measured"
        return (
            f"{below}; on surrogate images, confidence puts a class whose output was removed below "
            f"the others with AUROC {self.unknown_auroc:.2f} (0.5 is chance)"
        )


def pooled(parts: Sequence[Reliability | None]) -> Reliability | None:
    """Join the bins of several domains; None where one was not measured."""
    whole = [part for part in parts if part is not None and part.ece is not None]
    if not parts or len(whole) < len(parts):
        return None
    bins: list[Bin] = []
    error, total = 0.0, sum(row[0] for part in whole for row in part.bins)
    for rows in zip(*(part.bins for part in whole), strict=True):
        count = sum(row[0] for row in rows)
        if not count:
            bins.append((0, None, None))
            continue
        means = (sum(row[0] * (row[column] or 0.0) for row in rows) / count for column in (1, 2))
        confidence, right = means
        bins.append((count, confidence, right))
        error += count / total * abs(confidence - right)  # ECE weighs a bin by its images
    return Reliability(whole[0].temperature, error, tuple(bins))


def error_text(before: float, after: float) -> str:
    """Write two calibration errors so that nobody takes them for an interval."""
    return f"{before:.3f} before, {after:.3f} after temperature"
