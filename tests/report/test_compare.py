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


def test_a_run_that_is_not_finished_has_its_classes_and_no_settings_of_an_export(
    two: tuple[Path, Path],
) -> None:
    for name in ("student", "surrogates"):
        shutil.rmtree(two[1] / name)
    (two[1] / "evaluation.json").unlink()
    found = compare(*two)
    assert found.second.classes == found.first.classes
    assert set(found.settings()) == {"seed"}
    assert found.notes() == [
        "two: not exported yet, so no setting of an export is compared",
        "not measured yet: two",
    ]
    first, *others = found.first.classes
    (two[1] / "classes.txt").write_text("\n".join([*others, "newt"]) + "\n", encoding="utf-8")
    said = f"the classes differ: {first} in {found.names[0]} alone; newt in two alone"
    assert said in compare(*two).notes()


def test_a_swapped_bundle_differs_in_no_setting_and_shows_the_images_of_its_origin(
    finished_run: Path, exported: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(finished_run, tmp_path / "run"))
    shutil.copytree(exported, run / "bundles" / "x86-cpu", dirs_exist_ok=True)
    (bundle,) = (run / "bundles").iterdir()
    swapped = Path(shutil.copytree(bundle, tmp_path / "swapped"))
    made = read_json(swapped / "manifest.json")["provenance"]
    swap = {"bundle": str(bundle), "bundle_sha256": "0", "student_sha256": made["student_sha256"]}
    swap |= {"learnt": ["a"], "unlearnt": ["b"], "cost": None}
    made |= {"swap": swap, "student_sha256": "of other heads", "run": "elsewhere"}
    edit_json(swapped / "manifest.json", provenance=made)
    found = compare(run, swapped)
    assert found.settings() == {}
    assert any("whose other settings it has" in note for note in found.notes())
    own = "each was measured on images of its own"
    assert own not in found.notes()
    edit_json(swapped / "manifest.json", provenance={**made, "seed": 99})  # other views
    assert own in compare(run, swapped).notes()


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
