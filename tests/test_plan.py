from __future__ import annotations

import json
from pathlib import Path

from typer.testing import CliRunner

from dfkd_edge.class_names import parse_class_names
from dfkd_edge.cli import app
from dfkd_edge.config import load_config
from dfkd_edge.plan import make_plan

CLASSES = parse_class_names("dog\nhouse\n", "two")


def test_the_dry_run_shows_images_steps_time_memory_and_downloads(quickstart: Path) -> None:
    arguments = ["distill", "--classes", str(quickstart), "--dry-run"]
    text = CliRunner().invoke(app, [*arguments, "--set", "synthesis.num_images=64"]).stdout
    assert "64 images, amortized" in text
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


def test_a_large_teacher_is_planned_without_its_weights() -> None:
    plan = make_plan(load_config(None, ["preset=clip-l14"]), CLASSES)
    assert plan.memory_gib > 1710e6 / 2**30
    assert [weights.size_mb for weights in plan.downloads] == [1710, 585]
    assert plan.stages[1].seconds > 100 * plan.stages[0].seconds / 32
