"""What to do about a damaged bundle, wherever it lies and whoever finds it."""

import dataclasses
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from dfkd_edge.bundles.bundle import BundleContents, write_bundle
from dfkd_edge.runs.run_dir import open_run
from dfkd_edge.runtime.bundle_files import Bundle
from dfkd_edge.runtime.faults import COPY_AGAIN, EXPORT_AGAIN, repair_hint
from tests.fixtures.command import invoke
from tests.runtime.conftest import RunCheck

DAMAGES: dict[str, Callable[[Path], object]] = {
    "cut": lambda folder: os.truncate(folder / "model.int8.onnx", 9),
    "edited": lambda folder: (folder / "classes.txt").write_text("dog\n"),
    "longer": lambda folder: (folder / "recipe.md").write_text("run it twice\n"),
    "empty manifest": lambda folder: (folder / "manifest.json").write_bytes(b""),
    "no manifest": lambda folder: (folder / "manifest.json").unlink(),
}


@pytest.fixture
def in_run(tmp_path: Path, tiny_bundle: Bundle) -> Path:
    with open_run(tmp_path / "run", "key", resume=True, exist_ok=False):
        return Path(shutil.copytree(tiny_bundle.folder, tmp_path / "run" / "bundles" / "board"))


def said_by(*arguments: object) -> str:
    return str(invoke(*arguments).exception)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("is_copy", [True, False])
def test_whoever_finds_the_damage_gives_the_one_advice_that_fits_the_place(
    run_check: RunCheck, tiny_bundle: Bundle, in_run: Path, damage: str, is_copy: bool
) -> None:
    folder = tiny_bundle.folder if is_copy else in_run
    DAMAGES[damage](folder)
    _, device, _ = run_check(folder)
    said = [device.strip(), *(said_by(verb, folder) for verb in ("inspect", "check", "benchmark"))]
    if "manifest" in damage:
        said.append(said_by("report", folder))
    advice, other = (COPY_AGAIN, EXPORT_AGAIN) if is_copy else (EXPORT_AGAIN, COPY_AGAIN)
    for line in said:
        assert line.endswith(f": {advice}"), line
        assert line.count(advice) == 1
        assert other not in line


def test_a_bundle_that_was_exported_elsewhere_on_this_host_is_exported_again(
    tiny_contents: BundleContents, in_run: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "elsewhere"
    made = {"run": str(in_run.parents[1]), "folder": str(folder.resolve())}
    write_bundle(folder, dataclasses.replace(tiny_contents, provenance=made))
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    for place in (folder, copy):
        DAMAGES["cut"](place)
    assert said_by("check", folder).endswith(f": {EXPORT_AGAIN}")
    assert said_by("check", copy).endswith(f": {COPY_AGAIN}")
    (in_run.parents[1] / "manifest.json").unlink()
    assert said_by("check", folder).endswith(f": {COPY_AGAIN}")


@pytest.mark.parametrize("damage", ["empty manifest", "no manifest"])
def test_a_bundle_that_lost_its_manifest_is_listed_by_its_run(in_run: Path, damage: str) -> None:
    DAMAGES[damage](in_run)
    run = in_run.parents[1]
    assert "bundle board damaged" in " ".join(invoke("inspect", run).stdout.split())
    listed = invoke("inspect", run, "--json")
    document = json.loads(listed.stdout)
    assert document["damaged"] == [str(run.resolve() / "bundles" / "board" / "manifest.json")]
    assert document["mend"] == document["next"] == EXPORT_AGAIN
    for said in (str(listed.exception), said_by("check", run)):
        assert said.endswith(f"manifest.json): {EXPORT_AGAIN}")
    shutil.copytree(in_run, in_run.parent / "other")
    assert "2 bundles: board (damaged), other (damaged)" in said_by("check", run)


def test_a_bundle_of_a_run_is_known_through_links_and_from_within(
    in_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "latest").symlink_to(in_run.parents[1])
    (tmp_path / "mine").symlink_to(in_run)
    for path in (tmp_path / "latest" / "bundles" / "board", tmp_path / "mine" / "student"):
        assert repair_hint(path) == EXPORT_AGAIN
    monkeypatch.chdir(in_run)
    assert repair_hint(Path("model.int8.onnx")) == EXPORT_AGAIN
    (in_run.parents[1] / "manifest.json").unlink()
    assert repair_hint(in_run) == COPY_AGAIN
