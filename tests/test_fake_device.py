"""Every stage of the presets for real CLIPs at their real size, on a device that is not there."""

from dataclasses import replace

import open_clip
import pytest
import torch

from dfkd_edge.artifacts import StudentArtifact
from dfkd_edge.conversion.teacher_graph import TracedGraph
from dfkd_edge.deployment import finetune
from dfkd_edge.distillation import distill
from dfkd_edge.errors import EnvironmentLackingError
from dfkd_edge.estimates.card import CardNeeds, view_bytes
from dfkd_edge.estimates.distill import VQGAN_BYTES, VQGAN_WEIGHT_BYTES
from dfkd_edge.networks.students import Student, build_student
from dfkd_edge.networks.weights import shapes_of_teacher
from dfkd_edge.synthesis.per_image import OPTIMISING, PerImageSynthesizer
from dfkd_edge.synthesis.synthesize import make_candidates
from dfkd_edge.target_profiles.lookup import load_target
from dfkd_edge.validation.evaluate import evaluate
from tests.fixtures.clip_line import (
    CARD_GIB,
    CLASSES,
    NUM_LEARNT,
    NUM_SHOWN,
    NUM_WATCHED,
    Line,
    preset,
    surrogates_of,
)
from tests.fixtures.clip_line import line as line

NUM_DRAWN = 2  # Images together, whose memory is counted


@pytest.fixture(scope="module", autouse=True)
def foretold() -> dict[str, dict[str, int]]:
    """What a dry run of each preset says of its stages, before the fake device is there."""
    told = {}
    for config in map(preset, CARD_GIB):
        teacher, side_px = shapes_of_teacher(config.teacher.name), 224
        width = open_clip.get_model_config(config.teacher.name)["embed_dim"]
        with torch.device("meta"):
            head_KD = torch.zeros(len(CLASSES), width)
            student = Student(config.distillation.student, side_px, head_KD, 100.0)
        card = CardNeeds(config, teacher, student)
        of_image = VQGAN_BYTES + config.synthesis.num_views * view_bytes(teacher)
        told[config.teacher.name] = {
            "prompts": card.prompts(),
            "drawing": card.teacher_bytes + VQGAN_WEIGHT_BYTES + NUM_DRAWN * of_image,
            "student": card.learning(config.synthesis.num_images * 3 * side_px**2, "cpu"),
            "evaluation": card.evaluation(),
        }
    return told


def test_prompts_are_made_on_the_device(line: Line) -> None:
    num_prompts = 3 * line.config.prompts.num_styles
    assert line.prompts.embeddings.shape == (num_prompts, line.teacher.embed_dim)
    assert line.peaks_gib["prompts"] <= line.card_gib


def test_the_student_learns_on_the_card_without_a_wait_and_is_evaluated_there(line: Line) -> None:
    line.gpu.resize(line.card_gib)
    config = replace(line.config.distillation, num_steps=NUM_WATCHED)
    num = line.config.synthesis.num_images
    surrogates = surrogates_of(line, num, num - NUM_LEARNT)  # all of them lie in the pool
    few = surrogates_of(line, NUM_SHOWN, NUM_SHOWN)
    made: list[StudentArtifact] = []

    def learn(_: int) -> None:
        def work() -> None:
            made.append(distill(line.teacher, surrogates, config, line.context))

        line.peaks_gib["student"] = line.gpu.peak_gib(work)

    def judge() -> None:
        assert len(evaluate(made[0], line.teacher, few, "", line.context).rungs) == 3

    assert not line.waits_of_steps(learn)
    line.peaks_gib["evaluation"] = line.gpu.peak_gib(judge)
    assert max(line.peaks_gib.values()) <= line.card_gib


def test_the_graph_of_the_teacher_computes_on_its_device(line: Line) -> None:
    line.gpu.resize(line.card_gib)
    tower: torch.nn.Module = line.teacher.model.visual  # type: ignore[assignment]
    image_NHWC = torch.zeros(1, 224, 224, 3, dtype=torch.uint8, device=line.teacher.device)
    with torch.no_grad():
        logits_NK, *_ = TracedGraph(tower, line.teacher)(image_NHWC)
    assert logits_NK.shape == (1, 3)


def test_the_fine_tune_for_int8_fits_the_card(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    line.gpu.resize(line.card_gib)
    monkeypatch.setattr(finetune, "NUM_STEPS", 2)
    spec = load_target("jetson").quantization
    assert spec is not None
    name, few = line.config.distillation.student, surrogates_of(line, NUM_LEARNT, 0)
    student = build_student(name, "random", line.teacher.head_KD, 100.0, 224)

    def tune() -> None:
        finetune.finetune_quantized(student, line.teacher, few, spec, 99.99, line.context)

    peak = line.gpu.peak_gib(tune)
    assert peak <= line.card_gib


def test_latents_of_images_are_optimised_on_the_card_without_a_wait(line: Line) -> None:
    line.gpu.resize(line.card_gib)

    def draw(num_steps: int) -> None:
        setup = line.setup(
            method="per-image", num_optimisation_steps=num_steps, num_images=NUM_DRAWN
        )
        made = PerImageSynthesizer(line.teacher, line.decoder, setup.config)
        made.parts = setup.parts(OPTIMISING, made.try_step, NUM_DRAWN)
        make_candidates(0, setup, made, line.watch.tell)

    def watch(num_steps: int) -> None:
        line.peaks_gib["drawing"] = line.gpu.peak_gib(lambda: draw(num_steps))

    assert not line.waits_of_steps(watch)
    line.gpu.resize(line.gpu.memory.live / 2**30 + 0.5)
    with pytest.raises(EnvironmentLackingError) as told:
        draw(1)
    assert "a fake card with" in str(told.value)
    assert f"has too little memory for one image while {OPTIMISING}: " in str(told.value)
    assert "\n" not in str(told.value)


def test_a_dry_run_foretells_the_memory_of_every_stage(
    line: Line, foretold: dict[str, dict[str, int]]
) -> None:
    """Within 15 % of what the tests above have counted."""
    said_gib = {name: num / 2**30 for name, num in foretold[line.config.teacher.name].items()}
    assert said_gib == pytest.approx(line.peaks_gib, rel=0.15)
