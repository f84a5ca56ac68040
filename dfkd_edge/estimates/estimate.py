"""What every dry run tells: the request, then time and memory of each stage."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

from dfkd_edge.runtime.counting import duration_text
from dfkd_edge.runtime.plain_text import printable


@dataclass(frozen=True, slots=True)
class StageEstimate:
    """One stage of a command."""

    name: str
    work: str  # What it does, in numbers
    seconds: float | None  # None where no small part of it tells how long it takes
    host_bytes: int = 0  # Peak of main memory; 0 where it is not known, as below
    device_bytes: int = 0  # Peak of an accelerator's memory
    disk_bytes: int = 0  # What it leaves on disk, but for small files
    only_where: str = ""  # When it runs at all; empty: always

    def text(self) -> str:
        """Say what it does, how long that takes, and when."""
        took = "not timed" if self.seconds is None else f"about {duration_text(self.seconds)}"
        where = f", only where {self.only_where}" if self.only_where else ""
        return f"{self.work}: {took}{where}"


@dataclass(frozen=True, slots=True)
class Estimate:
    """All stages of a command."""

    stages: tuple[StageEstimate, ...]
    made_from: str  # What was measured, in words

    def seconds(self, *names: str) -> float:
        """Of the stages of these names; without names, of all that always run."""
        wanted = (s for s in self.stages if s.name in names or not (names or s.only_where))
        return sum(stage.seconds or 0 for stage in wanted)

    @property
    def most_seconds(self) -> float:
        """Of all stages, those that run only where something is so among them."""
        return sum(stage.seconds or 0 for stage in self.stages)

    def memory_gib(self, *, at_most: bool = False) -> float:
        """Peak where the networks compute, of what always runs or of all that may."""
        stages = [s for s in self.stages if at_most or not s.only_where]
        on_device = max((s.device_bytes for s in stages), default=0)
        return (on_device or max((s.host_bytes for s in stages), default=0)) / 2**30

    def document(self) -> dict[str, object]:
        """Return `estimate` of `--dry-run --json`."""
        return {
            "stages": [asdict(stage) for stage in self.stages],
            "seconds": self.seconds(),
            "most_seconds": self.most_seconds,
            "memory_gib": self.memory_gib(),
            "estimated_from": self.made_from,
        }

    def lines(self) -> list[str]:
        """Return a line for each stage, and the sums."""
        rows = [(stage.name, stage.text()) for stage in self.stages]
        most_s, longest = self.most_seconds, ""
        if most_s > self.seconds():
            longest = f", at most {duration_text(most_s)} where every stage is needed"
        rows.append(("time", f"about {duration_text(self.seconds())}{longest}"))
        gib, most_gib = self.memory_gib(), self.memory_gib(at_most=True)
        if gib:
            most = f", at most {most_gib:.1f}" if most_gib > gib else ""
            rows.append(("memory", f"about {gib:.1f} GiB{most}"))
        if any(stage.device_bytes for stage in self.stages):
            host_gib = max(stage.host_bytes for stage in self.stages) / 2**30
            name, text = rows.pop()
            text += " on the device; with less, images go in smaller parts"
            rows += [(name, text), ("host", f"about {host_gib:.1f} GiB")]
        if disk_bytes := sum(stage.disk_bytes for stage in self.stages):
            rows.append(("disk", f"about {disk_bytes / 2**20:,.0f} MiB"))
        rows.append(("estimated", f"from {self.made_from}"))
        return [f"{name:<11} {text}" for name, text in rows]


@dataclass(frozen=True, slots=True)
class DryRun:
    """What a command would do."""

    facts: Mapping[str, object]  # Of `--dry-run --json`, beside `estimate`
    head: Sequence[str]  # The same in lines
    estimate: Estimate
    more: Mapping[str, object] = field(default_factory=dict)  # What this command adds to `estimate`
    settings: str = ""  # TOML that is shown below, of which the other lines are comments

    def text(self, as_json: bool) -> str:
        """Write one JSON document, or lines."""
        if as_json:
            document = {**self.facts, "estimate": {**self.estimate.document(), **self.more}}
            return printable(json.dumps(document, ensure_ascii=False)) + "\n"
        mark = "# " if self.settings else ""
        lines = (*self.head, *self.estimate.lines())
        return printable("".join(f"{mark}{line}\n" for line in lines) + self.settings)
