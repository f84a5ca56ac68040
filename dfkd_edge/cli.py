"""The command line: parse, call one stage, print. Heavy imports stay inside the commands."""

import re
import shlex
import sys
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from dfkd_edge.commands.benchmark import benchmark
from dfkd_edge.commands.check import check
from dfkd_edge.commands.classes import classes_app
from dfkd_edge.commands.distill import distill
from dfkd_edge.commands.export import export
from dfkd_edge.commands.inspect_folder import inspect
from dfkd_edge.commands.machine import cache_app, doctor
from dfkd_edge.commands.predict import predict
from dfkd_edge.commands.report import report
from dfkd_edge.commands.run import run
from dfkd_edge.commands.runs import runs
from dfkd_edge.commands.runtimes import runtimes_app
from dfkd_edge.commands.synthesize import synthesize
from dfkd_edge.commands.targets import targets_app
from dfkd_edge.commands.teachers import teachers_app
from dfkd_edge.config.file import in_plain_words
from dfkd_edge.errors import DfkdEdgeError
from dfkd_edge.machine.interruption import Terminated, interrupt_on_sigterm, interrupted_line
from dfkd_edge.machine.joining import is_first_of_group
from dfkd_edge.runtime.faults import Fault
from dfkd_edge.runtime.plain_text import escape_in_streams, unexpected
from dfkd_edge.version import __version__

COMMANDS = (
    *("distill", "synthesize", "export", "check", "run", "benchmark", "predict", "report"),
    *("runs", "classes", "targets", "runtimes", "teachers", "doctor", "inspect", "cache"),
)
SHARED = ("distill", "synthesize", "run")
"""Verbs whose work the ranks of torchrun share; any other one is the first rank's alone."""
PROGRAM = "dfkd-edge"
INTERRUPTED, TERMINATED = 130, 143
"""By Ctrl-C and by SIGTERM: 128 and the number of the signal, as shells have it."""
ParserError: Any = typer.BadParameter.__bases__[0]
"""The parser's UsageError: click's, or that of a typer which brings a parser of its own."""


class InOrderOfUse(TyperGroup):
    """The verbs along the pipeline, then the helpers; says what an interrupt cut off."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Order the names for the help."""
        return sorted(self.commands, key=COMMANDS.index)

    def invoke(self, ctx: Any) -> Any:
        """Run the verb; caught here, since typer makes exit code 130 of every interrupt."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as stop:
            sys.stderr.write(f"\n{interrupted_line(stop, sys.argv[1:])}\n")
            raise typer.Exit(TERMINATED if isinstance(stop, Terminated) else INTERRUPTED) from stop


app = typer.Typer(
    name=PROGRAM,
    cls=InOrderOfUse,
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # `_fail` shows tracebacks, and only with --verbose
    rich_markup_mode="rich",
)


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


VERBS = (distill, synthesize, export, check, run, benchmark, predict, report, runs, doctor, inspect)
for verb in VERBS:
    app.command()(verb)
GROUPS = {
    "classes": classes_app,
    "targets": targets_app,
    "runtimes": runtimes_app,
    "teachers": teachers_app,
    "cache": cache_app,
}
for name, group in GROUPS.items():
    app.add_typer(group, name=name)
for known in (app, *GROUPS.values()):
    for command in known.registered_commands:  # typer keeps the line breaks of later paragraphs
        paragraphs = (command.callback.__doc__ or "").split("\n\n") if command.callback else ()
        command.help = "\n\n".join(" ".join(each.split()) for each in paragraphs)


def main() -> None:
    """Run the command line; the one place where errors become exit codes."""
    interrupt_on_sigterm()
    escape_in_streams()
    if not is_first_of_group() and sys.argv[1:2] not in ([verb] for verb in SHARED):
        return
    try:
        code = app(prog_name=PROGRAM, standalone_mode=False)  # errors come back here
    except ParserError as error:
        _fail(error, parser_line(error), error.exit_code)
    except typer.Abort:  # a no to the question of `cache clean`
        sys.exit("nothing was done")
    except (DfkdEdgeError, Fault) as error:
        _fail(error, str(error), error.exit_code)
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        _fail(error, f"{error.strerror or error}{where}: free space or permissions, then go on", 4)
    except Exception as error:  # of a library, on files that others made: no traceback
        _fail(error, f"{unexpected(error)}: --verbose shows all of it", 1)
    sys.exit(code)


def parser_line(error: Any) -> str:
    """Say in one line what the parser refuses, and what may have been meant.

    Args:
        error: a `ParserError`: a missing argument, an unknown option or command, a wrong value.

    Returns:
        The line; empty where the parser has shown the help instead.
    """
    text = " ".join(error.format_message().split()).partition(" (Possible options: ")[0]
    what, _, near = text.rstrip(".?").partition(". Did you mean ")
    known = near.replace("'", "").split(", ") if near else getattr(error, "possibilities", ())
    wrong = re.fullmatch(r"(Invalid value for .+?): (Input should be .+)", what)
    if wrong:  # by typer's own validator, which knows no value to show
        said, example = in_plain_words(wrong[2], "it")
        what, known = f"{wrong[1]}: {said}", ()
    command = error.ctx.command_path if error.ctx else " ".join((PROGRAM, *sys.argv[1:2]))
    extra = re.fullmatch(r"Got unexpected extra argument(?:\(s\))? \((\S+)\)", what)
    if extra and error.ctx.params.get("classes", "") is None:  # `distill classes.txt`
        known = (f"{command} --classes {shlex.quote(extra[1])}",)
    help_hint = f"{command} --help shows how it is called"
    hint = f"did you mean {' or '.join(known)}?" if known else help_hint
    hint = example if wrong and example else hint
    return f"{what[:1].lower()}{what[1:]} ({command}): {hint}" if what else ""


def _fail(error: Exception, line: str, exit_code: int) -> NoReturn:
    if {"--verbose", "-v"} & set(sys.argv[1:]):
        import traceback

        traceback.print_exception(error)
    if not line:
        sys.exit(exit_code)
    from rich.markup import escape

    from dfkd_edge.console import PlainConsole

    console = PlainConsole(stderr=True, highlight=False, soft_wrap=True)
    console.print(f"[bold red]error:[/bold red] {escape(line)}")
    sys.exit(exit_code)
