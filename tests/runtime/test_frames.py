"""What pipelines hand over: each usual mistake is named with the key that mends it."""

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from dfkd_edge.bundles.bundle import BundleContents, write_bundle
from dfkd_edge.handover.lookup import list_runtimes, load_runtime
from dfkd_edge.handover.profile import Mistake
from dfkd_edge.handover.request import as_handed
from dfkd_edge.runtime import check, preprocess
from dfkd_edge.runtime.frame_hypotheses import halved_colour
from dfkd_edge.target_profiles.lookup import load_target
from tests.conftest import TINY_SIDE_PX
from tests.fixtures.command import call

Array = NDArray[Any]
Judge = Callable[..., tuple[int, str, dict[str, Any]]]
CARD = preprocess.test_card(TINY_SIDE_PX)
SEEN = preprocess.resized(Image.fromarray(CARD), TINY_SIDE_PX)
SQUARE = (TINY_SIDE_PX, TINY_SIDE_PX)
MEAN, DEVIATION = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
RUNTIMES = ("deepstream", "jetson-inference", "triton")
"""One for each feed."""


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


@pytest.mark.parametrize("name", list_runtimes())
def test_every_runtime_says_what_mends_each_mistake_of_its_pipeline(name: str) -> None:
    profile = load_runtime(name).profile
    assert get_args(Mistake)[:-1] == tuple(profile.mends)[:10]  # not each can fall back
    for mend in profile.mends.values():
        assert "{" not in mend.format(side=1, dtype="uint8", dims="1")


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_each_mistake_of_a_pipeline_is_named_with_the_key_of_its_runtime(
    judge: Judge, runtime: str
) -> None:
    profile = load_runtime(runtime).profile
    is_planes, is_normal = profile.feed not in ("bundle", "pixels"), profile.feed == "imagenet"
    dtype = "float32" if is_planes else "uint8"
    dims = f"1, {TINY_SIDE_PX}, {TINY_SIDE_PX}, 3"  # as Triton's configuration has them

    def expect(dump: Array, kinds: str, said: str) -> None:
        code, errors, document = judge(dump, runtime)
        assert (code, document["passed"], errors.count("error: ")) == (3, False, 1), (said, errors)
        assert said in errors
        assert sorted(k for m in document["mistakes"] for k in m["kinds"]) == kinds.split()
        mends = [profile.mends[kind] for kind in get_args(Mistake) if kind in kinds.split()]
        for mend in (mend.format(side=TINY_SIDE_PX, dtype=dtype, dims=dims) for mend in mends):
            assert mend in document["mends"]
            assert mend in errors

    for make, said, kind in PICTURES.values():
        expect(made(make(), runtime), kind, said)
    right = made(SEEN, runtime)
    other_layout = right.transpose(0, 2, 3, 1) if is_planes else right.transpose(0, 3, 1, 2)
    expect(np.ascontiguousarray(other_layout), "layout", "channels come ")
    if not is_planes:
        rgba = np.concatenate([right, np.full((1, *SQUARE, 1), 255, np.uint8)], 3)
        expect(rgba, "layout", "four channels (RGBA), not three")
        expect(right.astype(np.float32), "dtype", "values are float32, not uint8")
        expect((right / 255).astype(np.float32), "dtype scale", "values are in 0 to 1, not in 0")
        expect((right / 255).astype(np.uint8), "scale", "divided by 255 in whole numbers")
        return
    for wrong_HWC, kinds, said in wrong_values(np.moveaxis(right[0], 0, 2), is_normal):
        planes_CHW = np.moveaxis(wrong_HWC, 2, 0)
        expect(np.ascontiguousarray(planes_CHW, np.float32), kinds, said)


def wrong_values(right_HWC: Array, is_normal: bool) -> Iterator[tuple[Array, str, str]]:
    """Yield what a wrong scale or offset makes of a picture, its kinds and words of the verdict."""
    level = SEEN.astype(np.float64)
    unit = (level / 255 - MEAN) / DEVIATION
    yield (level if is_normal else unit), "offsets scale", "values "
    yield level / 127.5 - 1, "offsets scale", "values "
    if is_normal:
        yield (level - MEAN) / DEVIATION, "scale", "values "  # 1/255 is missing
        yield (level / 255**2 - MEAN) / DEVIATION, "scale", "values "  # and here it is there twice
        yield level / 255 / DEVIATION, "offsets", "values "
        yield level * 0.0371, "offsets scale", "plus 0, 0, 0"
        return
    yield right_HWC / 255, "scale", "values "
    yield right_HWC / 255**2, "scale", "values "
    yield level - 255 * MEAN, "offsets", "values "
    yield level * 0.0371, "scale", "plus 0, 0, 0"  # a factor that nobody uses


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_right_frame_passes_whichever_picture_and_however_it_was_dumped(
    judge: Judge, bundle: Path, runtime: str, tmp_path: Path
) -> None:
    golden = bundle / "runtimes" / runtime / "golden"
    code, errors, document = judge((golden / "input.bin").read_bytes(), runtime)
    assert (code, document["passed"], document["picture"]) == (0, True, "golden/picture.png")
    assert "cannot show letterboxes and crops: dump test_card.png too" in errors
    right = made(SEEN, runtime)
    code, errors, document = judge(right, runtime)
    assert (code, document["picture"], document["mistakes"]) == (0, "test_card.png", [])
    assert "note" not in errors
    many = np.concatenate([right, *[np.zeros_like(right)] * 99])  # nvinfer appends to its dump
    assert judge(many, runtime)[2]["read_as"].endswith("16 x 16, the first of 100")
    np.save(tmp_path / "array.npy", right)
    raw = (tmp_path / "array.npy").read_bytes()
    assert judge(raw, runtime)[0] == 0


BT_601, BT_709 = (0.299, 0.114), (0.2126, 0.0722)


@pytest.mark.parametrize(
    ("frame", "read_as", "said"),
    [
        (as_nv12(SEEN, *BT_601), "NV12, 16 x 16, BT.601", ""),
        (as_nv12(CARD, *BT_709), "NV12, 64 x 48, BT.709", ""),
        (as_nv12(SEEN, *BT_601, full=True), "NV12, 16 x 16, BT.601", "NV12 is of full range"),
        (as_nv12(letterboxed(), *BT_601), "NV12, 16 x 16, BT.601", "padded instead of squeezed"),
        (np.pad(as_nv12(CARD, *BT_601), ((0, 0), (0, 192))), "NV12, 64 x 48, BT.601", ""),
        (
            np.concatenate([(n := as_nv12(CARD, *BT_601))[:48], n[48:, [1, 0]].repeat(32, 1)]),
            "",
            "differs from golden/picture.png or",
        ),
        (
            np.concatenate(
                [n[:48], n[48:].reshape(24, 32, 2)[..., ::-1].reshape(24, 64)],
            ),
            "NV12, 64 x 48, BT.601",
            "U and V are swapped",
        ),
    ],
    ids=["601", "709", "full", "letterbox", "pitch", "garbled", "NV21"],
)
def test_a_frame_of_video_is_judged_by_its_range_and_its_order(
    judge: Judge, frame: Array, read_as: str, said: str
) -> None:
    code, errors, _ = judge(frame, "deepstream")
    assert code == (3 if said else 0), errors
    assert said in errors
    assert not read_as or f"read as {read_as}\n" in errors
    if "range" in said or "swapped" in said:
        assert "colorimetry in the caps before nvstreammux" in errors


def test_colours_of_half_the_resolution_are_no_mistake(judge: Judge) -> None:
    """Every frame of a video has gone through NV12."""
    speckled = np.random.default_rng(0).integers(0, 256, SEEN.shape, np.uint8)
    halved = halved_colour(CARD)
    frame = made(preprocess.resized(Image.fromarray(halved), TINY_SIDE_PX), "deepstream")
    code, errors, _ = judge(frame, "deepstream")
    assert (code, "grey levels of 255 off" in errors) == (0, True)
    code, errors, document = judge(made(speckled, "deepstream"), "deepstream")
    assert (code, document["mends"]) == (3, [])
    assert "differs from golden/picture.png or test_card.png by " in errors
    assert "runtimes/deepstream/README.md says which picture to dump, and how" in errors
    code, errors, _ = judge(speckled)
    assert (code, "preprocess.json is the contract" in errors) == (3, True)
    assert f"judged with --runtime NAME ({', '.join(sorted(RUNTIMES))})" in errors
    assert "every value is 0" in judge(np.zeros((3, *SQUARE), np.float32), "deepstream")[1]


def test_another_filter_that_averages_is_no_mistake(judge: Judge) -> None:
    averaged = np.array(Image.fromarray(CARD).resize(SQUARE, Image.Resampling.BOX))
    assert judge(averaged, "triton")[0] == 0


def test_an_engine_of_another_precision_is_a_fallback_of_network_mode(
    judge: Judge, bundle: Path
) -> None:
    folder = bundle / "runtimes" / "deepstream"
    (graph,) = folder.glob("model-*.onnx")
    frame = (folder / "golden" / "input.bin").read_bytes()
    # of an earlier bundle that was here, and of this one
    found = {}
    engines = (f"{graph.name}_b1_gpu0_fp{bits}.engine" for bits in (16, 32))
    for name in ("model-0123.onnx_b1_gpu0_fp16.engine", *engines):
        (folder / name).write_bytes(b"")
        try:
            found[name] = judge(frame, "deepstream")
        finally:
            (folder / name).unlink()
    assert found["model-0123.onnx_b1_gpu0_fp16.engine"][0] == 0
    # what nvinfer calls a Q/DQ graph that it built strongly typed
    assert found[f"{graph.name}_b1_gpu0_fp32.engine"][0] == 0
    code, errors, _ = found[f"{graph.name}_b1_gpu0_fp16.engine"]
    assert code == 3
    assert f"{graph.name}_b1_gpu0_fp16.engine was built, where the model is int8" in errors
    assert "strongly-typed=1" in errors


NAN = np.full((3, *SQUARE), np.nan, np.float32)


@pytest.mark.parametrize(
    ("dump", "flags", "said"),
    [
        (b"", (), "0 bytes fit no frame"),
        (b"x" * 767, (), "767 bytes fit no frame"),
        (b"\x93NUMPY no", (), "no .npy file"),
        (NAN, ("--frame-format", "float32-nchw"), "no numbers, or infinite"),
        (NAN, ("--runtime", "deepstream"), "no numbers, or infinite"),
        (np.where(SEEN > 9, SEEN, np.inf).astype(np.float32), (), "no numbers, or infinite"),
        (SEEN, ("--frame-size", "17x16"), "768 bytes fit no frame"),
        (SEEN, ("--frame-size", "16"), "width and height, such as 1280x720"),
        (SEEN, ("--frame-format", "yuy2"), "invalid choice: 'yuy2'"),
        (SEEN, ("--data", "pictures"), "judges one frame and nothing else"),
        (SEEN, ("--runtime", "deepstrem"), "bundle has no runtime 'deepstrem' (--runtime): it has"),
    ],
)
def test_what_is_no_frame_is_one_line_and_exit_code_2(
    judge: Judge, dump: Array | bytes, flags: tuple[str, ...], said: str
) -> None:
    code, errors, document = judge(dump, "", *flags)
    lines = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert (code, len(lines), document) == (2, 1, {})
    assert said in lines[0]


def test_a_frame_alone_runs_no_model_and_leaves_the_result_of_an_earlier_check(
    judge: Judge, bundle: Path
) -> None:
    code, errors, document = judge(SEEN)
    assert (code, document["runtime"], document["passed"]) == (0, "", True)
    assert "golden images" not in errors
    assert not (bundle / "result.json").exists()
    assert check.main(["--bundle", str(bundle), "--runtime", "triton"]) == 2


def test_the_host_judges_frames_as_the_device_does(bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "frame.bin"
    path.write_bytes(made(SEEN[..., ::-1], "deepstream").tobytes())
    code, output, errors = call("check", bundle, "--frame", path, "--runtime", "deepstream")
    assert (code, errors.count("\n")) == (3, 1)
    assert "channels are BGR, not RGB" in errors
    assert "it takes model-color-format=0" in errors
    assert "read as float32 NCHW, 16 x 16" in output
