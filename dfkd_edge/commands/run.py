"""The command `run`: distill, then export, from one file."""

import contextlib
import sys
from pathlib import Path
from typing import Annotated

from typer import Argument

from dfkd_edge.commands import options as opt
from dfkd_edge.commands.distill import run_distill
from dfkd_edge.commands.export import run_export
from dfkd_edge.config.file import load_config, settings_of
from dfkd_edge.config.settings import LATEST


def run(
    config: Annotated[Path, Argument(metavar="RUN.TOML", help="All settings of a run.")],
    output: opt.RunOutput = None,
    exist_ok: opt.ExistOk = False,
    set_: opt.Set = None,
    dry_run: opt.DryRun = False,
    as_json: opt.AsJson = False,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
) -> None:
    """Go the whole line: distill, then export, which converts, measures and judges."""
    from dfkd_edge.conversion.precision import refuse_impossible
    from dfkd_edge.machine.joining import is_first_of_group
    from dfkd_edge.preflight import DistillRequest, ExportRequest
    from dfkd_edge.target_profiles.lookup import load_target

    given = settings_of(set_ or ())
    settings = load_config(config, given)
    refuse_impossible(load_target(settings.export.target), settings.export)  # before hours of work
    request = DistillRequest(
        config_path=config, settings=given, output=output, exist_ok=exist_ok, dry_run=dry_run
    )
    if dry_run:
        run_distill(request, as_json=as_json, quiet=quiet)
        return
    apart = contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext()
    with apart:  # standard output carries one JSON document, that of the export
        run_distill(request, as_json=False, quiet=quiet)
    if not is_first_of_group():
        return  # ranks share the training; one process exports
    finished = output or LATEST  # its config.toml holds the overrides
    export = ExportRequest(run=finished, data=settings.data, exist_ok=exist_ok)
    run_export(export, as_json=as_json, quiet=quiet)
