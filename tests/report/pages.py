"""Pages as a browser reads them, and what goes onto them."""

import json
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from dfkd_edge.files import atomic_write, file_hash
from dfkd_edge.report import write_report
from dfkd_edge.results.kept import EVALUATION
from dfkd_edge.results.ladder import Ladder
from dfkd_edge.runtime.device_result import MARKER

EVIL = '<script>alert("x")</script>'
"""Name of a class that tries to become markup."""


class Page(HTMLParser):
    """What a browser would make of the page: elements, attributes, text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data

    def values(self, attribute: str) -> list[str]:
        """All values of an attribute."""
        return [value for name, value in self.attributes if name == attribute]


def page_of(path: Path, results: Sequence[Path] = ()) -> Page:
    """Write the report of a run or bundle and read it."""
    return Page(write_report(path, results).read_text(encoding="utf-8"))


def missing(text: str, *parts: str) -> list[str]:
    """Those of some parts that a page does not say."""
    return [part for part in parts if part not in text]


def keep(run: Path, ladder: Ladder) -> None:
    """Let a run have reached this."""
    atomic_write(run / EVALUATION, json.dumps(ladder.to_json()))


def device_result(
    path: Path, name: str, p50: float, bundle: Path | None = None, **changes: Any
) -> Path:
    """Write what check.pyz writes on a device; `changes` are of its document."""
    latency = {"percentile_ms": {"p50": p50, "p90": p50 + 1, "p99": p50 + 2}}
    model = {"backend": "tensorrt", "golden": {"passed": True}, "latency": latency}
    sha256 = file_hash(bundle / "manifest.json") if bundle else ""
    document = {
        "marker": MARKER,
        "device": {"board": name},
        "bundle": {"manifest_sha256": sha256},
        "models": {"int8": model},
    }
    atomic_write(path, json.dumps({**document, **changes}))
    return path
