"""Results of devices: on the page of a run, kept for later ones, and refused."""

import dataclasses
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from dfkd_edge.bundles.bundle import BundleContents, write_bundle
from dfkd_edge.bundles.opening import open_bundle
from dfkd_edge.errors import ArtifactError
from dfkd_edge.report import gather, write_page, write_report
from dfkd_edge.results.device import OF_ANOTHER, read_result
from dfkd_edge.runtime.bundle_files import Bundle
from dfkd_edge.runtime.caveats import FP16_IN_ENGINE
from tests.fixtures.command import invoke
from tests.report.pages import device_result, missing, page_of

HOST = "x86_64 host, not the target"


def told(run: Path, *arguments: object) -> Result:
    done = invoke("report", run, *arguments)
    assert done.exit_code == 0, done.exception
    return done


@pytest.fixture
def sent(run: Path, bundle: Path, tmp_path: Path) -> Path:
    """What a board sent of the bundle that lies in the run."""
    return device_result(tmp_path / "result.json", "../../board 7", 7, bundle)


def test_devices_merge_into_one_table_and_count_once(run: Path, tmp_path: Path) -> None:
    first, second = (device_result(tmp_path / f"{n}.json", f"board {n}", n) for n in (7, 9))
    again = Path(shutil.copy(first, tmp_path / "again.json"))
    text = page_of(run, [first, second, again]).text
    assert (text.count("board 7"), text.count("board 9")) == (1, 1)
    assert not missing(text, "7.00", "11.00")


def test_what_a_device_sent_once_stays_on_every_later_page(
    run: Path, bundle: Path, sent: Path
) -> None:
    (device,) = json.loads(told(run, sent, "--json").stdout)["devices"]
    assert (device["device"], device["of_bundle_here"]) == ("../../board 7", True)
    sent.unlink()
    assert "one image, p50, int8: ../../board 7" in page_of(bundle).text
    (kept,) = (run / "devices").iterdir()
    assert re.fullmatch(r"board-7-\w{8}\.json", kept.name)


def test_a_result_of_an_earlier_bundle_is_shown_apart_and_proves_nothing(
    run: Path, bundle: Path, sent: Path
) -> None:
    assert OF_ANOTHER not in page_of(run, [sent]).text
    with (bundle / "manifest.json").open("a", encoding="utf-8") as stream:
        stream.write("\n")  # as another export would
    text = page_of(run).text
    assert not missing(text, f"results {OF_ANOTHER}", "No device has answered for this bundle yet")
    assert "On the device" not in text
    assert f"is {OF_ANOTHER}: shown apart" in told(run, sent).stderr


def test_a_bundle_outside_a_run_keeps_results_and_stays_whole_when_it_is_replaced(
    tiny_bundle: Bundle, tiny_contents: BundleContents, tmp_path: Path
) -> None:
    sent = device_result(tmp_path / "result.json", "board 7", 7, tiny_bundle.folder)
    path = write_report(tiny_bundle.folder, [sent])
    assert path.parent == tiny_bundle.folder
    assert "house" in path.read_text(encoding="utf-8")
    open_bundle(tiny_bundle.folder)
    write_bundle(tiny_bundle.folder, dataclasses.replace(tiny_contents, status="failed"))
    assert f"results {OF_ANOTHER}" in page_of(tiny_bundle.folder).text


def test_a_damaged_result_is_named_with_what_to_do_and_hides_no_other(
    run: Path, bundle: Path, tmp_path: Path
) -> None:
    write_report(run, [device_result(tmp_path / f"{n}.json", f"board {n}", n) for n in (7, 9)])
    kept, _ = sorted((run / "devices").iterdir())
    for damaged in (kept, bundle / "result.json"):
        damaged.write_text("{", encoding="utf-8")
    shown = told(run, "--json")
    (device,) = json.loads(shown.stdout)["devices"]
    assert device["device"] == "board 9"
    unread = "left out: file cannot be read as JSON"
    both = f"{unread} ({kept}): delete it", f"{unread} ({bundle / 'result.json'}): delete it, or"
    assert not missing(shown.stderr, *both)
    assert "board 9" in (run / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("value", ["1" + 400 * "0", "NaN", "1e999", "-1", "true", '"7"'])
@pytest.mark.parametrize("name", ["p50", "throughput_per_s", "mean_top1"])
def test_a_result_with_what_is_no_measurement_is_refused(
    name: str, value: str, tmp_path: Path
) -> None:
    told = {"p50": 7, "throughput_per_s": 7, "mean_top1": 1, name: "BAD"}
    latency = {"percentile_ms": {"p50": told["p50"]}, "throughput_per_s": told["throughput_per_s"]}
    model = {"latency": latency, "data": {"mean_top1": told["mean_top1"]}}
    sent = device_result(tmp_path / "result.json", "", 7, models={"int8": model})
    sent.write_text(sent.read_text(encoding="utf-8").replace('"BAD"', value), encoding="utf-8")
    with pytest.raises(ArtifactError, match=rf"damaged .*{name}|cannot be read") as error:
        read_result(sent)
    assert "check.pyz writes" in error.value.hint


@pytest.mark.parametrize("key", ["board", "\ud800"])
def test_a_result_with_what_no_file_can_hold_is_refused(key: str, tmp_path: Path) -> None:
    sent = device_result(tmp_path / "result.json", "", 7, device={key: "\ud800"})
    with pytest.raises(ArtifactError, match="cannot be read"):
        read_result(sent)


def test_a_result_is_kept_once_its_page_is_made(run: Path, tmp_path: Path) -> None:
    sources = gather(run, [device_result(tmp_path / "result.json", "board", 7)])
    assert sources.run
    torn = dataclasses.replace(sources.run, path=tmp_path)  # where no image lies
    with pytest.raises(ArtifactError):
        write_page(dataclasses.replace(sources, run=torn))
    assert not (run / "devices").exists()
    write_page(sources)
    assert len(list((run / "devices").iterdir())) == 1


def test_a_result_that_cannot_be_kept_is_on_this_page_and_that_is_said(
    run: Path, tmp_path: Path
) -> None:
    (run / "devices").touch()
    sent = device_result(tmp_path / "result.json", "board 7", 7)
    assert "on this page alone, not kept: cannot write" in told(run, sent).stderr
    assert "board 7" in (run / "report.html").read_text(encoding="utf-8")


def _on_a_host(path: Path, bundle: Path, **model: Any) -> Path:
    timed = {"latency": {"percentile_ms": {"p50": 11}}, "not_target": HOST, **model}
    models = {"fp16" if model else "int8": timed}
    return device_result(path, "a laptop", 11, bundle, models=models)


def test_the_verdict_states_the_time_on_the_device_of_this_bundle_alone(
    run: Path, bundle: Path, sent: Path, tmp_path: Path
) -> None:
    other = device_result(tmp_path / "9.json", "board 9", 9)
    text = page_of(run, [sent, other, _on_a_host(tmp_path / "host.json", bundle)]).text
    assert text.count("On the device") == text.count("one image, p50, int8: ../../board 7") == 1


def test_a_result_of_a_host_is_no_device(run: Path, bundle: Path, tmp_path: Path) -> None:
    host_only, noted = "No device has answered yet, only a host", "noted in the result of a laptop"
    about = {"backend": "onnxruntime", "version": "1.0", "notes": [FP16_IN_ENGINE]}
    result = _on_a_host(tmp_path / "host.json", bundle, **about)
    told = (f"onnxruntime 1.0, {HOST}", "fp32graph of the fp16 bundle", noted, host_only)
    assert not missing(page_of(run, [result]).text, *told)
    board = device_result(tmp_path / "board.json", "a board", 9, bundle)
    assert host_only not in page_of(run, [result, board]).text


@pytest.mark.parametrize("not_target", ["", HOST])
def test_a_board_that_answers_with_faults_alone_has_answered(
    run: Path, bundle: Path, tmp_path: Path, not_target: str
) -> None:
    answer: dict[str, Any] = {"models": {}, "faults": ["no TensorRT"], "not_target": not_target}
    text = page_of(run, [device_result(tmp_path / "b.json", "a board", 9, bundle, **answer)]).text
    assert "no TensorRT" in text
    assert ("No device has answered yet" in text) is bool(not_target)
