"""Whether a run has the images that INT8 calibrates on; where not, what works and what gives more.

Every place that leads to `export` asks here: none names a command that would be refused.
"""

from __future__ import annotations

import math
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dfkd_edge.config.file import load_config
from dfkd_edge.config.settings import ExportConfig
from dfkd_edge.conversion.precision import chosen_precision
from dfkd_edge.errors import ConfigError
from dfkd_edge.target_profiles.lookup import load_target
from dfkd_edge.target_profiles.profile import TargetProfile

if TYPE_CHECKING:
    from dfkd_edge.artifacts import SurrogateSummary

SPARE = 1.1
"""Candidates asked for, relative to those that would just do: acceptance varies by seed (ours)."""
CANDIDATES_STEP = 100  # Candidates are asked for in round numbers


@dataclass(frozen=True, kw_only=True, slots=True)
class CalibrationShortage:
    """A run whose images are too few for INT8."""

    num_images: int  # To learn from; held-out ones measure and never calibrate
    num_candidates: int  # That were synthesized for them
    num_wanted: int  # That INT8 calibrates on
    target: TargetProfile

    @property
    def what(self) -> str:
        """Say what is missing."""
        return (
            f"{self.num_images} images to learn from, and INT8 for {self.target.name} calibrates "
            f"on {self.num_wanted}"
        )

    @property
    def flags(self) -> tuple[str, ...]:
        """Flags of `export`, each of which works; the first one asks for nothing else."""
        enough = self.num_images >= self.target.min_calibration_images
        other = [precision for precision in self.target.precisions if precision != "int8"]
        return (
            *([f"--calib-size {self.num_images}"] if enough else []),
            *(f"--precision {precision}" for precision in other[-1:]),
            "--calib-data DIR",
        )

    @property
    def more(self) -> str:
        """Flag of `distill` that gives images enough, where as large a share is kept."""
        candidates = self.num_wanted * SPARE * self.num_candidates / max(self.num_images, 1)
        num = math.ceil(candidates / CANDIDATES_STEP) * CANDIDATES_STEP
        return f"--set synthesis.num_images={num}"

    @property
    def ways(self) -> str:
        """Say what helps."""
        return (
            f"export with {' or '.join(self.flags)} of real pictures, or distill with {self.more} "
            f"(here {self.num_candidates} candidates gave {self.num_images})"
        )

    def error(self) -> ConfigError:
        """Return the refusal of an export."""
        return ConfigError(self.what, where="--precision int8", hint=self.ways)


def find_shortage(
    summary: SurrogateSummary, config: ExportConfig, target: TargetProfile
) -> CalibrationShortage | None:
    """Count the images of a summary of surrogates; None where they suffice, or none are needed.

    Raises:
        ConfigError: the target does not compute in the precision.
    """
    num = summary.num_learning
    if chosen_precision(target, config) != "int8" or config.calibration_data:
        return None
    if num >= config.calibration_size:
        return None
    return CalibrationShortage(
        num_images=num,
        num_candidates=summary.num_candidates,
        num_wanted=config.calibration_size,
        target=target,
    )


def shortage_of(run: Path, config: ExportConfig) -> CalibrationShortage | None:
    """Count the images of a finished run.

    Raises:
        ConfigError: the target is unknown, or does not compute in the precision.
        ArtifactError: the summary of its images cannot be read.
    """
    from dfkd_edge.artifacts import SurrogateSummary  # loads numpy, which a wrong path need not

    summary = SurrogateSummary.load(run / "surrogates")
    return find_shortage(summary, config, load_target(config.target))


def export_command(run: Path) -> str:
    """Name an export of a finished run that has the images it needs.

    Raises:
        DfkdEdgeError: as `shortage_of`, or the settings cannot be read.
    """
    config = load_config(run / "config.toml").export
    shortage = shortage_of(run, config)
    flags = f" {shortage.flags[0]}" if shortage else ""
    return f"dfkd-edge export {shlex.quote(str(run))} --target {shlex.quote(config.target)}{flags}"
