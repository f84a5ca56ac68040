"""Programs for runtimes read pictures as `predict` does: upright, over white, at their depth."""

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dfkd_edge.runtime.bundle_files import Bundle
from dfkd_edge.runtime.preprocess import read_picture
from dfkd_edge.runtime.session import open_graph
from tests.handover import stand_ins
from tests.handover.test_programs import triton_of

Program = Callable[
    [Path, Sequence[Path], pytest.MonkeyPatch, pytest.CaptureFixture[str]], list[str]
]
ORIENTATION, TURNED_RIGHT = 0x0112, 6  # EXIF: to be shown turned by 90 degrees clockwise


def onnxruntime(folder: Path, pictures: Sequence[Path], _: object, __: object) -> list[str]:
    """Run the program as it is."""
    command = [sys.executable, str(folder / "classify.py"), *map(str, pictures)]
    elsewhere = pictures[0].parent
    ran = subprocess.run(command, capture_output=True, text=True, check=True, cwd=elsewhere)
    return answers(ran.stdout)


def answers(printed: str) -> list[str]:
    """Take away the paths."""
    return [line.partition(": ")[2] for line in printed.splitlines()]


def triton(
    folder: Path,
    pictures: Sequence[Path],
    patch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> list[str]:
    """Run the client against a server of Triton's protocol."""
    with triton_of(folder / "student/1/model.onnx") as address:
        patch.setenv("TRITON", address)
        patch.setattr(sys, "path", [*sys.path])
        patch.setattr(sys, "argv", ["classify.py", *map(str, pictures)])
        stand_ins.load(folder / "classify.py")
    return answers(capsys.readouterr().out)


def through_holoscan(program: ModuleType, folder: Path, picture: Path, session: Any) -> None:
    """Run first and last operator on one picture."""
    application = program.Classifier(str(picture))
    application.config(str(folder / "app.yaml"))
    application.compose()
    (source, converter, _), (_, inference, _), (_, answer, _) = application.flows
    sent: dict[str, Any] = {}
    source.compute(None, SimpleNamespace(emit=lambda value, port: sent.update(value)), None)
    size = tuple(converter.parameters[f"resize_{side}"] for side in ("width", "height"))
    image = np.asarray(Image.fromarray(sent[""]).resize(size))
    (values,) = session.run(None, {"image": image[None]})
    outputs = {inference.parameters["inference_map"]["student"][0]: values}
    answer.compute(SimpleNamespace(receive=lambda port: outputs), None, None)


def holoscan(
    folder: Path,
    pictures: Sequence[Path],
    patch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> list[str]:
    """Run first and last operator of the application; what lies between is a device's."""
    pytest.importorskip("yaml")
    patch.setattr(sys, "path", [*sys.path])
    for name, module in stand_ins.modules().items():
        patch.setitem(sys.modules, name, module)
    program = stand_ins.load(folder / "classify.py")
    session = open_graph(str(folder / "model.onnx"), 1, in_float=True)
    for picture in pictures:
        through_holoscan(program, folder, picture, session)
    return capsys.readouterr().out.splitlines()


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
    pictures = [tmp_path / f"{name}.png" for name in ("tagged", "turned", "upright")]
    tagged, untagged, wanted = program(folder, pictures, monkeypatch, capsys)
    assert tagged == wanted
    assert tagged != untagged


@pytest.mark.parametrize("program", [onnxruntime, triton, holoscan])
def test_transparent_and_deep_pictures_are_answered_as_what_predict_makes_of_them(
    program: Program,
    jetson_bundle: Bundle,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """`predict` hands `read_picture` to the model, and so must they."""
    folder = jetson_bundle.folder / "runtimes" / program.__name__
    rgb = np.asarray(Image.open(folder / "golden" / "picture.png").convert("RGB"))
    height, width, _ = rgb.shape
    alpha = np.linspace(0, 255, width).astype(np.uint8)[None].repeat(height, 0)[..., None]
    Image.fromarray(np.concatenate([rgb, alpha], 2)).save(tmp_path / "clear.png")
    Image.fromarray(rgb[..., 0].astype(np.uint16) << 8).save(tmp_path / "deep.png")
    for name in ("clear", "deep"):
        read = read_picture(tmp_path / f"{name}.png", jetson_bundle.side_px)
        Image.fromarray(read).save(tmp_path / f"{name}.read.png")
    naive = Image.open(tmp_path / "clear.png").convert("RGB")  # as what lies below it
    naive.save(tmp_path / "naive.png")
    names = ("clear", "clear.read", "deep", "deep.read", "naive")
    pictures = [tmp_path / f"{name}.png" for name in names]
    clear, clear_read, deep, deep_read, without = program(folder, pictures, monkeypatch, capsys)
    assert (clear, deep) == (clear_read, deep_read)
    assert clear != without
