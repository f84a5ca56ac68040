"""The whole line on a few images, as a user starts it."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SMALL = ("--set", "synthesis.num_images=300", "--set", "prompts.num_iterations=12")
TWO_SHARDS = ("--set", "synthesis.num_images=160")
STUDENT = ("--steps", "14", "--batch-size", "16", "--workers", "2")


def _command(quickstart: Path, output: Path, *more: str) -> list[str]:
    program = [sys.executable, "-m", "dfkd_edge", "distill", "--classes", str(quickstart)]
    return [*program, "-o", str(output), *SMALL, *STUDENT, *more]


def _weights(run: Path) -> bytes:
    return (run / "student" / "student.safetensors").read_bytes()


def test_the_command_leaves_a_complete_run_and_one_json_document(
    tmp_path: Path, quickstart: Path
) -> None:
    command = _command(quickstart, tmp_path / "run", *TWO_SHARDS, "--json")
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    document = json.loads(result.stdout)
    assert [rung["name"] for rung in document["rungs"]] == ["teacher", "student-start", "student"]
    assert document["surrogates"]["num_candidates"] == 160
    left = {p.name for p in (tmp_path / "run").iterdir()}
    expected = {"classes.txt", "config.toml", "evaluation.json", "manifest.json", "metrics.jsonl"}
    expected.add("report.html")
    assert expected <= left
    assert (tmp_path / "latest").resolve() == (tmp_path / "run").resolve()
    again = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(again.stdout) == document
    assert "synthesizing" not in again.stderr


@pytest.mark.slow
def test_ten_kills_end_with_the_student_of_an_unbroken_run(
    tmp_path: Path, quickstart: Path
) -> None:
    subprocess.run(_command(quickstart, tmp_path / "whole"), check=True, capture_output=True)
    begun = time.monotonic()
    subprocess.run(_command(quickstart, tmp_path / "timed"), check=True, capture_output=True)
    duration_s = time.monotonic() - begun
    moments = random.Random(0)
    command = _command(quickstart, tmp_path / "broken")
    for _ in range(10):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        try:
            process.communicate(timeout=moments.uniform(0.1, 0.9) * duration_s)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.communicate()
    subprocess.run(command, check=True, capture_output=True)
    assert _weights(tmp_path / "broken") == _weights(tmp_path / "whole")
