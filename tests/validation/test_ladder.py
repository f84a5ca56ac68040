import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from dfkd_edge.artifacts import SurrogateSet
from dfkd_edge.errors import ConfigError
from dfkd_edge.interfaces import ModelOutputs
from dfkd_edge.pictures.labelled import image_digests
from dfkd_edge.results.certainty import certainty_of, whole_text
from dfkd_edge.results.ladder import HELDOUT_DOMAIN, Collapse, Ladder
from dfkd_edge.results.wording import Metric
from dfkd_edge.validation.evaluation_images import (
    MORE,
    VIEWS_DOMAIN,
    ArraySource,
    EvaluationSet,
    labelled_pictures,
    surrogate_suite,
)
from dfkd_edge.validation.ladder import Rung, climb, judge, summarise
from dfkd_edge.validation.predictions import Predictions
from dfkd_edge.validation.rungs import prove
from tests.conftest import SilentProgress, SilentReporter
from tests.fixtures.typed import surrogate_set, whole

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


def coloured_surrogates(num: int = 120) -> SurrogateSet:
    """Images whose class is their strongest channel, narrowly."""
    rng = np.random.default_rng(0)
    labels = np.arange(num) % 3
    mean = 110 + 8 * np.eye(3)[labels] + rng.normal(0, 1, (num, 3))
    noise = rng.normal(0, 6, (num, SIDE_PX, SIDE_PX, 3))
    images = np.clip(mean[:, None, None] + noise, 0, 255).astype(np.uint8)
    return surrogate_set(images, labels, is_heldout=np.arange(num) // 3 % 2 == 0)


EXACT, ROUNDING = ColourClassifier(), ColourClassifier(step=0.5, bias=0.2)


def rungs_of(last: ColourClassifier) -> tuple[Rung, ...]:
    names = ("teacher", "student", "onnx-fp32", "onnx-int8")
    return tuple(
        Rung(n, r, SIDE_PX) for n, r in zip(names, (EXACT, EXACT, EXACT, last), strict=True)
    )


def climbed(
    evaluation: EvaluationSet, last: ColourClassifier, *calibrated: str
) -> tuple[Predictions, Ladder]:
    """Show images to three equal rungs and a last one, and count them."""
    rungs, progress = rungs_of(last), SilentProgress()
    predictions = climb(rungs, evaluation, frozenset(calibrated), progress)
    assert progress.count == evaluation.num_images - len(predictions.unreadable)
    return predictions, summarise(CLASSES, rungs, predictions)


@pytest.fixture(scope="module")
def suite() -> EvaluationSet:
    return surrogate_suite(coloured_surrogates(), 0)


@pytest.fixture(scope="module")
def rounded(suite: EvaluationSet) -> tuple[Predictions, Ladder]:
    return climbed(suite, ROUNDING)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Sixty pictures, a quarter of them by night."""
    surrogates = coloured_surrogates(60)
    labelled = zip(surrogates.class_index, whole(surrogates.images), strict=True)
    for number, (label, image) in enumerate(labelled):
        folder = tmp_path / "data" / ("day" if number % 4 else "night") / CLASSES[label]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{number}.png")
    return tmp_path / "data"


@pytest.fixture
def labelled(pictures: Path) -> EvaluationSet:
    return labelled_pictures(pictures, CLASSES, (SIDE_PX,))


def test_equal_rungs_lose_nothing_and_no_rung_is_charged(suite: EvaluationSet) -> None:
    predictions, ladder = climbed(suite, EXACT)
    assert ladder.charged_to is None
    assert [loss.drop for loss in ladder.losses] == [0, 0, 0]
    assert all(f.agreement == 1 for r in ladder.rungs for f in r.domains.values())
    assert judge(predictions, 0.0).passed


def test_the_loss_is_charged_to_the_rung_that_rounds(rounded: tuple[Predictions, Ladder]) -> None:
    predictions, ladder = rounded
    assert ladder.charged_to == "onnx-int8"
    last = ladder.losses[-1]
    assert last.worst_drop >= last.drop > 0.05
    assert not last.is_within_noise
    assert (ladder.rungs[3].max_logit_difference or 0) > 0.1
    document = json.loads(json.dumps(ladder.to_json()))
    assert Ladder.from_json(document, "check.json") == ladder
    drops = [predictions.drop("onnx-fp32", "onnx-int8", d).drop.mean for d in predictions.judged]
    assert last.drop == pytest.approx(np.mean(drops))  # mean and interval are one estimate
    assert last.interval[0] < last.drop < last.interval[1]


def test_without_data_the_measure_is_agreement_on_held_out_images_clean_and_corrupted(
    suite: EvaluationSet, rounded: tuple[Predictions, Ladder]
) -> None:
    groups = ["noise", "blur", "weather", "digital"]
    assert suite.metric == "agreement"
    assert [s.name for s in suite.sources] == [HELDOUT_DOMAIN, VIEWS_DOMAIN, *groups]
    assert rounded[1].rungs[0].mean_top1 is None
    surrogates = coloured_surrogates()
    num_heldout = int(surrogates.is_heldout.sum())
    assert [len(s) for s in suite.sources] == [num_heldout, *[num_heldout * 8] * 5]
    first = next(suite.sources[0].batches(num_heldout, []))
    seen = set(image_digests(first.at(SIDE_PX)))
    assert seen == set(image_digests(whole(surrogates.images)[surrogates.is_heldout]))
    surrogates.is_heldout[:] = False
    with pytest.raises(ConfigError, match="no surrogate image was held out"):
        surrogate_suite(surrogates, 0)


def test_labelled_domains_are_of_different_pictures_and_measured_by_top1(
    labelled: EvaluationSet,
) -> None:
    numbers = np.concatenate([b.pictures for s in labelled.sources for b in s.batches(7, [])])
    assert sorted(numbers) == list(range(60))
    predictions, ladder = climbed(labelled, ColourClassifier(bias=5))
    assert set(ladder.rungs[1].domains) == {"day", "night"}
    assert (ladder.rungs[1].mean_top1 or 0) > 0.95
    assert ladder.rungs[3].mean_top1 == pytest.approx(1 / 3, abs=0.1)
    verdict = judge(predictions, 0.01)
    assert (verdict.passed, verdict.metric, verdict.rung) == (False, "top1", "onnx-int8")
    assert verdict.domain == ladder.losses[-1].worst_domain
    image_NHWC = next(labelled.sources[0].batches(1, [])).at(SIDE_PX)
    for shared_NHWC in (image_NHWC, image_NHWC[:, :, ::-1]):  # ranges see pictures mirrored, too
        with pytest.raises(ConfigError, match="calibration and evaluation share pictures"):
            climbed(labelled, EXACT, *image_digests(shared_NHWC))
    climbed(labelled, EXACT, *image_digests(255 - image_NHWC))


def test_a_drop_of_exactly_the_limit_passes_and_no_limit_switches_the_gate_off(
    rounded: tuple[Predictions, Ladder],
) -> None:
    predictions, _ = rounded
    drop = judge(predictions, 0.0).drop
    assert judge(predictions, drop).passed
    assert not judge(predictions, drop - 1e-3).passed
    off, on = judge(predictions, 1.0), judge(predictions, 0.99)
    assert (off.is_off, off.passed, on.is_off) == (True, True, False)
    assert off.sentence().endswith("allowed 100 points, and there is no more to lose")


def test_broken_logits_are_wrong_answers_and_counted(suite: EvaluationSet) -> None:
    predictions, ladder = climbed(suite, ColourClassifier(broken=True))
    figures = ladder.rungs[3].domains["digital"]
    broken = np.isnan(predictions.domains["digital"].logits["onnx-int8"]).any(1)
    assert figures.num_nan == broken.sum() > 0
    assert figures.agreement <= 1 - figures.num_nan / figures.num_images


def test_unreadable_pictures_are_passed_over_and_named_unless_they_are_all_of_a_domain(
    pictures: Path,
) -> None:
    (pictures / "day" / "red" / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    predictions, _ = climbed(labelled_pictures(pictures, CLASSES, (SIDE_PX,)), EXACT)
    assert [p.name for p in predictions.unreadable] == ["torn.png"]
    assert sum(len(d.labels) for d in predictions.domains.values()) == 60
    (pictures / "fog" / "red").mkdir(parents=True)
    (pictures / "fog" / "red" / "torn.png").write_bytes(b"torn")
    with pytest.raises(ConfigError, match="no picture of domain 'fog' can be read"):
        climbed(labelled_pictures(pictures, CLASSES, (SIDE_PX,)), EXACT)


def test_views_of_one_picture_share_its_number_in_every_domain(suite: EvaluationSet) -> None:
    numbers = [next(s.batches(1000, [])).pictures for s in suite.sources]
    assert all(np.array_equal(n, numbers[1]) for n in numbers[1:])
    assert set(numbers[1]) == set(numbers[0])
    assert set(numbers[0]) == set(np.flatnonzero(coloured_surrogates().is_heldout))
    assert suite.more is not None
    first, fresh = (
        set(image_digests(next(s.only(["noise"]).sources[0].batches(99, [])).at(SIDE_PX)))
        for s in (suite, suite.more())
    )
    assert not first & fresh


class Wrong(ColourClassifier):
    """Right but for the first answers of some turns, a batch being a turn; or red all the turn."""

    def __init__(self, *num_wrong: int, red: range = range(0)) -> None:
        super().__init__()
        self.num_wrong, self.red, self.turn = list(num_wrong), red, 0

    def __call__(self, image_NHWC: NDArray[np.uint8]) -> ModelOutputs:
        outputs = super().__call__(image_NHWC)
        count = self.num_wrong[self.turn] if self.turn < len(self.num_wrong) else 0
        outputs.logits[:count] = outputs.logits[:count, [1, 2, 0]]
        if self.turn in self.red:
            outputs.logits[:] = np.eye(3)[0]
        self.turn += 1
        return outputs


@pytest.mark.parametrize(("wrong", "times"), [(0, 1), (3, 1 + MORE), (32, 1)])
def test_only_an_unclear_domain_is_shown_more_images_and_once(
    suite: EvaluationSet, wrong: int, times: int
) -> None:
    rungs = rungs_of(Wrong(0, 0, wrong))
    proof = prove(rungs, suite, frozenset(), 0.0, SilentReporter())
    counts = {name: len(part.labels) for name, part in proof.predictions.domains.items()}
    assert counts.pop(HELDOUT_DOMAIN) == 60
    assert counts.pop(VIEWS_DOMAIN) == times * 480
    assert set(counts.values()) == {480}
    assert judge(proof.predictions, 0.0).passed is (wrong == 0)
    again = f"; {VIEWS_DOMAIN}, measured again: 1,440 views of 60 images"
    ladder = proof.ladder(CLASSES, 0.0)
    assert ladder.images == suite.description + again * (times > 1)
    repeated = suite.repeated(ladder.measured_again)
    shown, shown_again = (
        [image_digests(next(s.batches(2_000, [])).at(SIDE_PX)) for s in evaluation.sources]
        for evaluation in (proof.evaluation, repeated)
    )
    assert shown == shown_again
    assert (repeated.more is None) is (times > 1)


def test_images_shown_whole_are_not_shown_again(suite: EvaluationSet) -> None:
    reporter = SilentReporter()
    proof = prove(rungs_of(Wrong(3)), suite, frozenset(), 0.0, reporter)
    loss = proof.predictions.drop("student", "onnx-int8", HELDOUT_DOMAIN)
    assert loss.drop.mean > 0
    assert loss.is_within_noise
    assert reporter.stages == ["climbing the conversion ladder", "comparing the rungs"]


def test_images_shown_whole_are_stated_and_neither_gated_nor_averaged(suite: EvaluationSet) -> None:
    predictions, ladder = climbed(suite, Wrong(32, 28))
    assert ladder.shipped.domains[HELDOUT_DOMAIN].agreement == 0
    assert ladder.shipped.mean_agreement == 1
    assert ladder.mean_over == tuple(s.name for s in suite.sources[1:])
    assert judge(predictions, 0.0).passed
    assert whole_text(ladder) == "; whole, as distill shows them: 0.0%"
    assert certainty_of(ladder).num_images == 5 * 480


def test_a_domain_of_one_answer_is_marked_and_left_out_of_means_and_gated_all_the_same(
    suite: EvaluationSet,
) -> None:
    noise = range(2 + 15, 2 + 15 + 15)  # batches, after 60 images whole and 480 views
    names = ("teacher", "student", "onnx-fp32")
    rungs = (*(Rung(name, Wrong(red=noise), SIDE_PX) for name in names), rungs_of(EXACT)[-1])
    predictions = climb(rungs, suite, frozenset(), SilentProgress())
    ladder = summarise(CLASSES, rungs, predictions)
    assert ladder.collapsed == {"noise": Collapse(answer="red", share=1.0)}
    assert ladder.mean_over == (VIEWS_DOMAIN, "blur", "weather", "digital")
    assert ladder.shipped.mean_agreement == 1
    assert certainty_of(ladder).num_images == 4 * 480
    assert ladder.label("noise") == "noise*"
    _, note = ladder.caveats()
    assert note.startswith("noise*: the teacher calls 100% of these images red, so agreement says")
    verdict = judge(predictions, 0.01)
    assert (verdict.passed, verdict.domain) == (False, "noise")


def test_a_repaired_rung_takes_the_place_of_the_old_one(
    suite: EvaluationSet, rounded: tuple[Predictions, Ladder]
) -> None:
    before, _ = rounded
    again = climb([Rung("onnx-int8", EXACT, SIDE_PX)], suite, frozenset(), SilentProgress())
    after = before.with_rung("onnx-int8", again)
    assert not judge(before, 0.01).passed
    assert judge(after, 0.0).passed
    assert after.rungs == before.rungs
    new, old = (found.domains["noise"].logits["student"] for found in (after, before))
    assert np.array_equal(new, old)


@pytest.mark.parametrize("metric", ["top1", "agreement"])
def test_surrogates_count_by_the_teacher_and_not_beside_labelled_pictures(metric: Metric) -> None:
    image = 255 * np.eye(4, 3, dtype=np.uint8)[:, None, None].repeat(2, 1).repeat(2, 2)
    labels = np.array([0, 1, 2, 0])  # of black: class 0
    blind = Wrong(red=range(9))
    sees = rungs_of(EXACT)[0]
    rungs = (sees, Rung("student-start", blind, 2), Rung("student", blind, 2))
    made = ArraySource(HELDOUT_DOMAIN, image, labels[::-1].copy())
    sources = (made, ArraySource("photo", image, labels)) if metric == "top1" else (made,)
    shown = EvaluationSet(sources, metric, "")
    predictions = climb(rungs, shown, frozenset(), SilentProgress())
    ladder = summarise(CLASSES, rungs, predictions)
    surrogates = ladder.shipped.domains[HELDOUT_DOMAIN]
    assert surrogates.confusion == {"red": {"red": 2}, "green": {"red": 1}, "blue": {"red": 1}}
    assert surrogates.agreement == 0.5
    if metric == "top1":
        assert ladder.mean_over == ("photo",)
        assert [rung.mean_top1 for rung in ladder.rungs] == [1, 0.5, 0.5]
        assert ladder.shipped.domains["photo"].confusion == surrogates.confusion
    else:
        assert ladder.mean_over == (HELDOUT_DOMAIN,)
        assert ladder.shipped.mean_top1 is None
        assert ladder.shipped.mean_agreement == 0.5
