from __future__ import annotations

import dataclasses
import shlex

from dfkd_edge.report.making import _export_again
from dfkd_edge.report.sources import BundleSource
from dfkd_edge.runtime.bundle_files import Bundle


def test_the_printed_export_names_its_pictures_and_may_replace_the_bundle(
    tiny_bundle: Bundle,
) -> None:
    manifest = {**tiny_bundle.manifest, "provenance": {"data": "my pictures", "config": {}}}
    nothing = dict.fromkeys(f.name for f in dataclasses.fields(BundleSource))
    source = BundleSource(**{**nothing, "folder": tiny_bundle.folder, "manifest": manifest})  # type: ignore[arg-type]
    words = shlex.split(_export_again(source, "RUN"))
    assert words[:5] == ["dfkd-edge", "export", "RUN", "--target", "tiny-board"]
    assert words[5:9] == ["--data", "my pictures", "--output", str(tiny_bundle.folder)]
    assert words[9:] == ["--exist-ok"]
