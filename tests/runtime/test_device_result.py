import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dfkd_edge.results.device import read_result
from dfkd_edge.runtime.bundle_files import Bundle

RunCheck = Callable[..., tuple[int, str, dict[str, Any]]]


@pytest.mark.parametrize(
    ("code", "lack"),
    [(4, ("--backend", "tensorrt")), (2, ("--precision", "fp16", "--quiet"))],
)
def test_a_run_without_a_model_leaves_an_earlier_result_alone(
    run_check: RunCheck, tiny_bundle: Bundle, tmp_path: Path, code: int, lack: tuple[str, ...]
) -> None:
    _, _, good = run_check(tiny_bundle.folder)
    found, errors, result = run_check(tiny_bundle.folder, *lack)
    assert (found, result) == (code, good)
    kept = f"the earlier result stays as it is ({tiny_bundle.folder / 'result.json'})"
    assert errors.splitlines()[1:] == [
        f"no model was run, so {kept}: name another file with --output"
    ]
    other = tmp_path / "other.json"
    other.write_text(json.dumps(good), encoding="utf-8")  # named by hand: it is for this run
    run_check(tiny_bundle.folder, *lack, "--output", str(other))
    assert json.loads(other.read_text(encoding="utf-8"))["models"] == {}


def test_the_host_reads_what_the_check_wrote(run_check: RunCheck, tiny_bundle: Bundle) -> None:
    run_check(tiny_bundle.folder, "--duration", "0.05", "--precision", "all")
    result = read_result(tiny_bundle.folder / "result.json")
    assert result.bundle_sha256 == tiny_bundle.sha256
    assert result.models.keys() == {"fp32", "int8"}
    for model in result.models.values():
        assert model.golden.passed
        assert model.p50_ms
        assert model.latency.throughput_per_s
        assert model.backend == "onnxruntime"
    assert result.name != "device"
    assert result.time


def test_a_result_without_a_model_or_of_another_bundle_is_replaced(
    run_check: RunCheck, tiny_bundle: Bundle
) -> None:
    path = tiny_bundle.folder / "result.json"
    _, _, good = run_check(tiny_bundle.folder)
    good["bundle"]["manifest_sha256"] = "0" * 64
    path.write_text(json.dumps(good), encoding="utf-8")
    _, _, first = run_check(tiny_bundle.folder, "--precision", "fp16")
    assert first["models"] == {}
    _, _, second = run_check(tiny_bundle.folder, "--backend", "tensorrt")
    assert second["faults"] != first["faults"]


def test_a_result_that_cannot_be_written_leaves_with_4(
    run_check: RunCheck, tiny_bundle: Bundle, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    below = str(tmp_path / "file" / "result.json")
    code, errors, _ = run_check(tiny_bundle.folder, "--output", below)
    assert (code, errors.count("\n")) == (4, 1)
    assert "--output" in errors
