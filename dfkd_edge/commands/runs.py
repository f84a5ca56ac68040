"""The command `runs`: runs and bundles below a folder side by side."""

from __future__ import annotations

import csv
import io
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table
from typer import Argument, Option

from dfkd_edge.commands import options as opt
from dfkd_edge.config.settings import RUNS
from dfkd_edge.console import result_console, spreadsheet_cell
from dfkd_edge.errors import UsageError
from dfkd_edge.runtime.plain_text import printable

if TYPE_CHECKING:
    from dfkd_edge.results.overview import Entry

MAX_SETTINGS = 6  # Named in a row; `--csv` and `--json` have all
COLUMNS = {"classes": 7, "teacher": 7, "accuracy": 11}
COLUMNS |= {"MiB": 5, "ms": 4, "verdict": 26, "differs in": 40}
"""Heading -> least width, beside the path, which is never folded."""
NOTHING = "-"
INDENT, GAP = "  ", 3  # Before a line of the list, and between columns of the table


def runs(
    folder: Annotated[
        Path, Argument(metavar="[FOLDER]", help="Where to look, at any depth.")
    ] = RUNS,
    as_csv: Annotated[bool, Option("--csv", help="Print CSV, a column a setting.")] = False,
    as_json: opt.AsJson = False,
) -> None:
    """List runs and bundles below a folder: what they differ in, how good, how large, how fast.

    Files are not compared with their hashes, which `inspect` does; what cannot be read is a row
    with the reason.
    """
    from dfkd_edge.results.overview import differing, find_entries

    if as_csv and as_json:
        raise UsageError("--csv and --json are two outputs", where="runs", hint="ask for one")
    entries = find_entries(folder)
    names = differing(entries)
    if as_json:
        opt.print_json({"folder": str(folder), "entries": [_document(e, names) for e in entries]})
    elif as_csv:
        sys.stdout.write(_csv(entries, names))
    elif entries:
        _show(entries, names, folder)
    else:
        result_console().print(f"no run and no bundle below {folder}", markup=False)


def _show(entries: Sequence[Entry], names: Sequence[str], folder: Path) -> None:
    """Print a table where whole paths and readable settings fit beside it, else a list."""
    console = result_console()
    longest = max(len(str(_below(entry, folder))) for entry in entries)
    if longest + sum(COLUMNS.values()) + GAP * len(COLUMNS) <= console.width:
        console.print(_table(entries, names, folder))
        return
    for entry in entries:
        console.print(f"[bold]{escape(str(entry.path))}[/bold]", soft_wrap=True)  # to be copied
        for line in filter(None, _lines(entry, names)):
            broken = textwrap.wrap(
                line, console.width - len(INDENT), break_long_words=False, break_on_hyphens=False
            )
            text = "\n".join(INDENT + part for part in broken)
            style = "red" if entry.fault else None
            console.print(text, markup=False, style=style, soft_wrap=True)


def _below(entry: Entry, folder: Path) -> Path:
    return entry.path.relative_to(folder) if entry.path != folder else entry.path


def _lines(entry: Entry, names: Sequence[str]) -> tuple[str, ...]:
    """Say in lines what a row of the table says."""
    if entry.fault:
        return (entry.fault,)
    figures = (
        f"{entry.num_classes} classes" if entry.num_classes else "",
        f"teacher {entry.teacher}" if entry.teacher else "",
        _accuracy(entry) if entry.measured else "",
        f"{entry.size_bytes / 2**20:.2f} MiB" if entry.size_bytes else "",
        f"{entry.latency_ms:.2f} ms" if entry.latency_ms else "",
    )
    settings = _settings(entry, names)
    return entry.verdict, ", ".join(filter(None, figures)), settings and f"differs in {settings}"


def _document(entry: Entry, names: Sequence[str]) -> dict[str, object]:
    """Say all of an entry; of its settings those that differ."""
    measured = entry.measured
    return {
        "kind": entry.kind,
        "path": str(entry.path),
        "classes": entry.num_classes,
        "teacher": entry.teacher,
        "measure": measured.metric if measured else None,
        "share": measured.share if measured else None,
        "low": measured.low if measured else None,
        "high": measured.high if measured else None,
        "num_images": measured.num_images if measured else None,
        "size_bytes": entry.size_bytes,
        "latency_ms": entry.latency_ms,
        "verdict": entry.verdict,
        "fault": entry.fault,
        **{name: entry.settings.get(name) for name in names},
    }


def _csv(entries: Sequence[Entry], names: Sequence[str]) -> str:
    rows, text = [_document(entry, names) for entry in entries], io.StringIO()
    columns = list(rows[0]) if rows else ["kind", "path"]
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _plain(value) for key, value in row.items()} for row in rows)
    return printable(text.getvalue())


def _plain(value: object) -> object:
    if isinstance(value, tuple):
        value = " ".join(map(str, value))
    return spreadsheet_cell(value)


def _table(entries: Sequence[Entry], names: Sequence[str], folder: Path) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("path", no_wrap=True)
    for heading, min_width in COLUMNS.items():
        right = heading in ("classes", "MiB", "ms")
        justify: Literal["left", "right"] = "right" if right else "left"
        table.add_column(heading, justify=justify, overflow="fold", min_width=min_width)
    for entry in entries:
        name = escape(str(_below(entry, folder)))
        if entry.fault:
            fault = f"[red]{escape(entry.fault)}[/red]"
            table.add_row(name, *[NOTHING] * 5, fault, "")
            continue
        table.add_row(
            name,
            str(entry.num_classes or NOTHING),
            escape(entry.teacher or NOTHING),
            _accuracy(entry),
            f"{entry.size_bytes / 2**20:.2f}" if entry.size_bytes else NOTHING,
            f"{entry.latency_ms:.2f}" if entry.latency_ms else NOTHING,
            escape(entry.verdict),
            escape(_settings(entry, names)),
        )
    return table


def _accuracy(entry: Entry) -> str:
    measured = entry.measured
    if not measured:
        return NOTHING
    kind = "top-1" if measured.metric == "top1" else "agreement"
    ends = f"{100 * measured.low:.1f} to {100 * measured.high:.1f}"
    return f"{100 * measured.share:.1f}% {kind} ({ends})"


def _settings(entry: Entry, names: Sequence[str]) -> str:
    """Write the settings that differ by their last names, as far as there is room."""
    held = [name for name in names if name in entry.settings]
    values = [_plain(entry.settings[name]) for name in held]
    texts = [
        f"{name.rpartition('.')[2]}={'none' if value in (None, '') else value}"
        for name, value in zip(held, values, strict=True)
    ]
    more = f" and {len(texts) - MAX_SETTINGS} more" if len(texts) > MAX_SETTINGS else ""
    return ", ".join(texts[:MAX_SETTINGS]) + more
