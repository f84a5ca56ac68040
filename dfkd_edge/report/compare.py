"""Two runs or bundles side by side: settings that differ, accuracy, ladder, sizes and times.

The page and the terminal show the same tables.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from dfkd_edge.class_names import slug
from dfkd_edge.files import atomic_write
from dfkd_edge.report.blocks import Block, Cell, Facts, Notes, Section, Table, VerdictView
from dfkd_edge.report.page import page_of
from dfkd_edge.report.reading import gather
from dfkd_edge.report.sources import Climb, Sources
from dfkd_edge.report.svg import NOTHING, percent
from dfkd_edge.results.certainty import Certainty, certainty_of, difference
from dfkd_edge.results.ladder import Ladder, MeasuredRung
from dfkd_edge.results.wording import METRICS
from dfkd_edge.runtime.caveats import graph_name
from dfkd_edge.runtime.counting import first_few

MIB = 1 << 20
MAX_NAMED = 6
CHANCE = ", may be chance"


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two sources, and the ladder of each that is held against the other's."""

    first: Sources
    second: Sources
    climbs: tuple[Climb, Climb] | None  # None where one was not measured

    @property
    def sources(self) -> tuple[Sources, Sources]:
        """Both."""
        return self.first, self.second

    @property
    def names(self) -> tuple[str, str]:
        """What the two are called: by their folders, with those above where these are equal."""
        first, second = (source.path for source in self.sources)
        if first.name != second.name:
            return first.name, second.name
        return f"{first.parent.name}/{first.name}", f"{second.parent.name}/{second.name}"

    def settings(self) -> dict[str, tuple[object, object]]:
        """Find the settings that both have and that differ, by their names."""
        ours, theirs = (_settings(source) for source in self.sources)
        pairs = {name: (value, theirs[name]) for name, value in ours.items() if name in theirs}
        return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}

    def notes(self) -> list[str]:
        """Say what keeps the two from being compared, a sentence each."""
        told = []
        ours, theirs = (source.classes for source in self.sources)
        if set(ours) != set(theirs):
            lists = ((ours, theirs), (theirs, ours))
            alone = [tuple(n for n in own if n not in other) for own, other in lists]
            parts = [
                f"{first_few(own, MAX_NAMED)} in {name} alone"
                for name, own in zip(self.names, alone, strict=True)
                if own
            ]
            told.append(f"the classes differ: {'; '.join(parts)}")
        told += self._left_out()
        if self.climbs is None:
            pairs = zip(self.names, self.sources, strict=True)
            missing = " and ".join(name for name, source in pairs if not source.climbs)
            return [*told, f"not measured yet: {missing}"]
        first, second = (climb.ladder for climb in self.climbs)
        if first.metric != second.metric:
            told.append("one is measured on labelled pictures, the other by agreement alone")
        elif not self._share_images():
            told.append("each was measured on images of its own")
        for name, climb in zip(self.names, self.climbs, strict=True):
            told.append(f"{name}: {climb.origin}")
        return told

    def _left_out(self) -> list[str]:
        """Say which settings are known of one alone, for what reason."""
        told = []
        for name, source in zip(self.names, self.sources, strict=True):
            swap = source.bundles[0].record.swap if source.bundles else None
            if swap:
                origin = Path(swap.bundle).name
                told.append(f"{name}: classes of {origin} swapped, whose other settings it has")
            elif not source.run:
                told.append(f"{name}: a bundle without its run, whose settings are not known here")
            elif not source.bundles:
                told.append(f"{name}: not exported yet, so no setting of an export is compared")
        return told

    def _share_images(self) -> bool:
        """Whether both ladders show the same images: pictures of a folder, or those of one run."""
        assert self.climbs
        first, second = self.climbs
        if first.ladder.metric == "top1":
            return first.ladder.images == second.ladder.images
        shown = [
            bundle.shows_images_of
            for source, climb in zip(self.sources, self.climbs, strict=True)
            for bundle in source.bundles
            if bundle.folder == climb.bundle
        ]
        return len(shown) == 2 and shown[0] == shown[1]  # `distill` shows none as a bundle does

    def tables(self) -> Iterator[Table]:
        """Make what page and terminal show."""
        rows = [Cell.row(name, *map(_text, pair)) for name, pair in self.settings().items()]
        yield Table(("setting", *self.names), rows, "settings that differ")
        if self.climbs:
            ladders = self.climbs[0].ladder, self.climbs[1].ladder
            if ladders[0].metric == ladders[1].metric:
                yield self._domains(*ladders)
            yield self._rungs(*ladders)
        yield Table(("", *self.names), list(self._facts()), "what ships")

    def _domains(self, first: Ladder, second: Ladder) -> Table:
        shared = [name for name in first.shown_domains if name in second.shipped.domains]
        rows = [_difference(name, _of(first, name), _of(second, name)) for name in shared]
        rows.append(_difference("mean", certainty_of(first), certainty_of(second)))
        headings = ("domain", *self.names, "difference in points")
        return Table(headings, rows, f"{METRICS[first.metric]} of what ships, 95% intervals")

    def _rungs(self, *ladders: Ladder) -> Table:
        held = [{rung.name: rung for rung in ladder.rungs} for ladder in ladders]
        rows = []
        for name in dict.fromkeys((*held[0], *held[1])):
            cells = [
                _rung(each.get(name), ladder) for each, ladder in zip(held, ladders, strict=True)
            ]
            rows.append((Cell(name), *cells))
        return Table(("rung", *self.names), rows, "ladder: mean, MiB, ms here")

    def _facts(self) -> Iterator[tuple[Cell, ...]]:
        students = [source.student for source in self.sources]
        sizes = (
            f"{s.timm_name}, {s.num_parameters / 1e6:.2f} M" if s else NOTHING for s in students
        )
        yield Cell.row("student", *sizes)
        yield Cell.row("teacher", *(s.teacher if s else NOTHING for s in students))
        yield Cell.row("classes", *(str(len(source.classes)) for source in self.sources))
        for name, made in (("graph", _graph), ("gate", _gate), ("devices", _devices)):
            yield Cell.row(name, *(made(source) for source in self.sources))

    def to_json(self) -> dict[str, object]:
        """Make the document of `report A B --json`."""
        tables = {
            table.caption: {
                row[0].text: [f"{cell.text} {cell.note}".strip() for cell in row[1:]]
                for row in table.rows
            }
            for table in self.tables()
        }
        paths = [str(source.path) for source in self.sources]
        return {"compared": paths, "notes": self.notes(), "tables": tables}


def compare(first: Path, second: Path) -> Comparison:
    """Read two runs or bundles.

    Raises:
        RunDirError: one is neither.
        ArtifactError: a file is damaged.
    """
    ours, theirs = gather(first), gather(second)
    return Comparison(ours, theirs, _matched(ours, theirs))


def write_comparison(found: Comparison, output: Path | None) -> Path:
    """Write the page and return where it lies: in the first run, or beside a bundle of no run.

    Raises:
        EnvironmentLackingError: it cannot be written.
    """
    first = found.first.path
    place = first if found.first.run and found.first.run.path == first else first.parent
    name = f"compare-{slug(found.names[0])}-{slug(found.names[1])}.html"
    target = output or place / name
    blocks: list[Block] = [Notes("to be read with these figures", found.notes()), *found.tables()]
    title = f"{found.names[0]} and {found.names[1]}"
    verdict = VerdictView("open", title, "Two runs side by side.")
    folders = zip(found.names, (str(source.path) for source in found.sources), strict=True)
    sections = [
        ("comparison", "Comparison", Section(blocks)),
        ("folders", "Folders", Section([Facts(list(folders))])),
    ]
    atomic_write(target, page_of(title, (), verdict, sections))
    return target


def _matched(first: Sources, second: Sources) -> tuple[Climb, Climb] | None:
    """Pick ladders that measure the same: on the same pictures, else by one command, else any."""
    pairs = [(a, b) for a in first.climbs for b in second.climbs]

    def unlike(pair: tuple[Climb, Climb]) -> tuple[bool, bool, bool]:
        a, b = pair
        is_other_metric = a.ladder.metric != b.ladder.metric
        return is_other_metric, a.ladder.data != b.ladder.data, a.command != b.command

    return min(pairs, key=unlike, default=None)  # of equal ones the first: those of the verdict


def _settings(source: Sources) -> dict[str, object]:
    """Settings of the run, with those of the export of its newest bundle."""
    tree = dataclasses.asdict(source.run.config) if source.run and source.run.config else {}
    tree.pop("export", None)  # of what was exported it is in the manifest
    if source.bundles:
        tree["export"] = dict(source.bundles[0].record.config)
    return {name: value for name, value in _flat(tree) if name not in ("classes", "device")}


def _flat(tree: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:  # a manifest's lists are tuples of the settings
            yield prefix + key, tuple(value) if isinstance(value, list) else value


def _text(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "none"
    return "none" if value in (None, "") else str(value)


def _of(ladder: Ladder, domain: str) -> Certainty:
    """Figure of the last rung in one domain."""
    part = ladder.shipped.domains[domain]
    shown = (part.num_images, part.num_pictures)
    share = part.share(ladder.metric)
    return Certainty(
        ladder.shipped.name, ladder.metric, share, *part.interval(ladder.metric), *shown
    )


def _difference(name: str, first: Certainty, second: Certainty) -> tuple[Cell, ...]:
    gain, low, high = (100 * end for end in difference(second, first))
    chance = CHANCE if low <= 0 <= high else ""
    tone = "" if chance else "good" if gain > 0 else "bad"
    cells = (
        Cell(percent(f.share), f"{percent(f.low)} to {percent(f.high)}") for f in (first, second)
    )
    return Cell(name), *cells, Cell(f"{gain:+.1f}", f"{low:+.1f} to {high:+.1f}{chance}", tone=tone)


def _rung(rung: MeasuredRung | None, ladder: Ladder) -> Cell:
    if rung is None:
        return Cell(NOTHING)
    size = f"{rung.size_bytes / MIB:.2f} MiB" if rung.size_bytes else ""
    took = f"{rung.latency_ms:.2f} ms" if rung.latency_ms else ""
    took += " in PyTorch" * bool(took and rung.runtime == "PyTorch")  # the others: as a graph
    return Cell(percent(ladder.mean(rung)), ", ".join(filter(None, (size, took))))


def _graph(source: Sources) -> str:
    if not source.bundles:
        return NOTHING
    manifest = source.bundles[0].bundle.manifest
    name = manifest.models.get(manifest.precision, manifest.models["fp32"])
    graph = graph_name(manifest.precision, manifest.precision, manifest.models)
    return f"{graph} for {manifest.target}, {manifest.files[name].bytes / MIB:.2f} MiB"


def _gate(source: Sources) -> str:
    return source.bundles[0].decision if source.bundles else "not exported"


def _devices(source: Sources) -> str:
    return "; ".join(str(result["summary"]) for result in source.device_summaries) or NOTHING
