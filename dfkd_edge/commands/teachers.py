"""The commands `teachers list` and `teachers show`: what can teach, how large it is, its terms."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Literal

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table
from typer import Argument, Typer

from dfkd_edge.commands import options as opt
from dfkd_edge.console import result_console
from dfkd_edge.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from dfkd_edge.networks.teacher_table import KnownTeacher

teachers_app = Typer(help="Look at the CLIPs that can teach.", no_args_is_help=True)

COLUMNS = ("--teacher", "--pretrained", "image", "all", "px", "card", "licence")
NUMBERS = {"image", "all", "px", "card"}


@teachers_app.command("list")
def list_command(
    word: Annotated[
        str, Argument(metavar="[WORD]", help="Show those whose name, tag or maker has it.")
    ] = "",
    as_json: opt.AsJson = False,
) -> None:
    """Show teachers, the smallest first: size, licence, and the card that distils from them."""
    from dfkd_edge.networks.teacher_table import known_teachers

    found = [
        row
        for row in known_teachers()
        if word.casefold() in f"{row.name} {row.tag} {row.family}".casefold()
    ]
    if not found:
        hint = "dfkd-edge teachers list shows all; --teacher takes a folder or hf-hub:OWNER/NAME"
        raise UsageError(f"no teacher of the table has '{word}'", where="teachers list", hint=hint)
    if as_json:
        opt.print_json({"teachers": [_document(row) for row in found]})
        return
    table, show = Table(box=SIMPLE_HEAD, pad_edge=False), result_console().print
    for column in COLUMNS:
        is_number = column in NUMBERS
        justify: Literal["right", "left"] = "right" if is_number else "left"
        table.add_column(column, justify=justify, overflow="fold", no_wrap=is_number)
    for row in found:
        millions = (f"{n / 1e6:.1f}" for n in (row.num_image_parameters, row.num_parameters))
        quick = " q" * (row.activation == "quickgelu")
        name, style = escape(row.name + quick), "bold" if row.advice else None
        card = f"{row.card_gb} GB" if row.card_gb else "-"
        terms = row.licence.rpartition(": ")[2]  # what is forbidden, where its name does not say it
        cells = (row.tag, *millions, str(row.image_size_px), card, terms)
        table.add_row(name, *map(escape, cells), style=style)
    show(table)
    show("image, all: millions of parameters of the image tower, and with the text tower.")
    show("card: the smallest that distils from it (8, 16 GB counted, others by size); or any CPU.")
    if any(row.activation == "quickgelu" for row in found):
        show("q: trained with QuickGELU, which is set by the tag.")
    if any(row.family.startswith("SigLIP") for row in found):
        show("SigLIP's tokenizer: pip install 'dfkd-edge[siglip]'", markup=False)
    for row in found:
        if row.advice:
            named = f"{row.name} {row.tag}".strip()
            show(f"[bold]{escape(named)}[/bold]: {row.advice}")
    show("dfkd-edge teachers show NAME writes the flags of each tag, to be copied.")
    show("Licences as far as known; --json has their names, the maker's page the last word.")


@teachers_app.command("show")
def show_command(
    name: Annotated[str, Argument(metavar="NAME", help="Name of `teachers list`, any case.")],
    as_json: opt.AsJson = False,
) -> None:
    """Show a teacher: its sizes, and for each of its weights the flags, the terms and the card."""
    from dfkd_edge.networks.teacher_table import known_teachers

    rows = known_teachers()
    found = [row for row in rows if row.name.casefold() == name.casefold()]
    if not found:
        hint = did_you_mean(name, {row.name for row in rows}, "dfkd-edge teachers list shows all")
        raise UsageError(f"no teacher of the table is called '{name}'", where="NAME", hint=hint)
    if as_json:
        opt.print_json({"teachers": [_document(row) for row in found]})
        return
    for line in _lines(found):
        result_console().print(line, markup=False, highlight=False, soft_wrap=True)


def _lines(rows: list[KnownTeacher]) -> Iterator[str]:
    """Write one name and its tags, each on a line that no width cuts."""
    first = rows[0]
    image, all_ = (f"{n / 1e6:.1f}" for n in (first.num_image_parameters, first.num_parameters))
    yield f"{first.name}: {image} million parameters in the image tower, {all_} in all"
    for row in rows:
        card = f"a card of {row.card_gb} GB or any CPU" if row.card_gb else "a CPU"
        facts = [row.family, f"{row.image_size_px} px", row.licence, card]
        facts += ["QuickGELU, set by the tag"] * (row.activation == "quickgelu")
        facts += [row.advice] * bool(row.advice)
        yield f"  --teacher {row.name}{f' --pretrained {row.tag}' if row.tag else ''}"
        yield f"      {'; '.join(facts)}"


def _document(row: Any) -> dict[str, Any]:
    about = ("family", "licence", "card_gb", "advice")
    return {**asdict(row), **{name: getattr(row, name) for name in about}}
