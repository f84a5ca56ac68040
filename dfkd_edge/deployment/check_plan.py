"""What a check would measure: rungs, domains, images, an estimate of the time; needs no torch."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from dfkd_edge.deployment.bundle import Bundle
from dfkd_edge.deployment.origin import graphs, read_origin, run_of
from dfkd_edge.errors import DfkdEdgeError
from dfkd_edge.run_dir import require_stages
from dfkd_edge.runtime.bundle_files import read_json
from dfkd_edge.runtime.counting import counted
from dfkd_edge.runtime.engine_session import why_no_tensorrt
from dfkd_edge.runtime.faults import Fault
from dfkd_edge.runtime_faults import faults_as_errors
from dfkd_edge.validation.evaluation_images import GOLDEN_DOMAIN, MORE, DomainPlan, plan_suite
from dfkd_edge.validation.image_folders import describe_folders, find_domains
from dfkd_edge.validation.ladder import STUDENT, TEACHER


def plan_check(bundle: Bundle, data: str, max_drop: float | None) -> dict[str, Any]:
    """Tell what `check_bundle` would do with the same arguments; nothing is run.

    Returns:
        The document of `check --dry-run --json`. `seconds` is the time of the models alone, by the
        latencies that export measured; None where there are none. `untimed` names rungs without.

    Raises:
        ArtifactError: the bundle does not say where it comes from.
        ConfigError: `data` cannot be used.
    """
    config = read_origin(bundle).config
    domains, images = _images(bundle, data)
    rungs = [TEACHER, STUDENT, *(f"onnx-{model.precision}" for model in graphs(bundle))]
    if bundle.manifest.get("backend") == "tensorrt" and not why_no_tensorrt():
        rungs.append("engine")
    num_images = sum(domain.num_images for domain in domains)
    is_suite = any(domain.corruptions for domain in domains)
    latencies_ms, machine = _latencies(bundle)
    timed = [latencies_ms[name] for name in rungs if name in latencies_ms]
    return {
        "bundle": str(bundle.folder),
        "target": bundle.manifest["target"],
        "rungs": rungs,
        "measure": "top1" if data else "agreement",
        "images": images,
        "domains": [dataclasses.asdict(domain) for domain in domains],
        "num_images": num_images,
        "more_if_unclear": MORE if is_suite else 0,
        "max_drop": config.max_drop if max_drop is None else max_drop,
        "seconds": num_images * sum(timed) / 1e3 if timed else None,
        "timed_on": machine,
        "untimed": [name for name in rungs if name not in latencies_ms],
    }


def _images(bundle: Bundle, data: str) -> tuple[tuple[DomainPlan, ...], str]:
    if data:
        root = Path(data)
        found = find_domains(root, bundle.classes)
        planned = tuple(DomainPlan(domain.name, len(domain.files)) for domain in found)
        return planned, f"labelled pictures of {root}: {describe_folders(root, bundle.classes)}"
    try:
        run = run_of(bundle)
        require_stages(run, {"surrogates", "student"})
        num = int(read_json(run / "surrogates" / "surrogates.json")["num_heldout"])
    except (DfkdEdgeError, Fault, OSError, KeyError) as error:
        with faults_as_errors():
            num = len(bundle.golden()["images"])
        reason = f"golden images alone, for the run that made the bundle is not here ({error})"
        return (DomainPlan(GOLDEN_DOMAIN, num),), reason
    return plan_suite(num), f"{counted(num, 'held-out surrogate image')} of {run}"


def _latencies(bundle: Bundle) -> tuple[dict[str, float], str]:
    """What export timed, by rung, and on which processor."""
    path = bundle.folder / "validation.json"
    if not path.is_file():
        return {}, ""
    with faults_as_errors():
        document = read_json(path)
    timed = {rung["name"]: rung["latency_ms"] for rung in document["rungs"] if rung["latency_ms"]}
    return timed, str(document["environment"].get("cpu", ""))
