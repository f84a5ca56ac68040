"""The report of a real run, of a bundle, and of names that try to become markup."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from dfkd_edge.artifacts import SurrogateSummary, load_tensors, save_tensors
from dfkd_edge.bundles.opening import open_bundle
from dfkd_edge.cli import app
from dfkd_edge.console import ConsoleReporter, make_console
from dfkd_edge.errors import ArtifactError, RunDirError, UsageError
from dfkd_edge.report import report_path, write_report
from dfkd_edge.report.making import STYLE_NOTE
from dfkd_edge.report.page import SECTIONS, refresh_report
from dfkd_edge.runtime.bundle_files import Bundle
from dfkd_edge.runtime.device_result import MARKER
from dfkd_edge.validation.gate import Verdict
from dfkd_edge.validation.statistics import paired_drop


def test_the_report_of_a_run_has_every_section_and_its_key_numbers(
    run: Path, evil: str, evaluation: dict[str, Any], parsed: Callable[[str], Any]
) -> None:
    path = write_report(run)
    assert path == report_path(run) == run.resolve() / "report.html"
    page = parsed(path.read_text(encoding="utf-8"))
    assert page.tags.count("section") == len(SECTIONS)
    student = evaluation["rungs"][-1]["domains"][f"photo {evil}"]
    assert f"{student['top1']:.1%}" in page.text
    assert f"{evaluation['retention']:.1%}" in page.text
    assert f"ECE {student['reliability']['ece']:.1%}" in page.text
    assert "4.0 times smaller" in page.text
    assert page.tags.count("img") == 5 + 1
    assert path.stat().st_size < 5_000_000


def test_styles_are_explained_where_they_are_shown_and_drawings_follow_none(
    run: Path, evil: str, parsed: Callable[[str], Any]
) -> None:
    page = parsed(write_report(run).read_text(encoding="utf-8"))
    assert page.text.count(STYLE_NOTE.format(name=evil)) == 2
    captions = [value for name, value in page.attributes if name == "data-caption"]
    assert captions.count("house, of a drawing") == 1
    assert captions.count("dog & cat, style: ink' onload='x") == 1


def test_the_report_names_the_drawings_of_each_class_first_of_those_of_another_name(
    run: Path, parsed: Callable[[str], Any]
) -> None:
    assert "named in the memory" not in parsed(write_report(run).read_text(encoding="utf-8")).text
    folder = run / "surrogates"
    summary = SurrogateSummary.load(folder)
    named = ({"<b>script": 9}, {"dog": 3, "cat": 2}, {"wheel": 6})
    classes = [
        replace(entry, drawings=names, num_of_its_name=num_own)
        for entry, names, num_own in zip(summary.classes, named, (9, 5, 0), strict=True)
    ]
    replace(summary, classes=tuple(classes)).save(folder)
    page = parsed(write_report(run).read_text(encoding="utf-8"))
    table = page.text.split("named in the memory")[1]
    assert table.index("wheel") < table.index("<b>script") < table.index("dog, cat")


def test_images_of_another_version_are_shown_by_their_styles(
    run: Path, parsed: Callable[[str], Any]
) -> None:
    (path,) = (run / "surrogates").glob("shard-*.safetensors")
    shard = load_tensors(path)
    del shard["drawing_index"]
    save_tensors(path, shard)
    page = parsed(write_report(run).read_text(encoding="utf-8"))
    captions = [value for name, value in page.attributes if name == "data-caption"]
    assert captions
    assert not [caption for caption in captions if caption and caption.endswith("of a drawing")]


def test_the_verdict_states_its_pictures_and_says_when_they_are_too_few(
    run: Path, evaluation: dict[str, Any], parsed: Callable[[str], Any]
) -> None:
    text = parsed(write_report(run).read_text(encoding="utf-8")).text
    assert "on 40 labelled pictures: too few pictures to tell" in text
    for rung in evaluation["rungs"]:
        for figures in rung["domains"].values():
            figures["num_images"] = 4_000
            figures["top1_interval"] = [figures["top1"] - 0.01, figures["top1"] + 0.01]
    (run / "evaluation.json").write_text(json.dumps(evaluation), encoding="utf-8")
    text = parsed(write_report(run).read_text(encoding="utf-8")).text
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


def test_names_stay_text_wherever_they_appear(
    run: Path, evil: str, parsed: Callable[[str], Any], device_result: Callable[..., Path]
) -> None:
    text = write_report(run, [device_result(run / "a.json", evil, 1)]).read_text(encoding="utf-8")
    page = parsed(text)
    assert page.tags.count("script") == 1
    assert "b" not in page.tags
    assert text.count("<script>") == 1
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert text.count("&lt;script&gt;") > 8


def test_the_report_needs_no_network(run: Path, parsed: Callable[[str], Any]) -> None:
    text = write_report(run).read_text(encoding="utf-8")
    addresses = [v for name, v in parsed(text).attributes if name in ("src", "href", "srcset")]
    assert all(value.startswith(("#", "data:image/jpeg;base64,")) for value in addresses)
    assert not re.search(r"url\(|@import|https?:", text)
    assert "default-src 'none'" in text


def test_what_is_missing_names_the_command_that_makes_it(
    run: Path, parsed: Callable[[str], Any]
) -> None:
    page = parsed(write_report(run).read_text(encoding="utf-8"))
    for command in ("dfkd-edge export", "dfkd-edge benchmark", "python3 check.pyz"):
        assert command in page.text
    (run / "student" / "student.json").unlink()
    assert "Not distilled yet" in write_report(run).read_text(encoding="utf-8")


def test_a_page_names_commands_of_what_is_there(
    run: Path, parsed: Callable[[str], Any], into_run: Callable[[], Path]
) -> None:
    place = shlex.quote(str(run.resolve()))
    text = parsed(write_report(run).read_text(encoding="utf-8")).text
    export = f"dfkd-edge export {place} --precision fp16"  # its images are too few for INT8
    assert f"{export}, then dfkd-edge benchmark {place}" in text
    for command in re.findall(r"(?:then )?dfkd-edge (?:check|benchmark)", text):
        assert command.startswith("then ")  # alone it would find no bundle
    bundle = into_run()
    text = parsed(write_report(run).read_text(encoding="utf-8")).text
    assert f"dfkd-edge benchmark {shlex.quote(str(bundle.resolve()))}" in text


def test_a_rung_without_a_time_says_why_once_and_has_no_time_to_doubt(
    run: Path, evaluation: dict[str, Any], parsed: Callable[[str], Any]
) -> None:
    doubt = "8-bit sums of this CPU saturate"
    for rung in evaluation["rungs"]:
        rung |= {"latency_ms": 2.0, "latency_doubts": []}
    evaluation["rungs"][-1] |= {"latency_ms": None, "latency_doubts": [doubt]}
    correct = np.ones(100, bool)
    gate = Verdict(True, 0.01, "photo", "student", "top1", paired_drop(correct, correct))
    ladder = {**evaluation, "measure": "top1", "gate": gate.document()}
    (run / "evaluation.json").write_text(json.dumps(ladder), encoding="utf-8")
    text = parsed(write_report(run).read_text(encoding="utf-8")).text
    assert text.count(doubt) == 1
    assert "not in the picture" in text
    assert "to be read with these times" not in text


def test_doubts_about_the_times_of_a_ladder_are_on_the_page(
    run: Path, evaluation: dict[str, Any], parsed: Callable[[str], Any]
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
    text = parsed(write_report(run).read_text(encoding="utf-8")).text
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
    run: Path, evaluation: dict[str, Any], doubts: list[str], parsed: Callable[[str], Any]
) -> None:
    for rung in evaluation["rungs"]:
        rung |= {"latency_ms": 2.0, "latency_doubts": []}
    evaluation["rungs"][0] |= {"onnx_latency_ms": 5.0, "onnx_latency_doubts": doubts}
    evaluation["rungs"][-1]["name"] = "onnx-fp32"
    correct = np.ones(100, bool)
    gate = Verdict(True, 0.01, "photo", "student", "top1", paired_drop(correct, correct))
    ladder = {**evaluation, "measure": "top1", "gate": gate.document()}
    (run / "evaluation.json").write_text(json.dumps(ladder), encoding="utf-8")
    text = parsed(write_report(run).read_text(encoding="utf-8")).text
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
    assert refresh_report(run, ConsoleReporter(make_console(quiet=False))) == "not written"
    assert "evaluation.json" in capsys.readouterr().err.replace("\n", "")
