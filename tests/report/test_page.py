"""The report of a real run, of a bundle, and of names that try to become markup."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from dfkd_edge.artifacts import StudentArtifact, load_tensors, save_tensors
from dfkd_edge.cli import app
from dfkd_edge.console import make_console
from dfkd_edge.deployment.bundle import BundleContents, write_bundle
from dfkd_edge.deployment.opening import open_bundle
from dfkd_edge.device_results import OF_ANOTHER
from dfkd_edge.errors import ArtifactError, RunDirError, UsageError
from dfkd_edge.report import gather, report_path, write_page, write_report
from dfkd_edge.report.making import STYLE_NOTE
from dfkd_edge.report.page import SECTIONS
from dfkd_edge.report_command import refresh_report
from dfkd_edge.run_dir import file_hash
from dfkd_edge.runtime.bundle_files import Bundle
from dfkd_edge.runtime.device_result import MARKER
from dfkd_edge.runtime.doubts import FP16_IN_ENGINE
from dfkd_edge.validation.gate import Verdict
from dfkd_edge.validation.statistics import paired_drop


class Page(HTMLParser):
    """What a browser would make of the page: elements, addresses, text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data


def _device(path: Path, name: str, p50: float, bundle: Path | None = None) -> Path:
    latency = {"percentile_ms": {"p50": p50, "p90": p50 + 1, "p99": p50 + 2}}
    model = {"backend": "tensorrt", "golden": {"passed": True}, "latency": latency}
    document = {"marker": MARKER, "device": {"board": name}, "models": {"int8": model}}
    if bundle:
        document["bundle"] = {"manifest_sha256": file_hash(bundle / "manifest.json")}
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


@pytest.fixture
def bundle(run: Path, tiny_bundle: Bundle) -> Path:
    return _into(run, tiny_bundle)


def _into(run: Path, tiny_bundle: Bundle) -> Path:
    """Put a bundle of the run's student into the run."""
    folder = run / "bundles" / "tiny"
    shutil.copytree(tiny_bundle.folder, folder)
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    weights = StudentArtifact(run / "student", {}).weights
    weights.write_bytes(b"")
    manifest["provenance"]["student_sha256"] = file_hash(weights)
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return folder


def test_the_report_of_a_run_has_every_section_and_its_key_numbers(
    run: Path, evil: str, evaluation: dict[str, Any]
) -> None:
    path = write_report(run)
    assert path == report_path(run) == run.resolve() / "report.html"
    page = Page(path.read_text(encoding="utf-8"))
    assert page.tags.count("section") == len(SECTIONS)
    student = evaluation["rungs"][-1]["domains"][f"photo {evil}"]
    assert f"{student['top1']:.1%}" in page.text
    assert f"{evaluation['retention']:.1%}" in page.text
    assert f"ECE {student['reliability']['ece']:.1%}" in page.text
    assert "4.0 times smaller" in page.text
    assert page.tags.count("img") == 5 + 1
    assert path.stat().st_size < 5_000_000


def test_styles_are_explained_where_they_are_shown_and_drawings_follow_none(
    run: Path, evil: str
) -> None:
    page = Page(write_report(run).read_text(encoding="utf-8"))
    assert page.text.count(STYLE_NOTE.format(name=evil)) == 2
    captions = [value for name, value in page.attributes if name == "data-caption"]
    assert captions.count("house, of a drawing") == 1
    assert captions.count("dog & cat, style: ink' onload='x") == 1


def test_the_report_names_the_drawings_of_each_class_first_of_those_of_another_name(
    run: Path,
) -> None:
    assert "named in the memory" not in Page(write_report(run).read_text(encoding="utf-8")).text
    path = run / "surrogates" / "surrogates.json"
    summary = json.loads(path.read_text(encoding="utf-8"))
    named = ({"<b>script": 9}, {"dog": 3, "cat": 2}, {"wheel": 6})
    for entry, names, num_own in zip(summary["classes"], named, (9, 5, 0), strict=True):
        entry |= {"drawings": names, "num_of_its_name": num_own}
    path.write_text(json.dumps(summary), encoding="utf-8")
    page = Page(write_report(run).read_text(encoding="utf-8"))
    table = page.text.split("named in the memory")[1]
    assert table.index("wheel") < table.index("<b>script") < table.index("dog, cat")


def test_images_of_another_version_are_shown_by_their_styles(run: Path) -> None:
    (path,) = (run / "surrogates").glob("shard-*.safetensors")
    shard = load_tensors(path)
    del shard["drawing_index"]
    save_tensors(path, shard)
    page = Page(write_report(run).read_text(encoding="utf-8"))
    captions = [value for name, value in page.attributes if name == "data-caption"]
    assert captions
    assert not [caption for caption in captions if caption and caption.endswith("of a drawing")]


def test_the_verdict_states_its_pictures_and_says_when_they_are_too_few(
    run: Path, evaluation: dict[str, Any]
) -> None:
    text = Page(write_report(run).read_text(encoding="utf-8")).text
    assert "on 40 labelled pictures: too few pictures to tell" in text
    for rung in evaluation["rungs"]:
        for figures in rung["domains"].values():
            figures["num_images"] = 4_000
            figures["top1_interval"] = [figures["top1"] - 0.01, figures["top1"] + 0.01]
    (run / "evaluation.json").write_text(json.dumps(evaluation), encoding="utf-8")
    text = Page(write_report(run).read_text(encoding="utf-8")).text
    assert "on 4,000 labelled pictures." in text
    assert "too few" not in text


@pytest.mark.parametrize(
    ("num_pictures", "badge", "headline"),
    [
        (10, 'doubtful" aria-hidden="true">?', "Gate passed"),
        (100, 'passed" aria-hidden="true">?', "Gate passed"),
        (1_000, 'proven" aria-hidden="true">✓', "Conv"),
    ],
)
def test_the_badge_promises_no_more_than_the_gate(
    run: Path, evaluation: dict[str, Any], num_pictures: int, badge: str, headline: str
) -> None:
    correct = np.ones(num_pictures, bool)
    loss = paired_drop(correct, correct)
    gate = Verdict(True, 0.01, "photo", "student", "top1", loss).document()
    ladder = {**evaluation, "measure": "top1", "gate": gate}
    (run / "evaluation.json").write_text(json.dumps(ladder), encoding="utf-8")
    text = write_report(run).read_text(encoding="utf-8")
    assert f'class="badge {badge}</span>{headline}' in text


def test_names_stay_text_wherever_they_appear(run: Path, evil: str) -> None:
    text = write_report(run, [_device(run / "a.json", evil, 1)]).read_text(encoding="utf-8")
    page = Page(text)
    assert page.tags.count("script") == 1
    assert "b" not in page.tags
    assert text.count("<script>") == 1
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert text.count("&lt;script&gt;") > 8


def test_the_report_needs_no_network(run: Path) -> None:
    text = write_report(run).read_text(encoding="utf-8")
    addresses = [v for name, v in Page(text).attributes if name in ("src", "href", "srcset")]
    assert all(value.startswith(("#", "data:image/jpeg;base64,")) for value in addresses)
    assert not re.search(r"url\(|@import|https?:", text)
    assert "default-src 'none'" in text


def test_what_is_missing_names_the_command_that_makes_it(run: Path) -> None:
    page = Page(write_report(run).read_text(encoding="utf-8"))
    for command in ("dfkd-edge export", "dfkd-edge benchmark", "python3 check.pyz"):
        assert command in page.text
    (run / "student" / "student.json").unlink()
    assert "Not distilled yet" in write_report(run).read_text(encoding="utf-8")


def test_a_page_names_commands_of_what_is_there(run: Path, tiny_bundle: Bundle) -> None:
    place = shlex.quote(str(run.resolve()))
    text = Page(write_report(run).read_text(encoding="utf-8")).text
    export = f"dfkd-edge export {place} --precision fp16"  # its images are too few for INT8
    assert f"{export}, then dfkd-edge benchmark {place}" in text
    for command in re.findall(r"(?:then )?dfkd-edge (?:check|benchmark)", text):
        assert command.startswith("then ")  # alone it would find no bundle
    bundle = _into(run, tiny_bundle)
    text = Page(write_report(run).read_text(encoding="utf-8")).text
    assert f"dfkd-edge benchmark {shlex.quote(str(bundle.resolve()))}" in text


def test_devices_merge_into_one_table_and_count_once(run: Path, tmp_path: Path) -> None:
    first, second = (_device(tmp_path / f"{n}.json", f"board {n}", n) for n in (7, 9))
    again = tmp_path / "again.json"
    again.write_bytes(first.read_bytes())
    text = Page(write_report(run, [first, second, again]).read_text(encoding="utf-8")).text
    assert (text.count("board 7"), text.count("board 9")) == (1, 1)
    assert "7.00" in text
    assert "11.00" in text


def test_what_a_device_sent_once_stays_on_every_later_page(
    run: Path, bundle: Path, tmp_path: Path
) -> None:
    sent = _device(tmp_path / "result.json", "../../board 7", 7, bundle)
    shown = CliRunner().invoke(app, ["report", str(run), str(sent), "--json"])
    assert shown.exit_code == 0, shown.exception
    (device,) = json.loads(shown.stdout)["devices"]
    assert (device["device"], device["of_bundle_here"]) == ("../../board 7", True)
    sent.unlink()
    text = Page(write_report(bundle).read_text(encoding="utf-8")).text
    assert "one image, p50, int8: ../../board 7" in text
    (kept,) = (run / "devices").iterdir()
    assert re.fullmatch(r"board-7-\w{8}\.json", kept.name)


def test_a_run_that_is_read_only_shows_what_was_sent_and_keeps_nothing(
    run: Path, bundle: Path, tmp_path: Path, read_only: Callable[[Path], None]
) -> None:
    sent = _device(tmp_path / "result.json", "board 7", 7, bundle)
    read_only(run)
    page = write_report(run, [sent], tmp_path / "page.html")
    assert "one image, p50, int8: board 7" in Page(page.read_text(encoding="utf-8")).text
    assert not (run / "devices").exists()


def test_a_result_of_an_earlier_bundle_is_shown_apart_and_proves_nothing(
    run: Path, bundle: Path, tmp_path: Path
) -> None:
    sent = _device(tmp_path / "result.json", "board 7", 7, bundle)
    assert OF_ANOTHER not in Page(write_report(run, [sent]).read_text(encoding="utf-8")).text
    with (bundle / "manifest.json").open("a", encoding="utf-8") as stream:
        stream.write("\n")  # as another export would
    text = Page(write_report(run).read_text(encoding="utf-8")).text
    assert f"results {OF_ANOTHER}" in text
    assert "No device has answered for this bundle yet" in text
    assert "On the device" not in text
    told = CliRunner().invoke(app, ["report", str(run), str(sent)])
    assert f"is {OF_ANOTHER}: shown apart" in told.stderr


def test_a_bundle_outside_a_run_keeps_results_and_stays_whole_when_it_is_replaced(
    tiny_bundle: Bundle, tiny_contents: BundleContents, tmp_path: Path
) -> None:
    sent = _device(tmp_path / "result.json", "board 7", 7, tiny_bundle.folder)
    write_report(tiny_bundle.folder, [sent])
    open_bundle(tiny_bundle.folder)
    write_bundle(tiny_bundle.folder, dataclasses.replace(tiny_contents, status="failed"))
    page = write_report(tiny_bundle.folder).read_text(encoding="utf-8")
    assert f"results {OF_ANOTHER}" in Page(page).text


def test_a_damaged_result_is_named_with_what_to_do_and_hides_no_other(
    run: Path, bundle: Path, tmp_path: Path
) -> None:
    write_report(run, [_device(tmp_path / f"{n}.json", f"board {n}", n) for n in (7, 9)])
    kept, _ = sorted((run / "devices").iterdir())
    for damaged in (kept, bundle / "result.json"):
        damaged.write_text("{", encoding="utf-8")
    shown = CliRunner().invoke(app, ["report", str(run), "--json"])
    (device,) = json.loads(shown.stdout)["devices"]
    assert (device["device"], shown.exit_code) == ("board 9", 0)
    assert f"left out: file cannot be read as JSON ({kept}): delete it" in shown.stderr
    in_bundle = f"left out: file cannot be read as JSON ({bundle / 'result.json'}): delete it, or"
    assert in_bundle in shown.stderr
    assert "board 9" in (run / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("value", ["1" + 400 * "0", "NaN", "1e999", "-1", "true", '"7"'])
@pytest.mark.parametrize("name", ["p50", "throughput_per_s", "mean_top1"])
def test_a_result_with_what_is_no_measurement_is_refused_and_not_kept(
    name: str, value: str, run: Path, tmp_path: Path
) -> None:
    times = {"p50": 7, "throughput_per_s": 7, "mean_top1": 1}
    texts = {key: value if key == name else str(number) for key, number in times.items()}
    model = (
        f'{{"latency": {{"percentile_ms": {{"p50": {texts["p50"]}}}, '
        f'"throughput_per_s": {texts["throughput_per_s"]}}}, '
        f'"data": {{"mean_top1": {texts["mean_top1"]}}}}}'
    )
    sent = tmp_path / "result.json"
    whole = f'{{"marker": "{MARKER}", "device": {{}}, "models": {{"int8": {model}}}}}'
    sent.write_text(whole, encoding="utf-8")
    with pytest.raises(ArtifactError, match=r"is not whole|cannot be read"):
        write_report(run, [sent])
    assert not (run / "devices").exists()


@pytest.mark.parametrize("key", ["board", "\\ud800"])
def test_a_result_with_what_no_file_can_hold_is_refused(
    key: str, run: Path, tmp_path: Path
) -> None:
    sent = tmp_path / "result.json"
    text = f'{{"marker": "{MARKER}", "device": {{"{key}": "\\ud800"}}, "models": {{}}}}'
    sent.write_text(text, encoding="utf-8")
    with pytest.raises(ArtifactError, match="cannot be read"):
        write_report(run, [sent])


def test_a_result_is_kept_once_its_page_is_made(run: Path, tmp_path: Path) -> None:
    sources = gather(run, [_device(tmp_path / "result.json", "board", 7)])
    assert sources.run
    torn = dataclasses.replace(sources.run, evaluation={"rungs": None})
    with pytest.raises(TypeError):
        write_page(dataclasses.replace(sources, run=torn))
    assert not (run / "devices").exists()
    write_page(sources)
    assert len(list((run / "devices").iterdir())) == 1


def test_a_result_that_cannot_be_kept_is_on_this_page_and_that_is_said(
    run: Path, tmp_path: Path
) -> None:
    (run / "devices").touch()
    sent = _device(tmp_path / "result.json", "board 7", 7)
    shown = CliRunner().invoke(app, ["report", str(run), str(sent)])
    assert shown.exit_code == 0, shown.exception
    assert "on this page alone, not kept: cannot write" in shown.stderr
    assert "board 7" in (run / "report.html").read_text(encoding="utf-8")


def test_the_verdict_states_the_time_on_the_device_of_this_bundle_alone(
    run: Path, bundle: Path, tmp_path: Path
) -> None:
    ours, host = (_device(tmp_path / f"{n}.json", f"board {n}", n, bundle) for n in (7, 11))
    other = _device(tmp_path / "9.json", "board 9", 9)
    document = json.loads(host.read_text(encoding="utf-8"))
    document["models"]["int8"]["not_target"] = "host"
    host.write_text(json.dumps(document), encoding="utf-8")
    text = Page(write_report(run, [ours, other, host]).read_text(encoding="utf-8")).text
    assert text.count("On the device") == 1
    assert "one image, p50, int8: board 7" in text


def test_a_result_of_a_host_is_no_device(run: Path, bundle: Path, tmp_path: Path) -> None:
    missing = "No device has answered yet, only a host"
    result = _device(tmp_path / "host.json", "a laptop", 7, bundle)
    document = json.loads(result.read_text(encoding="utf-8"))
    document["models"] = {"fp16": document["models"]["int8"]}
    document["models"]["fp16"] |= {
        "backend": "onnxruntime",
        "version": "1.0",
        "not_target": "x86_64 host, not the target",
        "notes": [FP16_IN_ENGINE],
    }
    result.write_text(json.dumps(document), encoding="utf-8")
    text = Page(write_report(run, [result]).read_text(encoding="utf-8")).text
    assert "onnxruntime 1.0, x86_64 host, not the target" in text
    assert "fp32graph of the fp16 bundle" in text
    assert "noted in the result of a laptop" in text
    assert missing in text
    board = _device(tmp_path / "board.json", "a board", 9, bundle)
    text = Page(write_report(run, [result, board]).read_text(encoding="utf-8")).text
    assert missing not in text


@pytest.mark.parametrize("not_target", ["", "x86_64 host, not the target"])
def test_a_board_that_answers_with_faults_alone_has_answered(
    run: Path, bundle: Path, tmp_path: Path, not_target: str
) -> None:
    result = _device(tmp_path / "board.json", "a board", 9, bundle)
    document = json.loads(result.read_text(encoding="utf-8"))
    document |= {"models": {}, "faults": ["no TensorRT"], "not_target": not_target}
    result.write_text(json.dumps(document), encoding="utf-8")
    text = Page(write_report(run, [result]).read_text(encoding="utf-8")).text
    assert "no TensorRT" in text
    assert ("No device has answered yet" in text) is bool(not_target)


def test_a_rung_without_a_time_says_why_once_and_has_no_time_to_doubt(
    run: Path, evaluation: dict[str, Any]
) -> None:
    doubt = "8-bit sums of this CPU saturate"
    for rung in evaluation["rungs"]:
        rung |= {"latency_ms": 2.0, "latency_doubts": []}
    evaluation["rungs"][-1] |= {"latency_ms": None, "latency_doubts": [doubt]}
    correct = np.ones(100, bool)
    gate = Verdict(True, 0.01, "photo", "student", "top1", paired_drop(correct, correct))
    ladder = {**evaluation, "measure": "top1", "gate": gate.document()}
    (run / "evaluation.json").write_text(json.dumps(ladder), encoding="utf-8")
    text = Page(write_report(run).read_text(encoding="utf-8")).text
    assert text.count(doubt) == 1
    assert "not in the picture" in text
    assert "to be read with these times" not in text


def test_doubts_about_the_times_of_a_ladder_are_on_the_page(
    run: Path, evaluation: dict[str, Any]
) -> None:
    doubt = "unsteady: deviation is 0.35 of the mean"
    for rung in evaluation["rungs"]:
        rung |= {"latency_ms": 2.0, "latency_doubts": []}
    evaluation["rungs"][0] |= {"latency_ms": 9.0, "onnx_latency_ms": 5.0}
    evaluation["rungs"][-1] |= {"name": "onnx-fp32", "latency_doubts": [doubt]}
    correct = np.ones(100, bool)
    gate = Verdict(True, 0.01, "photo", "student", "top1", paired_drop(correct, correct))
    ladder = {**evaluation, "measure": "top1", "gate": gate.document()}
    (run / "evaluation.json").write_text(json.dumps(ladder), encoding="utf-8")
    text = Page(write_report(run).read_text(encoding="utf-8")).text
    assert "2.5\u00d7" in text
    assert text.count(f"onnx-fp32: {doubt}") == 1
    assert "onnx-fp32: see the notes below the ladder" in text
    assert "PyTorch; 5.00 in ONNX Runtime" in text
    assert "teacher: 5.00 ms" in text
    assert "teacher: 9.00 ms" not in text
    assert "student-start, PyTorch: 2.00 ms" in text
    assert "ONNX Runtime on the host, the same threads: 5.00 ms, 2.00 ms; see the notes" in text


@pytest.mark.parametrize("doubts", [[], ["unsteady: deviation is 0.35 of the mean"]])
def test_the_tile_of_the_speed_tells_of_doubts_about_the_teacher_as_a_graph(
    run: Path, evaluation: dict[str, Any], doubts: list[str]
) -> None:
    for rung in evaluation["rungs"]:
        rung |= {"latency_ms": 2.0, "latency_doubts": []}
    evaluation["rungs"][0] |= {"onnx_latency_ms": 5.0, "onnx_latency_doubts": doubts}
    evaluation["rungs"][-1]["name"] = "onnx-fp32"
    correct = np.ones(100, bool)
    gate = Verdict(True, 0.01, "photo", "student", "top1", paired_drop(correct, correct))
    ladder = {**evaluation, "measure": "top1", "gate": gate.document()}
    (run / "evaluation.json").write_text(json.dumps(ladder), encoding="utf-8")
    text = Page(write_report(run).read_text(encoding="utf-8")).text
    assert ("5.00 ms, 2.00 ms; see the notes" in text) is bool(doubts)
    assert text.count("teacher as an FP32 graph: unsteady") == len(doubts)


def test_a_bundle_outside_a_run_holds_its_own_report_and_stays_whole(tiny_bundle: Bundle) -> None:
    path = write_report(tiny_bundle.folder)
    assert path.parent == tiny_bundle.folder
    open_bundle(tiny_bundle.folder)
    assert "great dane" in path.read_text(encoding="utf-8")


def test_a_foreign_file_is_no_result_and_a_foreign_folder_no_run(run: Path, tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text("[]", encoding="utf-8")
    with pytest.raises(ArtifactError, match="no JSON object"):
        write_report(run, [tmp_path / "other.json"])
    with pytest.raises(ArtifactError, match=r"check\.pyz"):
        write_report(run, [run / "evaluation.json"])
    torn = tmp_path / "torn.json"
    torn.write_text(json.dumps({"marker": MARKER, "device": {}, "models": {"int8": []}}))
    with pytest.raises(ArtifactError, match="not whole"):
        write_report(run, [torn])
    with pytest.raises(UsageError, match="no such file"):
        write_report(run, [tmp_path / "missing.json"])
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "file").touch()
    with pytest.raises(RunDirError):
        write_report(tmp_path / "foreign")


def test_the_command_names_the_file_and_takes_one_run(run: Path, tmp_path: Path) -> None:
    output = tmp_path / "page.html"
    done = CliRunner().invoke(app, ["report", str(run), "-o", str(output), "--json"])
    assert json.loads(done.stdout)["report"] == str(output)
    assert output.is_file()
    assert isinstance(CliRunner().invoke(app, ["report", "a", "b"]).exception, UsageError)


def test_a_damaged_file_costs_the_report_and_not_the_result(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / "evaluation.json").write_text("{", encoding="utf-8")
    assert refresh_report(run, make_console(quiet=False)) == "not written"
    assert "evaluation.json" in capsys.readouterr().err.replace("\n", "")
