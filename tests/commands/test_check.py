"""Check as a user calls it, on the bundle of a small real run, and what its dry run promises."""

import dataclasses
import html
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dfkd_edge.artifacts import load_tensors
from dfkd_edge.bundles.opening import open_bundle
from dfkd_edge.bundles.origin import graphs
from dfkd_edge.errors import ConfigError, EnvironmentLackingError, UsageError
from dfkd_edge.files import file_hash
from dfkd_edge.report import write_report
from dfkd_edge.report.reading import read_bundle_source
from dfkd_edge.results.certainty import certainty_of
from dfkd_edge.results.kept import keep_check, kept_checks, proof_of
from dfkd_edge.results.ladder import Ladder
from dfkd_edge.runtime import check as device_check
from dfkd_edge.runtime.bundle_files import VALIDATION
from dfkd_edge.validation.rungs import model_rung
from tests.conftest import SilentReporter
from tests.fixtures.command import invoke
from tests.fixtures.exported import SIDE_PX
from tests.fixtures.files import edit_json, read_json

pytestmark = pytest.mark.usefixtures("few_images")


def checked(*arguments: object) -> Any:
    return json.loads(invoke("check", *arguments, "--json").stdout)


def test_check_measures_labelled_domains_and_passes_strangers_over(
    exported_copy: Path, pictures: Path
) -> None:
    (pictures / "day" / "cat").mkdir()
    (pictures / "day" / "persons").mkdir()
    shutil.rmtree(pictures / "day" / "person")
    (pictures / "day" / "dog" / "torn.png").write_bytes(b"torn")
    result = invoke("check", exported_copy, "--data", pictures, "--max-drop", "1", "--json")
    assert result.exit_code == 0, result.exception
    document = json.loads(result.stdout)
    domains = document["rungs"][0]["domains"]
    assert {d: part["num_images"] for d, part in domains.items()} == {"day": 4, "night": 6}
    assert document["measure"] == "top1"
    assert document["rungs"][1]["mean_top1"] is not None
    assert "no class of the list: day/cat, day/persons (did you mean person?)" in result.stderr
    assert "1 unreadable" in result.stderr
    page = Path(document["report"]).read_text(encoding="utf-8")
    assert "measured by check for x86-cpu" in page
    assert f"{document['rungs'][-1]['mean_top1']:.1%}" in page


def test_checks_on_two_folders_of_pictures_are_both_kept_and_a_repeated_one_once(
    exported_copy: Path,
) -> None:
    """Kept as `check` keeps them, with the figures of the export: measuring takes long."""
    proof = dataclasses.replace(proof_of(open_bundle(exported_copy, verify=False)), metric="top1")
    for hour, data in enumerate(("/a/pacs", "/b/pacs", "/a/pacs")):
        ladder = dataclasses.replace(proof, data=data, time=f"2026-01-01T0{hour}:00:00Z")
        keep_check(exported_copy, ladder, SilentReporter())
    kept = [(ladder.data, ladder.time[11:13]) for ladder in kept_checks(exported_copy)]
    assert kept == [("/a/pacs", "02"), ("/b/pacs", "01")]
    decision = read_bundle_source(exported_copy).decision
    assert decision.count("by check on labelled pictures of pacs: ") == 2
    open_bundle(exported_copy)  # what is kept is no part of the bundle


def test_a_check_without_pictures_takes_no_labelled_figure_off_the_page(
    exported_copy: Path, pictures: Path
) -> None:
    bundle, run = exported_copy, exported_copy.parents[1]
    labelled = checked(bundle, "--data", pictures, "--max-drop", "1")
    without = checked(bundle, "--max-drop", "1")
    top1 = f"{labelled['rungs'][-1]['mean_top1']:.1%} top-1"
    agreement = f"{without['rungs'][-1]['mean_agreement']:.1%} agreement with the teacher"
    page = _text(run)
    assert f"Measured by check, {pictures}, {labelled['time'][:10]}: onnx-int8 {top1}" in page
    assert agreement in page
    for truth in ("the true classes", "the teacher's answers"):
        assert f"Rows are {truth}" in page
        assert f"rows are {truth}, columns are answers" in page
    told = json.loads(invoke("report", run, "--json").stdout)["ladders"]
    kinds = [(one["command"], one["measure"]) for one in told[:3]]
    assert kinds == [("check", "top1"), ("check", "agreement"), ("export", "agreement")]
    assert told[0]["mean"] == pytest.approx(labelled["rungs"][-1]["mean_top1"])
    inspected = " ".join(invoke("inspect", run).stdout.split())
    assert "by check on labelled pictures: gate off" in inspected
    with (bundle / "manifest.json").open("a", encoding="utf-8") as stream:
        stream.write("\n")  # as another export would
    assert top1 not in _text(run)
    assert "measured by export" in _text(run)


def _text(run: Path) -> str:
    return html.unescape(write_report(run).read_text(encoding="utf-8"))


def test_host_and_device_state_the_same_figures_in_the_same_words(
    exported_copy: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = exported_copy
    host = checked(bundle, "--data", pictures, "--max-drop", "1")
    rung = host["rungs"][-1]
    flags = ["--bundle", str(bundle), "--data", str(pictures), "--duration", "0"]
    assert device_check.main(flags) == 0
    domains = read_json(bundle / "result.json")["models"]["int8"]["data"]["domains"]
    for name, figures in domains.items():
        assert figures["top1"] == rung["domains"][name]["top1"]
        assert figures["top1_interval"] == rung["domains"][name]["top1_interval"]
    assert set(domains) == set(rung["domains"])
    said = capsys.readouterr().out
    verdict = certainty_of(Ladder.from_json(host, "check")).sentence()
    mean = verdict.replace("onnx-int8 ", "mean: ").replace("labelled pictures", "pictures")
    assert f"\n{mean}\n" in said
    assert f"\nday: {100 * domains['day']['top1']:.1f}% top-1, 95% interval " in said


def test_a_graph_for_tensorrt_says_at_its_rung_that_its_time_here_is_no_measure(
    exported: Path,
) -> None:
    (int8,) = (graph for graph in graphs(open_bundle(exported)) if graph.precision == "int8")
    first = {
        backend: model_rung(int8, SIDE_PX, 1, backend).latency_caveats[:1]
        for backend in ("tensorrt", "onnxruntime")
    }
    assert "check.pyz on the device gives the time that counts" in first["tensorrt"][0]
    assert not [doubt for doubt in first["onnxruntime"] if "for TensorRT" in doubt]


def test_calibration_pictures_are_refused_as_evaluation_pictures(
    exported: Path, finished_run: Path, tmp_path: Path
) -> None:
    tensors = load_tensors(finished_run / "surrogates" / "shard-00000.safetensors")
    (tmp_path / "seen" / "dog").mkdir(parents=True)
    for number, image in enumerate(tensors["images"]):
        Image.fromarray(image).save(tmp_path / "seen" / "dog" / f"{number}.png")
    for flags in ((), ("--dry-run",)):
        result = invoke("check", exported, "--data", tmp_path / "seen", *flags)
        assert isinstance(result.exception, ConfigError)
        assert "share pictures" in str(result.exception)


def test_the_plan_of_a_check_counts_the_images_that_the_check_sees(
    exported: Path, export_document: dict[str, Any], moved: Callable[[Path], Path]
) -> None:
    rungs = export_document["rungs"]
    plan = checked(exported, "--dry-run")
    assert plan["rungs"] == [rung["name"] for rung in rungs]
    seen = rungs[0]["domains"]
    assert {d["name"]: d["num_images"] for d in plan["domains"]} == {
        name: part["num_images"] for name, part in seen.items()
    }
    (weather,) = (d["corruptions"] for d in plan["domains"] if d["name"] == "weather")
    assert weather == ["fog", "snow", "rain"]
    assert plan["untimed"] == [r["name"] for r in rungs if r["latency_ms"] is None]
    assert plan["measure"] == export_document["measure"]
    alone = checked(moved(exported), "--dry-run")
    assert [(d["name"], d["num_images"]) for d in alone["domains"]] == [("golden images", 32)]
    assert 0 < alone["seconds"] < plan["seconds"]


def test_a_check_repeats_the_figures_of_the_export_and_shows_again_what_was_shown_again(
    exported_copy: Path,
) -> None:
    bundle, path = exported_copy, exported_copy / VALIDATION
    document = read_json(path)
    edit_json(path, measured_again=["noise"])
    entry = {"sha256": file_hash(path), "bytes": path.stat().st_size}
    files = read_json(bundle / "manifest.json")["files"]
    edit_json(bundle / "manifest.json", files=files | {VALIDATION: entry})
    plan = checked(bundle, "--dry-run")
    again = checked(bundle)
    assert plan["more_if_unclear"] == 0
    assert again["measured_again"] == ["noise"]
    for before, after in zip(document["rungs"], again["rungs"], strict=True):
        counts = {name: part["num_images"] for name, part in after["domains"].items()}
        assert counts == {domain["name"]: domain["num_images"] for domain in plan["domains"]}
        assert counts.pop("noise") > before["domains"]["noise"]["num_images"]
        for name in counts:
            shares = (rung["domains"][name]["agreement"] for rung in (before, after))
            assert len(set(shares)) == 1


def test_a_check_and_its_plan_agree_that_a_torn_run_leaves_the_golden_images(
    exported_copy: Path,
) -> None:
    bundle, run = exported_copy, exported_copy.parents[1]
    provenance = read_json(bundle / "manifest.json")["provenance"]
    edit_json(bundle / "manifest.json", provenance=provenance | {"run": str(run)})
    shard = run / "surrogates" / "shard-00001.safetensors"
    shard.write_bytes(shard.read_bytes()[:-100])
    plan = checked(bundle, "--dry-run")
    result = invoke("check", bundle, "--max-drop", "1", "--json")
    measured = json.loads(result.stdout)["rungs"][0]["domains"]
    assert {d["name"]: d["num_images"] for d in plan["domains"]} == {"golden images": 32}
    assert {name: part["num_images"] for name, part in measured.items()} == {"golden images": 32}
    for told in (plan["images"], result.stderr):
        assert shard.name in told


def test_the_plan_of_a_check_on_pictures_is_readable_and_writes_nothing(
    exported_copy: Path, pictures: Path, tmp_path: Path
) -> None:
    bundle = exported_copy
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    result = invoke("check", bundle, "--data", pictures, "--max-drop", "0.02", "--dry-run")
    lines = result.stdout.splitlines()
    assert "models    teacher, student, onnx-fp32, onnx-int8" in lines
    assert "          day: 6" in lines
    assert "how       every model sees each of 12 pictures once" in lines
    assert "gate      top-1 may fall by 2 points on the worst domain" in lines
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    (pictures / "day" / "dog" / "torn.png").write_bytes(b"torn")
    again = invoke("check", bundle, "--data", pictures, "--dry-run")
    assert "          day: 6" in again.stdout.splitlines()
    assert "1 unreadable" in again.stderr
    (pictures / "day" / "hause").mkdir()
    stranger = invoke("check", bundle, "--data", pictures, "--dry-run")
    assert "passed over, no class of the list: day/hause" in stranger.stderr
    refused = invoke("check", bundle, "--data", tmp_path / "none", "--dry-run")
    assert isinstance(refused.exception, UsageError)


@pytest.mark.parametrize("verb", ["check", "export"])
def test_a_device_that_is_not_there_is_refused_and_leaves_nothing(
    verb: str, exported_copy: Path
) -> None:
    subject = exported_copy if verb == "check" else exported_copy.parents[1]
    before = sorted(subject.rglob("*"))
    result = invoke(verb, subject, "--device", "cuda:77")
    assert isinstance(result.exception, EnvironmentLackingError), result.exception
    assert "device 'cuda:77' cannot be used" in str(result.exception)
    assert sorted(subject.rglob("*")) == before


def test_the_device_of_a_check_changes_no_answer(exported_copy: Path) -> None:
    by_flag, usual = (checked(exported_copy, *flags) for flags in (("--device", "cpu"), ()))
    figures = ("domains", "max_logit_difference")
    for one, other in zip(by_flag["rungs"], usual["rungs"], strict=True):
        assert [one[key] for key in figures] == [other[key] for key in figures]
