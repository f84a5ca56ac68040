"""Time, memory and accuracy of `dfkd-edge distill` over seeds.

python tests/benchmarks/distill_seeds.py --classes LIST --data DIR --seeds 0 1 2 [-- more flags]
"""

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from measuring import labelled, measured, spread


def run_once(arguments: list[str], output: Path) -> dict[str, Any]:
    """Run `distill`; returns its document with its plan, seconds and peak memory added."""
    command = [sys.executable, "-m", "dfkd_edge", "distill", "-o", str(output), "--json"]
    command += arguments
    plan = json.loads(measured([*command, "--dry-run"]).text)["plan"]
    taken = measured(command)
    document: dict[str, Any] = json.loads(taken.text)
    return {**document, "plan": plan, "seconds": taken.seconds, "peak_gib": taken.peak_gib}


def real_distances(classes: Path, data: Path) -> dict[str, float]:
    """Distance within a class of the labelled pictures, by domain, to compare surrogates with."""
    import torch

    from dfkd_edge.class_names import read_class_names
    from dfkd_edge.config.settings import TeacherConfig
    from dfkd_edge.networks.teacher import load_teacher
    from dfkd_edge.runs.row_stores import ArrayRows
    from dfkd_edge.runs.surrogates import mean_distance_within_class

    names = read_class_names(classes)
    teacher = load_teacher(TeacherConfig(), names)
    found = {}
    for domain, images, labels in labelled(data, names.names, teacher.image_size_px):
        image_NCHW = torch.from_numpy(images).permute(0, 3, 1, 2) / 255
        with torch.inference_mode():
            embeddings = ArrayRows(teacher.embed_images(image_NCHW).numpy())
        found[domain] = mean_distance_within_class(embeddings, labels)
    return found


def main() -> None:
    """Print one line a seed and the spread."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--classes", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("more", nargs="*")
    args = parser.parse_args()
    documents = []
    for seed in args.seeds:
        with tempfile.TemporaryDirectory() as folder:
            arguments = ["--classes", args.classes, "--data", args.data, "--seed", str(seed)]
            documents.append(run_once([*arguments, *args.more], Path(folder) / "run"))
        rungs = {rung["name"]: rung for rung in documents[-1]["rungs"]}
        top1 = {name: round(rung["mean_top1"], 4) for name, rung in rungs.items()}
        print(f"seed {seed}: mean top-1 {top1}, {documents[-1]['seconds']:.0f} s", flush=True)
        for domain, figures in rungs["student"]["domains"].items():
            print(f"  {domain}: {figures}", flush=True)

    agreement = [
        statistics.mean(
            f["agreement"] for n, f in d["rungs"][2]["domains"].items() if "surrogate" not in n
        )
        for d in documents
    ]
    distance = [d["surrogates"]["mean_distance_within_class"] for d in documents]
    for name, real in real_distances(Path(args.classes), Path(args.data)).items():
        print(f"distance within a class of real pictures, {name}: {real:.3f}")
    rows = {
        "teacher mean top-1": [d["rungs"][0]["mean_top1"] for d in documents],
        "start weights mean top-1": [d["rungs"][1]["mean_top1"] for d in documents],
        "student mean top-1": [d["rungs"][2]["mean_top1"] for d in documents],
        "retention": [d["retention"] for d in documents],
        "agreement on data": agreement,
        "distance within a class": distance,
        "seconds": [d["seconds"] for d in documents],
        "  of the plan's": [d["seconds"] / d["plan"]["seconds"] for d in documents],
        "peak memory, GiB": [d["peak_gib"] for d in documents],
        "  the plan's": [d["plan"]["memory_gib"] for d in documents],
    }
    for name, values in rows.items():
        print(f"{name:24} {spread(values)}")


if __name__ == "__main__":
    main()
