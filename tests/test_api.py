"""The Python API: the names of the command line, loaded late, on a run of a few images."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import dfkd_edge
from dfkd_edge import api, preflight
from dfkd_edge.cli import app
from dfkd_edge.config.file import FLAGS, load_config
from dfkd_edge.preflight import DistillRequest
from dfkd_edge.results.ladder import HELDOUT_DOMAIN
from tests.fixtures.command import invoke
from tests.fixtures.files import read_json

pytestmark = pytest.mark.usefixtures("few_images")
FLAG_VALUES: dict[str, Any] = {
    "images": "pictures",
    "teacher": "mini",
    "pretrained": "tag",
    "student": "resnet18",
    "student_init": "random",
    "prompts": "mix",
    "num_styles": 3,
    "synthesis": "per-image",
    "imgsz": 64,
    "steps": 7,
    "batch_size": 8,
}


def test_every_name_resolves_and_is_documented() -> None:
    for name in dfkd_edge.__all__:
        thing = getattr(dfkd_edge, name)
        assert thing is getattr(api, name)
        assert thing.__doc__, name
    assert set(dfkd_edge.__all__) <= set(dir(dfkd_edge))


def test_a_wrong_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'distil'"):
        _ = dfkd_edge.distil  # type: ignore[attr-defined]


def test_importing_the_package_loads_nothing_else() -> None:
    code = (
        "import sys, dfkd_edge\n"
        "assert not {'torch', 'numpy', 'rich', 'dfkd_edge.api'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_verb_of_the_command_line_is_there() -> None:
    verbs = {command.callback.__name__ for command in app.registered_commands if command.callback}
    left_to_the_shell = {"run", "runs", "synthesize", "inspect", "doctor"}
    called_otherwise = {"report": "write_report"}
    for verb in verbs - left_to_the_shell:
        assert called_otherwise.get(verb, verb) in dfkd_edge.__all__


def test_arguments_and_flags_give_the_same_configuration(
    quickstart: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert {*FLAG_VALUES, "calib_size", "calib_data", "runtime"} == set(FLAGS)
    asked: list[DistillRequest] = []

    def stop(request: DistillRequest) -> None:
        asked.append(request)
        raise KeyboardInterrupt  # nothing on the way takes that for an error of the plan

    for module in (api, preflight):
        monkeypatch.setattr(module, "plan_distill", stop)
    with pytest.raises(KeyboardInterrupt):
        dfkd_edge.distill(quickstart, **FLAG_VALUES)
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in FLAG_VALUES.items()]
    invoke("distill", f"--classes={quickstart}", *flags)
    one, two = (load_config(None, request.settings) for request in asked)
    assert one == two != load_config(None)


def test_a_wrong_setting_gets_the_nearest_name(quickstart: Path) -> None:
    with pytest.raises(dfkd_edge.DfkdEdgeError, match="did you mean seed"):
        dfkd_edge.distill(quickstart, sede=1)


def test_a_run_goes_from_names_to_answers(tiny_run: Path) -> None:
    bundle = dfkd_edge.open_bundle(tiny_run)
    picture = next((tiny_run.parents[1] / "pictures").rglob("*.png"))
    (answer,) = dfkd_edge.predict(bundle.folder, [picture], top=2)["pictures"]
    assert answer["label"] in (*bundle.classes, "unknown")
    assert len(answer["top"]) == 2
    figures = dfkd_edge.benchmark(tiny_run, precision="fp32", warmup=1, duration=0.02, threads=1)
    assert [model["precision"] for model in figures["models"]] == ["fp32"]
    student = dfkd_edge.load_student(tiny_run)
    side_px = student.image_size_px
    assert student(torch.zeros(1, 3, side_px, side_px)).shape == (1, len(bundle.classes))
    page = dfkd_edge.write_report(tiny_run)
    assert page.name == "report.html"
    assert read_json(bundle.folder / "validation.json")["gate"]["passed"] is True


def test_whole_held_out_images_have_one_figure_in_distill_and_check(
    tiny_run: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    made = read_json(run / "evaluation.json")["rungs"][-1]
    student = dfkd_edge.check(run, quiet=True)["rungs"][1]
    first, again = (rung["domains"][HELDOUT_DOMAIN] for rung in (made, student))
    for key in ("num_images", "agreement", "agreement_interval", "confusion"):
        assert json.loads(json.dumps(again[key])) == first[key]


def test_a_failed_gate_raises_and_keeps_the_bundle(tiny_run: Path, tmp_path: Path) -> None:
    lossy: dict[str, Any] = {"calib_size": 8, "calibration_method": "percentile", "percentile": 91}
    lossy |= {"target": tiny_run.parents[1] / "tiny.toml", "max_drop": 0, "repair": False}
    with pytest.raises(dfkd_edge.GateFailedError):
        dfkd_edge.export(tiny_run, output=tmp_path / "b", quiet=True, **lossy)
    assert dfkd_edge.open_bundle(tmp_path / "b").manifest.status == "failed"
