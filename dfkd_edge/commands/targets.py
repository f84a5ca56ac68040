"""The commands `targets list` and `targets show`."""

import dataclasses
from typing import Annotated, Any

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table
from typer import Argument, Typer

from dfkd_edge.commands import options as opt
from dfkd_edge.console import result_console

targets_app = Typer(help="Look at the devices that export knows.", no_args_is_help=True)

EVIDENCE_STYLE = {"sourced": "green", "derived": "cyan", "unverified": "yellow"}
COLUMNS = ("name", "title", "backend", "precisions", "tensorrt", "python", "ram_gib")


@targets_app.command("list")
def list_command(as_json: opt.AsJson = False) -> None:
    """Show every module with its JetPacks, and every CPU board."""
    from dfkd_edge.target_profiles.lookup import ALIASES, JOIN, list_modules, load_target

    rows = []
    for module, jetpacks in list_modules().items():
        profile = load_target(module)
        row: dict[str, Any] = {column: getattr(profile, column, None) for column in COLUMNS}
        title = profile.facts.get("title")  # no exporter asks for it, and a plugin may not state it
        row["title"] = title.value if title else module
        row |= {"name": module, "default": profile.name, "jetpacks": jetpacks}
        row["targets"] = [f"{module}{JOIN}{jetpack}" for jetpack in jetpacks] or [module]
        rows.append(row)
    if as_json:
        opt.print_json({"targets": rows, "aliases": ALIASES})
        return
    columns = ("name", "device", "runs on", "precisions", "JetPack")
    table, show = Table(*columns, box=SIMPLE_HEAD, pad_edge=False), result_console().print
    table.columns[0].no_wrap = True
    for row in rows:
        bold = row["default"].partition(JOIN)[2]
        others = len(row["jetpacks"]) - 1
        span = f" + {others}" if others > 0 else ""
        precisions = " ".join(row["precisions"])
        default = f"[bold]{bold}[/bold]{span}"
        table.add_row(row["name"], row["title"], row["backend"], precisions, default)
    show(table)
    aliases = ", ".join(f"{alias} = {name}" for alias, name in ALIASES.items())
    show(f"Another JetPack: NAME{JOIN}JETPACK, such as orin-nano-8gb{JOIN}6.2. Alias: {aliases}.")
    show("dfkd-edge targets show NAME says more; --json lists every JetPack.")
    show("A board of your own is a TOML file: --target ./my_board.toml")


@targets_app.command("show")
def show_command(
    name: Annotated[str, Argument(metavar="NAME", help="Target, or a board's TOML file.")],
    as_json: opt.AsJson = False,
) -> None:
    """Show every field of a target with its source, and whether it was verified."""
    from dfkd_edge.target_profiles.lookup import load_target

    profile = load_target(name)
    if as_json:
        opt.print_json(dataclasses.asdict(profile))
        return
    table, show = Table("field", "value", "evidence", "source"), result_console().print
    table.title = escape(profile.name)
    for key, fact in profile.facts.items():
        style = EVIDENCE_STYLE[fact.evidence]
        evidence = f"[{style}]{fact.evidence}[/{style}]"
        table.add_row(key, escape(fact.value), evidence, escape(fact.source))
    show(table)
    for caveat in profile.caveats:
        show(f"[yellow]caveat:[/yellow] {escape(caveat)}")
    if profile.no_int8_reason:
        show(f"[yellow]no INT8:[/yellow] {escape(profile.no_int8_reason)}")
