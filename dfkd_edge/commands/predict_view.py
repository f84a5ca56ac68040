"""How `predict` shows its answers: a table for a person, JSON lines and CSV for a pipe."""

from __future__ import annotations

import csv
import sys
import time
from collections.abc import Callable
from typing import Any, Protocol

from rich.markup import escape
from rich.table import Table

from dfkd_edge.bundles.predict import Predictor, Row, document_of
from dfkd_edge.commands import options as opt
from dfkd_edge.console import result_console, spreadsheet_cell
from dfkd_edge.runtime.confidence import SHARE_REJECTED
from dfkd_edge.runtime.counting import counted
from dfkd_edge.runtime.plain_text import one_line, printable

MAX_SCENES = 1_000
"""Rows of a table: a camera may run for weeks; JSON lines and CSV keep nothing back."""


class View(Protocol):
    """What shows answers."""

    def add(self, row: Row) -> None:
        """Take one answer."""

    def end(self) -> None:
        """Show what was kept for the end."""


def speed_of(predictor: Predictor) -> str:
    """Say what ran, and how fast."""
    tally, graph = predictor.tally, predictor.head["graph"]
    line = f"{counted(tally.num_images, 'image')} in {tally.seconds:.1f} s"
    line += f", {tally.images_per_s:.1f} images/s, with {graph} in onnxruntime"
    late = f"; {counted(tally.num_late, 'frame')} left out to keep up" if tally.num_late else ""
    return line + late


class JsonLines:
    """One document a line, as soon as it is known."""

    def __init__(self, predictor: Predictor) -> None:
        """Remember what the summary is of."""
        self._predictor = predictor

    def add(self, row: Row) -> None:
        """Write it; a pipe gets it at once."""
        opt.print_json(row)
        sys.stdout.flush()

    def end(self) -> None:
        """Say the speed beside the answers."""
        sys.stderr.write(f"{speed_of(self._predictor)}\n")


class Csv(JsonLines):
    """One line an answer below a line of names; pictures have neither frame nor time."""

    def __init__(self, predictor: Predictor) -> None:
        """Write the names."""
        super().__init__(predictor)
        self._writer = csv.writer(sys.stdout, lineterminator="\n")
        numbers = range(1, predictor.num_shown + 1)
        places = [f"{name}_{number}" for number in numbers for name in ("class", "score")]
        self._writer.writerow(["file", "frame", "time_s", "label", *places])

    def add(self, row: Row) -> None:
        """Write it; a pipe gets it at once."""
        top = [cell for one in row["top"] for cell in (one["label"], f"{one['score']:.6f}")]
        cells = [row["file"], row.get("frame", ""), row.get("time_s", ""), row["label"], *top]
        self._writer.writerow([printable(str(spreadsheet_cell(cell))) for cell in cells])
        sys.stdout.flush()


class WholeDocument:
    """One document, at the end."""

    def __init__(self, predictor: Predictor) -> None:
        """Start an empty one."""
        self._predictor, self._rows = predictor, list[Row]()

    def add(self, row: Row) -> None:
        """Keep it."""
        self._rows.append(row)

    def end(self) -> None:
        """Print it."""
        opt.print_json(document_of(self._predictor, self._rows))


class Shown:
    """A table at the end: a row a picture, and one for each stretch of a video with one answer."""

    def __init__(self, predictor: Predictor) -> None:
        """Start an empty one."""
        self._predictor, self._stretches = predictor, list[list[Row]]()
        self._num_dropped = 0

    def add(self, row: Row) -> None:
        """Keep it, or let it lengthen a stretch."""
        last = self._stretches[-1] if self._stretches else []
        if "frame" in row and last and _is_same(last[-1], row):
            first, sums = last[0], last[-1]
            score = sums["score"] + row["top"][0]["score"]
            last[1:] = [{**row, "score": score, "num": sums["num"] + 1}]
            last[0] = first
            return
        self._stretches.append([row, {**row, "score": row["top"][0]["score"], "num": 1}])
        if len(self._stretches) > MAX_SCENES:
            del self._stretches[0]
            self._num_dropped += 1

    def end(self) -> None:
        """Print it, with the threshold and the speed."""
        if not self._predictor.tally.num_images:
            return  # the error says why
        table = Table()
        for column in ("picture", "label", "score", "then"):
            table.add_column(column, overflow="fold")
        for first, last in self._stretches:
            table.add_row(*_cells(first, last))
        head, console = self._predictor.head, result_console()
        threshold, fitted_on = head["reject_threshold"], head["threshold_fitted_on"]
        footnote = "there is no threshold: no answer is unknown"
        if threshold:
            footnote = f"unknown: score below {threshold:.3f}"
        if fitted_on:
            footnote += f", which refuses {SHARE_REJECTED:.0%} of the right answers on {fitted_on}"
        console.print(table)
        notes = list(head["notes"])
        if self._num_dropped:
            notes.append(f"{self._num_dropped:,} earlier rows are not shown: --format csv has all")
        for note in notes:
            console.print(f"[yellow]note:[/yellow] {escape(note)}", soft_wrap=True)
        console.print(f"[dim]{escape(speed_of(self._predictor))}[/dim]", soft_wrap=True)
        console.print(f"[dim]{footnote}[/dim]", soft_wrap=True)


def _is_same(last: Row, row: Row) -> bool:
    keys = ("file", "label", "is_known")
    return "frame" in last and all(last[key] == row[key] for key in keys)


def _cells(first: Row, last: Row) -> tuple[str, ...]:
    label = f"[bold]{escape(first['label'])}[/bold]"
    if "frame" in first:
        place = f"{one_line(first['file'])}, {first['time_s']:.1f} to {last['time_s']:.1f} s"
        score = last["score"] / last["num"]
        return escape(place), label, f"{score:.3f}", counted(last["num"], "frame")
    best, *others = first["top"]
    named = others if first["is_known"] else first["top"]
    then = ", ".join(f"{escape(o['label'])} {o['score']:.3f}" for o in named)
    return escape(one_line(first["file"])), label, f"{best['score']:.3f}", then


VIEWS: dict[str, Callable[[Predictor], View]] = {"table": Shown, "jsonl": JsonLines, "csv": Csv}


class Pulse:
    """Shows on standard error that work goes on: one line written over, in a log ever fewer."""

    FIRST_S, MOST_S, TERMINAL_S = 2.0, 30.0, 0.2

    def __init__(self, predictor: Predictor, quiet: bool) -> None:
        """Start to wait."""
        self._predictor, self._quiet = predictor, quiet
        self._is_terminal = sys.stderr.isatty()
        self._wait_s = self.TERMINAL_S if self._is_terminal else self.FIRST_S
        self._last, self._is_shown = time.monotonic(), False

    def beat(self, row: dict[str, Any]) -> None:
        """Say how far it is, if it was silent for long enough."""
        if self._quiet or time.monotonic() - self._last < self._wait_s:
            return
        tally = self._predictor.tally
        text = f"{counted(tally.num_images, 'image')}, {tally.images_per_s:.1f} images/s: "
        text = printable(f"{text}{row['label']} ({row['file']})").replace("\n", " ")
        sys.stderr.write(f"\r{text[:79]:79}" if self._is_terminal else f"{text}\n")
        sys.stderr.flush()
        self._is_shown, self._last = self._is_terminal, time.monotonic()
        if not self._is_terminal:
            self._wait_s = min(2 * self._wait_s, self.MOST_S)

    def clear(self) -> None:
        """Leave an empty line on a terminal."""
        if self._is_shown:
            sys.stderr.write(f"\r{'':79}\r")
            self._is_shown = False
