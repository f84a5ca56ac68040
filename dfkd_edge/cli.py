"""The command line: parse, call one stage, print. Heavy imports stay inside the commands."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from dfkd_edge import __version__
from dfkd_edge.bundle_commands import benchmark, predict
from dfkd_edge.deploy_cli import check, export, run
from dfkd_edge.errors import DfkdEdgeError, UsageError
from dfkd_edge.report_command import report
from dfkd_edge.targets_command import targets_app

app = typer.Typer(
    name="dfkd-edge",
    help="From a list of class names to a compact image classifier, without a single image.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
classes_app = typer.Typer(help="Work with class lists.", no_args_is_help=True)
app.add_typer(classes_app, name="classes")
app.add_typer(targets_app, name="targets")
app.command()(export)
app.command()(check)
app.command()(run)
app.command()(benchmark)
app.command()(predict)
app.command()(report)

RUNS = Path("runs")
Text = Optional[str]  # noqa: UP045  Typer reads the annotation at run time
Number = Optional[int]  # noqa: UP045
File = Optional[Path]  # noqa: UP045


def _show_version(value: bool) -> None:
    if value:
        typer.echo(f"dfkd-edge {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """From a list of class names to a compact image classifier, without a single image."""


@app.command()
def distill(
    classes: Annotated[
        File, typer.Option("--classes", help="Class list: one name a line.", show_default=False)
    ] = None,
    output: Annotated[
        File, typer.Option("--output", "-o", help="Run directory (default: runs/LIST-HASH).")
    ] = None,
    data: Annotated[
        File,
        typer.Option(help="Labelled pictures, for evaluation only: DIR/[DOMAIN/]CLASS/*.jpg."),
    ] = None,
    preset: Annotated[
        Text, typer.Option(help="Settings to start from: mini, clip-b32 or clip-l14.")
    ] = None,
    teacher: Annotated[
        Text, typer.Option(help="mini, an open_clip name or a local folder (default: mini).")
    ] = None,
    pretrained: Annotated[
        Text, typer.Option(help="open_clip's tag of the teacher's weights.")
    ] = None,
    student: Annotated[Text, typer.Option(help="mini or a timm name (default: mini).")] = None,
    student_init: Annotated[
        Text, typer.Option(help="pretrained or random (default: pretrained).")
    ] = None,
    prompts: Annotated[
        Text, typer.Option(help="base, mix, random or contrastive (default: contrastive).")
    ] = None,
    num_styles: Annotated[Number, typer.Option(help="Styles of the prompts (default: 16).")] = None,
    synthesis: Annotated[
        Text, typer.Option(help="amortized or per-image (default: amortized).")
    ] = None,
    imgsz: Annotated[Number, typer.Option(help="Side of the student's input in pixels.")] = None,
    steps: Annotated[Number, typer.Option(help="Distillation steps (default: 200).")] = None,
    batch_size: Annotated[Number, typer.Option(help="Views a step (default: 96).")] = None,
    workers: Annotated[
        Number, typer.Option(help="CPU threads (default: all cores).", min=1, max=256)
    ] = None,
    device: Annotated[Text, typer.Option(help="Torch device (default: cpu).")] = None,
    seed: Annotated[
        Number, typer.Option(help="Every random number follows from it (default: 0).")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume/--no-resume", help="Go on with what is done, or start over.")
    ] = True,
    exist_ok: Annotated[
        bool, typer.Option("--exist-ok", help="Redo what differs in another run's directory.")
    ] = False,
    config: Annotated[File, typer.Option(help="TOML file with any of the settings.")] = None,
    set_: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("--set", help="Any setting, such as synthesis.num_images=8000; repeatable."),
    ] = None,
    save_config: Annotated[File, typer.Option(help="Write the resolved settings here.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check, show plan and settings, do nothing.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print results only.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show tracebacks.")] = False,
) -> None:
    """Turn class names into a compact student of CLIP; the same command resumes a stopped run."""
    flags = {
        "classes": str(classes) if classes else None,
        "data": str(data) if data else None,
        "preset": preset,
        "teacher.name": teacher,
        "teacher.pretrained": pretrained,
        "distillation.student": student,
        "distillation.student_init": student_init,
        "prompts.method": prompts,
        "prompts.num_styles": num_styles,
        "synthesis.method": synthesis,
        "distillation.image_size_px": imgsz,
        "distillation.num_steps": steps,
        "distillation.batch_size": batch_size,
        "device": device,
        "seed": seed,
    }
    from dfkd_edge.distill_command import DistillRequest, run_request

    overrides = [f"{key}={json.dumps(value)}" for key, value in flags.items() if value is not None]
    run_request(
        DistillRequest(
            config_path=config,
            overrides=(*(set_ or ()), *overrides),
            output=output,
            runs=RUNS,
            num_threads=workers,
            resume=resume,
            exist_ok=exist_ok,
            save_config=save_config,
            dry_run=dry_run,
            as_json=as_json,
            quiet=quiet,
        )
    )


@classes_app.command()
def lint(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="Class list.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Check a class list and show how each line is read."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from dfkd_edge.class_names import read_class_names

    names = read_class_names(path)
    rows: list[dict[str, Any]] = [
        {"index": index, "name": name, "prompt": prompt, "folder": slug}
        for index, (name, prompt, slug) in enumerate(
            zip(names.names, names.prompts, names.slugs(), strict=True)
        )
    ]
    if as_json:
        typer.echo(json.dumps({"classes": rows}, ensure_ascii=False))
        return
    table = Table("index", "name", "prompt", title=f"{len(rows)} classes", title_justify="left")
    for row in rows:
        table.add_row(str(row["index"]), escape(row["name"]), escape(row["prompt"] or "templates"))
    Console().print(table)


def main() -> None:
    """Run the command line; the one place where errors become exit codes."""
    verbose = bool({"--verbose", "-v"} & set(sys.argv[1:]))
    try:
        app()
    except DfkdEdgeError as error:
        if verbose:
            raise
        from rich.console import Console
        from rich.markup import escape

        console = Console(stderr=True, highlight=False, soft_wrap=True)
        console.print(f"[bold red]error:[/bold red] {escape(str(error))}")
        if isinstance(error, UsageError):
            console.print("[dim]see dfkd-edge --help[/dim]")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.stderr.write("stopped; what is done is kept, the same command goes on from there\n")
        sys.exit(130)
