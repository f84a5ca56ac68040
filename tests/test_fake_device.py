"""All of `distill` and a fine-tune by the presets for real CLIPs, on a device that is not there.

Every test reads what one run has left, or works on a copy: none depends on another.
"""

from collections.abc import Iterator
from dataclasses import replace

import open_clip
import pytest
import torch

from dfkd_edge.config.settings import PIXELS
from dfkd_edge.conversion.teacher_graph import TracedGraph
from dfkd_edge.deployment import finetune
from dfkd_edge.distillation import distill
from dfkd_edge.errors import EnvironmentLackingError
from dfkd_edge.estimates.card import NO_CARD, Card, CardNeeds, view_bytes
from dfkd_edge.estimates.guided import VQGAN_BYTES_ON_CARD, GuidedNeeds, Steps, guided_steps
from dfkd_edge.interfaces import SynthesisBatch
from dfkd_edge.networks.students import Student, build_student
from dfkd_edge.networks.weights import shapes_of_teacher
from dfkd_edge.results.ladder import START, STUDENT, TEACHER
from dfkd_edge.runs.context import StageContext
from dfkd_edge.synthesis.decoders import load_latent_decoder
from dfkd_edge.synthesis.per_image import OPTIMISING, PerImageSynthesizer
from dfkd_edge.synthesis.setup import SynthesisSetup
from dfkd_edge.synthesis.synthesize import make_candidates, synthesis_setup
from dfkd_edge.target_profiles.lookup import load_target
from dfkd_edge.validation.evaluate import evaluate
from tests.fixtures.clip_line import (
    CARD_GIB,
    CLASSES,
    FEW,
    Line,
    Watch,
    few,
    open_line,
    preset,
    surrogates_of,
)

PRESETS = ["clip-b32", pytest.param("clip-l14", marks=pytest.mark.slow)]
IN_STEPS = ("prompts", "network", "descent", "refinement", "student")
NUM_LEARNT, NUM_SHOWN = 640, 40  # Images that the fine-tune learns from, and of an evaluation
GRADIENT_OF_VIEWS = "grid_sampler_2d_backward"  # CUDA adds it up in any order, with any flag
STAGES = ("prompts", "network", "images", "refinement", "student", "evaluation", "fine-tune")


def told_of(name: str) -> dict[str, float]:
    """What a dry run says of each stage of a short run on the preset's card, in GiB."""
    config = few(preset(name))
    teacher, side_px = shapes_of_teacher(config.teacher.name), 224
    width = open_clip.get_model_config(config.teacher.name)["embed_dim"]
    with torch.device("meta"):
        head_KD = torch.zeros(len(CLASSES), width)
        student = Student(config.distillation.student, side_px, head_KD, 100.0)
    card = Card(int(CARD_GIB[name] * 2**30))
    needs = CardNeeds(config, teacher, student, CLASSES, card)
    weights = needs.teacher_bytes + VQGAN_BYTES_ON_CARD
    guided = GuidedNeeds.of_vqgan(weights, view_bytes(teacher), side_px)
    told = {each: guided.of(s, card) for each, s in guided_steps(config.synthesis, 1).items()}
    told |= {
        "prompts": needs.prompts(),
        "student": needs.learning(config.synthesis.num_images * 3 * side_px**2),
        "evaluation": needs.evaluation(NUM_SHOWN),
        "fine-tune": needs.finetune(NUM_LEARNT * 3 * side_px**2),
    }
    return {each: num / 2**30 for each, num in told.items()}


@pytest.fixture(scope="module", params=PRESETS)
def name(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


@pytest.fixture(scope="module")
def told(name: str) -> dict[str, float]:
    return told_of(name)  # before the fake device is there


@pytest.fixture(scope="module")
def line(name: str, told: dict[str, float]) -> Iterator[Line]:
    with open_line(name, CARD_GIB[name]) as opened:
        again = replace(opened.context, reporter=opened.watch)
        shown = surrogates_of(opened, NUM_SHOWN, is_heldout=True)
        evaluate(opened.result.student, opened.teacher, shown, "", again)
        tune(opened, again)
        yield opened


def tune(line: Line, context: StageContext) -> None:
    """Fine-tune a student as `export` does, two steps."""
    spec, teacher = load_target("jetson").quantization, line.teacher
    assert spec is not None
    name, few_images = line.config.distillation.student, surrogates_of(line, NUM_LEARNT)
    student = build_student(name, "random", teacher.head_KD, 100.0, 224)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finetune, "NUM_STEPS", 2)
        finetune.finetune_quantized(student, teacher, few_images, spec, 99.99, context)


def test_distill_comes_to_its_end_on_a_card(line: Line) -> None:
    run = line.result.run_dir
    assert [rung.name for rung in line.result.evaluation.rungs] == [TEACHER, START, STUDENT]
    assert (run.parent / "latest").resolve() == run.resolve()
    assert {"prompts", "surrogates", "student"} < {path.name for path in run.iterdir()}


def test_no_step_waits_for_the_card(line: Line) -> None:
    """Neither for a number nor for a copy, to the host or of pageable memory."""
    assert {each: line.watch.waits[each] for each in (*IN_STEPS, "fine-tune")} == {
        each: {} for each in (*IN_STEPS, "fine-tune")
    }


@pytest.mark.parametrize("stage", STAGES)
def test_a_dry_run_foretells_what_a_stage_takes(
    line: Line, told: dict[str, float], stage: str
) -> None:
    """Within 15 % of what was counted, on a card of which it knows how much is free."""
    counted_as = {"images": "descent"}.get(stage, stage)
    assert told[stage] == pytest.approx(line.watch.peaks_gib[counted_as], rel=0.15)
    assert line.watch.peaks_gib[counted_as] <= line.card_gib


def test_gradients_go_back_through_views_only_where_the_guide_says_that_a_card_repeats_no_bit(
    line: Line,
) -> None:
    """What torch lists of the student, the backward pass of convolutions, has an ordered kernel."""
    done = line.watch.operations
    with_it = {each for each in (*IN_STEPS, "fine-tune") if GRADIENT_OF_VIEWS in done[each]}
    assert with_it == {"network", "descent", "refinement"}
    assert "grid_sampler_2d" in done["student"]
    with_convolutions = {each for each in IN_STEPS if "convolution_backward" in done[each]}
    assert with_convolutions == {*with_it, "student"}
    listed = torch.use_deterministic_algorithms.__doc__ or ""
    _, may_be, never = listed.split("normally-nondeterministic operations")
    assert "grid_sample` when attempting to differentiate a CUDA tensor" in never
    assert "`torch.nn.Conv2d` when called on CUDA tensor" in may_be


def test_the_graph_of_the_teacher_computes_forward_and_backward_on_its_device(line: Line) -> None:
    tower: torch.nn.Module = line.teacher.model.visual  # type: ignore[assignment]
    image_NHWC = torch.zeros(1, 224, 224, 3, device=line.teacher.device, requires_grad=True)
    logits_NK, *_ = TracedGraph(tower, line.teacher)(image_NHWC)
    assert logits_NK.shape == (1, len(CLASSES))
    (gradient_NHWC,) = torch.autograd.grad(logits_NK.sum(), image_NHWC)
    assert gradient_NHWC.device == line.teacher.device


def test_a_card_without_bfloat16_learns_in_float16_without_a_wait(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a T4 and a V100: gradients are scaled, and who overflows is told on the card."""
    asks = "dfkd_edge.networks.mixed_precision.has_fast_bfloat16"
    monkeypatch.setattr(asks, lambda device_type: device_type == "cpu")
    watch = Watch(line.gpu)
    config = replace(line.config.distillation, **FEW["distillation"])
    distill(line.teacher, line.result.surrogates, config, replace(line.context, reporter=watch))
    assert watch.waits["student"] == {}
    assert watch.peaks_gib["student"] <= line.card_gib


def per_image(line: Line) -> tuple[SynthesisSetup, PerImageSynthesizer]:
    config = replace(line.config.synthesis, method="per-image", num_optimisation_steps=1)
    setup = synthesis_setup(line.result.prompts, line.teacher, config, line.context)
    made = PerImageSynthesizer(line.teacher, line.decoder, config)
    made.parts = setup.parts(OPTIMISING, made.try_step, 2)
    return setup, made


def test_a_card_too_small_for_one_image_is_told_of_in_a_line(line: Line) -> None:
    assert line.decoder
    small = line.gpu.of(line.gpu.watch.live / 2**30 + 0.5)
    with small, pytest.raises(EnvironmentLackingError) as told:
        make_candidates(0, *per_image(line))
    assert "a fake card with" in str(told.value)
    assert f"has too little memory for one image while {OPTIMISING}: " in str(told.value)
    assert "\n" not in str(told.value)


def test_pixels_take_what_is_told_of_a_card_and_wait_for_nothing(line: Line) -> None:
    teacher, watch, steps = line.teacher, Watch(line.gpu), Steps(4, 2)
    config = replace(line.config.synthesis, decoder=PIXELS, num_views=steps.num_views)
    made = PerImageSynthesizer(teacher, load_latent_decoder(config, teacher), config)
    label_N = torch.arange(steps.num_images, device=teacher.device)
    batch = SynthesisBatch(
        teacher.head_KD[label_N], label_N, label_N, torch.Generator(teacher.device)
    )
    start = made.decoder.start(len(label_N), 1, batch.generator)
    descend = PerImageSynthesizer.descend.__wrapped__  # type: ignore[attr-defined]
    watch.watched("pixels", descend)(made, start, batch, range(2))
    assert watch.waits["pixels"] == {}
    needs = GuidedNeeds.of_pixels(0, view_bytes(shapes_of_teacher(line.config.teacher.name)), 224)
    told = line.gpu.watch.live + needs.of(steps, NO_CARD)
    assert watch.peaks_gib["pixels"] * 2**30 == pytest.approx(told, rel=0.1)


@pytest.mark.slow
def test_images_are_optimised_one_by_one_on_the_card(line: Line) -> None:
    made = make_candidates(0, *per_image(line))
    assert made["images"].shape == (len(CLASSES), 224, 224, 3)
