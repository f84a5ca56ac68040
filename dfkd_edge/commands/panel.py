"""The panel that closes `distill`, `export` and `check`, and its last row: what to do next."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

from rich.markup import escape
from rich.panel import Panel
from rich.text import Text

from dfkd_edge.bundles.opening import bundles_of, holds_student_of, open_bundle
from dfkd_edge.conversion.calibration_need import export_command
from dfkd_edge.errors import DfkdEdgeError
from dfkd_edge.results.kept import proof_of
from dfkd_edge.runtime.bundle_files import MANIFEST, Bundle
from dfkd_edge.runtime.plain_text import printable

MAX_ROWS, MAX_CHARACTERS = 9, 100
HEADING_WIDTH = 10
MORE = " ... (report)"  # Ends a row that the report finishes
Row = tuple[str, str]  # Heading and text
PATHS = frozenset({"report", "bundle", "weights", "next"})
"""Rows to copy from: they are never cut, however long a folder's name is."""
WHOLE = frozenset({"gate", "cost"})
"""Rows that decide: what does not fit goes on in the next line."""


def row_text(row: Row) -> str:
    """Write a row, cut where it is too long to be read at a glance; the report has all."""
    heading, text = row
    line = f"{heading:<{HEADING_WIDTH}}{text}"
    if len(line) <= MAX_CHARACTERS or heading in PATHS:
        return line
    if heading in WHOLE:
        indent = " " * HEADING_WIDTH
        return "\n".join(textwrap.wrap(line, MAX_CHARACTERS, subsequent_indent=indent))
    return line[: MAX_CHARACTERS - len(MORE)].rsplit(" ", 1)[0].rstrip(",;:") + MORE


def closing_panel(title: str, rows: Sequence[Row], colour: str = "green") -> Panel:
    """Make the panel; rows without text are left out."""
    lines = [row_text(row) for row in rows if row[1]]
    assert len(lines) <= MAX_ROWS
    text, heading = escape("\n".join(lines)), Text(printable(title))
    return Panel(text, title=heading, title_align="left", expand=False, border_style=colour)


def bundle_step(bundle: str | Path) -> str:
    """Say what a bundle is for."""
    return f"copy {bundle}/ to the device and run there: python3 check.pyz"


def run_step(run: Path, report: str) -> str:
    """Say what comes after `distill`: the export, or what the run's newest bundle asks for."""
    bundle = newest_bundle(run)
    if bundle is None:
        earlier = bool(bundles_of(run))
        return export_command(run) + " --exist-ok" * earlier
    if bundle.manifest.status == "passed":
        return bundle_step(bundle.folder)
    gate = proof_of(bundle).gate
    assert gate is not None  # an export is always judged
    return f"the gate of {bundle.folder.name} failed: see {report}, then {gate.advice}"


def newest_bundle(run: Path) -> Bundle | None:
    """Open the newest finished bundle of the student that lies in a run; None without one."""
    manifests = [folder / MANIFEST for folder in bundles_of(run)]
    there = [manifest for manifest in manifests if manifest.is_file()]
    for manifest in sorted(there, key=lambda path: path.stat().st_mtime, reverse=True):
        try:
            bundle = open_bundle(manifest.parent, verify=False)
        except DfkdEdgeError:
            continue  # cut off, or of another version
        if holds_student_of(run, bundle.manifest.provenance):
            return bundle
    return None
