"""What INT8 costs: FP32 against INT8 of one or more runs, with time and memory of `export`.

python tests/benchmarks/export_seeds.py RUN ... --data DIR [--target NAME] [--more FLAGS ...]

Each run is exported anew into a temporary folder (measured: seconds, CPU seconds and peak memory;
beside them what `--dry-run` estimated), then its bundle is checked on the labelled pictures.
Agreement is that of INT8 with FP32.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from measuring import labelled, measured, spread

PROGRAM = [sys.executable, "-m", "dfkd_edge"]


def called(arguments: list[str]) -> tuple[dict[str, Any], dict[str, float]]:
    """Run one command; returns its document, and what its process took."""
    taken = measured([*PROGRAM, *arguments], (0, 3))  # 3: the gate failed, the figures are there
    return json.loads(taken.text), {
        "seconds of export": taken.seconds,
        "CPU seconds": taken.cpu_seconds,
        "peak memory, GiB": taken.peak_gib,
    }


def estimated(arguments: list[str], is_repaired: bool) -> dict[str, float]:
    """What the dry run of an export says beforehand; at most so much where it is repaired."""
    estimate = called([*arguments, "--dry-run"])[0]["estimate"]
    memory = "repair_memory_gib" if is_repaired else "memory_gib"
    return {
        "seconds, estimated": estimate["seconds"] + is_repaired * estimate["repair_seconds"],
        "peak memory, estimated": estimate[memory],
    }


def agreement_with_fp32(bundle: Path, data: Path) -> float:
    """Share of the pictures on which INT8 and FP32 name the same class."""
    from dfkd_edge.artifacts import ModelFile
    from dfkd_edge.bundles.opening import open_bundle
    from dfkd_edge.validation.rungs import open_runner

    opened = open_bundle(bundle)
    runners = [
        open_runner(ModelFile(opened.model_path(p), "onnx", p, {}), 0)  # type: ignore[arg-type]
        for p in ("fp32", opened.precision)
    ]
    same = list[bool]()
    for _, images, _ in labelled(data, opened.classes, opened.side_px):
        first, second = (runner(images).logits.argmax(1) for runner in runners)
        same.extend(first == second)
    return sum(same) / len(same)


def measure_run(run: str, args: argparse.Namespace) -> dict[str, float]:
    """Export and check one run, and print its line."""
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder) / "bundle"
        export = ["export", run, "--target", args.target, "-o", str(bundle), "--json", *args.more]
        _, took = called(export)
        document, _ = called(["check", str(bundle), "--data", args.data, "--json", "-q"])
        manifest = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
        agreement = agreement_with_fp32(bundle, Path(args.data))
    is_repaired = manifest["provenance"]["rescue"] is not None
    rungs = {rung["name"]: rung for rung in document["rungs"]}
    before, after = rungs["onnx-fp32"], document["rungs"][-1]
    drops = {
        name: figures["top1"] - after["domains"][name]["top1"]
        for name, figures in before["domains"].items()
    }
    print(f"{run}: {after['name']}, {document['gate']['sentence']}")
    for name, drop in drops.items():
        pair = before["domains"][name]["top1"], after["domains"][name]["top1"]
        print(f"  {name}: FP32 {pair[0]:.4f}, now {pair[1]:.4f}, drop {drop * 100:+.2f} points")
    times = (f"{t:.2f}" if t else "-" for t in (before["latency_ms"], after["latency_ms"]))
    print(f"  ms of one image here: {' -> '.join(times)}")
    return {
        "mean drop, points": 100 * (before["mean_top1"] - after["mean_top1"]),
        "worst drop, points": 100 * max(drops.values()),
        "agreement with FP32": agreement,
        "file, share of FP32": after["size_bytes"] / before["size_bytes"],
        **took,
        **estimated(export, is_repaired),
    }


def main() -> None:
    """Print one block a run and the spread."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+")
    parser.add_argument("--data", required=True)
    parser.add_argument("--target", default="jetson")
    parser.add_argument("--more", nargs=argparse.REMAINDER, default=[])
    args = parser.parse_args()
    figures = [measure_run(run, args) for run in args.runs]
    for key in figures[0]:
        print(f"{key:22} {spread([figure[key] for figure in figures])}")


if __name__ == "__main__":
    main()
