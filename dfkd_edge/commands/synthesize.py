"""The command `synthesize`: only the surrogate images, alone or as one of many processes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from dfkd_edge.commands.options import (
    AsJson,
    Classes,
    ConfigFile,
    Device,
    Number,
    Quiet,
    RedoRun,
    RunOutput,
    RunSet,
    Synthesis,
    Text,
    Verbose,
    Workers,
)

if TYPE_CHECKING:
    from dfkd_edge.pipeline import SynthesizeResult


def synthesize(
    classes: Classes = None,
    output: RunOutput = None,
    shard: Annotated[
        Text, typer.Option(help="Share of a batch system's job, such as 3/8: the third of eight.")
    ] = None,
    teacher: Annotated[Text, typer.Option(help="As for distill (default: mini).")] = None,
    pretrained: Annotated[Text, typer.Option(help="As for distill.")] = None,
    prompts: Annotated[Text, typer.Option(help="As for distill.")] = None,
    synthesis: Synthesis = None,
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
    from dfkd_edge.config.file import settings_of
    from dfkd_edge.console import ConsoleReporter, loading_libraries, make_console
    from dfkd_edge.machine.process import prepare_process, rank, speaks
    from dfkd_edge.preflight import DistillRequest, plan_synthesize
    from dfkd_edge.runs.shares import work_share

    settings = settings_of(set_ or (), flags)
    plan = plan_synthesize(
        DistillRequest(config_path=config, settings=settings, output=output, exist_ok=exist_ok)
    )
    share = work_share(shard)
    console = make_console(quiet or rank() > 0)
    with loading_libraries(console):
        prepare_process(plan.config.device, workers)
        from dfkd_edge import pipeline
    result = pipeline.synthesize(plan, share, ConsoleReporter(console))
    if speaks():
        typer.echo(document(result) if as_json else outcome(result))


def document(result: SynthesizeResult) -> str:
    """Write the result as one JSON document."""
    facts = {
        "run": str(result.run_dir),
        "num_shards": result.num_shards,
        "num_shards_missing": result.num_shards_missing,
        "surrogates": result.summary and result.summary.to_json(),
    }
    return json.dumps(facts, ensure_ascii=False)


def outcome(result: SynthesizeResult) -> str:
    """Say in words how far the images are."""
    run, summary = result.run_dir, result.summary
    if summary is None:
        made = result.num_shards - result.num_shards_missing
        return f"{made} of {result.num_shards} shards are in {run}; other jobs make the rest"
    from dfkd_edge.results.kept import unrecognised_text

    told = unrecognised_text(summary)
    kept = f"{summary.num_images:,} of {summary.num_candidates:,} images kept in {run}"
    kept += told and f" ({told})"
    return f"{kept}; dfkd-edge distill with the same flags goes on from there"
