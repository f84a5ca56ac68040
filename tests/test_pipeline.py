"""The whole line on a few images, as a user starts it."""

import json
import multiprocessing
import random
import re
import signal
import subprocess
import sys
import time
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

import dfkd_edge
from dfkd_edge.class_names import read_class_names
from dfkd_edge.config.settings import PipelineConfig
from dfkd_edge.machine.process import usable_device
from dfkd_edge.preflight import run_key
from dfkd_edge.runs.context import StageContext
from dfkd_edge.runs.run_dir import RunDir, read_stages
from tests.conftest import SilentReporter

SMALL = (
    *("--set", "prompts.num_iterations=1", "--set", "synthesis.num_sampling_steps=1"),
    *("--set", "synthesis.num_refinement_steps=0", "--set", "synthesis.num_images=160"),
    *("--steps", "2", "--batch-size", "8", "--num-styles", "2", "--workers", "2"),
)
"""Two shards."""
THREE_SHARDS: dict[str, Any] = {
    "prompts": {"num_iterations": 12},
    "synthesis": {"num_images": 300, "num_sampling_steps": 2, "num_refinement_steps": 0},
    "steps": 14,
    "batch_size": 16,
    "quiet": True,
}
STAGES = ("prompts", "surrogates", "student")
NUM_KILLS = 20
LONGEST_LIFE = 0.5
"""Of the work of an unbroken run: most lives end inside a stage, some get to the last one."""


def _weights(run: Path) -> bytes:
    return (run / "student" / "student.safetensors").read_bytes()


def test_the_command_leaves_a_complete_run_and_one_json_document(
    tmp_path: Path, quickstart: Path
) -> None:
    program = [sys.executable, "-m", "dfkd_edge", "distill", "--classes", str(quickstart)]
    command = [*program, "-o", str(tmp_path / "run"), *SMALL, "--json"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    document = json.loads(result.stdout)
    assert [rung["name"] for rung in document["rungs"]] == ["teacher", "student-start", "student"]
    assert document["surrogates"]["num_candidates"] == 160
    entries = {entry["name"]: entry for entry in document["surrogates"]["classes"]}
    assert "guide dog" in entries["dog"]["drawings"]
    assert entries["dog"]["num_of_its_name"] == sum(entries["dog"]["drawings"].values())
    expected = {"classes.txt", "config.toml", "evaluation.json", "manifest.json", "metrics.jsonl"}
    assert expected | {"report.html"} <= {p.name for p in (tmp_path / "run").iterdir()}
    log = (tmp_path / "run" / "run.log").read_text(encoding="utf-8")
    assert re.search(r"synthesizing images: \d+ s\n", log)
    assert (tmp_path / "latest").resolve() == (tmp_path / "run").resolve()
    again = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(again.stdout) == document
    assert "synthesizing" not in again.stderr


def _start(quickstart: Path, output: Path) -> BaseProcess:
    """Run `distill` in a process forked from one that has loaded the libraries already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["dfkd_edge.api", "dfkd_edge.pipeline"])
    settings = {"output": output, **THREE_SHARDS}
    process = context.Process(
        target=dfkd_edge.distill, args=(quickstart,), kwargs=settings, daemon=True
    )
    process.start()
    return process


def _await_work(process: BaseProcess, run: Path, num_starts: int) -> None:
    """Wait until the run's log says that it was begun, or gone on with, so many times."""
    log = run / "run.log"
    while process.is_alive():
        if log.exists() and log.read_text(encoding="utf-8").count(" distill ") >= num_starts:
            return
        time.sleep(0.01)


@pytest.mark.slow
def test_twenty_kills_of_runs_at_work_end_with_the_student_of_an_unbroken_run(
    tmp_path: Path, quickstart: Path
) -> None:
    process = _start(quickstart, tmp_path / "whole")
    _await_work(process, tmp_path / "whole", 1)
    begun = time.monotonic()
    process.join()
    assert process.exitcode == 0
    work_s = time.monotonic() - begun
    moments, num_hits = random.Random(0), [0]
    stages_hit: set[str] = set()
    while sum(num_hits) < NUM_KILLS:
        run = tmp_path / f"broken-{len(num_hits)}"
        process = _start(quickstart, run)
        _await_work(process, run, num_hits[-1] + 1)
        process.join(moments.uniform(0, LONGEST_LIFE) * work_s)
        process.kill()
        process.join()
        if process.exitcode == -signal.SIGKILL:
            num_hits[-1] += 1
            stages_hit.add(next((s for s in STAGES if s not in read_stages(run)), "evaluation"))
        else:  # finished before the kill: the next ones hit another run
            assert process.exitcode == 0
            num_hits.append(0)
    assert {"surrogates", "student"} <= stages_hit  # the two that go on inside
    runs = [tmp_path / f"broken-{number}" for number in range(1, len(num_hits) + 1)]
    process = _start(quickstart, runs[-1])
    process.join()
    assert process.exitcode == 0
    assert {_weights(run) for run in runs} == {_weights(tmp_path / "whole")}


def test_a_run_is_no_property_of_its_device(quickstart: Path, tmp_path: Path) -> None:
    names = read_class_names(quickstart)
    configs = (PipelineConfig(device="cuda"), PipelineConfig(device="cuda:1"), PipelineConfig())
    assert len({run_key(config, names) for config in configs}) == 1
    assert usable_device("cuda:77") == "cpu"
    here, there = (StageContext(RunDir(tmp_path), SilentReporter(), 0, d) for d in ("cpu", "cuda"))
    assert here.stage_key("student", 1) == there.stage_key("student", 1)
