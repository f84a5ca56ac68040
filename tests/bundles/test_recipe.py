"""Each TensorRT gets flags that it has, and none that it lost."""

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from dfkd_edge.bundles.recipe import (
    EngineBuild,
    build_arguments,
    build_recipe,
    build_script,
    timing_arguments,
)
from dfkd_edge.errors import ConfigError
from dfkd_edge.target_profiles.lookup import list_targets, load_target
from dfkd_edge.target_profiles.profile import Precision

NANO, XAVIER, JETSON = "nano@jp4.6.6", "xavier-nx-8gb@jp5.1.6", "jetson"
BOARD = "raspberry-pi-5"
STOCK, TENSORRT_11 = "agx-orin-64gb@jp7.2.2", "agx-orin-64gb@jp7.2.2-trt11"
TIMINGS = "--timingCacheFile=model.timing.cache"
REMOVED_IN_11 = ("--fp16", "--int8", "--best", "--calib", "--precisionConstraints")
REMOVED_IN_10 = ("--workspace", "--buildOnly", "--explicitBatch", "--maxBatch", "--batch")


def engine(name: str, precision: Precision, *batch: int) -> EngineBuild:
    return EngineBuild(
        target=load_target(name),
        precision=precision,
        batch=batch or (1,),
        image_size_px=128,
        content="0123",
    )


@pytest.mark.parametrize(
    ("name", "precision", "graph", "flags"),
    [
        (NANO, "fp16", "fp32", "--fp16 --workspace=1024 {timings} --buildOnly"),
        (XAVIER, "int8", "int8", "--int8 --fp16 {workspace}2048 {timings} --buildOnly"),
        (JETSON, "int8", "int8", "--int8 --fp16 {workspace}2048 {timings} --skipInference"),
        (TENSORRT_11, "fp16", "fp16", "{workspace}4096 {timings} --skipInference"),
        (JETSON, "fp32", "fp32", "--noTF32 {workspace}2048 {timings} --skipInference"),
    ],
)
def test_the_build_command_fits_the_version(
    name: str, precision: Precision, graph: str, flags: str
) -> None:
    shared = {"workspace": "--memPoolSize=workspace:", "timings": TIMINGS}
    files = f"--onnx=model.{graph}.onnx --saveEngine=model.{precision}-0123.engine"
    expected = f"{files} {flags.format(**shared)}"
    assert " ".join(build_arguments(engine(name, precision))) == expected


def test_no_target_gets_a_flag_that_its_trtexec_lost() -> None:
    for name in list_targets():
        target = load_target(name)
        if target.backend != "tensorrt":
            continue
        for precision in target.precisions:
            build = engine(name, precision, 1, 4, 8)
            flags = {a.partition("=")[0] for a in build_arguments(build) + timing_arguments(build)}
            lost = {*REMOVED_IN_10} if build.version >= (10, 0) else set()
            lost |= {*REMOVED_IN_11} if build.version >= (11, 0) else set()
            assert not flags & lost, name


def test_a_dynamic_batch_states_its_smallest_usual_and_largest_shape() -> None:
    build = engine(JETSON, "int8", 1, 8, 4)
    for flag in ("--minShapes=image:1x", "--optShapes=image:4x", "--maxShapes=image:8x"):
        assert f"{flag}128x128x3" in build_arguments(build)
    assert "--shapes=image:4x128x128x3" in timing_arguments(build)
    assert not any("Shapes" in a for a in build_arguments(engine(JETSON, "int8", 4)))


def test_timings_mean_the_same_before_and_after_tensorrt_11() -> None:
    asked = {"--useCudaGraph", "--noDataTransfers", "--useSpinWait"}
    assert asked <= set(timing_arguments(engine(STOCK, "int8")))
    assert not asked & set(timing_arguments(engine(TENSORRT_11, "int8")))


def test_the_dla_is_asked_for_by_flag_and_what_the_target_lacks_is_refused() -> None:
    plain = engine("orin-nx-16gb@jp6.2", "fp16")
    build = replace(plain, target=replace(plain.target, use_dla=True))
    assert {"--useDLACore=0", "--allowGPUFallback"} <= set(build_arguments(build))
    with pytest.raises(ConfigError, match="static batch"):
        replace(build, batch=(1, 4))
    with pytest.raises(ConfigError, match=r"nano@jp4\.6\.6 does not compute in int8"):
        engine(NANO, "int8")


NEEDS: dict[tuple[str, Precision], list[str]] = {
    (JETSON, "int8"): ["python3 check.pyz", "--skipInference", "| TensorRT | 10.3.0.30 |"],
    (JETSON, "fp32"): ["sudo nvpmodel -m 2", "attention"],
    (NANO, "fp16"): ["needs Python 3.8 or later", "This JetPack has Python 3.6.9", "Maxwell"],
    (TENSORRT_11, "fp16"): ["strongly typed"],
    (BOARD, "int8"): ["'onnxruntime<=1.32.0'"],
}


def test_the_recipe_says_what_this_device_needs() -> None:
    for (name, precision), needs in NEEDS.items():
        recipe = build_recipe(engine(name, precision))
        assert all(need in recipe for need in needs), name
    assert "--fp16" not in build_recipe(engine(TENSORRT_11, "fp16"))
    assert "trtexec" not in build_recipe(engine(BOARD, "int8"))
    assert build_script(engine(BOARD, "int8")) == ""


def test_the_script_passes_every_flag_to_trtexec_and_stops_without_it(tmp_path: Path) -> None:
    build = engine(JETSON, "int8", 1, 8)
    script = tmp_path / "a folder" / "build.sh"
    script.parent.mkdir()
    script.write_text(build_script(build), encoding="utf-8")
    recorder = tmp_path / "trtexec"
    recorder.write_text(f'#!/bin/sh\nprintf "%s\\n" "$PWD" "$@" >> {tmp_path}/calls\n', "utf-8")
    recorder.chmod(0o755)
    subprocess.run(["sh", str(script)], env={"TRTEXEC": str(recorder)}, check=True)
    here = str(script.parent)
    calls = [here, *build_arguments(build), here, *timing_arguments(build)]
    assert (tmp_path / "calls").read_text("utf-8").splitlines() == calls
    none = {"TRTEXEC": "/none"}
    missing = subprocess.run(["sh", str(script)], env=none, capture_output=True, text=True)
    assert missing.returncode == 4
    assert "set TRTEXEC" in missing.stderr


@pytest.mark.parametrize(
    "word", ["x\ntouch owned\n#", "$(touch owned)", "`id`", "a b", "-x", "a;b"]
)
def test_no_word_of_a_target_can_run_in_the_script_or_recipe(word: str) -> None:
    target = load_target(JETSON)
    mode = replace(target.power_modes[0], name=word)
    for changed in ({"name": word}, {"tensorrt": word}, {"power_modes": (mode,)}):
        with pytest.raises(ConfigError, match="is no plain name"):
            EngineBuild(
                target=replace(target, **changed),
                precision="fp16",
                batch=(1,),
                image_size_px=96,
                content="0123",
            )
