"""The commands that a page names; each works on what lies there now."""

import dataclasses
import json
import shlex

from dfkd_edge.config.settings import ExportConfig
from dfkd_edge.conversion.calibration_need import CalibrationShortage, find_shortage
from dfkd_edge.errors import ConfigError
from dfkd_edge.report.sources import BundleSource, RunSource, Sources
from dfkd_edge.runs.run_dir import distill_again
from dfkd_edge.runtime.bundle_files import CLASSES
from dfkd_edge.target_profiles.lookup import load_target


def distilling(sources: Sources) -> str:
    """Command that makes the run, or goes on with it."""
    again = sources.run and distill_again(sources.run.path)
    return again or "dfkd-edge distill --classes classes.txt"


def exporting(sources: Sources, flags: str = "") -> str:
    """Command that exports the run, after the one that finishes its student."""
    command = f"dfkd-edge export {run_argument(sources)}{flags and f' {flags}'}"
    if sources.run and not sources.student:
        return f"{distill_again(sources.run.path)}, then {command}"
    shortage = calibration_shortage(sources.run)
    return f"{command} {shortage.flags[0]}" if shortage else command


def measuring(sources: Sources, verb: str, flags: str = "") -> str:
    """Command that measures a bundle of this page (`check`, `benchmark`), after what it needs."""
    flags = flags and f" {flags}"
    if sources.bundles:
        return f"dfkd-edge {verb} {shlex.quote(str(sources.bundles[0].folder))}{flags}"
    return f"{exporting(sources)}, then dfkd-edge {verb} {run_argument(sources)}{flags}"


def exporting_again(bundle: BundleSource, run: str) -> str:
    """Command that makes a bundle once more, with the settings that differ from the usual ones."""
    place = ["--output", str(bundle.folder), "--exist-ok"]
    if swap := bundle.record.swap:
        listed = ["--classes", str(bundle.folder / CLASSES)]
        return shlex.join(["dfkd-edge", "classes", "swap", swap.bundle, *listed, *place])
    usual = json.loads(json.dumps(dataclasses.asdict(ExportConfig())))  # lists, as a manifest has
    settings = {"target": bundle.target, **bundle.record.config}
    words = ["--target", str(settings.pop("target"))]
    for key, value in settings.items():
        if value != usual.get(key, value):  # a newer version's setting is not ours to name
            words += ["--set", f"export.{key}={json.dumps(value)}"]
    words += ["--data", bundle.record.data] if bundle.record.data else []
    return f"dfkd-edge export {run} {shlex.join([*words, *place])}"


def calibration_shortage(run: RunSource | None) -> CalibrationShortage | None:
    """What a run lacks for the INT8 of its target, where that is known."""
    if run is None or run.surrogates is None or run.config is None:
        return None
    config = run.config.export
    try:
        return find_shortage(run.surrogates, config, load_target(config.target))
    except ConfigError:
        return None  # the target's file is gone: export says so


def run_argument(sources: Sources) -> str:
    """The run as an argument of a command."""
    return shlex.quote(str(sources.run.path)) if sources.run else "RUN"
