"""The precision of a bundle: what was asked for, or the best that the target computes in."""

from __future__ import annotations

from dfkd_edge.config import ExportConfig
from dfkd_edge.errors import ConfigError
from dfkd_edge.target_profile import Precision, TargetProfile


def chosen_precision(target: TargetProfile, config: ExportConfig) -> Precision:
    """The precision that was asked for, or the target's best; never another one in silence.

    Raises:
        ConfigError: the target does not compute in it.
    """
    if config.precision == "auto":
        return target.best_precision
    if config.precision not in target.precisions:
        reason = target.no_int8_reason if config.precision == "int8" else ""
        raise ConfigError(
            f"{target.name} does not compute in {config.precision}",
            where="--precision",
            hint=(f"{reason}; " if reason else "") + f"it does in {', '.join(target.precisions)}",
        )
    return config.precision
