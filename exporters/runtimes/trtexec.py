"""trtexec: builds the engine, runs the golden picture through it and compares the answer.

trtexec alone prints PASSED for a wrong engine too; the outputs that it exports tell.
"""

import shlex
from collections.abc import Mapping

from dfkd_edge.bundles.recipe import FIND_TRTEXEC, EngineBuild, build_arguments
from dfkd_edge.handover.request import Handover
from dfkd_edge.handover.wording import readme

HERE = "runtimes/trtexec"
COMPARE = '''"""Compares what trtexec exported with the golden answer; needs Python alone."""

import json
import sys
from pathlib import Path

here = Path(__file__).parent
answer = json.loads((here / "golden" / "answer.json").read_text(encoding="utf-8"))["answer"]
outputs = json.loads((here / "output.json").read_text(encoding="utf-8"))
logits = next(item["values"] for item in outputs if item["name"] == "logits")
logits = logits[: len(answer["logits"])]
found = max(range(len(logits)), key=logits.__getitem__)
off = max(abs(one - other) for one, other in zip(logits, answer["logits"]))
print("class %d, golden %d; logits differ by at most %.3f" % (found, answer["index"], off))
sys.exit(found != answer["index"])
'''


def write(job: Handover) -> Mapping[str, str]:
    """Write the script, what compares, and the README."""
    note = "It leaves with 1 where the engine names another class than the bundle's own graph does."
    commands = "sh run.sh"
    return {
        "run.sh": _script(job),
        "compare.py": COMPARE,
        "labels.txt": "".join(f"{name}\n" for name in job.classes),
        "README.md": readme(
            job, commands, [note, "`TRTEXEC` names another trtexec, `PYTHON` another Python."]
        ),
    }


def _script(job: Handover) -> str:
    build = EngineBuild(
        target=job.target,
        precision=job.precision,
        batch=tuple(dict.fromkeys(job.batch)),
        image_size_px=job.side_px,
        content=job.content,
    )
    run = [
        f"--loadEngine={build.engine}",
        f"--loadInputs=image:{HERE}/golden/input.bin",
        f"--exportOutput={HERE}/output.json",
        *(("--shapes=" + build.shape(job.batch[0]),) if job.is_dynamic else ()),
        *(("--useDLACore=0",) if job.target.use_dla else ()),
        *("--iterations=1", "--warmUp=0", "--duration=0"),
    ]
    return f"""#!/bin/sh
# Builds {build.engine} with TensorRT {job.version} and runs the golden picture through it.
set -eu
cd "$(dirname "$0")/../.."
{FIND_TRTEXEC}
"$trtexec" {shlex.join(build_arguments(build))}
"$trtexec" {shlex.join(run)}
"${{PYTHON:-python3}}" {HERE}/compare.py
"""
