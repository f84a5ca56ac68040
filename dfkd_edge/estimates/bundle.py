"""What `check` and `benchmark` of a bundle would measure, and how long; no model is run, no torch.

Pictures are read as the check reads them, so that what it refuses is refused here.
"""

from dataclasses import asdict
from pathlib import Path

from dfkd_edge.bundles.opening import held_precision
from dfkd_edge.bundles.origin import (
    calibrated_images,
    graphs,
    measured_again,
    read_origin,
    run_with_surrogates,
)
from dfkd_edge.errors import DfkdEdgeError, faults_as_errors
from dfkd_edge.estimates.estimate import DryRun, Estimate, StageEstimate
from dfkd_edge.interfaces import Reporter
from dfkd_edge.pictures.labelled import no_readable_picture, note_strangers, note_unreadable
from dfkd_edge.results.kept import read_ladder
from dfkd_edge.results.ladder import STUDENT, TEACHER
from dfkd_edge.results.wording import METRICS, UNITS, Metric, points_text
from dfkd_edge.runtime.bundle_files import VALIDATION, Bundle
from dfkd_edge.runtime.caveats import graph_notes
from dfkd_edge.runtime.counting import counted
from dfkd_edge.runtime.device import num_cores
from dfkd_edge.runtime.documents import read_json
from dfkd_edge.runtime.engine_session import why_no_tensorrt
from dfkd_edge.runtime.timing import TimingRequest
from dfkd_edge.validation.evaluation_images import (
    GOLDEN_DOMAIN,
    MORE,
    DomainPlan,
    EvaluationSet,
    labelled_pictures,
    plan_suite,
    refuse_leakage,
)
from dfkd_edge.validation.ladder import BATCH_SIZE


def dry_check(bundle: Bundle, data: str, max_drop: float | None, reporter: Reporter) -> DryRun:
    """Tell what `check_bundle` would do with the same arguments.

    Time is that of the models alone, by the latencies that export measured; `untimed` names the
    rungs without one.

    Raises:
        ArtifactError: the bundle does not say where it comes from.
        ConfigError: `data` cannot be used, or holds pictures that the bundle was calibrated on.
    """
    limit = read_origin(bundle).config.max_drop if max_drop is None else max_drop
    domains, images = _images(bundle, data, reporter)
    rungs = [TEACHER, STUDENT, *(f"onnx-{model.precision}" for model in graphs(bundle))]
    if graph_notes(bundle.precision, bundle.manifest.models):
        rungs.append("onnx-fp16")  # a cast, which is no file of the bundle
    if bundle.manifest.backend == "tensorrt" and not why_no_tensorrt():
        rungs.append("engine")
    num, is_suite = sum(d.num_images for d in domains), any(d.corruptions for d in domains)
    again = MORE if is_suite and not measured_again(bundle) else 0
    metric: Metric = "top1" if data else "agreement"
    proof = read_ladder(bundle.folder / VALIDATION)
    timed_ms = {r.name: r.latency_ms for r in proof.rungs if r.latency_ms} if proof else {}
    machine = proof.environment.get("cpu", "") if proof else ""
    untimed = [name for name in rungs if name not in timed_ms]
    # None where no rung has a time
    seconds = num * sum(timed_ms.get(name, 0) for name in rungs) / 1e3 or None
    without = f", without {', '.join(untimed)}" if untimed else ""
    ladder = StageEstimate("ladder", f"{num} images through {len(rungs)} models", seconds)
    shown = counted(num, "view" if is_suite else UNITS[metric])
    more = f"; a larger loss within noise gets {again} times as many more" if again else ""
    allowed = f"{METRICS[metric]} may fall by {points_text(limit)} on the worst domain"
    return DryRun(
        {
            "bundle": str(bundle.folder),
            "target": bundle.manifest.target,
            "rungs": rungs,
            "measure": metric,
            "images": images,
            "domains": [asdict(domain) for domain in domains],
            "num_images": num,
            "more_if_unclear": again,
            "max_drop": limit,
            "seconds": seconds,
            "timed_on": machine,
            "untimed": untimed,
        },
        [
            f"{bundle.folder} for {bundle.manifest.target}; nothing was run",
            f"models    {', '.join(rungs)}",
            f"images    {images}",
            *(
                f"          {domain.name}: {domain.num_images}"
                + f", corrupted by {', '.join(domain.corruptions)}" * bool(domain.corruptions)
                for domain in domains
            ),
            f"how       every model sees each of {shown} once{more}",
            f"gate      {f'off (limit {points_text(1)})' if limit >= 1 else allowed}",
        ],
        Estimate(
            (ladder,), f"latencies that export measured on {machine or 'no machine'}{without}"
        ),
    )


def _images(bundle: Bundle, data: str, reporter: Reporter) -> tuple[tuple[DomainPlan, ...], str]:
    if data:
        pictures = labelled_pictures(Path(data), bundle.classes, (bundle.side_px,))
        note_strangers(Path(data), bundle.classes, reporter)
        domains = _readable(pictures, calibrated_images(bundle), bundle.side_px, reporter)
        return domains, pictures.description
    try:
        run = run_with_surrogates(bundle)
        num = int(read_json(run / "surrogates" / "surrogates.json")["num_heldout"])
    except (DfkdEdgeError, OSError) as error:
        with faults_as_errors():
            num = len(bundle.golden()["images"])
        reason = f"those of the run that made the bundle are not here ({error})"
        return (DomainPlan(GOLDEN_DOMAIN, num),), f"golden images alone, for {reason}"
    suite = plan_suite(num, measured_again(bundle))
    return suite, f"{counted(num, 'held-out surrogate image')} of {run}"


def _readable(
    pictures: EvaluationSet, calibrated: frozenset[str], side_px: int, reporter: Reporter
) -> tuple[DomainPlan, ...]:
    """Read every picture once, to count those that a check would measure on.

    Raises:
        ConfigError: one has set activation ranges, or no picture of a domain can be read.
    """
    domains, unreadable = [], list[Path]()
    with reporter.stage("reading pictures", pictures.num_images) as progress:
        for source in pictures.sources:
            num_images = 0
            for batch in source.batches(BATCH_SIZE, unreadable):
                refuse_leakage(batch.at(side_px), calibrated, source.name)
                num_images += len(batch.labels)
                progress.advance(len(batch.labels), source.name)
            if not num_images:
                raise no_readable_picture(source.name, unreadable)
            domains.append(DomainPlan(source.name, num_images))
    note_unreadable(unreadable, reporter)
    return tuple(domains)


def dry_benchmark(
    bundle: Bundle, precision: str | None, request: TimingRequest, threads: int
) -> DryRun:
    """Tell what `benchmark_bundle` would time with the same arguments.

    Raises:
        UsageError: the bundle holds no such model.
    """
    names = [held_precision(bundle, precision)] if precision else list(bundle.manifest.models)
    sizes = {name: bundle.model_path(name).stat().st_size for name in names}
    num_golden, used = len(bundle.golden()["images"]), threads or num_cores()
    notes = graph_notes(bundle.precision, bundle.manifest.models)
    model_s = request.warmup_ms / 1e3 + request.duration_s
    warmup = f"{num_golden} golden images, {request.warmup_ms:g} ms of warm-up"
    stages = []
    for name, size in sizes.items():
        work = f"{size / (1 << 20):.2f} MiB, {warmup}, {request.duration_s:g} s of timing"
        stages.append(StageEstimate(name, work, model_s))
    return DryRun(
        {
            "bundle": str(bundle.folder),
            "target": bundle.manifest.target,
            "models": [{"precision": name, "size_bytes": size} for name, size in sizes.items()],
            "num_golden": num_golden,
            "threads": used,
            "batch": bundle.batch[0],
            **asdict(request),
            "notes": notes,
            "min_seconds": len(names) * model_s,
        },
        [
            f"{bundle.folder} for {bundle.manifest.target}; nothing was run",
            f"how       {counted(used, 'thread')}, batch {bundle.batch[0]}",
            *(f"note      {note}" for note in notes),
        ],
        Estimate(tuple(stages), "what was asked; a process starts for each model on top"),
    )
