from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dfkd_edge.deployment.bundle import Bundle


def run_check(bundle: Path, *arguments: str) -> tuple[int, str, dict[str, Any]]:
    """Run check.pyz in its own process, away from the sources; returns code, errors, result."""
    short = [] if "--duration" in arguments else ["--duration", "0"]
    done = subprocess.run(
        [sys.executable, str(bundle / "check.pyz"), *short, *arguments],
        capture_output=True,
        text=True,
        cwd=bundle.parent,
    )
    path = bundle / "result.json"
    result = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return done.returncode, done.stderr, result


def test_a_good_bundle_passes(tiny_bundle: Bundle) -> None:
    code, errors, result = run_check(tiny_bundle.folder, "--precision", "all", "--duration", "0.1")
    assert (code, errors) == (0, "")
    assert result["passed"]
    for precision in ("fp32", "int8"):
        model = result["models"][precision]
        assert model["golden"]["agreement"] == 1.0
        assert model["latency"]["percentile_ms"]["p50"] <= model["latency"]["percentile_ms"]["p99"]
