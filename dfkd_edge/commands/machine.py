"""The commands `doctor` and `cache`: this machine, and what lies on it."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from dfkd_edge.commands.options import AsJson

STYLE = {"ok": "green", "note": "cyan", "warning": "yellow", "lacking": "red"}

cache_app = typer.Typer(help="Show and empty caches.", no_args_is_help=True)


def doctor(as_json: AsJson = False) -> None:
    """Examine this machine, host or Jetson: what it offers, what it lacks, what to do."""
    from dfkd_edge.errors import EnvironmentLackingError
    from dfkd_edge.machine.doctor import examine, worst

    checks = examine()
    if as_json:
        rows = [dataclasses.asdict(check) for check in checks]
        document = {"status": worst(checks), "checks": rows}
        sys.stdout.write(json.dumps(document, ensure_ascii=False) + "\n")
    else:
        from rich.markup import escape
        from rich.table import Table

        from dfkd_edge.console import result_console

        table = Table("", "what", "found", "what to do, or what it means", box=None, pad_edge=False)
        table.columns[2].overflow = "fold"
        for check in checks:
            status = f"[{STYLE[check.status]}]{check.status}[/]"
            table.add_row(status, check.name, escape(check.value), escape(check.advice))
        result_console().print(table)
    lacking = [check for check in checks if check.status == "lacking"]
    if lacking:
        raise EnvironmentLackingError(
            f"{lacking[0].name}: {lacking[0].value}", hint=lacking[0].advice
        )


@cache_app.command()
def info(as_json: AsJson = False) -> None:
    """Show our caches and those of model hubs, with their sizes."""
    from dfkd_edge.machine.caches import OURS, known_caches

    rows = [
        {"name": c.name, "path": str(c.path), "num_files": c.num_files, "bytes": c.size_bytes}
        for c in known_caches()
    ]
    if as_json:
        sys.stdout.write(json.dumps({"caches": rows}) + "\n")
        return
    from rich.markup import escape
    from rich.table import Table

    from dfkd_edge.console import result_console

    table = Table("cache", "MiB", "files", "folder", box=None, pad_edge=False)
    table.columns[3].overflow = "fold"
    for row in rows:
        size_mib = f"{row['bytes'] / (1 << 20):.1f}"  # type: ignore[operator]
        table.add_row(str(row["name"]), size_mib, str(row["num_files"]), escape(str(row["path"])))
    console = result_console()
    console.print(table)
    console.print(
        f"[dim]dfkd-edge cache clean deletes {' and '.join(OURS)}; other caches by name[/dim]"
    )


@cache_app.command()
def clean(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME]...", help="Caches to empty.", show_default="ours"),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would go.")] = False,
    as_json: AsJson = False,
) -> None:
    """Delete our caches, or those that are named; asks first."""
    from dfkd_edge.errors import UsageError
    from dfkd_edge.machine.caches import OURS, empty_cache, find_caches

    chosen = [c for c in find_caches(names or OURS) if c.num_files]
    for cache in chosen:
        size_mib = cache.size_bytes / (1 << 20)
        typer.echo(f"{cache.name}: {size_mib:.1f} MiB in {cache.path}", err=True)
    if not chosen:
        typer.echo("nothing to delete", err=True)
    if chosen and not dry_run and not yes:
        if not sys.stdin.isatty():
            raise UsageError("nobody to ask", where="cache clean", hint="add --yes to delete")
        typer.confirm("delete all of it?", abort=True, err=True)
    for cache in chosen if not dry_run else ():
        empty_cache(cache)
    if as_json:
        freed = {str(Path(c.path)): c.size_bytes for c in chosen}
        sys.stdout.write(json.dumps({"deleted": not dry_run, "caches": freed}) + "\n")
