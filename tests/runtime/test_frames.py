"""What pipelines hand over: each usual mistake is named with the key that mends it."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from dfkd_edge.bundles.bundle import BundleContents, write_bundle
from dfkd_edge.handover.lookup import list_runtimes, load_runtime
from dfkd_edge.handover.request import as_handed
from dfkd_edge.runtime import check, preprocess
from dfkd_edge.target_profiles.lookup import load_target
from tests.conftest import TINY_SIDE_PX
from tests.fixtures.command import call

Array = NDArray[Any]
Judge = Callable[..., tuple[int, str, dict[str, Any]]]
CARD = preprocess.test_card(TINY_SIDE_PX)
SEEN = preprocess.resized(Image.fromarray(CARD), TINY_SIDE_PX)
SQUARE = (TINY_SIDE_PX, TINY_SIDE_PX)
MEAN, DEVIATION = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
RUNTIMES = ("deepstream", "jetson-inference", "onnxruntime", "triton", "trtexec")
KINDS = {"channels", "scale", "offsets", "aspect", "filter", "layout", "size", "dtype", "video"}


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory, tiny_contents: BundleContents) -> Path:
    """A bundle of a few weights that every runtime is in."""
    contents = dataclasses.replace(tiny_contents, target=load_target("orin-nx-16gb@jp6.2"))
    folder = write_bundle(tmp_path_factory.mktemp("frames") / "bundle", contents).folder
    assert call("runtimes", "add", folder, *RUNTIMES, "--quiet")[0] == 0
    return folder


@pytest.fixture
def judge(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Judge:
    """Return what dumps a tensor and judges it: to exit code, errors and the document."""

    def run(dump: Array | bytes, runtime: str = "", *flags: str) -> tuple[int, str, dict[str, Any]]:
        path = tmp_path / "frame.bin"
        path.write_bytes(dump if isinstance(dump, bytes) else dump.tobytes())
        whose = ["--runtime", runtime] if runtime else []
        given = ["--bundle", str(bundle), "--frame", str(path), "--json"]
        code = check.main([*given, *whose, *flags])
        out, errors = capsys.readouterr()
        return code, errors, json.loads(out) if out else {}

    return run


def made(image_HWC: Array, runtime: str, levels: Callable[[Array], Array] = lambda x: x) -> Array:
    """Make the tensor of a picture as a pipeline of this runtime makes it, in its own order."""
    feed = load_runtime(runtime).profile.feed
    changed = np.clip(np.round(levels(image_HWC.astype(np.float64))), 0, 255).astype(np.uint8)
    return as_handed(changed[None], feed, "uint8")


def picture(bundle: Path, runtime: str) -> Array:
    return np.array(Image.open(bundle / "runtimes" / runtime / "golden" / "picture.png"))


def as_nv12(image_HWC: Array, red: float, blue: float, full: bool = False) -> Array:
    """Make NV12 as the standards write it, one colour of the mean of four pixels."""
    r, g, b = np.moveaxis(image_HWC / 255, 2, 0)
    luma = red * r + (1 - red - blue) * g + blue * b
    pairs = ((b - luma) / (2 - 2 * blue), (r - luma) / (2 - 2 * red))
    height, width = luma.shape
    colour = np.stack([p.reshape(height // 2, 2, width // 2, 2).mean((1, 3)) for p in pairs], 2)
    gain, low, reach = (255, 0, 255) if full else (219, 16, 224)
    planes = [luma * gain + low, (128 + reach * colour).reshape(height // 2, width)]
    return np.clip(np.round(np.concatenate(planes)), 0, 255).astype(np.uint8)


def shrunk(image: Image.Image, size: tuple[int, int]) -> Array:
    return np.array(image.resize(size, Image.Resampling.BILINEAR))


def letterboxed() -> Array:
    canvas = np.zeros((TINY_SIDE_PX, TINY_SIDE_PX, 3), np.uint8)
    inner = shrunk(Image.fromarray(CARD), (TINY_SIDE_PX, TINY_SIDE_PX * 3 // 4))
    canvas[TINY_SIDE_PX // 8 : TINY_SIDE_PX // 8 + len(inner)] = inner
    return canvas


PICTURES: dict[str, tuple[Callable[[], Array], str, str]] = {
    "BGR": (lambda: SEEN[..., ::-1], "channels are BGR, not RGB", "channels"),
    "letterbox": (letterboxed, "padded instead of squeezed", "aspect"),
    "letterbox at the end": (
        lambda: np.roll(letterboxed(), -TINY_SIDE_PX // 8, 0),
        "padded at the end instead of squeezed",
        "aspect",
    ),
    "crop": (
        lambda: shrunk(Image.fromarray(CARD[:, 8:-8]), SQUARE),
        "cropped instead of squeezed",
        "aspect",
    ),
    "nearest": (
        lambda: np.array(Image.fromarray(CARD).resize(SQUARE, Image.Resampling.NEAREST)),
        "resized with nearest neighbour",
        "filter",
    ),
    "mirror": (lambda: SEEN[:, ::-1], "mirrored", "flip"),
    "flat": (lambda: np.round(16 + SEEN * (219 / 255)), "limited range (16 to 235)", "video"),
    "hard": (
        lambda: np.clip((SEEN - 16.0) * (255 / 219), 0, 255).round(),
        "full range was taken for limited",
        "video",
    ),
    "other size": (
        lambda: shrunk(Image.fromarray(CARD), (20, 20)),
        "size is 20 x 20, not 16 x 16",
        "size",
    ),
}
"""What a pipeline may make of the test card, what is said, and the kind of the key."""
VALUES: dict[str, tuple[Callable[[Array, Array], Array], str]] = {
    "scaled once more": (lambda right, level: right / 255, "scale"),
    "in -1 to 1": (lambda right, level: level / 127.5 - 1, "scale offsets"),
    "mean of CLIP off": (
        lambda right, level: level - 255 * np.array([0.48145466, 0.4578275, 0.40821073]),
        "offsets",
    ),
    "a scale of one's own": (lambda right, level: level * 0.0371, "scale"),
}


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_each_mistake_of_a_pipeline_is_named_with_the_key_of_its_runtime(
    judge: Judge, bundle: Path, runtime: str
) -> None:
    profile = load_runtime(runtime).profile
    shape = (3, *SQUARE) if profile.feed != "bundle" else (*SQUARE, 3)
    dtype = "uint8" if profile.feed == "bundle" else "float32"

    def expect(dump: Array, kinds: str, said: str) -> None:
        code, errors, document = judge(dump, runtime)
        assert (code, document["passed"], errors.count("error: ")) == (3, False, 1), (said, errors)
        assert said in errors
        for kind in kinds.split():
            mend = profile.mends[kind].format(side=TINY_SIDE_PX, dtype=dtype)  # type: ignore[index]
            assert mend in document["mends"], (said, document)
            assert mend in errors
        assert sorted(k for m in document["mistakes"] for k in m["kinds"]) == sorted(kinds.split())

    for make, said, kind in PICTURES.values():
        expect(made(make(), runtime), kind, said)
    right = made(SEEN, runtime)
    swapped = right.transpose(0, 2, 3, 1) if shape[0] == 3 else right.transpose(0, 3, 1, 2)
    expect(np.ascontiguousarray(swapped), "layout", "channels come ")
    if dtype == "uint8":
        rgba = np.concatenate([right, np.full((1, *SQUARE, 1), 255, np.uint8)], 3)
        expect(rgba, "layout", "four channels (RGBA), not three")
        expect(right.astype(np.float32), "dtype", "values are float32, not uint8")
        expect((right / 255).astype(np.float32), "dtype scale", "values are in 0 to 1, not in 0")
        return
    level = np.moveaxis(SEEN.astype(np.float64), 2, 0)
    is_normal = profile.feed == "imagenet"
    for change, kinds in VALUES.values():
        channels_last = change(np.moveaxis(right[0], 0, 2), SEEN)
        dump = np.ascontiguousarray(np.moveaxis(channels_last, 2, 0), np.float32)
        if is_normal and kinds == "scale":
            kinds = "offsets scale"
        if is_normal and kinds == "offsets":
            kinds = "offsets scale"
        expect(dump, kinds, "values ")
    other = level if is_normal else (level / 255 - MEAN[:, None, None]) / DEVIATION[:, None, None]
    expect(np.ascontiguousarray(other, np.float32), "offsets scale", "values are ")
