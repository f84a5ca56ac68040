"""What the page says beside a figure: by which reference it counts, and on what images."""

import dataclasses
import re
from pathlib import Path

import pytest

from dfkd_edge.report.figures import SpeedPoint, speed_figure
from dfkd_edge.results.class_answers import REFERENCES
from dfkd_edge.results.ladder import Ladder, MeasuredRung, StepLoss
from dfkd_edge.results.wording import Metric
from tests.fixtures.ladders import confidence, figures, gate, ladder, rung
from tests.report.conftest import BINS, CLASSES, CONFUSION
from tests.report.pages import keep, missing, page_of

CAVEAT = "unsteady: deviation is 0.35 of the mean"


def timed(*rungs: MeasuredRung) -> Ladder:
    """A ladder that was climbed to a gate."""
    return ladder(*rungs, gate=gate(), classes=CLASSES)


def photo_rung(name: str, latency_ms: float | None = 2.0, **others: object) -> MeasuredRung:
    return rung(name, {"photo": figures()}, latency_ms=latency_ms, **others)


def test_ticks_of_small_shares_differ() -> None:
    points = [SpeedPoint("teacher", 9.0, 0.0), SpeedPoint("engine", 2.0, 0.0)]
    ticks = re.findall(r'text-anchor="end">([\d.]+%)<', speed_figure(points, "top-1"))
    assert len(set(ticks)) == len(ticks) > 2


@pytest.mark.parametrize(("metric", "is_shown"), [("agreement", False), ("top1", True)])
def test_what_temperature_does_is_shown_by_labelled_pictures_alone(
    run: Path, metric: Metric, is_shown: bool
) -> None:
    after = dataclasses.replace(BINS, temperature=1.5)
    part = figures(confusion=CONFUSION, reliability=BINS, reliability_scaled=after)
    rungs = (rung(name, {"photo": part}) for name in ("teacher", "onnx-int8"))
    keep(run, ladder(*rungs, metric=metric, confidence=confidence()))
    text, reference = page_of(run).text, REFERENCES[metric]
    fit = ("temperature 1.50: calibration error 0.100", 'below 0.400 the answer is "unknown"')
    assert not missing(text, f"by {reference}: ECE", f"it is this sure, by {reference}.", *fit)
    assert ("the same, temperature 1.50: ECE" in text) is ("its effect above" in text) is is_shown


def test_the_ladder_says_how_many_views_of_each_domain_it_was_climbed_on(run: Path) -> None:
    parts = {"clean": figures(0.9, 1_440, 720), "fog": figures(0.8, 40)}
    rungs = (rung(name, parts) for name in ("teacher", "onnx-int8"))
    keep(run, ladder(*rungs, metric="agreement"))
    rows = "Rows are the teacher's answers on held-out surrogate images"
    assert not missing(page_of(run).text, "clean, 1,440 views", "fog, 40 images", rows)


@pytest.mark.parametrize("charged", ["onnx-int8", None])
def test_each_step_tells_its_loss_and_the_one_that_is_charged_is_named(
    run: Path, charged: str | None
) -> None:
    loss = StepLoss(
        rung="onnx-int8", previous="student", drop=0.0125, interval=(0.0, 0.025), p_value=0.6,
        worst_domain="photo", worst_drop=0.02, num_lost=3, num_won=1, is_within_noise=True,
    )  # fmt: skip
    keep(run, dataclasses.replace(timed(), losses=(loss,), charged_to=charged))
    text = page_of(run).text
    assert not missing(text, "student → onnx-int8+1.25+0.00 to +2.50", "within noise")
    assert ("charged to onnx-int8" in text) is (charged is not None)
    assert ("no conversion loses anything" in text) is (charged is None)


def test_a_rung_without_a_time_says_why_once_and_has_no_time_to_doubt(run: Path) -> None:
    caveat = "8-bit sums of this CPU saturate"
    untimed = photo_rung("onnx-int8", None, latency_caveats=(caveat,))
    keep(run, timed(photo_rung("teacher"), photo_rung("student"), untimed))
    text = page_of(run).text
    assert text.count(caveat) == 1
    assert "not in the picture" in text
    assert "to be read with these times" not in text


def test_caveats_about_the_times_of_a_ladder_are_on_the_page(run: Path) -> None:
    teacher = photo_rung("teacher", 9.0, onnx_latency_ms=5.0)
    graph = photo_rung("onnx-fp32", latency_caveats=(CAVEAT,))
    keep(run, timed(teacher, photo_rung("student-start"), graph))
    text = page_of(run).text
    assert text.count(f"onnx-fp32: {CAVEAT}") == 1
    assert "teacher: 9.00 ms" not in text
    tile = ("2.5\u00d7", "the same threads: 5.00 ms, 2.00 ms; see the notes")
    points = ("teacher: 5.00 ms", "student-start, PyTorch: 2.00 ms")
    notes = ("PyTorch; 5.00 in ONNX Runtime", "onnx-fp32: see the notes below the ladder")
    assert not missing(text, *tile, *points, *notes)


@pytest.mark.parametrize("caveats", [(), (CAVEAT,)])
def test_the_tile_of_the_speed_tells_of_caveats_about_the_teacher_as_a_graph(
    run: Path, caveats: tuple[str, ...]
) -> None:
    teacher = photo_rung("teacher", onnx_latency_ms=5.0, onnx_latency_caveats=caveats)
    keep(run, timed(teacher, photo_rung("student"), photo_rung("onnx-fp32")))
    text = page_of(run).text
    assert ("5.00 ms, 2.00 ms; see the notes" in text) is bool(caveats)
    assert text.count("teacher as an FP32 graph: unsteady") == len(caveats)
