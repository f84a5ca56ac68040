from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

RunCheck = Callable[..., tuple[int, str, dict[str, Any]]]


def _run_check(bundle: Path, *arguments: str) -> tuple[int, str, dict[str, Any]]:
    """Run check.pyz in its own process, away from the sources; returns code, errors, result."""
    short = [] if "--duration" in arguments else ["--duration", "0"]
    done = subprocess.run(
        [sys.executable, "-I", str(bundle / "check.pyz"), *short, *arguments],
        capture_output=True,
        text=True,
        cwd=bundle.parent,
    )
    path = bundle / "result.json"
    result = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return done.returncode, done.stderr, result


@pytest.fixture
def run_check() -> RunCheck:
    """Return what runs check.pyz of a bundle: with arguments, to code, errors and result."""
    return _run_check
