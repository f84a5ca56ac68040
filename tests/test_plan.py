from __future__ import annotations

import json
from pathlib import Path

from typer.testing import CliRunner

from dfkd_edge.class_names import parse_class_names
from dfkd_edge.cli import app
from dfkd_edge.config_file import load_config
from dfkd_edge.plan import make_plan

CLASSES = parse_class_names("dog\nhouse\n", "two")


def test_the_dry_run_shows_images_steps_time_memory_and_downloads(quickstart: Path) -> None:
    arguments = ["distill", "--classes", str(quickstart), "--dry-run"]
    text = CliRunner().invoke(app, [*arguments, "--set", "synthesis.num_images=64"]).stdout
    assert "64 images, amortized, decoder mini, about" in text
    assert "GiB" in text
    document = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).stdout)
    assert document["plan"]["downloads"] == []
    assert document["plan"]["seconds"] > 0


def test_work_that_doubles_takes_twice_the_time() -> None:
    one = make_plan(load_config(None, ["distillation.num_steps=100"]), CLASSES)
    two = make_plan(load_config(None, ["distillation.num_steps=200"]), CLASSES)
    relative = one.speed_gflops / two.speed_gflops  # measured anew each time
    ratio = two.stages[2].seconds / one.stages[2].seconds / relative
    assert abs(ratio - 2) < 1e-6


def test_a_run_for_a_device_that_is_not_here_is_planned_on_what_is() -> None:
    plan = make_plan(load_config(None, ["device=cuda:99"]), CLASSES)
    assert plan.device == "cpu"
    assert any("this machine's cpu" in line for line in plan.lines())
    assert make_plan(load_config(None, []), CLASSES).document()["device"] == "cpu"


def test_a_large_teacher_is_planned_without_its_weights() -> None:
    plan = make_plan(load_config(None, ["preset=clip-l14"]), CLASSES)
    assert plan.memory_gib > 1710e6 / 2**30
    assert [weights.size_mb for weights in plan.downloads] == [1710, 585]
    assert plan.stages[1].seconds > 100 * plan.stages[0].seconds / 32


def test_the_plan_counts_the_training_of_a_network_that_no_prior_replaces() -> None:
    steps = ["synthesis.num_training_steps=1000", "synthesis.num_training_steps=2000"]
    sized = "synthesis.image_size_px=128"  # the embedded prior knows one size
    plans = [make_plan(load_config(None, [sized, step]), CLASSES) for step in steps]
    one, two = (plan.stages[1].seconds * plan.speed_gflops for plan in plans)
    assert 1.5 < two / one < 2
    assert "2000 steps to train its network" in plans[1].stages[1].work


def test_the_plan_names_the_pipeline_and_its_size_of_work() -> None:
    overrides = ["synthesis.method=diffusion", "synthesis.pipeline=stabilityai/sd-turbo"]
    plan = make_plan(load_config(None, overrides), CLASSES)
    assert "diffusion, pipeline stabilityai/sd-turbo" in plan.stages[1].work
    assert [weights.what for weights in plan.downloads] == ["pipeline stabilityai/sd-turbo"]
    assert plan.stages[1].seconds * plan.speed_gflops > 2400 * 6 * 800
