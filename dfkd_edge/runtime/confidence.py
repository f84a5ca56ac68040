"""How sure an answer is, and when a model should rather give none.

No numpy at import: `--help` states the constants. Shape suffixes: N images, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dfkd_edge.runtime.faults import damage

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

UNKNOWN = "unknown"
FITTED_ON = "clean held-out surrogate images"  # What export reads the reject threshold off
MIN_TEMPERATURE, MAX_TEMPERATURE = 1e-4, 1e4  # Far beyond any fit: every answer alike, or sure
SHARE_REJECTED = 0.05
"""Of the right answers on those, so many lie below the threshold that export fits (ours)."""


@dataclass(frozen=True)
class Confidence:
    """Temperature and threshold that export fitted; the defaults change nothing."""

    temperature: float = 1.0  # Logits are divided by it (Guo et al., ICML 2017)
    reject_threshold: float = 0.0
    """Below this probability of the first class, the answer is "unknown"."""

    def probabilities(self, logits_NK: NDArray[Any]) -> NDArray[np.float64]:
        """Turn logits into probabilities [N, K], whose rows sum to 1."""
        import numpy as np

        scaled_NK = np.asarray(logits_NK, np.float64) / self.temperature
        # softmax does not change when a row is shifted, and exp overflows above 709
        exponential_NK = np.exp(scaled_NK - scaled_NK.max(axis=1, keepdims=True))
        probability_NK: NDArray[np.float64] = exponential_NK / exponential_NK.sum(1, keepdims=True)
        return probability_NK

    def is_known(self, logits_NK: NDArray[Any]) -> NDArray[np.bool_]:
        """Tell which images [N] get an answer."""
        first_N = self.probabilities(logits_NK).max(axis=1)
        known_N: NDArray[np.bool_] = first_N >= self.reject_threshold
        return known_N


def read_confidence(fitted: Any, manifest: Path) -> Confidence:
    """Read temperature and threshold; where none was fitted, every picture gets an answer.

    Args:
        fitted: of the manifest, not checked yet.
        manifest: named in the fault.

    Raises:
        Fault: the values are no numbers in range.
    """
    if fitted is None:
        return Confidence()
    if not isinstance(fitted, Mapping):
        raise damage("confidence is not whole", manifest)
    temperature: Any = fitted.get("temperature")
    threshold: Any = fitted.get("reject_threshold")
    if not {type(temperature), type(threshold)} <= {int, float}:  # True is no number
        raise damage("confidence is not whole", manifest)
    if not (MIN_TEMPERATURE <= temperature <= MAX_TEMPERATURE and 0 <= threshold <= 1):
        raise damage("confidence is out of range", manifest)
    return Confidence(float(temperature), float(threshold))
