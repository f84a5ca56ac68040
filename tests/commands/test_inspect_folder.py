import dataclasses
import hashlib
import json
import os
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from dfkd_edge.bundles.bundle import BundleContents, write_bundle
from dfkd_edge.commands.panel import bundle_step
from dfkd_edge.config.file import to_toml
from dfkd_edge.config.settings import PipelineConfig
from dfkd_edge.errors import ArtifactError, DfkdEdgeError
from dfkd_edge.files import atomic_write
from dfkd_edge.results.device import OF_ANOTHER
from dfkd_edge.runs.lock import locked
from dfkd_edge.runs.run_dir import open_run
from dfkd_edge.runtime.bundle_files import Bundle
from dfkd_edge.runtime.faults import EXPORT_AGAIN, Fault
from tests.fixtures.command import invoke
from tests.fixtures.files import edit_json
from tests.fixtures.ladders import gate, ladder
from tests.fixtures.typed import surrogate_summary
from tests.report.pages import device_result

OF_NOTHING = hashlib.sha256(b"").hexdigest()  # the weights that `distilled` writes


def inspected(path: Path) -> tuple[dict[str, Any], Result]:
    result = invoke("inspect", path, "--json")
    return json.loads(result.stdout), result


@pytest.fixture
def run(tmp_path: Path) -> Path:
    path = tmp_path / "a run"
    with open_run(path, "key", resume=True, exist_ok=False) as run_dir:
        atomic_write(path / "classes.txt", "dog\n[red]cat\n")
        atomic_write(path / "config.toml", to_toml(PipelineConfig(classes="classes.txt", seed=3)))
        table = run_dir.stage_dir("prompts") / "prompts.json"
        atomic_write(table, "{}")
        run_dir.complete("prompts", "key", [table])
    return path


def test_a_half_done_run_is_told_by_its_stages_and_the_command_that_goes_on(run: Path) -> None:
    document, _ = inspected(run)
    undone = dict.fromkeys(("surrogates", "student", "evaluation"), False)
    assert document["stages"] == {"prompts": True, **undone}
    assert document["settings"]["seed"] == 3
    assert document["num_verified"] == 1
    files = [str(run / name) for name in ("config.toml", "classes.txt")]
    words = ["distill", "--config", files[0], "--classes", files[1], "--output", str(run)]
    assert shlex.split(document["next"]) == ["dfkd-edge", *words]
    shown = invoke("inspect", run)
    assert "2: dog, [red]cat" in shown.stdout


def test_what_an_unfinished_run_keeps_and_who_works_in_it_are_told(run: Path) -> None:
    atomic_write(run / "surrogates" / "shard-00000.safetensors", b"")
    document, _ = inspected(run)
    assert document["kept"] == ["the prompts", "1 shard of surrogate images"]
    assert document["in_use_by"] == ""
    with locked(run, 0):
        shown = invoke("inspect", run, COLUMNS="300").stdout
    assert "1 shard of surrogate images; the same distill command goes on from there" in shown
    assert f"by process {os.getpid()}" in shown
    assert f"wait for process {os.getpid()}" in shown
    assert "dfkd-edge distill" not in shown


def test_a_bundle_of_any_name_and_a_student_of_another_form_are_told_in_words(
    run: Path, tiny_bundle: Bundle
) -> None:
    name = "[link=x]:cat:"  # the run is from elsewhere
    shutil.copytree(tiny_bundle.folder, run / "bundles" / name)
    assert f"bundle {name}" in invoke("inspect", run).stdout
    atomic_write(run / "student" / "student.json", '{"num_parameters": "many"}')
    with pytest.raises(ArtifactError, match=r"student\.json"):
        raise invoke("inspect", run).exception or AssertionError


@pytest.mark.parametrize("verb", ["check", "export", "inspect", "predict", "report", "benchmark"])
def test_a_link_that_leads_to_itself_is_no_run_and_no_bundle(verb: str, tmp_path: Path) -> None:
    (tmp_path / "latest").symlink_to("latest")
    more = ["a.png"] if verb == "predict" else []
    error = invoke(verb, tmp_path / "latest", *more).exception
    assert isinstance(error, DfkdEdgeError | Fault), repr(error)


def test_a_changed_file_of_a_run_is_named(run: Path) -> None:
    (run / "prompts" / "prompts.json").write_text("{} ", encoding="utf-8")
    document, result = inspected(run)
    assert document["damaged"] == [str(run / "prompts" / "prompts.json")]
    assert isinstance(result.exception, ArtifactError)


def bundle_in(run: Path, name: str, whole: Bundle, student: bytes = b"") -> Path:
    """Put a bundle into a run, of the student with these weights."""
    folder = run / "bundles" / name
    shutil.copytree(whole.folder, folder)
    made = {"student_sha256": hashlib.sha256(student).hexdigest()}
    edit_json(folder / "manifest.json", provenance=whole.manifest.provenance | made)
    return folder


def distilled(run: Path, weights: bytes = b"") -> None:
    """Put images and a student into a run, which is finished then."""
    atomic_write(run / "student" / "student.safetensors", weights)
    images = surrogate_summary(num_images=2_000, num_heldout=100, num_candidates=2_400)
    with open_run(run, "key", resume=True, exist_ok=True) as run_dir:
        run_dir.complete("surrogates", "key", [images.save(run / "surrogates")])
        run_dir.complete("student", "key", [run / "student" / "student.safetensors"])


def test_the_bundles_of_a_run_are_verified_too(run: Path, tiny_bundle: Bundle) -> None:
    bundle = bundle_in(run, "tiny-board", tiny_bundle)
    document, result = inspected(run)
    assert document["bundles"] == {"tiny-board": tiny_bundle.manifest.status}
    assert result.exit_code == 0
    with (bundle / "classes.txt").open("a", encoding="utf-8") as stream:
        stream.write("another\n")
    document, result = inspected(run)
    assert document["bundles"] == {"tiny-board": "damaged"}
    assert document["damaged"] == [str(bundle / "classes.txt")]
    assert document["mend"] == EXPORT_AGAIN
    assert isinstance(result.exception, ArtifactError)


def test_a_gate_is_called_no_firmer_than_it_is_and_repaired_layers_are_told(
    run: Path, tiny_contents: BundleContents
) -> None:
    repair = {"float_nodes": ["a", "b"], "num_quantizable": 9, "num_graphs": 3}
    int8 = dataclasses.replace(tiny_contents.models["int8"], notes={"float_nodes": ["a", "b"]})
    contents = dataclasses.replace(
        tiny_contents,
        models={**tiny_contents.models, "int8": int8},
        validation=ladder(gate=gate(interval=(-0.02, 0.03))).to_json(),
        provenance={"rescue": {"repair": repair, "finetune": None}, "student_sha256": OF_NOTHING},
    )
    distilled(run)
    bundle = write_bundle(run / "bundles" / "board", contents)
    told = "gate passed, too few pictures to exclude a loss above the 1-point limit; "
    told += "2 of 9 layers put back to float"
    assert inspected(run)[0]["gates"] == {"board": told}
    assert inspected(bundle.folder)[0]["gate"] == told


def test_devices_and_whether_their_bundle_lies_here_are_listed(
    run: Path, tiny_bundle: Bundle
) -> None:
    distilled(run)
    device_result(run / "devices" / "ours.json", "ours", 2.5, bundle_in(run, "board", tiny_bundle))
    other = device_result(run / "devices" / "other.json", "other", 2.5)
    edit_json(other, bundle={"manifest_sha256": "0" * 64})
    another, ours = (device["summary"] for device in inspected(run)[0]["devices"])
    assert ours == "ours: int8 2.50 ms (ours.json)"
    assert another == f"other: int8 2.50 ms, {OF_ANOTHER} (other.json)"
    distilled(run, b"another")
    ours = next(device for device in inspected(run)[0]["devices"] if device["device"] == "ours")
    assert not ours["of_bundle_here"]


@pytest.mark.parametrize("of_bundle", [False, True])
def test_a_damaged_result_is_named_and_hides_nothing(
    of_bundle: bool, run: Path, tiny_bundle: Bundle
) -> None:
    distilled(run)
    bundle = bundle_in(run, "board", tiny_bundle)
    subject = bundle if of_bundle else run
    places = [subject / "devices" / "torn.json", bundle / "result.json"]
    for place in places:
        atomic_write(place, "{")
    document, result = inspected(subject)
    assert isinstance(result.exception, ArtifactError)
    assert document["classes"]
    assert {line.partition(": ")[0] for line in document["damaged"]} == {*map(str, places)}
    assert document["num_verified"] > 0
    assert document["next"] == document["mend"]


def test_a_damaged_check_is_named_with_what_to_do(tiny_bundle: Bundle) -> None:
    atomic_write(tiny_bundle.folder / "check.json", "{")
    document, result = inspected(tiny_bundle.folder)
    assert isinstance(result.exception, ArtifactError)
    assert document["damaged"][0].startswith(str(tiny_bundle.folder / "check.json"))
    advice = "delete it and run the command that wrote it again"
    assert document["next"] == document["mend"] == advice


def test_what_comes_next_is_with_the_newest_bundle_of_the_runs_student(
    run: Path, tiny_bundle: Bundle
) -> None:
    distilled(run)
    for age_s, name in enumerate(("c-newest", "d-older")):
        manifest = bundle_in(run, name, tiny_bundle) / "manifest.json"
        os.utime(manifest, (1e9 - age_s, 1e9 - age_s))  # written in one tick otherwise
    bundle_in(run, "a-earlier", tiny_bundle, b"earlier student")
    silent = bundle_in(run, "b-silent", tiny_bundle) / "manifest.json"
    edit_json(silent, provenance={})
    document, _ = inspected(run)
    assert document["next"] == bundle_step(run / "bundles" / "c-newest")
    told = "; holds an earlier student of the run"
    earlier = [name for name, gate in document["gates"].items() if gate.endswith(told)]
    assert earlier == ["a-earlier", "b-silent"]
    distilled(run, b"another")
    assert shlex.split(inspected(run)[0]["next"])[1] == "export"


def test_a_bundle_is_told_by_target_models_and_gate(tiny_bundle: Bundle) -> None:
    document, result = inspected(tiny_bundle.folder)
    assert result.exit_code == 0
    assert (document["kind"], document["target"]) == ("bundle", "tiny-board")
    assert set(document["models"]) == {"fp32", "int8"}
    assert document["num_verified"] == len(tiny_bundle.manifest.files)
    assert "check.pyz" in document["next"]
    assert document["input"].endswith("batch 1")
    shown = invoke("inspect", tiny_bundle.folder, COLUMNS="300").stdout
    assert "none: dfkd-edge export --sign KEY makes one" in shown
    (tiny_bundle.folder / "model.sig").write_text("{}", encoding="utf-8")
    assert "check BUNDLE --verify" in invoke("inspect", tiny_bundle.folder, COLUMNS="300").stdout
