import inspect
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dfkd_edge.commands.distill import distill
from dfkd_edge.commands.synthesize import outcome
from dfkd_edge.commands.synthesize import synthesize as synthesize_
from dfkd_edge.config.file import settings_of
from dfkd_edge.console import ConsoleReporter, make_console
from dfkd_edge.errors import ConfigError
from dfkd_edge.interfaces import WorkShare
from dfkd_edge.pipeline import SynthesizeResult, synthesize
from dfkd_edge.preflight import DistillPlan, DistillRequest, plan_distill, plan_synthesize
from dfkd_edge.runs.run_dir import open_run
from dfkd_edge.runs.surrogates import work_share
from dfkd_edge.synthesis.saving import plan_saving
from tests.fixtures.command import invoke

SETTINGS = (
    'synthesis.method="per-image"',
    "synthesis.image_size_px=32",
    "synthesis.num_images=32",
    "synthesis.num_optimisation_steps=1",
    "synthesis.num_views=1",
    'prompts.method="base"',
)


def plan_of(classes: Path, output: Path) -> DistillPlan:
    settings = settings_of(SETTINGS, {"classes": classes})
    return plan_synthesize(DistillRequest(settings=settings, output=output))


def run_synthesize(
    classes: Path, output: Path, shard: str | None, images: Path | None = None
) -> SynthesizeResult:
    reporter, plan = ConsoleReporter(make_console(quiet=True)), plan_of(classes, output)
    saving = plan_saving(images, None, output, plan.key)
    return synthesize(plan, work_share(shard), reporter, saving=saving)


@pytest.fixture(scope="module")
def whole(quickstart: Path, tmp_path_factory: pytest.TempPathFactory) -> SynthesizeResult:
    """What one process makes of all shards."""
    return run_synthesize(quickstart, tmp_path_factory.mktemp("runs") / "whole", None)


def shards(run: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted((run / "surrogates").glob("shard-*"))]


def test_synthesize_takes_the_flags_of_distill_that_name_its_run(quickstart: Path) -> None:
    of_distill, ours = (set(inspect.signature(verb).parameters) for verb in (distill, synthesize_))
    assert of_distill - ours == {"resume", "save_config", "tensorboard", "dry_run"}
    flags = {"classes": quickstart, "steps": 7, "batch_size": 8, "imgsz": 64, "num_styles": 3}
    request = DistillRequest(settings=settings_of((), flags))
    assert plan_synthesize(request).key == plan_distill(request).key
    unlike = DistillRequest(settings=settings_of((), flags | {"steps": 8}))
    assert plan_synthesize(unlike).output != plan_synthesize(request).output


def test_the_share_of_a_batch_job_is_split_among_its_ranks() -> None:
    assert work_share(None) == work_share("1/1") == WorkShare(0, 1)
    assert work_share("3/8") == WorkShare(2, 8)
    ours = [list(work_share("3/8").split(rank, 2).numbers(40)) for rank in range(2)]
    assert ours == [[2, 18, 34], [10, 26]]
    for wrong in ("0/2", "3/2", "1", "a/b"):
        with pytest.raises(ConfigError, match="no share"):
            work_share(wrong)


def test_two_jobs_make_the_set_of_one_and_the_last_one_closes_the_stage_and_saves(
    tmp_path: Path, quickstart: Path, whole: SynthesizeResult
) -> None:
    assert whole.summary
    assert whole.summary.num_candidates == 32
    assert " of 32 images kept in " in outcome(whole)
    assert "shard" not in outcome(whole)
    images = tmp_path / "images"
    first = run_synthesize(quickstart, tmp_path / "split", "2/2", images)
    assert (first.num_shards_missing, first.summary) == (1, None)
    assert len(shards(tmp_path / "split")) == 1
    assert outcome(first).startswith("1 of 2 shards are in ")
    assert (first.saved, images.exists()) == (None, False)
    second = run_synthesize(quickstart, tmp_path / "split", "1/2", images)
    assert second.summary == whole.summary
    assert shards(tmp_path / "split") == shards(whole.run_dir)
    assert len(list(images.glob("*/*.webp"))) == whole.summary.num_images
    assert f", saved in {images};" in outcome(second)


def test_images_of_a_finished_set_are_saved_and_none_is_made_again(
    tmp_path: Path, quickstart: Path, whole: SynthesizeResult
) -> None:
    before = {path: path.stat().st_mtime_ns for path in whole.run_dir.glob("surrogates/*")}
    settings = [word for setting in SETTINGS for word in ("--set", setting)]
    flags = ("--save-images", tmp_path / "tars", "--save-format", "webdataset", "--json")
    result = invoke("synthesize", "--classes", quickstart, "-o", whole.run_dir, *settings, *flags)
    assert json.loads(result.stdout)["saved"] == str(tmp_path / "tars")
    names = sorted(path.name for path in (tmp_path / "tars").iterdir())
    assert names == ["dfkd-edge-images.json", "heldout-000000.tar", "train-000000.tar"]
    assert before == {path: path.stat().st_mtime_ns for path in before}


@pytest.mark.slow
def test_two_processes_of_torchrun_make_the_set_of_one_and_the_first_speaks(
    tmp_path: Path, quickstart: Path
) -> None:
    settings = [part for text in SETTINGS for part in ("--set", text)]
    verb = ["-m", "dfkd_edge", "synthesize", "--classes", str(quickstart), "--json", *settings]

    def document(*launcher: str, run: str) -> dict[str, Any]:
        command = [sys.executable, *launcher, *verb, "-o", str(tmp_path / run), "--workers", "2"]
        result = subprocess.run(command, capture_output=True, text=True, check=True)
        spoken: dict[str, Any] = json.loads(result.stdout)
        return spoken

    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    alone = document(run="alone")
    assert document(*torchrun, run="together")["surrogates"] == alone["surrogates"]
    assert shards(tmp_path / "together") == shards(tmp_path / "alone")


def test_a_share_that_waits_for_the_run_says_for_whom_and_goes_on(
    tmp_path: Path, quickstart: Path
) -> None:
    run = tmp_path / "run"
    settings = [word for setting in SETTINGS for word in ("--set", setting)]
    program = [sys.executable, "-m", "dfkd_edge", "synthesize", "--classes", str(quickstart)]
    command = [*program, "-o", str(run), "--shard", "1/2", *settings, "--json"]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with open_run(run, plan_of(quickstart, run).key, resume=True, exist_ok=False):
        process = subprocess.Popen(command, **pipes)  # goes on when the lock is free
        assert process.stderr is not None
        said = ""
        while f"waiting for process {os.getpid()} on " not in said:
            said = process.stderr.readline()
            assert said, "it ended without a word"
    document = json.loads(process.communicate()[0])
    assert (len(shards(run)), document["num_shards_missing"]) == (1, 1)
