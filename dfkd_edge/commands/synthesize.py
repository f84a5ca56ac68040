"""The command `synthesize`: only the surrogate images, alone or as one of many processes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from typer import Context, Option, echo

from dfkd_edge.commands import options as opt
from dfkd_edge.console import ConsoleReporter, loading_libraries, make_console

if TYPE_CHECKING:
    from dfkd_edge.pipeline import SynthesizeResult


def synthesize(
    context: Context,
    classes: opt.Classes = None,
    output: opt.RunOutput = None,
    shard: Annotated[
        opt.Text, Option(help="Share of a batch system's job, such as 3/8: the third of eight.")
    ] = None,
    data: opt.Labelled = None,
    baseline: opt.Baseline = None,
    images: opt.Images = None,
    preset: opt.Preset = None,
    teacher: opt.Teacher = None,
    pretrained: opt.Pretrained = None,
    student: opt.Student = None,
    student_init: opt.StudentInit = None,
    prompts: opt.Prompts = None,
    num_styles: opt.NumStyles = None,
    synthesis: opt.Synthesis = None,
    imgsz: opt.ImageSize = None,
    steps: opt.Steps = None,
    batch_size: opt.BatchSize = None,
    workers: opt.Workers = None,
    device: opt.Device = None,
    seed: opt.Seed = None,
    save_images: Annotated[
        opt.File, Option(help="Save the images here too, as lossless WebP for other programs.")
    ] = None,
    save_format: Annotated[
        opt.Text,
        Option(help="folder (CLASS/*.webp, metadata.parquet) or webdataset (default: folder)."),
    ] = None,
    exist_ok: opt.RedoRun = False,
    config: opt.ConfigFile = None,
    set_: opt.Set = None,
    as_json: opt.AsJson = False,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
) -> None:
    """Make the surrogate images of a run, or a share of them; `distill` goes on from there.

    Give it the flags of that distill: those of the student make no image, but name the run. The
    processes of torchrun split the work among them.
    """
    from dfkd_edge.machine.joining import joined
    from dfkd_edge.machine.process import prepare_process
    from dfkd_edge.preflight import DistillRequest, plan_synthesize, require_agreement
    from dfkd_edge.runs.surrogates import work_share
    from dfkd_edge.synthesis.saving import plan_saving

    settings = opt.given_settings(context)
    with joined() as ranks:
        plan = plan_synthesize(
            DistillRequest(config_path=config, settings=settings, output=output, exist_ok=exist_ok)
        )
        share = work_share(shard)
        saving = plan_saving(save_images, save_format, plan.output, plan.key)
        require_agreement(plan, ranks)
        console = make_console(quiet or not ranks.is_first)
        with loading_libraries(console):
            prepare_process(plan.config.device, workers, ranks)
            from dfkd_edge import pipeline
        result = pipeline.synthesize(plan, share, ConsoleReporter(console), ranks, saving)
        if ranks.is_first and as_json:
            opt.print_json(document(result))
        elif ranks.is_first:
            echo(outcome(result))


def document(result: SynthesizeResult) -> dict[str, object]:
    """Return the document of `synthesize --json`."""
    return {
        "run": str(result.run_dir),
        "num_shards": result.num_shards,
        "num_shards_missing": result.num_shards_missing,
        "surrogates": result.summary and result.summary.to_json(),
        "saved": result.saved and str(result.saved.folder),
    }


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
    kept += f", saved in {result.saved.folder}" if result.saved else ""
    return f"{kept}; dfkd-edge distill with the same flags goes on from there"
