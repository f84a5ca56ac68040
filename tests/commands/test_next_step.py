"""What the panels of `distill` and `export` say of a run that is finished: time and next step."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from dfkd_edge.artifacts import student_weights
from dfkd_edge.bundles.opening import open_bundle
from dfkd_edge.commands.distill_view import show_result
from dfkd_edge.commands.ladder_view import bundle_panel
from dfkd_edge.commands.panel import MAX_CHARACTERS, MAX_ROWS, row_text, run_step
from dfkd_edge.config.file import load_config
from dfkd_edge.console import result_console
from dfkd_edge.conversion.calibration_need import export_command
from dfkd_edge.errors import RunDirError
from dfkd_edge.preflight import ExportRequest, plan_export
from dfkd_edge.results.distilled import read_distilled
from dfkd_edge.results.kept import proof_of
from tests.fixtures.command import invoke
from tests.fixtures.files import edit_json


@pytest.fixture
def run(tiny_workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an exported run, in a copy of the user's folder; a row of a panel is one line."""
    monkeypatch.setenv("COLUMNS", "400")
    shutil.copytree(tiny_workspace, tmp_path / "folder", symlinks=True)
    monkeypatch.chdir(tmp_path / "folder")
    return (tmp_path / "folder" / "runs" / "latest").resolve()


def bundle_of(run: Path) -> Path:
    (bundle,) = (run / "bundles").iterdir()
    return bundle


def rows(text: str) -> dict[str, str]:
    """Rows of a panel by their heading."""
    panel = text[text.index("╭") :]  # the tables above it have bars, too
    inside = [line.strip("│ ") for line in panel.splitlines() if line.startswith("│")]
    return {line.split()[0]: line.partition(" ")[2].strip() for line in inside}


def test_a_finished_run_that_is_shown_again_takes_no_time_and_goes_on_with_its_bundle(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(run.parents[1])
    done = invoke("distill", "--config", run / "config.toml", "-o", run)
    assert done.exit_code == 0, done.exception
    panel = rows(done.stdout)
    assert "distilling" not in done.stderr
    assert "time" not in panel
    assert panel["next"] == f"copy {bundle_of(run)}/ to the device and run there: python3 check.pyz"
    assert len(panel) <= MAX_ROWS


def test_a_finished_run_is_shown_again_without_torch(run: Path) -> None:
    code = (
        "import sys; from dfkd_edge.cli import app\n"
        f"app(['distill', '--config', {str(run / 'config.toml')!r}, '-o', {str(run)!r}, '--json'], "
        "standalone_mode=False)\n"
        "assert not {'torch', 'open_clip', 'onnxruntime'} & set(sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=run.parents[1], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["run"] == str(run)


def test_times_of_both_panels_are_in_the_unit_that_fits(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = read_distilled(run, load_config(run / "config.toml").data, "")
    assert result is not None
    show_result(result, "report.html", 290.0, "")
    assert rows(capsys.readouterr().out)["student"].endswith("made in 5 min")
    bundle = open_bundle(bundle_of(run))
    bundle.manifest.provenance["seconds"] = 182.4  # of the export, however often it is shown
    result_console().print(bundle_panel(bundle, proof_of(bundle), "report.html"))
    panel = rows(capsys.readouterr().out)
    assert panel["precision"].endswith("made in 3 min")
    assert len(panel) <= MAX_ROWS


def test_a_row_is_cut_where_it_is_too_long_and_a_path_never_is() -> None:
    said = row_text(("weak", "word " * 40))
    assert len(said) <= MAX_CHARACTERS
    assert said.endswith("word ... (report)")
    assert row_text(("report", "/" + "a" * 200)).endswith("a" * 200)
    gate = "passed: +0.21 points lost (-0.4 to +1.9) on a domain; too few images to exclude a loss"
    lines = row_text(("gate", f"{gate} above the 1-point limit")).splitlines()
    assert max(map(len, lines)) <= MAX_CHARACTERS
    assert " ".join(" ".join(lines).split()) == f"gate {gate} above the 1-point limit"


def test_the_next_step_is_that_of_the_newest_bundle_of_this_student(run: Path) -> None:
    bundle, export = bundle_of(run), f"{export_command(run)} --exist-ok"
    whole = (bundle / "manifest.json").read_bytes()
    assert run_step(run, "report.html").startswith(f"copy {bundle}/")
    edit_json(bundle / "manifest.json", status="failed")
    said = f"the gate of {bundle.name} failed: see report.html, then "
    assert run_step(run, "report.html").startswith(said)
    (bundle / "manifest.json").write_text("{", encoding="utf-8")
    assert run_step(run, "report.html") == export
    (bundle / "manifest.json").write_bytes(whole)
    weights = student_weights(run / "student")
    weights.write_bytes(weights.read_bytes() + b" ")
    assert run_step(run, "report.html") == export


def test_what_is_advised_after_a_failed_gate_is_not_refused(run: Path) -> None:
    bundle = bundle_of(run)
    edit_json(bundle / "manifest.json", status="failed")
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
