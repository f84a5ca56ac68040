"""The precision of a bundle, and what a target cannot give or needs."""

from dfkd_edge.config.settings import ExportConfig
from dfkd_edge.errors import ConfigError
from dfkd_edge.target_profiles.profile import Precision, TargetProfile


def refuse_impossible(target: TargetProfile, config: ExportConfig) -> None:
    """Refuse settings that the target cannot meet, whatever the images are.

    Raises:
        ConfigError: the target does not compute in the precision, or needs more calibration images.
    """
    is_int8 = chosen_precision(target, config) == "int8"
    if is_int8 and config.calibration_size < target.min_calibration_images:
        raise ConfigError(
            f"{config.calibration_size} calibration images are too few",
            where="--calib-size",
            hint=f"{target.name} asks for {target.min_calibration_images} or more",
        )


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
