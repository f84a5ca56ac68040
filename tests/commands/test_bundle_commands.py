import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dfkd_edge.bundles.bundle import BundleContents, write_bundle
from dfkd_edge.runtime.bundle_files import Bundle
from dfkd_edge.runtime.caveats import FP16_IN_ENGINE
from dfkd_edge.runtime.confidence import FITTED_ON, SHARE_REJECTED
from dfkd_edge.validation.benchmark import with_slow_int8_told
from tests.fixtures.command import call
from tests.fixtures.files import edit_json, write_picture
from tests.fixtures.ladders import model_benchmark

SHORT = ("--duration", "0.02", "--warmup", "1")  # 20 inferences are timed all the same


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    for number in range(3):
        write_picture(tmp_path / "pictures" / f"{number}.png", number)
    return tmp_path / "pictures"


def test_benchmark_measures_every_model(tiny_bundle: Bundle) -> None:
    code, output, _ = call(
        *("benchmark", tiny_bundle.folder, "--json", "--duration", "0.05", "--warmup", "1"),
        *("--percentile", "50,99.9", "--threads", "1"),
    )
    assert code == 0
    models: list[dict[str, Any]] = json.loads(output)["models"]
    assert [m["precision"] for m in models] == ["fp32", "int8"]
    for model in models:
        assert set(model["latency"]["percentile_ms"]) == {"p50", "p99.9"}
        assert model["threads"] == 1
        assert model["is_golden"]
        assert 0 < model["model_memory_mib"] < model["peak_memory_mib"]
    page = (tiny_bundle.folder / "report.html").read_text(encoding="utf-8")
    assert f"{models[1]['latency']['percentile_ms']['p50']:.2f}" in page


def test_int8_for_tensorrt_says_why_its_time_here_does_not_count(
    tiny_contents: BundleContents, tmp_path: Path
) -> None:
    target = dataclasses.replace(tiny_contents.target, backend="tensorrt")
    contents = dataclasses.replace(tiny_contents, target=target)
    arguments = ("benchmark", write_bundle(tmp_path / "jetson", contents).folder, *SHORT)
    _, int8 = json.loads(call(*arguments, "--json", "--threads", "1")[1])["models"]
    (doubt,) = (doubt for doubt in int8["latency"]["doubts"] if "on the device" in doubt)
    assert doubt.startswith("onnxruntime computes most layers of an INT8 graph for TensorRT in flo")
    _, output, _ = call(*arguments)
    assert f"note: int8: {doubt}" in " ".join(output[output.index("└") :].split())


def test_every_command_says_that_fp16_is_in_no_graph_of_the_bundle(
    fp16_bundle: Bundle, pictures: Path
) -> None:
    folder = fp16_bundle.folder
    for arguments in (
        ("benchmark", folder, *SHORT),
        ("benchmark", folder, "--dry-run"),
        ("inspect", folder),
        ("predict", folder, pictures),
    ):
        _, output, _ = call(*arguments)
        assert " ".join(output.split()).count(FP16_IN_ENGINE) == 1, arguments
    assert "fp32 graph of the fp16 bundle" in " ".join(call("inspect", folder)[1].split())
    _, output, _ = call("predict", folder, pictures, "--json")
    document = json.loads(output)
    assert (document["precision"], document["notes"]) == ("fp16", [FP16_IN_ENGINE])
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert f"<li>fp32: {FP16_IN_ENGINE}</li>" in page


@pytest.mark.parametrize(
    ("int8_ms", "in_float", "backend", "said"),
    [
        (2.0, False, "onnxruntime", "INT8 is not faster than FP32 on this CPU: check.pyz --precis"),
        (0.5, False, "onnxruntime", ""),
        (2.0, True, "onnxruntime", ""),
        (2.0, False, "tensorrt", ""),
    ],
)
def test_slow_int8_is_explained_once(
    int8_ms: float, in_float: bool, backend: str, said: str
) -> None:
    rows = [
        model_benchmark(precision, p90_ms, in_float=in_float)
        for precision, p90_ms in (("fp32", 1.0), ("int8", int8_ms))
    ]
    fp32, int8 = (row.latency.caveats for row in with_slow_int8_told(rows, backend))
    assert fp32 == ()
    assert [caveat[: len(said)] for caveat in int8] == ([said] if said else [])


def test_benchmark_speaks_while_it_times_unless_quiet(tiny_bundle: Bundle) -> None:
    arguments = ("benchmark", tiny_bundle.folder, "--json", "--duration", "0.1", "--warmup", "1")
    for quiet in ((), ("--quiet",)):
        _, output, errors = call(*arguments, *quiet, "--precision", "fp32")
        assert [m["precision"] for m in json.loads(output)["models"]] == ["fp32"]
        assert ("timing fp32 for 0.1 s" in errors) is not bool(quiet)
        assert not quiet or not errors


def test_benchmark_and_the_plan_of_a_check_load_no_torch() -> None:
    code = (
        "import sys\n"
        "import dfkd_edge.commands.benchmark, dfkd_edge.validation.benchmark\n"
        "import dfkd_edge.estimates.bundle, dfkd_edge.commands.export\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_benchmark_dry_run_says_what_would_be_timed_and_times_nothing(tiny_bundle: Bundle) -> None:
    flags = ("--dry-run", "--duration", "5", "--warmup", "500", "--threads", "1")
    code, output, _ = call("benchmark", tiny_bundle.folder, *flags, "--json")
    plan = json.loads(output)
    assert code == 0
    assert [model["precision"] for model in plan["models"]] == ["fp32", "int8"]
    assert (plan["threads"], plan["num_golden"], plan["min_seconds"]) == (1, 12, 11.0)
    _, output, errors = call("benchmark", tiny_bundle.folder, *flags, "--precision", "int8")
    assert errors == ""
    assert "nothing was run" in output
    assert "fp32" not in output
    assert "1 thread," in output
    assert "12 golden images, 500 ms of warm-up, 5 s of timing" in output
    assert not (tiny_bundle.folder / "benchmark.json").exists()


def test_predict_tells_of_a_gate_that_failed_beside_the_answers(
    tmp_path: Path, tiny_contents: BundleContents, pictures: Path
) -> None:
    failed = dataclasses.replace(tiny_contents, status="failed")
    folder = write_bundle(tmp_path / "failed", failed).folder
    code, output, errors = call("predict", folder, pictures / "0.png", "--json")
    assert (code, json.loads(output)["status"]) == (0, "failed")
    assert errors.startswith("note: Gate: FAILED: ")
    assert "Gate" not in call("predict", folder, pictures / "0.png", "--quiet")[2]


def test_predict_gives_labels_and_scores(tiny_bundle: Bundle, pictures: Path) -> None:
    code, output, errors = call(
        "predict", tiny_bundle.folder, pictures, pictures / "0.png", "--json", "--top", "2"
    )
    assert (code, errors) == (0, "")
    rows = json.loads(output)["pictures"]
    assert [Path(row["file"]).name for row in rows] == ["0.png", "1.png", "2.png", "0.png"]
    for row in rows:
        assert [t["label"] in tiny_bundle.classes for t in row["top"]] == [True, True]
        assert row["top"][0]["score"] >= row["top"][1]["score"]


OF_EXPORT = f"which refuses 5% of the right answers on {FITTED_ON}"


@pytest.mark.parametrize(
    ("own", "asked", "said"),
    [
        (0.875, (), f"unknown: score below 0.875, {OF_EXPORT}"),
        (0.0, (), "there is no threshold: no answer is unknown"),
        (0.5, ("--reject-threshold", "0"), "there is no threshold: no answer is unknown"),
        (0.5, ("--reject-threshold", "1"), "unknown: score below 1.000"),
    ],
)
def test_an_answer_is_unknown_below_the_threshold_of_the_bundle_or_of_the_user(
    tiny_bundle: Bundle, pictures: Path, own: float, asked: tuple[str, ...], said: str
) -> None:
    fitted = {"temperature": 20.0, "reject_threshold": own}  # hot: no score is near 1
    edit_json(tiny_bundle.folder / "manifest.json", confidence=fitted)
    command = ("predict", tiny_bundle.folder, pictures / "0.png")
    document = json.loads(call(*command, *asked, "--json")[1])
    threshold, (row,) = float(asked[-1]) if asked else own, document["pictures"]
    best = row["top"][0]
    assert best["score"] < 0.875
    assert row["label"] == ("unknown" if best["score"] < threshold else best["label"])
    assert document["reject_threshold"] == threshold
    assert document["threshold_fitted_on"] == (FITTED_ON if own and not asked else None)
    known = json.loads(call(*command, "--reject-threshold", "0", "--json")[1])
    assert row["top"] == known["pictures"][0]["top"]
    shown = call(*command, *asked)[1]
    assert shown.splitlines()[-1] == said
    assert f"{best['score']:.3f} │" in shown


@pytest.mark.parametrize(
    ("verb", "said"),
    [
        ("predict", f"refuses {SHARE_REJECTED:.0%} of the right answers on {FITTED_ON}"),
        ("benchmark", "--warmup MS .*Milliseconds before timing.*--duration S .*Seconds"),
    ],
)
def test_the_help_states_the_fitted_share_and_the_units_of_times(verb: str, said: str) -> None:
    assert re.search(said, " ".join(call(verb, "--help")[1].replace("│", " ").split()))


def test_predict_keeps_the_rest_when_pictures_are_broken(
    tiny_bundle: Bundle, pictures: Path
) -> None:
    (pictures / "broken.jpg").write_bytes(b"no")
    code, output, errors = call("predict", tiny_bundle.folder, pictures, pictures / "missing.png")
    assert code == 1
    assert "great dane" in output
    assert "broken.jpg: picture cannot be read" in errors
    assert "missing.png: no such file" in errors
    assert "2 of 5 could not be classified" in errors


def test_a_picture_where_the_bundle_belongs_gets_the_line_to_type(
    tiny_bundle: Bundle, pictures: Path
) -> None:
    picture, bundle = pictures / "0.png", tiny_bundle.folder
    lines: dict[tuple[object, ...], tuple[object, ...]] = {
        (picture, bundle): (bundle, picture),
        (pictures, bundle): (bundle, pictures),
        ("a b.png", bundle): (bundle, "'a b.png'"),
        (picture, pictures / "1.png", bundle): (bundle, picture, "..."),
        (picture, pictures / "1.png"): ("BUNDLE", picture, "..."),
    }
    for given, typed in lines.items():
        advice = " ".join(["type dfkd-edge predict", *map(str, typed)])
        said = f"no bundle, which the first argument must be ({given[0]}): {advice}"
        assert call("predict", *given) == (2, "", f"error: {said}\n")
