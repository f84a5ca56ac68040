"""What the panels of `distill` and `export` say of a run that is finished: time and next step."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dfkd_edge.artifacts import PromptSet, StudentArtifact, student_weights
from dfkd_edge.bundles.opening import open_bundle
from dfkd_edge.class_names import read_class_names
from dfkd_edge.cli import app
from dfkd_edge.commands.distill_view import show_result
from dfkd_edge.commands.ladder_view import show_bundle
from dfkd_edge.commands.next_step import run_step
from dfkd_edge.config.file import load_config
from dfkd_edge.conversion.calibration_need import export_command
from dfkd_edge.errors import RunDirError
from dfkd_edge.pipeline import DistillResult
from dfkd_edge.preflight import ExportRequest, plan_export
from dfkd_edge.results.certainty import failed_gate_advice
from dfkd_edge.runs.finished import read_finished_surrogates


@pytest.fixture
def run(tiny_workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an exported run, in a copy of the user's folder; a row of a panel is one line."""
    monkeypatch.setenv("COLUMNS", "400")
    shutil.copytree(tiny_workspace, tmp_path / "folder", symlinks=True)
    return (tmp_path / "folder" / "runs" / "latest").resolve()


def result_of(run: Path) -> DistillResult:
    config, names = load_config(run / "config.toml"), read_class_names(run / "classes.txt")
    return DistillResult(
        run,
        PromptSet.load(run / "prompts"),
        read_finished_surrogates(run, config, names),
        StudentArtifact.load(run / "student"),
        json.loads((run / "evaluation.json").read_text(encoding="utf-8")),
    )


def bundle_of(run: Path) -> Path:
    (bundle,) = (run / "bundles").iterdir()
    return bundle


def rows(text: str) -> dict[str, str]:
    """Rows of a panel by their heading."""
    inside = [line.strip("│ ") for line in text.splitlines() if line.startswith("│")]
    return {line.split()[0]: line.partition(" ")[2].strip() for line in inside}


def test_a_finished_run_that_is_shown_again_takes_no_time_and_goes_on_with_its_bundle(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(run.parents[1])
    command = ["distill", "--config", str(run / "config.toml"), "-o", str(run)]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.exception
    panel = rows(done.stdout)
    assert "distilling" not in done.stderr
    assert "time" not in panel
    bundle = bundle_of(run)
    assert panel["next"] == (
        f"copy {bundle}/ to the device: python3 check.pyz proves it there; then here: "
        f"dfkd-edge report {bundle} result.json"
    )


def test_times_of_all_panels_are_in_the_unit_that_fits(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    show_result(result_of(run), "report.html", 290.0, "")
    assert rows(capsys.readouterr().out)["time"] == "5 min"
    bundle = open_bundle(bundle_of(run))
    document = json.loads((bundle.folder / "validation.json").read_text(encoding="utf-8"))
    bundle.manifest.provenance["seconds"] = 182.4  # of the export, however often it is shown
    show_bundle(bundle, document, "report.html")
    assert rows(capsys.readouterr().out)["time"] == "3 min"


def test_the_panel_counts_stand_ins(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = result_of(run)
    summary = replace(result.surrogates.summary, num_unrecognised=2)
    result = replace(result, surrogates=replace(result.surrogates, summary=summary))
    show_result(result, "report.html", None, "")
    told = "; 2 of them stand-ins, which the teacher takes for another class"
    assert rows(capsys.readouterr().out)["images"].endswith(told)


def test_the_next_step_is_that_of_the_newest_bundle_of_this_student(run: Path) -> None:
    bundle, export = bundle_of(run), f"{export_command(run)} --exist-ok"
    manifest = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
    assert run_step(run, "report.html").startswith(f"copy {bundle}/")
    failed = json.dumps({**manifest, "status": "failed"})
    (bundle / "manifest.json").write_text(failed, encoding="utf-8")
    said = f"the gate of {bundle.name} failed: see report.html, then "
    assert run_step(run, "report.html").startswith(said)
    (bundle / "manifest.json").write_text("{", encoding="utf-8")
    assert run_step(run, "report.html") == export
    (bundle / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    weights = student_weights(run / "student")
    weights.write_bytes(weights.read_bytes() + b" ")
    assert run_step(run, "report.html") == export


def test_what_is_advised_after_a_failed_gate_is_not_refused(run: Path) -> None:
    bundle = bundle_of(run)
    manifest = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
    failed = json.dumps({**manifest, "status": "failed"})
    (bundle / "manifest.json").write_text(failed, encoding="utf-8")
    said = run_step(run, "report.html").split()
    precision = said[said.index("--precision") + 1]
    request = ExportRequest(
        run=run,
        settings={"export": {"precision": precision}},
        output=bundle,
        exist_ok="--exist-ok" in said,
    )
    assert plan_export(request).folder == bundle
    with pytest.raises(RunDirError, match="another bundle is there"):
        plan_export(replace(request, exist_ok=False))


def test_a_gate_of_fp16_is_not_sent_to_fp16() -> None:
    gate = {"rung": "onnx-fp16", "within_noise": True}
    assert failed_gate_advice(gate) == (
        "check with more pictures, for the loss is within noise; or export with --exist-ok and a "
        "larger --max-drop"
    )
