"""check.pyz on real arm64 code: Debian's Python and numpy, and onnxruntime's wheel, under qemu."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dfkd_edge.runtime.bundle_files import Bundle

NEEDED = ("qemu-aarch64-static", "apt-get", "dpkg-deb")
MISSING = [name for name in NEEDED if shutil.which(name) is None]
PREPARE = Path(__file__).with_name("prepare_aarch64.sh")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}"),
]


@pytest.fixture(scope="session")
def arm_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Download and lay out an arm64 Python; its `python` runs under qemu."""
    folder = tmp_path_factory.mktemp("aarch64")
    command = ["bash", str(PREPARE), str(folder), sys.executable]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, (done.stdout + done.stderr)[-2000:]
    return folder / "python"


def run_check(python: Path | str, bundle: Bundle, data: Path) -> dict[str, Any]:
    output = bundle.folder.parent / f"{Path(python).parent.name}.json"
    command = [str(python), str(bundle.folder / "check.pyz"), "--precision", "all"]
    command += ["--backend", "onnxruntime", "--threads", "1", "--duration", "0.2"]
    command += ["--data", str(data), "--output", str(output)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, (done.stdout + done.stderr)[-2000:]
    document: dict[str, Any] = json.loads(output.read_text(encoding="utf-8"))
    return document


def test_arm64_gives_what_the_host_gives_and_finds_a_cut_file(
    arm_python: Path, tiny_bundle: Bundle, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    for number, name in enumerate(("dog", "great_dane", "house")):
        (data / name).mkdir(parents=True)
        Image.new("RGB", (50, 40), (90 * number, 30, 200)).save(data / name / "a.png")
    host = run_check(sys.executable, tiny_bundle, data)
    device = run_check(arm_python, tiny_bundle, data)
    assert (device["device"]["machine"], device["passed"]) == ("aarch64", True)
    assert device["preprocess"] == host["preprocess"]
    for precision, model in device["models"].items():
        assert model["version"] == "1.23.2"
        assert model["golden"]["relative"] < 0.01, precision
        assert model["golden"]["agreement"] == 1.0
        assert model["data"] == host["models"][precision]["data"]
        assert model["latency"]["num_iterations"] >= 20
    path = tiny_bundle.model_path("int8")
    path.write_bytes(path.read_bytes()[:-1])
    command = [str(arm_python), str(tiny_bundle.folder / "check.pyz")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert "differs from the manifest" in done.stderr
