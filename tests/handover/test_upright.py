"""Programs for runtimes turn a photograph upright as its EXIF orientation says, before anything."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dfkd_edge.runtime.bundle_files import Bundle
from dfkd_edge.runtime.session import open_graph
from tests.handover import stand_ins
from tests.handover.test_programs import triton_of

Program = Callable[[Path, Path, pytest.MonkeyPatch, pytest.CaptureFixture[str]], str]
ORIENTATION, TURNED_RIGHT = 0x0112, 6  # EXIF: to be shown turned by 90 degrees clockwise


def onnxruntime(folder: Path, picture: Path, _: object, __: object) -> str:
    """Run the program as it is."""
    command = [sys.executable, str(folder / "classify.py"), str(picture)]
    ran = subprocess.run(command, capture_output=True, text=True, check=True, cwd=picture.parent)
    return ran.stdout.partition(": ")[2]


def triton(
    folder: Path, picture: Path, patch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> str:
    """Run the client against a server of Triton's protocol."""
    with triton_of(folder / "student/1/model.onnx") as address:
        patch.setenv("TRITON", address)
        patch.setattr(sys, "argv", ["classify.py", str(picture)])
        stand_ins.load(folder / "classify.py")
    return capsys.readouterr().out.partition(": ")[2]


def holoscan(
    folder: Path, picture: Path, patch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> str:
    """Run first and last operator of the application; what lies between is a device's."""
    pytest.importorskip("yaml")
    for name, module in stand_ins.modules().items():
        patch.setitem(sys.modules, name, module)
    application = stand_ins.load(folder / "classify.py").Classifier(str(picture))
    application.config(str(folder / "app.yaml"))
    application.compose()
    (source, converter, _), (_, inference, _), (_, answer, _) = application.flows
    sent: dict[str, Any] = {}
    source.compute(None, SimpleNamespace(emit=lambda value, port: sent.update(value)), None)
    size = tuple(converter.parameters[f"resize_{side}"] for side in ("width", "height"))
    image = np.asarray(Image.fromarray(sent[""]).resize(size))
    session = open_graph(str(folder / "model.onnx"), 1, in_float=True)
    (values,) = session.run(None, {"image": image[None]})
    outputs = {inference.parameters["inference_map"]["student"][0]: values}
    answer.compute(SimpleNamespace(receive=lambda port: outputs), None, None)
    return capsys.readouterr().out


@pytest.mark.parametrize("program", [onnxruntime, triton, holoscan])
def test_a_photograph_that_was_taken_on_its_side_is_answered_as_the_upright_one(
    program: Program,
    jetson_bundle: Bundle,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = jetson_bundle.folder / "runtimes" / program.__name__
    upright = Image.open(folder / "golden" / "picture.png").convert("RGB")
    turned = upright.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[ORIENTATION] = TURNED_RIGHT
    turned.save(tmp_path / "tagged.png", exif=exif)
    turned.save(tmp_path / "turned.png")
    upright.save(tmp_path / "upright.png")
    tagged, untagged, wanted = (
        program(folder, tmp_path / f"{name}.png", monkeypatch, capsys)
        for name in ("tagged", "turned", "upright")
    )
    assert tagged == wanted
    assert tagged != untagged
