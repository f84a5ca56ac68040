"""Flags of `export`, `check` and `run`; heavy imports stay inside the commands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dfkd_edge.flags import export_overrides
from dfkd_edge.options import (
    RUNS,
    AsJson,
    DryMeasurement,
    File,
    Number,
    Quiet,
    RunOutput,
    Share,
    Switch,
    Text,
    Texts,
    Verbose,
)

DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Check the request, estimate time and memory, do nothing.")
]
Data = Annotated[
    File, typer.Option(help="Labelled pictures to measure on: DIR/[DOMAIN/]CLASS/*.jpg.")
]
MaxDrop = Annotated[
    Share,
    typer.Option(
        help="Largest loss on the worst domain, a share: 0.01 is one point, 1 lets all pass "
        "(default: 0.01, for check that of the bundle).",
        min=0,
        max=1,
    ),
]
ExistOk = Annotated[bool, typer.Option("--exist-ok", help="Replace another bundle or run there.")]
Set = Annotated[
    Texts, typer.Option("--set", help="Any setting, such as export.percentile=99.9; repeatable.")
]


def export(
    run: Annotated[
        Path, typer.Argument(metavar="[RUN]", help="Run directory.", show_default="runs/latest")
    ] = RUNS / "latest",
    target: Annotated[
        Text, typer.Option(help="A name of `targets list` or a TOML file (default: jetson).")
    ] = None,
    precision: Annotated[
        Text, typer.Option(help="fp32, fp16 or int8 (default: the target's best).")
    ] = None,
    batch: Annotated[
        Text, typer.Option(help="1, or 1,4,8 for a dynamic batch (default: 1).")
    ] = None,
    opset: Annotated[Number, typer.Option(help="ONNX opset (default: the target's).")] = None,
    calib_size: Annotated[Number, typer.Option(help="Calibration images (default: 512).")] = None,
    calib_data: Annotated[
        File, typer.Option(help="Real pictures to calibrate on, any folders.")
    ] = None,
    max_drop: MaxDrop = None,
    repair: Annotated[
        Switch,
        typer.Option("--repair/--no-repair", help="Mend INT8 when it misses the gate."),
    ] = None,
    data: Data = None,
    output: Annotated[
        File, typer.Option("--output", "-o", help="The bundle (default: RUN/bundles/TARGET).")
    ] = None,
    exist_ok: ExistOk = False,
    set_: Set = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Turn a student into a bundle: convert, measure every conversion, gate; exit 3 if it fails."""
    flags = {
        "target": target,
        "precision": precision,
        "opset": opset,
        "calib_size": calib_size,
        "calib_data": calib_data,
        "max_drop": max_drop,
        "repair": repair,
        "batch": _batch(batch),
    }
    from dfkd_edge.export_command import ExportRequest, run_export

    run_export(
        ExportRequest(
            run=run,
            overrides=(*(set_ or ()), *export_overrides(flags)),
            data=str(data) if data else "",
            output=output,
            exist_ok=exist_ok,
            dry_run=dry_run,
            as_json=as_json,
            quiet=quiet,
        )
    )


def check(
    bundle: Annotated[
        Path,
        typer.Argument(
            metavar="[BUNDLE]", help="Bundle, or run with one.", show_default="runs/latest"
        ),
    ] = RUNS / "latest",
    data: Data = None,
    max_drop: MaxDrop = None,
    dry_run: DryMeasurement = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Climb the conversion ladder on a bundle, with the gate; exit 3 if it fails."""
    from dfkd_edge.export_command import CheckRequest, run_check

    run_check(
        CheckRequest(
            bundle=bundle,
            data=str(data) if data else "",
            max_drop=max_drop,
            dry_run=dry_run,
            as_json=as_json,
            quiet=quiet,
        )
    )


def run(
    config: Annotated[Path, typer.Argument(metavar="RUN.TOML", help="All settings of a run.")],
    output: RunOutput = None,
    exist_ok: ExistOk = False,
    set_: Set = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Go the whole line: distill, then export, which converts, measures and judges."""
    from dfkd_edge.export_command import RunRequest, run_all

    run_all(
        RunRequest(
            config=config,
            overrides=tuple(set_ or ()),
            output=output,
            runs=RUNS,
            exist_ok=exist_ok,
            dry_run=dry_run,
            as_json=as_json,
            quiet=quiet,
        )
    )


def _batch(text: str | None) -> list[int] | None:
    if text is None:
        return None
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        from dfkd_edge.errors import ConfigError

        raise ConfigError(
            f"'{text}' names no batch sizes", where="--batch", hint="such as 1 or 1,4,8"
        ) from error
