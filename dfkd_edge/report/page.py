"""Renders the page and writes it: the template, the policy that forbids any network, the place."""

import base64
import hashlib
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from dfkd_edge.errors import DfkdEdgeError, EnvironmentLackingError
from dfkd_edge.files import atomic_write
from dfkd_edge.interfaces import Reporter
from dfkd_edge.report import accuracy, making, speed
from dfkd_edge.report.blocks import Section, VerdictView
from dfkd_edge.report.reading import gather
from dfkd_edge.report.sources import Sources
from dfkd_edge.report.verdict import verdict
from dfkd_edge.results.device import keep_results
from dfkd_edge.runtime.bundle_files import REPORT
from dfkd_edge.runtime.plain_text import printable
from dfkd_edge.version import __version__

TEMPLATES = Path(__file__).parent / "templates"
# in the order in which people ask: how good, how fast, where it fails, and then how it was made
SECTIONS = (
    ("accuracy", "Accuracy", accuracy.accuracy_section),
    ("speed", "Speed and size", speed.speed_section),
    ("classes", "Classes", accuracy.classes_section),
    ("confidence", "Confidence", accuracy.confidence_section),
    ("pictures", "Surrogate images", making.pictures_section),
    ("prompts", "Prompts", making.prompts_section),
    ("training", "Training", making.training_section),
    ("conversion", "Conversion", making.conversion_section),
    ("environment", "Environment", making.environment_section),
    ("reproduce", "Reproduce it", making.reproduce_section),
)


def _to_stderr(line: str) -> None:
    sys.stderr.write(printable(f"{line}\n"))


def write_report(
    path: Path,
    results: Sequence[Path] = (),
    output: Path | None = None,
    say: Callable[[str], None] = _to_stderr,
) -> Path:
    """Write the report of a run or bundle and return its path.

    Results are kept in `devices/` of the run or bundle, so that every later page shows them; one
    that cannot be written into has them on this page alone.

    Args:
        path: a run, or a bundle.
        results: files that check.pyz wrote on devices.
        output: where the report goes instead of its usual place.
        say: told, a line each, which kept results cannot be read, and when new ones are not kept.

    Raises:
        RunDirError: the folder is neither run nor bundle.
        UsageError: a result is not there.
        ArtifactError: a file is damaged, or a given result is none of ours.
        EnvironmentLackingError: the report cannot be written.
    """
    return write_page(gather(path, results), output, say)


def refresh_report(path: Path, reporter: Reporter) -> str:
    """Write the report of a run or bundle again; returns its path, or why there is none."""
    try:
        with reporter.stage("writing the report", 1) as progress:
            written = write_report(path, say=lambda line: reporter.note(f"  {line}"))
            progress.advance()
        return str(written)
    except DfkdEdgeError as error:  # what was measured is worth more than its picture
        reporter.note(f"  no report: {error}")
        return "not written"


def report_path(path: Path) -> Path:
    """Where the report of a run or bundle lies: a bundle inside a run has the run's."""
    return gather(path).path / REPORT


def write_page(
    sources: Sources, output: Path | None = None, say: Callable[[str], None] = _to_stderr
) -> Path:
    """Write what was gathered and return where it lies; keep the results that are new to it.

    Raises:
        EnvironmentLackingError: it cannot be written.
    """
    target, page = output or sources.path / REPORT, render(sources)
    for fault in sources.unread:
        say(f"left out: {fault}")
    try:
        keep_results(sources.path, sources.sent)  # what no page can show is never kept
    except EnvironmentLackingError as error:
        say(f"on this page alone, not kept: {error}")
    atomic_write(target, page)
    return target


def render(sources: Sources) -> str:
    """Make the page of a run or bundle."""
    sections = [(key, title, section(sources)) for key, title, section in SECTIONS]
    return page_of(sources.path.name, sources.classes, verdict(sources), sections)


def _shown(value: object) -> object:
    """Let hidden characters of names be seen: none reorders what stands beside it."""
    if not isinstance(value, str):
        return value
    return Markup(printable(value)) if isinstance(value, Markup) else printable(value)


def page_of(
    name: str,
    classes: Sequence[str],
    said_first: VerdictView,
    sections: Sequence[tuple[str, str, Section]],
) -> str:
    """Make a page; all that comes from users is escaped by jinja2.

    Args:
        name: of what it is about.
        classes: names to list; may be none.
        said_first: what stands above all.
        sections: each with its anchor and its title.
    """
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,  # names of classes, files and devices are not ours
        finalize=_shown,
        undefined=StrictUndefined,  # by default jinja2 shows a misspelt name as nothing
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = (TEMPLATES / "script.js").read_text(encoding="utf-8")
    # the policy lets this one script run, and none that a class name may smuggle in
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    return environment.get_template("report.html").render(
        name=name,
        classes=classes,
        verdict=said_first,
        sections=sections,
        style=Markup((TEMPLATES / "style.css").read_text(encoding="utf-8")),
        script=Markup(script),
        script_digest=digest,
        version=__version__,
        written=time.strftime("%Y-%m-%d %H:%M"),
    )
