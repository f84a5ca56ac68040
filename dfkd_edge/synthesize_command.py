"""`synthesize`: only the surrogate images, alone or as one of many processes.

Each of n processes makes every n-th shard; a shard depends on the seed and its number alone, so the
set is the same however it is split. Processes meet in the run directory and nowhere else: the first
one makes the prompts under the run's lock, the last one to find every shard closes the stage. Those
of torchrun are one job: its first process waits for the shards of the others, closes the stage and
speaks.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dfkd_edge.errors import ConfigError
from dfkd_edge.flags import distill_overrides
from dfkd_edge.kept_images import stand_ins_text
from dfkd_edge.options import (
    RUNS,
    AsJson,
    Classes,
    ConfigFile,
    Device,
    Number,
    Quiet,
    RedoRun,
    RunOutput,
    RunSet,
    Text,
    Verbose,
    Workers,
)
from dfkd_edge.process import prepare_process

if TYPE_CHECKING:
    from dfkd_edge.interfaces import WorkShare

LOCK_WAIT_S = 3_600.0
"""For a process that makes the prompts, or works in the same run for another reason."""
RANKS_WAIT_S = 6 * 3_600.0
"""For the next shard of another process. Torchrun ends all of them when one fails; this is for one
that hangs."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SynthesizeRequest:
    """The flags of `dfkd-edge synthesize`."""

    config_path: Path | None
    overrides: tuple[str, ...]
    output: Path | None
    shard: str | None
    """Such as 3/8; None for all of the work."""
    num_threads: int | None
    exist_ok: bool
    as_json: bool
    quiet: bool


def synthesize(
    classes: Classes = None,
    output: RunOutput = None,
    shard: Annotated[
        Text, typer.Option(help="Share of a batch system's job, such as 3/8: the third of eight.")
    ] = None,
    teacher: Annotated[Text, typer.Option(help="As for distill (default: mini).")] = None,
    pretrained: Annotated[Text, typer.Option(help="As for distill.")] = None,
    prompts: Annotated[Text, typer.Option(help="As for distill.")] = None,
    synthesis: Annotated[Text, typer.Option(help="amortized, per-image or diffusion.")] = None,
    workers: Workers = None,
    device: Device = None,
    seed: Annotated[Number, typer.Option(help="As for distill (default: 0).")] = None,
    exist_ok: RedoRun = False,
    config: ConfigFile = None,
    set_: RunSet = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Make the surrogate images of a run, or a share of them; `distill` goes on from there.

    Under torchrun every process takes its share by itself.
    """
    flags = {
        "classes": classes,
        "teacher": teacher,
        "pretrained": pretrained,
        "prompts": prompts,
        "synthesis": synthesis,
        "device": device,
        "seed": seed,
    }
    document = run_synthesize(
        SynthesizeRequest(
            config_path=config,
            overrides=(*(set_ or ()), *distill_overrides(flags)),
            output=output,
            shard=shard,
            num_threads=workers,
            exist_ok=exist_ok,
            as_json=as_json,
            quiet=quiet or _rank() > 0,
        )
    )
    if _speaks():
        typer.echo(json.dumps(document, ensure_ascii=False) if as_json else outcome(document))


def outcome(document: dict[str, Any]) -> str:
    """Say in words what `run_synthesize` returns."""
    run, missing, surrogates = (
        document[key] for key in ("run", "num_shards_missing", "surrogates")
    )
    if missing:
        share = document["num_shards"] - missing
        return f"{share} of {document['num_shards']} shards are in {run}; other jobs make the rest"
    told = stand_ins_text(surrogates)
    made = f"{surrogates['num_images']:,} of {surrogates['num_candidates']:,} images kept in {run}"
    made += told and f" ({told})"
    return f"{made}; dfkd-edge distill with the same flags goes on from there"


def _rank() -> int:
    return int(os.environ.get("RANK", "0"))


def _world_size() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def _is_of_torchrun() -> bool:
    return "TORCHELASTIC_RUN_ID" in os.environ


def _speaks() -> bool:
    """Whether this process closes the stage and prints the outcome."""
    return _rank() == 0 or not _is_of_torchrun()


def work_share(shard: str | None) -> WorkShare:
    """Join the share of a batch job with the rank that torchrun gives this process.

    Raises:
        ConfigError: it is not i/n with 1 <= i <= n.
    """
    from dfkd_edge.interfaces import WorkShare

    match = re.fullmatch(r"(\d+)/(\d+)", shard or "1/1")
    index, count = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= index <= count:
        raise ConfigError(
            f"'{shard}' is no share", where="--shard", hint="such as 3/8: the third of eight"
        )
    world = _world_size()
    return WorkShare((index - 1) * world + _rank(), count * world)


def shards_of_job(first: WorkShare, num_shards: int) -> list[int]:
    """Numbers of the shards that the processes of torchrun make together.

    Args:
        first: the share of rank 0; those of the other ranks follow it.
        num_shards: of the whole set.
    """
    indices = range(first.index, first.index + _world_size())
    return [number for number in range(num_shards) if number % first.count in indices]


def run_synthesize(request: SynthesizeRequest) -> dict[str, Any]:
    """Make this process's shards; close the stage when none is missing and it is the one to.

    Returns:
        run, num_shards, num_shards_missing, and the set's summary (None while shards are missing).
    """
    from dfkd_edge.console import ConsoleReporter, loading_libraries, make_console
    from dfkd_edge.distill_command import read_request, run_name
    from dfkd_edge.interruption import noting_what_is_kept
    from dfkd_edge.run_dir import open_run, refuse_other_run
    from dfkd_edge.run_key import run_key
    from dfkd_edge.run_lock import holder_of

    config, class_names = read_request(request.config_path, request.overrides)
    share = work_share(request.shard)
    key = run_key(config, class_names)
    output = request.output or RUNS / run_name(config, class_names)
    if not request.exist_ok:
        refuse_other_run(output, key)
    console = make_console(request.quiet)
    reporter = ConsoleReporter(console)
    with loading_libraries(console):
        _prepare_rank(config.device, request.num_threads)

        from dfkd_edge.interfaces import StageContext
        from dfkd_edge.pipeline import open_teacher, run_prompts
        from dfkd_edge.synthesis.setup import SynthesisSetup
        from dfkd_edge.synthesis.synthesize import (
            await_shards,
            make_shards,
            missing_shards,
            synthesize,
        )

    open_locked = functools.partial(
        open_run, output, key, resume=True, exist_ok=request.exist_ok, wait_s=LOCK_WAIT_S
    )
    teacher = open_teacher(config, class_names, reporter)
    with contextlib.ExitStack() as stack:
        holder = holder_of(output)
        turn = f"waiting for {holder}: jobs that share a run take turns at its prompts"
        with reporter.stage(turn, 1) if holder else contextlib.nullcontext():
            run_dir = stack.enter_context(open_locked())
        context = StageContext(run_dir, reporter, config.seed, config.device)
        prompts = run_prompts(config, teacher, context)
    setup = SynthesisSetup(prompts, teacher, config.synthesis, context)
    with noting_what_is_kept(output):
        make_shards(setup, share)
    if _is_of_torchrun() and _speaks():
        of_job = shards_of_job(share, config.synthesis.num_shards)
        await_shards(setup, of_job, RANKS_WAIT_S)
    missing, summary = missing_shards(setup), None
    if not missing and _speaks():
        with open_locked() as run_dir:
            context = StageContext(run_dir, reporter, config.seed, config.device)
            summary = synthesize(prompts, teacher, config.synthesis, context).summary
    return {
        "run": str(output),
        "num_shards": config.synthesis.num_shards,
        "num_shards_missing": len(missing),
        "surrogates": summary,
    }


def _prepare_rank(device: str, num_threads: int | None) -> None:
    """Settle this process, also where torchrun started it.

    The number of threads changes the order of some sums; torchrun's default of one thread a process
    would give other last bits than a process alone, so every process takes all cores.
    """
    if _is_of_torchrun():
        num_threads = num_threads or len(os.sched_getaffinity(0))
    prepare_process(device, num_threads)
    if device == "cuda":
        import torch

        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
