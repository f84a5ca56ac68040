"""`report A B`: two runs side by side, on the terminal and on a page of its own."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from dfkd_edge.report.compare import compare
from tests.fixtures.command import call
from tests.fixtures.files import edit_json, read_json


@pytest.fixture
def two(tiny_run: Path, tmp_path: Path) -> tuple[Path, Path]:
    """The same run twice, the second with another seed and a student that is right less often."""
    first, second = (
        Path(shutil.copytree(tiny_run, tmp_path / name)) for name in ("<b>one</b>", "two")
    )
    config = (second / "config.toml").read_text(encoding="utf-8")
    (second / "config.toml").write_text(config.replace("seed = 0", "seed = 9"), encoding="utf-8")
    shutil.rmtree(second / "bundles")
    document: dict[str, Any] = read_json(second / "evaluation.json")
    for figures in document["rungs"][-1]["domains"].values():
        figures.update(top1=0.0, top1_interval=[0.0, 0.2])
    edit_json(second / "evaluation.json", rungs=document["rungs"])
    return first, second


def test_two_runs_are_compared_by_settings_domains_ladder_and_size(two: tuple[Path, Path]) -> None:
    code, output, errors = call("report", *two, "--json")
    assert code == 0, errors
    found = json.loads(output)
    tables = found["tables"]
    assert tables["settings that differ"]["seed"] == ["0", "9"]
    domains = tables["top-1 of what ships, 95% intervals"]
    assert set(domains) == {"photo", "sketch", "mean"}
    shares = compare(*two).climbs
    assert shares is not None
    ours, theirs = (climb.ladder.shipped.domains["photo"].top1 for climb in shares)
    assert domains["photo"][2].startswith(f"{100 * (theirs - ours):+.1f} ")
    assert all("%" in text for text in tables["ladder: mean, MiB, ms here"]["student"])
    assert tables["what ships"]["gate"][1] == "not exported"
    page = Path(found["report"]).read_text(encoding="utf-8")
    assert Path(found["report"]).parent == two[0]
    assert "settings that differ" in page
    assert "&lt;b&gt;one&lt;/b&gt;" in page
    assert "<b>one</b>" not in page
    shown = call("report", *two)[1]
    assert all(text in shown for text in ("seed", "photo", "student", "not exported"))


def test_an_fp16_bundle_that_holds_the_fp32_graph_ships_that(two: tuple[Path, Path]) -> None:
    (manifest,) = two[0].glob("bundles/*/manifest.json")
    edit_json(manifest, precision="fp16")
    found = json.loads(call("report", *two, "--json")[1])
    (shipped,) = (cells for name, cells in found["tables"]["what ships"].items() if "graph" in name)
    assert shipped[0].startswith("fp32 graph of the fp16 bundle for ")


def test_one_run_twice_three_runs_and_results_of_devices_are_refused(
    two: tuple[Path, Path], tmp_path: Path
) -> None:
    for words, said in (
        ((two[0], two[0]), "one run twice"),
        ((*two, two[0]), "3 runs are named, a report is about one, or compares two"),
        ((*two, "result.json"), "results of devices end in .json"),
        ((two[0], tmp_path / "none"), "no run here"),
    ):
        code, output, errors = call("report", *words)
        assert (code, output, len(errors.splitlines())) == (2, "", 1)
        assert said in errors
