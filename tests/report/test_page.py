"""The report of a run, of a bundle, and of names that try to become markup."""

import dataclasses
import json
import re
import shlex
import shutil
from pathlib import Path

import pytest

from dfkd_edge.console import ConsoleReporter, make_console
from dfkd_edge.errors import ArtifactError, RunDirError, UsageError
from dfkd_edge.files import atomic_write
from dfkd_edge.report import write_report
from dfkd_edge.report.page import refresh_report
from dfkd_edge.results.ladder import Ladder
from dfkd_edge.runtime.bundle_files import CHECK_RESULT, VALIDATION
from tests.fixtures.command import invoke
from tests.fixtures.files import edit_json
from tests.fixtures.ladders import figures, gate, ladder, rung
from tests.report.pages import EVIL, device_result, keep, missing, page_of


def test_the_report_answers_in_the_order_in_which_people_ask(run: Path) -> None:
    path = write_report(run)
    assert path == run.resolve() / "report.html"
    page = page_of(run)
    asked = ["accuracy", "speed", "classes", "confidence", "pictures"]
    made = ["prompts", "training", "conversion", "environment", "reproduce"]
    links = [link[1:] for link in page.values("href") if link.startswith("#")]
    assert links == [*asked, *made]
    assert page.tags.count("section") == len(links)
    key_numbers = ("90.0%", f"{0.9 / 0.95:.1%}", "ECE 12.5%", "4.0 times smaller")
    assert not missing(page.text, *key_numbers)
    assert page.tags.count("img") == 5 + 1
    assert path.stat().st_size < 5_000_000


HIDDEN = "\x1b]0;owned\x07 \u202egpj.exe"
ODD_METRICS = (
    *('{"stage": "student", "step": 3, "loss": NaN}', '{"stage": "student", "step": "x"}'),
    *('{"stage": "student", "step": 4, "loss": 1e308}', '{"stage": "a", "step": null, "loss": 1}'),
    f'{{"stage": "student", "step": 1{"0" * 400}, "loss": 1}}',
    f'{{"stage": "student", "step": 5, "loss": 1{"0" * 400}}}',
)


def test_names_of_others_hide_nothing_and_odd_metrics_are_left_out(
    run: Path, evaluation: Ladder
) -> None:
    keep(run, dataclasses.replace(evaluation, notes=(f"a {HIDDEN}",), images=HIDDEN))
    with (run / "metrics.jsonl").open("a", encoding="utf-8") as stream:
        stream.write("\n".join(ODD_METRICS))
    page = write_report(run).read_text(encoding="utf-8")
    assert "\\u001b]0;owned\\u0007 \\u202egpj.exe" in page
    assert not set("\x1b\x07\u202e") & set(page)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("surrogates/surrogates.json", {"num_candidates": "many"}),
        ("surrogates/surrogates.json", {"classes": [{"name": "dog"}]}),
        ("prompts/prompts.json", {"styles": []}),
        ("prompts/prompts.json", {"classes": [5]}),
        ("prompts/prompts.json", {"diversity": {"effective_rank": None}}),
        ("student/student.json", {"num_parameters": None}),
    ],
)
def test_a_document_of_a_run_with_another_type_is_one_line(
    name: str, change: dict[str, object], run: Path
) -> None:
    edit_json(run / name, **change)
    with pytest.raises(ArtifactError, match=f"missing or damaged .*{Path(name).name}"):
        write_report(run)


def test_the_verdict_states_its_pictures_and_says_when_they_are_too_few(
    run: Path, evaluation: Ladder
) -> None:
    assert "on 40 labelled pictures: too few pictures to tell" in page_of(run).text
    parts = {name: figures(0.9, 4_000) for name in evaluation.shown_domains}
    rungs = (rung(name, parts) for name in ("teacher", "student-start", "student"))
    keep(run, ladder(*rungs))
    text = page_of(run).text
    assert "on 4,000 labelled pictures." in text
    assert "too few" not in text


@pytest.mark.parametrize(
    ("interval", "badge", "headline"),
    [
        ((-0.2, 0.3), 'doubtful" aria-hidden="true">?', "Gate passed"),
        ((-0.02, 0.03), 'passed" aria-hidden="true">?', "Gate passed"),
        ((-0.002, 0.003), 'proven" aria-hidden="true">✓', "Conv"),
    ],
)
def test_the_badge_promises_no_more_than_the_gate(
    run: Path, evaluation: Ladder, interval: tuple[float, float], badge: str, headline: str
) -> None:
    keep(run, dataclasses.replace(evaluation, gate=gate(interval=interval)))
    text = write_report(run).read_text(encoding="utf-8")
    assert f'class="badge {badge}</span>{headline}' in text


def test_equal_answers_of_check_and_export_are_shown_once_and_say_both(
    run: Path, bundle: Path, evaluation: Ladder
) -> None:
    for name in (VALIDATION, CHECK_RESULT):
        atomic_write(bundle / name, json.dumps(evaluation.to_json()))
    text = page_of(run).text
    assert text.count("KL to the one above") == 1
    assert "; export measured the same answers" in text
    edit_json(bundle / CHECK_RESULT, images="others")
    text = page_of(run).text
    assert text.count("KL to the one above") == 2
    assert "the same answers" not in text


def test_names_stay_text_wherever_they_appear_and_no_network_is_needed(run: Path) -> None:
    page = page_of(run, [device_result(run / "a.json", EVIL, 1)])
    assert (page.tags.count("script"), page.tags.count("b")) == (1, 0)
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    text = (run / "report.html").read_text(encoding="utf-8")
    assert text.count("<script>") == 1
    assert text.count("&lt;script&gt;") > 8
    addresses = [value for name in ("src", "href", "srcset") for value in page.values(name)]
    assert all(value.startswith(("#", "data:image/jpeg;base64,")) for value in addresses)
    assert not re.search(r"url\(|@import|https?:", text)
    assert "default-src 'none'" in text


def test_a_page_names_commands_of_what_is_there(run: Path, bundle: Path) -> None:
    assert f"dfkd-edge benchmark {shlex.quote(str(bundle.resolve()))}" in page_of(run).text
    shutil.rmtree(bundle)
    text, place = page_of(run).text, shlex.quote(str(run.resolve()))
    export = f"dfkd-edge export {place} --precision fp16"  # its images are too few for INT8
    assert not missing(text, f"{export}, then dfkd-edge benchmark {place}", "python3 check.pyz")
    for command in re.findall(r"(?:then )?dfkd-edge (?:check|benchmark)", text):
        assert command.startswith("then ")  # alone it would find no bundle
    (run / "student" / "student.json").unlink()
    assert "Not distilled yet" in page_of(run).text


def test_a_foreign_file_is_no_result_and_a_foreign_folder_no_run(run: Path, tmp_path: Path) -> None:
    other, missing = tmp_path / "foreign" / "other.json", tmp_path / "missing.json"
    atomic_write(other, "[]")
    torn = device_result(tmp_path / "torn.json", "board", 1, models={"int8": []})
    with pytest.raises(UsageError, match="no such file"):
        write_report(run, [missing])
    for file, fault in (
        (other, "no JSON object"),
        (run / "evaluation.json", r"check\.pyz"),
        (torn, r"damaged \(models\.int8:"),
    ):
        with pytest.raises(ArtifactError, match=fault):
            write_report(run, [file])
    with pytest.raises(RunDirError):
        write_report(other.parent)


def test_the_command_names_the_file_and_takes_one_run(run: Path, tmp_path: Path) -> None:
    output = tmp_path / "page.html"
    done = invoke("report", run, "-o", output, "--json")
    document = json.loads(done.stdout)
    assert (document["report"], document["bytes"]) == (str(output), output.stat().st_size)
    (climb,) = document["ladders"]
    assert (climb["command"], climb["measure"], climb["mean"]) == ("distill", "top1", 0.9)
    assert climb["gate"] is None
    assert isinstance(invoke("report", "a", "b").exception, UsageError)


@pytest.mark.parametrize("damage", ["{", "{}", '{"schema": 99}'])
def test_a_damaged_file_costs_the_report_and_not_the_result(
    run: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / "evaluation.json").write_text(damage, encoding="utf-8")
    assert refresh_report(run, ConsoleReporter(make_console(quiet=False))) == "not written"
    assert "evaluation.json" in capsys.readouterr().err.replace("\n", "")
