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
from dfkd_edge.target_profiles.lookup import ALIASES, load_target
from dfkd_edge.target_profiles.profile import TargetProfile

if TYPE_CHECKING:
    from dfkd_edge.artifacts import SurrogateSummary

SPARE = 1.1
"""Candidates asked for, relative to those that would just do: acceptance varies by seed (ours)."""
CANDIDATES_STEP = 100  # Candidates are asked for in round numbers
VIEWS = 2  # Of an image, at most: as it is and, where images are too few, mirrored (ours)


@dataclass(frozen=True, kw_only=True, slots=True)
class CalibrationShortage:
    """A run whose images are too few for INT8, in words."""

    what: str  # What is missing
    brief: str  # The same in a row of a panel
    flags: tuple[str, ...]  # Of `export`, each of which works; the first one asks for nothing else
    more: str  # Flag of `distill` that gives images enough, where as large a share is kept
    ways: str  # What helps

    def error(self) -> ConfigError:
        """Return the refusal of an export."""
        return ConfigError(self.what, where="surrogate images", hint=self.ways)


def find_shortage(
    summary: SurrogateSummary, config: ExportConfig, target: TargetProfile
) -> CalibrationShortage | None:
    """Count the images of a summary of surrogates; None where they suffice, or none are needed.

    Raises:
        ConfigError: the target does not compute in the precision.
    """
    num, num_wanted = summary.num_learning, config.calibration_size  # held-out ones only measure
    is_needed = chosen_precision(target, config) == "int8" and not config.calibration_data
    if not is_needed or num * VIEWS >= num_wanted:
        return None
    other = [f"--precision {precision}" for precision in target.precisions if precision != "int8"]
    most = num * VIEWS
    fewer = [f"--calib-size {most}"] if most >= target.min_calibration_images else []
    flags = (*fewer, *other[-1:], "--calib-data DIR")
    candidates = num_wanted / VIEWS * SPARE * summary.num_candidates / max(num, 1)
    num_more = math.ceil(candidates / CANDIDATES_STEP) * CANDIDATES_STEP
    more = f"--set synthesis.num_images={num_more}"
    return CalibrationShortage(
        brief=f"{num} images, and {num_wanted // VIEWS} are needed to calibrate on",
        what=f"{num} images to learn from, and INT8 for {target.name} calibrates on {num_wanted}, "
        f"{VIEWS} views of an image",
        flags=flags,
        more=more,
        ways=f"export with {' or '.join(flags)} of real pictures, or distill with {more} "
        f"(here {summary.num_candidates} candidates gave {num})",
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
    """Name an export of a finished run that has the images it needs, for a board by its own name.

    Raises:
        DfkdEdgeError: as `shortage_of`, or the settings cannot be read.
    """
    config = load_config(run / "config.toml").export
    shortage = shortage_of(run, config)
    flags = f" {shortage.flags[0]}" if shortage else ""
    target = ALIASES.get(config.target, config.target)
    return f"dfkd-edge export {shlex.quote(str(run))} --target {shlex.quote(target)}{flags}"
