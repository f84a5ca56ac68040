from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import timm
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from typer.testing import CliRunner

from dfkd_edge.class_names import parse_class_names
from dfkd_edge.cli import app
from dfkd_edge.config.file import load_config, settings_of
from dfkd_edge.config.settings import PipelineConfig, PromptConfig, SynthesisConfig
from dfkd_edge.estimates.distill import GUIDED, RunPlan, kept_for_gradients, make_plan, plan_with
from dfkd_edge.estimates.pass_times import EFFICIENCY, PassTimes, count_flops
from dfkd_edge.interfaces import SynthesisBatch
from dfkd_edge.networks.students import student_entry
from dfkd_edge.networks.teacher import Teacher, open_clip_name
from dfkd_edge.networks.weights import shapes_of_teacher
from dfkd_edge.prompts import diversify_prompts
from dfkd_edge.runs.context import StageContext
from dfkd_edge.seeding import stage_generator
from dfkd_edge.synthesis.amortized import Refiner, load_amortized
from dfkd_edge.synthesis.decoder import load_decoder
from dfkd_edge.synthesis.synthesize import make_candidates, synthesis_setup

CLASSES = parse_class_names("dog\nhouse\n", "two")


def test_the_dry_run_shows_images_steps_time_memory_and_downloads(quickstart: Path) -> None:
    arguments = ["distill", "--classes", str(quickstart), "--dry-run"]
    text = CliRunner().invoke(app, [*arguments, "--set", "synthesis.num_images=64"]).stdout
    assert "64 images, amortized, decoder mini, 32 of drawings" in text
    assert "GiB" in text


def counted_passes(config: PipelineConfig) -> tuple[nn.Module, PassTimes]:
    """Count instead of timing: an operation a second."""
    teacher = shapes_of_teacher(open_clip_name(config.teacher)[0])
    one = PassTimes(
        text_s=1,
        image_s=1,
        decode_s=1,
        sample_s=1,
        student_s=1,
        product_gflops=1e-9 / EFFICIENCY,
        device="cpu",
        timed=(),
    )
    return teacher, one


def planned(*overrides: str) -> RunPlan:
    config = load_config(None, settings_of(overrides))
    return plan_with(config, CLASSES, *counted_passes(config))


def test_work_that_doubles_takes_twice_the_time() -> None:
    one, two = (planned(f"distillation.num_steps={num}") for num in (100, 200))
    assert two.stages[2].seconds == 2 * one.stages[2].seconds == 2 * 100 * 96 * 2


def test_the_plan_of_synthesis_is_of_the_work_that_synthesis_does(
    teacher: Teacher, context: StageContext
) -> None:
    decoder = load_decoder()
    prompts = diversify_prompts(teacher, PromptConfig(method="base"), context)
    pixels_1CHW = torch.rand(1, 3, teacher.image_size_px, teacher.image_size_px)
    condition_1D, generator = teacher.head_KD[:1], stage_generator(0, "x")
    synthesis = SynthesisConfig(num_images=64, num_sampling_steps=4, num_refinement_steps=0)
    config = dataclasses.replace(load_config(None), synthesis=synthesis)
    shapes, times = counted_passes(config)
    times = dataclasses.replace(
        times,
        image_s=count_flops(teacher.embed_images, pixels_1CHW),
        decode_s=count_flops(decoder.decode, torch.zeros(1, *decoder.latent_shape)),
        sample_s=count_flops(lambda: decoder.sample(condition_1D, generator, 1)),
        text_s=0,
    )
    setup = synthesis_setup(prompts, teacher, synthesis, context)
    synthesizer = load_amortized(setup)
    with FlopCounterMode(display=False) as counter:
        make_candidates(0, setup, synthesizer)
    planned_flops = plan_with(config, CLASSES, shapes, times).stages[1].seconds
    assert planned_flops / counter.get_total_flops() == pytest.approx(1, abs=0.2)


def test_a_guided_step_costs_two_passes(teacher: Teacher) -> None:
    decoder, label_N = load_decoder(), torch.arange(2)
    refine = Refiner(teacher, decoder, SynthesisConfig(num_refinement_steps=1))
    latent_NLhw = torch.zeros(2, *decoder.latent_shape)
    batch = SynthesisBatch(teacher.head_KD[label_N], label_N, label_N, stage_generator(0, "x"))
    with FlopCounterMode(display=False) as counter:
        refine.refined(latent_NLhw, batch)
    seen = count_flops(lambda: teacher.embed_images(decoder.decode(latent_NLhw)))
    assert counter.get_total_flops() / seen == pytest.approx(GUIDED, rel=0.02)


def test_the_plan_says_what_its_times_are_from() -> None:
    small = ("distillation.student=mini", "distillation.batch_size=2")
    config = load_config(None, settings_of(["preset=clip-b32", "device=cuda:99", *small]))
    plan = make_plan(config, CLASSES)
    assert plan.times.timed == ("student",)
    said = "passes of student timed on this machine's cpu; operations of teacher, decoder counted"
    assert any(said in line for line in plan.lines())
    assert plan.document()["device"] == "cpu"
    assert any("cuda:99 is not here: a run would stop at once" in line for line in plan.lines())
    assert plan.document()["estimated_from"] == plan.times.sentence()


def test_the_networks_of_the_package_are_timed_themselves() -> None:
    plan = make_plan(load_config(None), CLASSES)
    assert plan.times.timed == ("student", "teacher", "decoder")
    assert "counted" not in plan.times.sentence()
    assert min(plan.times.text_s, plan.times.image_s, plan.times.decode_s) > 0
    assert min(plan.times.sample_s, plan.times.student_s) > 0
    assert plan.document()["downloads"] == []


def test_a_training_step_keeps_the_input_of_every_layer_that_learns() -> None:
    with torch.device("meta"):
        network = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 2, 1))
    image, hidden = 3 * 16**2 * 4, 8 * 16**2 * 4
    assert kept_for_gradients(network, 16) == image + hidden  # ReLU's output is the layer's input


def test_a_batch_that_needs_more_than_synthesis_may_hold_is_in_the_plan() -> None:
    many, most = (planned(f"distillation.batch_size={num}").memory_gib for num in (384, 768))
    with torch.device("meta"):
        student = timm.create_model(student_entry("mini", None).timm_name, num_classes=0)
    more = 384 * kept_for_gradients(student, student_entry("mini", None).image_size_px)
    assert most - many == pytest.approx(more / 2**30)


def test_a_large_teacher_is_planned_without_its_weights() -> None:
    plan = planned("preset=clip-l14")
    assert plan.memory_gib > 1710e6 / 2**30
    assert [weights.size_mb for weights in plan.downloads] == [1710, 585]


def test_the_plan_counts_the_training_of_a_network_that_no_prior_replaces() -> None:
    sized = "synthesis.image_size_px=128"  # the embedded prior knows one size
    steps = (0, 1000, 2000)
    none, one, two = (
        planned(sized, f"synthesis.num_training_steps={max(num, 1)}").stages[1] for num in steps
    )
    assert (two.seconds - none.seconds) / (one.seconds - none.seconds) == pytest.approx(1999 / 999)
    assert "2000 steps to train its network" in two.work


def test_the_plan_names_the_pipeline_and_its_size_of_work() -> None:
    plan = planned("synthesis.method=diffusion", "synthesis.pipeline=stabilityai/sd-turbo")
    assert "diffusion, pipeline stabilityai/sd-turbo" in plan.stages[1].work
    assert [weights.what for weights in plan.downloads] == ["pipeline stabilityai/sd-turbo"]
    assert plan.stages[1].seconds > 2400 * 6 * 800e9
