"""Commands that several ranks run together: what they leave, and what ends them."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from dfkd_edge import load_student
from dfkd_edge.errors import EnvironmentLackingError
from dfkd_edge.runs.shared import require_shared
from tests.fixtures.ranks import Ended, command_line, in_float32, start_ranks

SETTINGS = (
    'synthesis.method="per-image"',
    "synthesis.image_size_px=32",
    "synthesis.num_images=48",
    "synthesis.num_optimisation_steps=1",
    "synthesis.num_views=1",
    "prompts.num_styles=2",
    "prompts.num_iterations=2",
    "distillation.image_size_px=48",
    "distillation.num_steps=3",
    "distillation.batch_size=5",
)
WORDS = tuple(word for setting in SETTINGS for word in ("--set", setting))


def distill_words(classes: Path, run: Path, *more: object) -> tuple[object, ...]:
    return ("distill", "--classes", classes, "--output", run, "--json", *WORDS, *more)


def files(run: Path, *stages: str) -> dict[str, bytes]:
    paths = (path for stage in stages for path in sorted((run / stage).iterdir()))
    return {str(path.relative_to(run)): path.read_bytes() for path in paths}


def logits(run: Path) -> torch.Tensor:
    student = load_student(run)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        found: torch.Tensor = student(torch.rand((4, 3, 48, 48), generator=generator))
    return found


def lines(ended: list[Ended]) -> list[str]:
    """What a user reads beyond the stages of a run."""
    kept = ("error:", "stopped")
    return [line for rank in ended for line in rank.err.splitlines() if line.startswith(kept)]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, quickstart: Path) -> Path:
    """Distill in one process."""
    folder = tmp_path_factory.mktemp("alone")
    words = distill_words(quickstart, folder / "run")
    ended = start_ranks(1, folder, in_float32, command_line, *words).wait()
    assert [rank.code for rank in ended] == [0]
    return folder / "run"


@pytest.mark.parametrize("count", [pytest.param(2, marks=pytest.mark.slow), 3])
def test_ranks_make_the_images_of_one_process_and_the_same_student(
    tmp_path: Path, quickstart: Path, alone: Path, count: int
) -> None:
    run = tmp_path / "run"
    words = distill_words(quickstart, run)
    ended = start_ranks(count, tmp_path, in_float32, command_line, *words).wait()
    assert [rank.code for rank in ended] == [0] * count, ended
    assert json.loads(ended[0].out)["run"] == str(run)
    assert not any(rank.out or rank.err for rank in ended[1:])  # the first one speaks for all
    assert files(run, "prompts", "surrogates") == files(alone, "prompts", "surrogates")
    np.testing.assert_allclose(logits(run), logits(alone), atol=1e-3)
    assert {path.name for path in run.iterdir()} == {path.name for path in alone.iterdir()}
    assert (run.parent / "latest").resolve() == run.resolve()


def fill_disk_of(index: int, *arguments: object) -> None:
    """Run the command line where one rank can write no file larger than a manifest."""
    if os.environ["RANK"] == str(index):
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
    command_line(*arguments)


def test_a_full_disk_on_one_rank_ends_all_with_a_line_and_the_same_command_goes_on(
    tmp_path: Path, quickstart: Path, alone: Path
) -> None:
    run = tmp_path / "run"
    words = distill_words(quickstart, run)
    ended = start_ranks(2, tmp_path, fill_disk_of, 1, *words).wait()
    (line,) = lines(ended)
    assert line.startswith("error: rank 1 on ")
    assert "shard-00001" in line
    assert ended[1].code == 4
    assert ended[0].code
    assert (run / "surrogates" / "shard-00000.safetensors").exists()  # of the other rank
    ended = start_ranks(2, tmp_path, in_float32, command_line, *words).wait()
    assert [rank.code for rank in ended] == [0, 0], ended
    assert files(run, "surrogates") == files(alone, "surrogates")
    np.testing.assert_allclose(logits(run), logits(alone), atol=1e-3)


def differ(*arguments: object) -> None:
    more = ("--set", f"distillation.num_warmup_steps={os.environ['RANK']}")
    command_line(*arguments, *more)


def test_ranks_that_disagree_on_a_setting_end_before_work(tmp_path: Path, quickstart: Path) -> None:
    run = tmp_path / "run"
    ended = start_ranks(2, tmp_path, differ, *distill_words(quickstart, run)).wait()
    (line,) = lines(ended)
    assert "rank 1 was given 'num_warmup_steps = 1', rank 0 'num_warmup_steps = 0'" in line
    assert [rank.code for rank in ended] == [2, 2]
    assert not run.exists()


def test_what_all_ranks_refuse_is_told_once(tmp_path: Path) -> None:
    words = distill_words(tmp_path / "missing.txt", tmp_path / "run")
    ended = start_ranks(2, tmp_path, command_line, *words).wait()
    (line,) = lines(ended)
    assert "missing.txt" in line
    assert [rank.code for rank in ended] == [2, 2]


def test_verbs_that_ranks_do_not_share_are_the_first_ones(tmp_path: Path) -> None:
    ended = start_ranks(2, tmp_path, command_line, "targets", "list").wait()
    assert "jetson" in ended[0].out
    assert (ended[1].out, ended[1].err) == ("", "")


def see(folder: Path) -> None:
    """Let each rank look at a directory of its own."""
    from dfkd_edge.machine.joining import joined
    from dfkd_edge.runs import shared

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shared, "VISIBLE_S", 0.1)
        with joined() as group:
            own = folder / f"disk{group.index}"
            own.mkdir()
            with pytest.raises(EnvironmentLackingError, match=r"rank 1 on .* does not see"):
                require_shared(own, group)


def test_a_run_directory_that_is_not_shared_is_found_out_by_all(tmp_path: Path) -> None:
    assert [rank.code for rank in start_ranks(2, tmp_path, see, tmp_path).wait()] == [0, 0]


def shims(folder: Path) -> str:
    """Stand in for Slurm on one node, and for the script of torchrun; returns the PATH."""
    launcher = f'exec {sys.executable} -m torch.distributed.run "$@"'
    for name, body in (
        ("scontrol", "echo localhost"),
        ("srun", 'while [ "${1#--}" != "$1" ]; do shift; done; exec "$@"'),
        ("torchrun", launcher),
    ):
        script = folder / "bin" / name
        script.parent.mkdir(exist_ok=True)
        script.write_text(f"#!/bin/sh\n{body}\n", encoding="utf-8")
        script.chmod(0o755)
    return f"{folder / 'bin'}:{os.environ['PATH']}"


@pytest.mark.slow
def test_the_slurm_script_distills_on_the_ranks_of_a_node(
    tmp_path: Path, quickstart: Path, alone: Path
) -> None:
    script = quickstart.parents[1] / "real_clip" / "slurm.sh"
    slurm = {
        "SLURM_JOB_NODELIST": "localhost",
        "SLURM_JOB_NUM_NODES": "1",
        "SLURM_GPUS_ON_NODE": "2",
        "SLURM_JOB_ID": str(os.getpid()),
    }
    _, *words = map(str, distill_words(quickstart, tmp_path / "run"))
    environment = {**os.environ, **slurm, "PATH": shims(tmp_path)}
    done = subprocess.run([script, *words], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["run"] == str(tmp_path / "run")
    assert files(tmp_path / "run", "surrogates") == files(alone, "surrogates")


@pytest.mark.slow
def test_the_accelerate_recipe_distills_on_the_ranks_of_a_machine(
    tmp_path: Path, quickstart: Path, alone: Path
) -> None:
    guide = quickstart.parents[1] / "real_clip" / "README.md"
    lines = guide.read_text(encoding="utf-8").splitlines()
    (recipe,) = (line for line in lines if line.startswith("accelerate launch"))
    flags = recipe.partition(" distill ")[0].replace("--num_processes 8", "--num_processes 2")
    launcher = [sys.executable, "-m", "accelerate.commands.launch", *flags.split()[2:]]
    words = map(str, distill_words(quickstart, tmp_path / "run"))
    done = subprocess.run([*launcher, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["run"] == str(tmp_path / "run")
    assert files(tmp_path / "run", "surrogates") == files(alone, "surrogates")


@pytest.mark.slow
def test_a_rank_that_is_killed_under_torchrun_ends_all_with_a_line(
    tmp_path: Path, quickstart: Path, alone: Path
) -> None:
    run = tmp_path / "run"
    words = map(str, distill_words(quickstart, run))
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node")
    command = [*torchrun, "2", "-m", "dfkd_edge", *words]
    with (tmp_path / "err").open("w") as err:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=err)
    while not list(run.glob("surrogates/shard-*")):
        assert process.poll() is None
        time.sleep(0.1)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    os.kill(int(children.split()[-1]), signal.SIGKILL)
    assert process.wait() == 1
    said = (tmp_path / "err").read_text(encoding="utf-8")
    assert said.count("the same command goes on\n") == 1
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert files(run, "surrogates") == files(alone, "surrogates")
