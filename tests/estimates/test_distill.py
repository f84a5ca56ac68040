import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from dfkd_edge.class_names import parse_class_names
from dfkd_edge.config.file import load_config
from dfkd_edge.config.settings import (
    MINI,
    PipelineConfig,
    StudentInit,
    SynthesisConfig,
    TeacherConfig,
)
from dfkd_edge.config.sizes import NUM_STEPS, sized
from dfkd_edge.estimates.card import NO_CARD, Card, CardNeeds
from dfkd_edge.estimates.distill import dry_distill
from dfkd_edge.estimates.passes import Stopwatch, gradient_bytes
from dfkd_edge.estimates.small_run import DECODE_OPERATIONS, STEP_OPERATIONS, SmallRun
from dfkd_edge.interfaces import SynthesisBatch
from dfkd_edge.networks.gradient_sums import wants_shards
from dfkd_edge.networks.licences import OPEN_RAIL
from dfkd_edge.networks.memory import Need, budget_of
from dfkd_edge.networks.operations import operations
from dfkd_edge.networks.students import Student, build_student
from dfkd_edge.networks.teacher import Teacher
from dfkd_edge.networks.weights import shapes_of_teacher
from dfkd_edge.preflight import DistillPlan
from dfkd_edge.seeding import stage_generator
from dfkd_edge.synthesis.amortized import Refiner
from dfkd_edge.synthesis.decoder import load_decoder
from dfkd_edge.validation.ladder import BATCH_SIZE
from tests.conftest import SilentReporter
from tests.fixtures.command import invoke

CLASSES = parse_class_names("dog\nhouse\n", "two")


def plan_of(config: PipelineConfig) -> DistillPlan:
    return DistillPlan(
        config=sized(config, len(CLASSES)), reusable=config, class_names=CLASSES,
        list_read_as="", pictures=None, key="key", output=Path("never-made"),
        resume=True, exist_ok=False, tensorboard=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def small() -> SmallRun:
    """The small run of the default settings; tests change what it is multiplied by."""
    return SmallRun(plan_of(PipelineConfig()))


def small_student(embed_dim: int) -> Student:
    """The default student, in a space of this width."""
    return build_student(MINI, "random", torch.zeros(len(CLASSES), embed_dim), 100.0)


def needs_of(card: Card) -> CardNeeds:
    teacher = shapes_of_teacher("ViT-B-32")
    return CardNeeds(PipelineConfig(), teacher, small_student(512), CLASSES, card)


def test_a_pool_counts_where_a_card_has_room_for_it() -> None:
    anywhere = needs_of(NO_CARD)
    assert anywhere.learning(2**30) - anywhere.learning(0) == 2**30
    large, small = needs_of(Card(2**40)), needs_of(Card(2**31))
    assert large.learning(2**30) == anywhere.learning(2**30)
    assert small.learning(2**30) == small.learning(0)  # more than 0.4 of what is free


@pytest.mark.parametrize("gib", [2, 4, 8])
def test_parts_of_a_dry_run_are_those_that_the_run_will_size(gib: int) -> None:
    card, need, kept = Card(gib * 2**30), Need(100 * 2**20, 0), 2**30
    together = need.images_in(budget_of(card.free - kept), 64)
    assert card.holding(kept, need, 64) == kept + together * need.of_image
    assert card.holding(kept, need, 1) == kept + need.of_image


def asked(small: SmallRun, **sections: object) -> SmallRun:
    """The same small run, of which another run would be estimated."""
    return small.asked(replace(small.config, **sections))  # type: ignore[arg-type]


def test_every_stage_takes_time_and_memory_and_nothing_of_it_is_kept(small: SmallRun) -> None:
    stages = small.estimate().stages
    assert [stage.name for stage in stages] == ["prompts", "surrogates", "student", "evaluation"]
    assert all(stage.seconds and stage.host_bytes > small.base_bytes for stage in stages)
    assert {stage.device_bytes for stage in stages} == {0}
    config, shard_bytes = small.config.synthesis, stages[1].disk_bytes
    assert shard_bytes == config.num_images * 3 * 96**2
    total = shard_bytes + 4 * small.student.num_parameters
    assert f"disk        about {total / 2**20:.0f} MiB" in small.estimate().lines()
    assert not Path("never-made").exists()


def test_work_that_doubles_takes_twice_the_time(small: SmallRun) -> None:
    learning, synthesis = small.config.distillation, small.config.synthesis
    twice = asked(
        small,
        distillation=replace(learning, num_steps=2 * learning.num_steps),
        synthesis=replace(synthesis, num_images=2 * synthesis.num_images),
    )
    for stage in ("training", "surrogates", "evaluation"):
        one, two = (getattr(run, stage)().seconds for run in (small, twice))
        assert two == pytest.approx(2 * one)


def test_a_larger_batch_keeps_so_many_more_activations(small: SmallRun) -> None:
    learning, one = small.config.distillation, gradient_bytes(small.student, small.shape, "cpu")
    cases: dict[StudentInit, int] = {
        "random": 120,
        "pretrained": 40 if wants_shards("cpu") else 120,
    }
    for start, more in cases.items():
        less = replace(learning, student_init=start)
        larger = replace(less, batch_size=learning.batch_size + 120)
        kept = [asked(small, distillation=each).training().host_bytes for each in (less, larger)]
        assert kept[1] - kept[0] == more * one


def test_images_that_lie_on_disk_take_no_memory_of_the_student(small: SmallRun) -> None:
    one = small.config.synthesis
    more = asked(small, synthesis=replace(one, num_images=100 * one.num_images))
    assert more.training().host_bytes == small.training().host_bytes
    assert more.surrogates().disk_bytes == 100 * small.surrogates().disk_bytes


def test_views_that_are_labelled_once_spare_passes_of_the_teacher_and_take_disk(
    small: SmallRun,
) -> None:
    learning, num_images = small.config.distillation, small.expected.num_learning
    anew = asked(small, distillation=replace(learning, num_stored_views=0)).training()
    once = asked(small, distillation=replace(learning, num_stored_views=4)).training()
    spared = learning.num_steps * learning.batch_size - 4 * num_images
    of_teacher_s = small.view_s * small.of_image / small.of_view
    assert anew.seconds
    assert once.seconds
    assert anew.seconds - once.seconds == pytest.approx(spared * of_teacher_s)
    assert once.disk_bytes - anew.disk_bytes == 2 * small.embed_dim * 4 * num_images
    assert "4 an image labelled once" in once.work


def test_a_pass_takes_the_input_of_every_layer_and_grows_as_pixels_do() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 2, 1))
    image, hidden = 3 * 16**2 * 4, 8 * 16**2 * 4
    small, large = (gradient_bytes(network, (3, side, side), "cpu") for side in (16, 32))
    assert small >= (image + hidden) // 2  # bfloat16 where the CPU has it
    assert large == 4 * small


def test_time_grows_as_the_operations_of_a_large_teacher_do(small: SmallRun) -> None:
    """A guided step takes as many passes of teacher and decoder whatever their size."""
    images, steps = 1_000, 8
    diffusion = SynthesisConfig(
        method="diffusion", pipeline="x", num_images=images, num_sampling_steps=steps
    )
    of_picture = 2 * steps * STEP_OPERATIONS + DECODE_OPERATIONS  # guided: two passes a step
    seconds = asked(small, synthesis=diffusion).surrogates().seconds
    assert seconds == pytest.approx(images * of_picture * small.view_s / small.of_view)


def test_a_guided_step_multiplies_teacher_and_decoder_alike(teacher: Teacher) -> None:
    decoder, label_N = load_decoder(), torch.arange(2)
    latent_NLhw = torch.zeros(2, *decoder.latent_shape)
    batch = SynthesisBatch(teacher.head_KD[label_N], label_N, label_N, stage_generator(0, "x"))
    with FlopCounterMode(display=False) as counter:
        config = SynthesisConfig(num_refinement_steps=1)
        Refiner(teacher, decoder, config).refined(latent_NLhw, batch)

    once = operations(
        lambda latent: teacher.embed_images(decoder.decode(latent)), decoder.latent_shape, "cpu"
    )
    assert counter.get_total_flops() / (2 * once) == pytest.approx(2, rel=0.02)


@pytest.mark.slow
def test_a_large_teacher_is_played_by_the_embedded_one() -> None:
    teacher = TeacherConfig(name="ViT-B-32", pretrained="laion2b_s34b_b79k")
    synthesis = SynthesisConfig(decoder="amused/amused-256/vqvae", image_size_px=224)
    config = sized(
        PipelineConfig(teacher=teacher, synthesis=synthesis, device="cuda:99"), len(CLASSES)
    )
    told = dry_distill(plan_of(config), False, SilentReporter())
    document = json.loads(told.text(as_json=True))
    plan = document["plan"]
    assert "operations of ViT-B-32 and amused/amused-256/vqvae counted" in plan["estimated_from"]
    assert plan["device"] == "cpu"
    assert [each["terms"] for each in plan["licences"]] == ["MIT", OPEN_RAIL]
    assert any("decoder amused/amused-256/vqvae: OpenRAIL++" in line for line in told.head)
    assert any("cuda:99 is not here: a run would stop at once" in line for line in told.head)
    assert [weights["size_mb"] for weights in plan["downloads"]] == [605, 585]
    assert plan["memory_gib"] > 605e6 / 2**30
    # the small run's student is in the space of the embedded teacher
    teacher_shapes = shapes_of_teacher("ViT-B-32")
    card = CardNeeds(config, teacher_shapes, small_student(256), CLASSES)
    pool_bytes = 3 * 224**2 * config.synthesis.num_images
    said = {stage["name"]: stage["device_bytes"] for stage in plan["stages"]}
    assert said["prompts"] == card.prompts()
    assert said["student"] == card.learning(pool_bytes)
    assert said["evaluation"] == card.evaluation(BATCH_SIZE)
    assert said["surrogates"] > card.teacher_bytes
    assert any("on the device" in line for line in told.estimate.lines())
    assert plan["seconds"] > 1000 * sum(s["seconds"] for s in plan["stages"][:1])


def test_the_dry_run_shows_images_steps_time_memory_and_drawings_and_settings_for_any_list(
    quickstart: Path, tmp_path: Path
) -> None:
    flags = ("--classes", quickstart, "--dry-run", "--set", "synthesis.num_images=64")
    text = invoke("distill", *flags).stdout
    work = (f"64 images, amortized, decoder {MINI}", f"{NUM_STEPS} steps of 64 views")
    for words in (*work, "# memory ", "# disk ", "# drawings ", "# int8 ", "# settings "):
        assert words in text
    (tmp_path / "kept.toml").write_text(text, encoding="utf-8")
    longer = sized(load_config(tmp_path / "kept.toml"), 200)
    assert longer.synthesis.num_images == 64
    assert longer.distillation.num_steps > NUM_STEPS


def test_a_stopwatch_takes_the_laps_of_each_stage() -> None:
    watch = Stopwatch()
    with watch.stage("one", 2) as progress:
        progress.advance()
        progress.advance()
    assert len(watch.laps_s["one"]) == 3
