import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from dfkd_edge.artifacts import SurrogateSet
from dfkd_edge.errors import ConfigError, GateFailedError
from dfkd_edge.interfaces import ModelOutputs
from dfkd_edge.pictures.labelled import image_digests
from dfkd_edge.results.certainty import certainty_of, whole_text
from dfkd_edge.results.ladder import HELDOUT_DOMAIN, Collapse, Ladder
from dfkd_edge.runs.context import StageContext
from dfkd_edge.validation.evaluation_images import (
    MORE,
    VIEWS_DOMAIN,
    EvaluationSet,
    labelled_pictures,
    surrogate_suite,
)
from dfkd_edge.validation.ladder import Predictions, Rung, climb, judge, summarise
from dfkd_edge.validation.rungs import prove
from tests.fixtures.typed import surrogate_summary

CLASSES = ("red", "green", "blue")
SIDE_PX = 24


class ColourClassifier:
    """Says which of three colour channels is strongest; `step` rounds, `broken` breaks a class."""

    name = "colour"

    def __init__(self, step: float = 0.0, bias: float = 0.0, broken: bool = False) -> None:
        self.step, self.bias, self.broken = step, bias, broken

    def __call__(self, image_NHWC: NDArray[np.uint8]) -> ModelOutputs:
        logits = image_NHWC.mean((1, 2), dtype=np.float64) / 25
        if self.step:
            logits = np.round(logits / self.step) * self.step
        logits = (logits + np.array([self.bias, 0, 0])).astype(np.float32)
        if self.broken:
            logits[image_NHWC[:, 0, 0, 2] > 128] = np.nan
        exponent = np.exp(logits - np.nan_to_num(logits).max(1, keepdims=True))
        return ModelOutputs(logits, exponent / exponent.sum(1, keepdims=True), logits)


def coloured_surrogates(num: int = 120, heldout_every: int = 2, side_px: int = 24) -> SurrogateSet:
    """Images whose class is their strongest channel, narrowly."""
    rng = np.random.default_rng(0)
    labels = np.arange(num) % 3
    mean = 110 + 8 * np.eye(3)[labels] + rng.normal(0, 1, (num, 3))
    noise = rng.normal(0, 6, (num, side_px, side_px, 3))
    images = np.clip(mean[:, None, None] + noise, 0, 255).astype(np.uint8)
    return SurrogateSet(
        images=images,
        class_index=labels.astype(np.int64),
        style_index=np.zeros(num, np.int64),
        drawing_index=np.full(num, -1),
        embeddings=np.eye(3, dtype=np.float32)[labels],
        is_heldout=np.arange(num) // 3 % heldout_every == 0,
        summary=surrogate_summary(("red", "green", "blue")),
    )


class Count:
    def __init__(self) -> None:
        self.count = 0

    def advance(self, count: int = 1, note: str = "") -> None:
        self.count += count


def _rungs(*runners: ColourClassifier) -> list[Rung]:
    names = ("teacher", "student", "onnx-fp32", "onnx-int8")
    return [Rung(n, r, SIDE_PX) for n, r in zip(names, runners, strict=True)]


def _climb(rungs: list[Rung], evaluation: EvaluationSet, *calibrated: str) -> Predictions:
    progress = Count()
    predictions = climb(rungs, evaluation, frozenset(calibrated), progress)
    assert progress.count == evaluation.num_images - len(predictions.unreadable)
    return predictions


@pytest.fixture(scope="module")
def exact() -> ColourClassifier:
    return ColourClassifier()


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    surrogates = coloured_surrogates(60)
    for number, (image, label) in enumerate(
        zip(surrogates.images, surrogates.class_index, strict=True)
    ):
        folder = tmp_path / "data" / ("day" if number % 4 else "night") / CLASSES[label]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{number}.png")
    return tmp_path / "data"


def test_equal_rungs_lose_nothing_and_no_rung_is_charged(exact: ColourClassifier) -> None:
    rungs = _rungs(exact, exact, exact, exact)
    predictions = _climb(rungs, surrogate_suite(coloured_surrogates(), 0))
    ladder = summarise(CLASSES, rungs, predictions)
    assert ladder.charged_to is None
    assert [loss.drop for loss in ladder.losses] == [0, 0, 0]
    assert all(f.agreement == 1 for r in ladder.rungs for f in r.domains.values())
    assert judge(predictions, 0.0).passed


def test_the_loss_is_charged_to_the_rung_that_rounds(exact: ColourClassifier) -> None:
    rungs = _rungs(exact, exact, exact, ColourClassifier(step=0.5, bias=0.2))
    predictions = _climb(rungs, surrogate_suite(coloured_surrogates(), 0))
    ladder = summarise(CLASSES, rungs, predictions)
    assert ladder.charged_to == "onnx-int8"
    last = ladder.losses[-1]
    assert last.worst_drop >= last.drop > 0.05
    assert not last.is_within_noise
    assert (ladder.rungs[3].max_logit_difference or 0) > 0.1
    document = json.loads(json.dumps(ladder.to_json()))
    assert Ladder.from_json(document, "check.json") == ladder


def test_without_data_the_measure_is_agreement_clean_and_corrupted(exact: ColourClassifier) -> None:
    suite = surrogate_suite(coloured_surrogates(), 0)
    assert suite.metric == "agreement"
    assert [s.name for s in suite.sources] == [
        HELDOUT_DOMAIN,
        VIEWS_DOMAIN,
        "noise",
        "blur",
        "weather",
        "digital",
    ]
    assert {len(s) for s in suite.sources[1:]} == {480}
    rungs = _rungs(exact, exact, exact, exact)
    ladder = summarise(CLASSES, rungs, _climb(rungs, suite))
    assert ladder.rungs[0].mean_top1 is None


def test_the_suite_uses_held_out_images_only_and_few_of_them_in_several_views() -> None:
    surrogates = coloured_surrogates()
    suite = surrogate_suite(surrogates, 0)
    num_heldout = int(surrogates.is_heldout.sum())
    assert [len(s) for s in suite.sources[:2]] == [num_heldout, num_heldout * 8]
    first = next(suite.sources[0].batches(num_heldout, []))
    seen = set(image_digests(first.at(SIDE_PX)))
    assert seen == set(image_digests(surrogates.images[surrogates.is_heldout]))
    none_left = coloured_surrogates(heldout_every=1000)
    none_left.is_heldout[:] = False
    with pytest.raises(ConfigError, match="no surrogate image was held out"):
        surrogate_suite(none_left, 0)


def test_labelled_domains_are_measured_by_top1(exact: ColourClassifier, pictures: Path) -> None:
    rungs = _rungs(exact, exact, exact, ColourClassifier(bias=5))
    predictions = _climb(rungs, labelled_pictures(pictures, CLASSES, (SIDE_PX,)))
    ladder = summarise(CLASSES, rungs, predictions)
    assert set(ladder.rungs[1].domains) == {"day", "night"}
    assert (ladder.rungs[1].mean_top1 or 0) > 0.95
    assert ladder.rungs[3].mean_top1 == pytest.approx(1 / 3, abs=0.1)
    verdict = judge(predictions, 0.01)
    assert (verdict.passed, verdict.metric, verdict.rung) == (False, "top1", "onnx-int8")
    assert verdict.domain == ladder.losses[-1].worst_domain
    with pytest.raises(GateFailedError, match="gate failed: onnx-int8 loses") as caught:
        verdict.require_passed(Path("bundle"))
    assert caught.value.exit_code == 3


def test_a_drop_of_exactly_the_limit_passes(exact: ColourClassifier) -> None:
    rungs = _rungs(exact, exact, exact, ColourClassifier(step=0.5, bias=0.2))
    predictions = _climb(rungs, surrogate_suite(coloured_surrogates(), 0))
    drop = judge(predictions, 0.0).drop
    assert judge(predictions, drop).passed
    assert not judge(predictions, drop - 1e-3).passed


def test_a_limit_that_exceeds_all_there_is_to_lose_switches_the_gate_off(
    exact: ColourClassifier,
) -> None:
    rungs = _rungs(exact, exact, exact, ColourClassifier(step=0.5, bias=0.2))
    predictions = _climb(rungs, surrogate_suite(coloured_surrogates(), 0))
    off, on = judge(predictions, 1.0), judge(predictions, 0.99)
    assert (off.is_off, off.passed, on.is_off) == (True, True, False)
    assert off.sentence().endswith("allowed 100 points, and there is no more to lose")


def test_broken_logits_are_wrong_answers_and_counted(exact: ColourClassifier) -> None:
    rungs = _rungs(exact, exact, exact, ColourClassifier(broken=True))
    predictions = _climb(rungs, surrogate_suite(coloured_surrogates(), 0))
    figures = summarise(CLASSES, rungs, predictions).rungs[3].domains["digital"]
    assert figures.num_nan > 0
    assert figures.agreement <= 1 - figures.num_nan / figures.num_images


def test_a_calibrated_picture_is_refused(exact: ColourClassifier, pictures: Path) -> None:
    evaluation = labelled_pictures(pictures, CLASSES, (SIDE_PX,))
    used = next(evaluation.sources[0].batches(1, [])).at(SIDE_PX)
    with pytest.raises(ConfigError, match="calibration and evaluation share pictures"):
        _climb(_rungs(exact, exact, exact, exact), evaluation, *image_digests(used))


def test_unreadable_pictures_are_passed_over_and_named(
    exact: ColourClassifier, pictures: Path
) -> None:
    (pictures / "day" / "red" / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    predictions = _climb(
        _rungs(exact, exact, exact, exact), labelled_pictures(pictures, CLASSES, (SIDE_PX,))
    )
    assert [p.name for p in predictions.unreadable] == ["torn.png"]
    assert sum(len(d.labels) for d in predictions.domains.values()) == 60


def test_a_domain_of_nothing_but_unreadable_pictures_is_an_error(
    exact: ColourClassifier, pictures: Path
) -> None:
    (pictures / "fog" / "red").mkdir(parents=True)
    (pictures / "fog" / "red" / "torn.png").write_bytes(b"torn")
    with pytest.raises(ConfigError, match="no picture of domain 'fog' can be read"):
        climb(
            _rungs(exact, exact, exact, exact),
            labelled_pictures(pictures, CLASSES, (SIDE_PX,)),
            frozenset(),
            Count(),
        )


def test_views_of_one_picture_share_its_number_in_every_domain() -> None:
    surrogates = coloured_surrogates()
    suite = surrogate_suite(surrogates, 0)
    numbers = [next(s.batches(1000, [])).pictures for s in suite.sources]
    assert all(np.array_equal(n, numbers[1]) for n in numbers[1:])
    assert set(numbers[1]) == set(numbers[0])
    assert set(numbers[0]) == set(np.flatnonzero(surrogates.is_heldout))
    assert suite.more is not None
    first, fresh = (
        set(image_digests(next(s.only(["noise"]).sources[0].batches(99, [])).at(SIDE_PX)))
        for s in (suite, suite.more())
    )
    assert not first & fresh


def test_pictures_of_different_folders_have_different_numbers(pictures: Path) -> None:
    sources = labelled_pictures(pictures, CLASSES, (SIDE_PX,)).sources
    numbers = np.concatenate([b.pictures for s in sources for b in s.batches(7, [])])
    assert sorted(numbers) == list(range(60))


def test_the_mean_loss_and_its_interval_are_one_estimate(exact: ColourClassifier) -> None:
    rungs = _rungs(exact, exact, exact, ColourClassifier(step=0.5, bias=0.2))
    predictions = _climb(rungs, surrogate_suite(coloured_surrogates(), 0))
    drops = [predictions.drop("onnx-fp32", "onnx-int8", d).drop.mean for d in predictions.judged]
    loss = summarise(CLASSES, rungs, predictions).losses[-1]
    assert loss.drop == pytest.approx(np.mean(drops))
    assert loss.interval[0] < loss.drop < loss.interval[1]


class Flipping(ColourClassifier):
    """Right but for the first answers it gives, so many of them each of its first turns."""

    def __init__(self, *wrong: int) -> None:
        super().__init__()
        self.wrong, self.turn = list(wrong), 0

    def __call__(self, image_NHWC: NDArray[np.uint8]) -> ModelOutputs:
        outputs = super().__call__(image_NHWC)
        count = self.wrong[self.turn] if self.turn < len(self.wrong) else 0
        self.turn += 1
        outputs.logits[:count] = outputs.logits[:count, [1, 2, 0]]
        return outputs


@pytest.mark.parametrize(("wrong", "times"), [(0, 1), (3, 1 + MORE), (32, 1)])
def test_only_an_unclear_domain_is_shown_more_images_and_once(
    exact: ColourClassifier, context: StageContext, wrong: int, times: int
) -> None:
    suite = surrogate_suite(coloured_surrogates(), 0)
    rungs = tuple(_rungs(exact, exact, exact, Flipping(0, 0, wrong)))
    proof = prove(rungs, suite, frozenset(), 0.0, context.reporter)
    counts = {name: len(part.labels) for name, part in proof.predictions.domains.items()}
    assert counts.pop(HELDOUT_DOMAIN) == 60
    assert counts.pop(VIEWS_DOMAIN) == times * 480
    assert set(counts.values()) == {480}
    assert judge(proof.predictions, 0.0).passed is (wrong == 0)
    again = f"; {VIEWS_DOMAIN}, measured again: 1,440 views of 60 images"
    ladder = proof.ladder(CLASSES, 0.0)
    assert ladder.images == suite.description + again * (times > 1)
    repeated = surrogate_suite(coloured_surrogates(), 0).repeated(ladder.measured_again)
    assert _digests(repeated) == _digests(proof.evaluation)
    assert (repeated.more is None) is (times > 1)


def test_images_shown_whole_are_not_shown_again(
    exact: ColourClassifier, context: StageContext
) -> None:
    suite = surrogate_suite(coloured_surrogates(), 0)
    rungs = tuple(_rungs(exact, exact, exact, Flipping(3)))
    reporter: Any = context.reporter
    reporter.stages = []
    proof = prove(rungs, suite, frozenset(), 0.0, reporter)
    loss = proof.predictions.drop("student", "onnx-int8", HELDOUT_DOMAIN)
    assert loss.drop.mean > 0
    assert loss.is_within_noise
    assert reporter.stages == ["climbing the conversion ladder", "comparing the rungs"]


def _digests(evaluation: EvaluationSet) -> list[list[str]]:
    batches = (next(source.batches(2_000, [])) for source in evaluation.sources)
    return [image_digests(batch.at(SIDE_PX)) for batch in batches]


def test_images_shown_whole_are_stated_and_neither_gated_nor_averaged(
    exact: ColourClassifier,
) -> None:
    suite = surrogate_suite(coloured_surrogates(), 0)
    rungs = _rungs(exact, exact, exact, Flipping(32, 28))
    predictions = _climb(rungs, suite)
    ladder = summarise(CLASSES, rungs, predictions)
    last = ladder.rungs[-1]
    assert last.domains[HELDOUT_DOMAIN].agreement == 0
    assert last.mean_agreement == 1
    assert ladder.mean_over == tuple(s.name for s in suite.sources[1:])
    assert judge(predictions, 0.0).passed
    assert whole_text(ladder) == "; whole, as distill shows them: 0.0%"
    assert certainty_of(ladder).num_images == 5 * 480


NOISE_TURNS = range(2 + 15, 2 + 15 + 15)
"""Batches of the suite that show noise: after 60 images whole and 480 views."""


class BlindInNoise(ColourClassifier):
    """Calls every noisy image red."""

    def __init__(self) -> None:
        super().__init__()
        self.turn = 0

    def __call__(self, image_NHWC: NDArray[np.uint8]) -> ModelOutputs:
        outputs = super().__call__(image_NHWC)
        if self.turn in NOISE_TURNS:
            outputs.logits[:] = np.eye(3)[0]
        self.turn += 1
        return outputs


def test_a_domain_of_one_answer_is_marked_and_left_out_of_means_and_gated_all_the_same(
    exact: ColourClassifier,
) -> None:
    suite = surrogate_suite(coloured_surrogates(), 0)
    rungs = _rungs(BlindInNoise(), BlindInNoise(), BlindInNoise(), exact)
    predictions = _climb(rungs, suite)
    ladder = summarise(CLASSES, rungs, predictions)
    assert ladder.collapsed == {"noise": Collapse(answer="red", share=1.0)}
    assert ladder.mean_over == (VIEWS_DOMAIN, "blur", "weather", "digital")
    assert ladder.rungs[-1].mean_agreement == 1
    assert certainty_of(ladder).num_images == 4 * 480
    assert ladder.label("noise") == "noise*"
    (note,) = ladder.caveats()
    assert note.startswith("noise*: the teacher calls 100% of these images red, so agreement says")
    verdict = judge(predictions, 0.01)
    assert (verdict.passed, verdict.domain) == (False, "noise")


def test_a_repaired_rung_takes_the_place_of_the_old_one(exact: ColourClassifier) -> None:
    suite = surrogate_suite(coloured_surrogates(), 0)
    rungs = _rungs(exact, exact, exact, ColourClassifier(step=0.5, bias=0.2))
    before = _climb(rungs, suite)
    again = climb([Rung("onnx-int8", exact, SIDE_PX)], suite, frozenset(), Count())
    after = before.with_rung("onnx-int8", again)
    assert not judge(before, 0.01).passed
    assert judge(after, 0.0).passed
    assert after.rungs == before.rungs
    assert np.array_equal(
        after.domains["noise"].logits["student"], before.domains["noise"].logits["student"]
    )
