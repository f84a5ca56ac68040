import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dfkd_edge.runtime import check

RunCheck = Callable[..., tuple[int, str, dict[str, Any]]]


@pytest.fixture
def run_check(capsys: pytest.CaptureFixture[str]) -> RunCheck:
    """Return what runs the device check on a bundle: with arguments, to code, errors and result."""

    def run(bundle: Path, *arguments: str) -> tuple[int, str, dict[str, Any]]:
        untimed = [] if "--duration" in arguments else ["--duration", "0"]
        code = check.main(["--bundle", str(bundle), *untimed, *arguments])
        path = bundle / "result.json"
        result = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        return code, capsys.readouterr().err, result

    return run
