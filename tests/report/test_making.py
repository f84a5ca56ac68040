from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path

from dfkd_edge.report.blocks import Missing
from dfkd_edge.report.ladder_view import exporting
from dfkd_edge.report.making import _export_again, calibration_section
from dfkd_edge.report.sources import BundleSource, read_sources
from dfkd_edge.runtime.bundle_files import Bundle


def test_the_printed_export_names_its_pictures_and_may_replace_the_bundle(
    tiny_bundle: Bundle,
) -> None:
    made = {"data": "my pictures", "config": {}}
    manifest = {"target": tiny_bundle.manifest.target, "provenance": made}
    nothing = dict.fromkeys(f.name for f in dataclasses.fields(BundleSource))
    source = BundleSource(**{**nothing, "folder": tiny_bundle.folder, "manifest": manifest})  # type: ignore[arg-type]
    words = shlex.split(_export_again(source, "RUN"))
    assert words[:5] == ["dfkd-edge", "export", "RUN", "--target", "tiny-board"]
    assert words[5:9] == ["--data", "my pictures", "--output", str(tiny_bundle.folder)]
    assert words[9:] == ["--exist-ok"]


def test_a_page_of_a_run_of_few_images_names_no_export_that_would_be_refused(run: Path) -> None:
    sources = read_sources(run)
    assert exporting(sources).endswith("--precision fp16")
    (missing,) = calibration_section(sources).blocks
    assert isinstance(missing, Missing)
    assert "4 images to learn from" in missing.what
    assert missing.command.startswith("dfkd-edge distill --config")
    assert "--set synthesis.num_images=" in missing.command
    assert "--output" not in missing.command  # this run stays
