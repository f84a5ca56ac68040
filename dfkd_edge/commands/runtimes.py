"""The commands `runtimes list`, `runtimes show` and `runtimes add`."""

from __future__ import annotations

from typing import Annotated

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table
from typer import Argument, Typer

from dfkd_edge.commands import options as opt
from dfkd_edge.console import ConsoleReporter, loading_libraries, make_console, result_console

runtimes_app = Typer(help="Hand a bundle to DeepStream, Triton and others.", no_args_is_help=True)


@runtimes_app.command("list")
def list_command(as_json: opt.AsJson = False) -> None:
    """Show every runtime, and the JetPacks that it runs on."""
    from dfkd_edge.handover.lookup import list_runtimes, load_runtime

    profiles = [load_runtime(name).profile for name in list_runtimes()]
    if as_json:
        opt.print_json({"runtimes": [profile.model_dump() for profile in profiles]})
        return
    table = Table("name", "what", "where", box=SIMPLE_HEAD, pad_edge=False)
    table.columns[0].no_wrap = True
    for profile in profiles:
        table.add_row(profile.name, escape(profile.title), escape(profile.reach()))
    show = result_console().print
    show(table)
    show(
        "dfkd-edge export --runtime NAME puts one into a bundle; runtimes add into a finished one."
    )


@runtimes_app.command("show")
def show_command(
    name: Annotated[str, Argument(metavar="NAME", help="Name of `runtimes list`.")],
    as_json: opt.AsJson = False,
) -> None:
    """Show what a runtime takes, its versions, and where that is known from."""
    from dfkd_edge.handover.lookup import load_runtime

    profile = load_runtime(name).profile
    if as_json:
        opt.print_json(profile.model_dump())
        return
    table = Table("field", "value", "source")
    table.title = escape(profile.name)
    for key, value in profile.shown().items():
        table.add_row(key, escape(value), escape(profile.sources.get(key, "")))
    result_console().print(table)


@runtimes_app.command("add")
def add_command(
    bundle: opt.BundleFolder,
    names: Annotated[list[str], Argument(metavar="NAME...", help="Names of `runtimes list`.")],
    sign: opt.Sign = None,
    as_json: opt.AsJson = False,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
) -> None:
    """Add runtimes to a finished bundle, which is proven and sealed again.

    One that is there already is made anew. Results of the bundle as it was stay and say so.
    """
    from dfkd_edge.bundles.opening import find_bundle, open_bundle
    from dfkd_edge.bundles.signature import is_signed, load_signer, sign_or_tell
    from dfkd_edge.handover.lookup import load_runtime, require_runtimes, target_of

    for name in names:
        load_runtime(name)  # a wrong name is told of before a wrong bundle
    if sign:
        load_signer(sign)  # and a key that cannot sign before the work
    opened = open_bundle(find_bundle(bundle))
    require_runtimes(names, target_of(opened), batch=opened.batch, classes=opened.classes)
    console = make_console(quiet)
    with loading_libraries(console):
        from dfkd_edge.handover.add import add_runtimes
    was_signed, reporter = is_signed(opened.folder), ConsoleReporter(console)
    done = add_runtimes(opened, names, reporter)
    sign_or_tell(done, sign, was_signed, reporter)
    folders = [str(done.folder / "runtimes" / name) for name in dict.fromkeys(names)]
    if as_json:
        opt.print_json({"bundle": str(done.folder), "runtimes": folders})
        return
    for folder in folders:
        text = f"{folder}/README.md"
        result_console().print(
            text, markup=False, highlight=False, soft_wrap=True
        )  # a path stays whole
