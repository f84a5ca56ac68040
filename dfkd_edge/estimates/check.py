"""What a check would measure: rungs, domains, images, an estimate of the time; needs no torch.

Images are read as the check reads them, so that what it refuses is refused here; no model is run.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from dfkd_edge.bundles.origin import (
    calibrated_images,
    graphs,
    measured_again,
    read_origin,
    run_with_surrogates,
)
from dfkd_edge.errors import DfkdEdgeError, faults_as_errors
from dfkd_edge.interfaces import Reporter
from dfkd_edge.pictures.labelled import no_readable_picture, note_strangers, note_unreadable
from dfkd_edge.results.ladder import STUDENT, TEACHER
from dfkd_edge.runtime.bundle_files import VALIDATION, Bundle, read_json
from dfkd_edge.runtime.caveats import graph_notes
from dfkd_edge.runtime.counting import counted
from dfkd_edge.runtime.engine_session import why_no_tensorrt
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


def plan_check(
    bundle: Bundle, data: str, max_drop: float | None, reporter: Reporter
) -> dict[str, Any]:
    """Tell what `check_bundle` would do with the same arguments; nothing is run.

    Returns:
        The document of `check --dry-run --json`. `seconds` is the time of the models alone, by the
        latencies that export measured; None where there are none. `untimed` names rungs without.

    Raises:
        ArtifactError: the bundle does not say where it comes from.
        ConfigError: `data` cannot be used, or holds pictures that the bundle was calibrated on.
    """
    origin = read_origin(bundle)
    domains, images = _images(bundle, data, reporter)
    rungs = [TEACHER, STUDENT, *(f"onnx-{model.precision}" for model in graphs(bundle))]
    if graph_notes(bundle.precision, bundle.manifest.models):
        rungs.append("onnx-fp16")  # a cast, which is no file of the bundle
    if bundle.manifest.backend == "tensorrt" and not why_no_tensorrt():
        rungs.append("engine")
    num_images = sum(domain.num_images for domain in domains)
    is_suite = any(domain.corruptions for domain in domains)
    looks_again = is_suite and not measured_again(bundle)
    latencies_ms, machine = _latencies(bundle)
    timed = [latencies_ms[name] for name in rungs if name in latencies_ms]
    return {
        "bundle": str(bundle.folder),
        "target": bundle.manifest.target,
        "rungs": rungs,
        "measure": "top1" if data else "agreement",
        "images": images,
        "domains": [dataclasses.asdict(domain) for domain in domains],
        "num_images": num_images,
        "more_if_unclear": MORE if looks_again else 0,
        "max_drop": origin.config.max_drop if max_drop is None else max_drop,
        "seconds": num_images * sum(timed) / 1e3 if timed else None,
        "timed_on": machine,
        "untimed": [name for name in rungs if name not in latencies_ms],
    }


def _images(bundle: Bundle, data: str, reporter: Reporter) -> tuple[tuple[DomainPlan, ...], str]:
    if data:
        pictures = labelled_pictures(Path(data), bundle.classes, (bundle.side_px,))
        note_strangers(Path(data), bundle.classes, reporter)
        return _readable(pictures, calibrated_images(bundle), bundle.side_px, reporter), (
            pictures.description
        )
    try:
        run = run_with_surrogates(bundle)
        num = int(read_json(run / "surrogates" / "surrogates.json")["num_heldout"])
    except (DfkdEdgeError, OSError) as error:
        with faults_as_errors():
            num = len(bundle.golden()["images"])
        reason = (
            f"golden images alone, for those of the run that made the bundle are not here ({error})"
        )
        return (DomainPlan(GOLDEN_DOMAIN, num),), reason
    return plan_suite(
        num, measured_again(bundle)
    ), f"{counted(num, 'held-out surrogate image')} of {run}"


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


def _latencies(bundle: Bundle) -> tuple[dict[str, float], str]:
    """What export timed, by rung, and on which processor."""
    path = bundle.folder / VALIDATION
    if not path.is_file():
        return {}, ""
    with faults_as_errors():
        document = read_json(path)
    timed = {rung["name"]: rung["latency_ms"] for rung in document["rungs"] if rung["latency_ms"]}
    return timed, str(document["environment"].get("cpu", ""))
