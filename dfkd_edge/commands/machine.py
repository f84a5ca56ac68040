"""The commands `doctor` and `cache`: this machine, and what lies on it."""

import dataclasses
import sys
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table
from typer import Argument, Option

from dfkd_edge.commands import options as opt
from dfkd_edge.console import result_console
from dfkd_edge.errors import EnvironmentLackingError, UsageError
from dfkd_edge.runtime.plain_text import printable

STYLE = {"ok": "green", "note": "cyan", "warning": "yellow", "lacking": "red"}

cache_app = typer.Typer(help="Show and empty our caches.", no_args_is_help=True)


def doctor(as_json: opt.AsJson = False) -> None:
    """Examine this machine, host or Jetson: what it offers, what it lacks, what to do."""
    from dfkd_edge.machine.doctor import examine, worst

    checks = examine()
    if as_json:
        rows = [dataclasses.asdict(check) for check in checks]
        opt.print_json({"status": worst(checks), "checks": rows})
    else:
        table = Table("", "what", "found", "what to do, or what it means", box=None, pad_edge=False)
        table.columns[2].overflow = "fold"
        for check in checks:
            status = f"[{STYLE[check.status]}]{check.status}[/]"
            table.add_row(status, check.name, escape(check.value), escape(check.advice))
        result_console().print(table)
    for check in checks:
        if check.status == "lacking":
            raise EnvironmentLackingError(f"{check.name}: {check.value}", hint=check.advice)


@cache_app.command()
def info(as_json: opt.AsJson = False) -> None:
    """Show our caches with their sizes; `hf cache list` shows that of the model hub."""
    from dfkd_edge.machine.caches import find_caches

    caches = find_caches()
    if as_json:
        rows = [
            {
                "name": cache.name,
                "path": str(cache.path),
                "num_files": cache.num_files,
                "bytes": cache.size_bytes,
                "max_bytes": cache.max_bytes,
            }
            for cache in caches
        ]
        opt.print_json({"caches": rows})
        return
    table = Table("cache", "MiB", "at most", "files", "folder", box=None, pad_edge=False)
    table.columns[4].overflow = "fold"
    for cache in caches:
        size_mib = f"{cache.size_bytes / (1 << 20):.1f}"
        most, num_files = cache.max_bytes, str(cache.num_files)
        most_mib = "unknown" if most is None else f"{most >> 20:,}"
        table.add_row(cache.name, size_mib, most_mib, num_files, escape(str(cache.path)))
    result_console().print(table)


@cache_app.command()
def clean(
    names: Annotated[
        list[str] | None,
        Argument(metavar="[NAME]...", help="Caches to empty.", show_default="all"),
    ] = None,
    keep: Annotated[
        int, Option(min=0, metavar="MIB", help="Leave so much of each, what was used last.")
    ] = 0,
    yes: Annotated[bool, Option("--yes", "-y", help="Do not ask.")] = False,
    dry_run: Annotated[bool, Option("--dry-run", help="Show what would go.")] = False,
    as_json: opt.AsJson = False,
) -> None:
    """Delete our caches, or those that are named; asks first."""
    from dfkd_edge.machine.caches import empty_cache, find_caches

    found = [cache for cache in find_caches(names or ()) if cache.num_files]
    chosen = [cache for cache in found if cache.size_bytes > keep << 20]
    kept = f", of which {keep:,} MiB stay" if keep else ""
    for cache in chosen:
        size_mib = cache.size_bytes / (1 << 20)
        shown = printable(f"{cache.name}: {size_mib:.1f} MiB in {cache.path}{kept}")
        typer.echo(shown, err=True)
    if not chosen:
        typer.echo("nothing to delete", err=True)
    elif not (dry_run or yes):
        if not sys.stdin.isatty():  # a script would wait for an answer for ever
            raise UsageError("nobody to ask", where="cache clean", hint="add --yes to delete")
        typer.confirm("delete the rest?" if keep else "delete all of it?", abort=True, err=True)
    freed = {str(cache.path): max(0, cache.size_bytes - (keep << 20)) for cache in chosen}
    for cache in chosen if not dry_run else ():
        freed[str(cache.path)] = empty_cache(cache, keep << 20)
    if as_json:
        opt.print_json({"deleted": not dry_run, "caches": freed})
