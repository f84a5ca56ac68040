"""How to build and time the engine by hand on the device: recipe.md and build.sh.

Flags follow `samples/common/sampleOptions.cpp` of NVIDIA/TensorRT at v8.6.1, v10.3.0, v10.16 and
v11.1: a flag that was removed stops trtexec, so each command is made for one version.
"""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dfkd_edge.errors import ConfigError
from dfkd_edge.files import content_hash, file_hash
from dfkd_edge.runtime.bundle_manifest import PLAIN_NAME
from dfkd_edge.runtime.preprocess import min_usual_max
from dfkd_edge.target_profiles.profile import Precision, TargetProfile

FIRST_STRONG = (11, 0)  # TensorRT that reads precisions from the graph alone
FIND_TRTEXEC = """\
trtexec=${TRTEXEC:-/usr/src/tensorrt/bin/trtexec}
if [ ! -x "$trtexec" ]; then
    echo "no trtexec at $trtexec: set TRTEXEC to its path" >&2
    exit 4
fi"""
"""Lines of a shell script that then calls `$trtexec`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineBuild:
    """What is built from which graph."""

    target: TargetProfile
    precision: Precision
    batch: tuple[int, ...]  # One number: static; several: of a dynamic batch, in any order
    image_size_px: int  # Side of the student's input
    content: str  # What `engine_content` says of the graph

    def __post_init__(self) -> None:
        """Refuse what the target cannot do, and names that a shell would take for more."""
        target = self.target
        modes = (mode.name for mode in target.power_modes)
        shown = (target.name, target.tensorrt, target.max_onnxruntime, *modes)
        for word in filter(None, shown):
            if not PLAIN_NAME.fullmatch(word):
                raise ConfigError(f"{word!r} is no plain name", where=f"target {target.name!r}")
        if self.precision not in target.precisions:
            raise ConfigError(
                f"{target.name} does not compute in {self.precision}",
                where="--precision",
                hint=f"it does in {', '.join(target.precisions)}",
            )
        if target.use_dla and len(self.batch) > 1:
            what = "the DLA needs a static batch"
            raise ConfigError(what, where="--batch", hint="name one number")

    @property
    def version(self) -> tuple[int, ...]:
        """TensorRT's version as numbers."""
        return _numbers(self.target.tensorrt or "0")

    @property
    def graph(self) -> str:
        """The graph's file: FP16 is a builder flag on the FP32 graph before TensorRT 11."""
        flagged = self.precision == "fp16" and self.target.typing == "weak"
        return f"model.{'fp32' if flagged else self.precision}.onnx"

    @property
    def engine(self) -> str:
        """The file that is built."""
        return f"model.{self.precision}-{self.content}.engine"

    @property
    def workspace_mib(self) -> int:
        """Scratch memory: a quarter of the RAM, which CPU and GPU share, within bounds."""
        return min(int((self.target.ram_gib or 4) * 1024) // 4, 4096)

    def shape(self, batch: int) -> str:
        """Write the input's shape as trtexec reads it."""
        return f"image:{batch}x{self.image_size_px}x{self.image_size_px}x3"


def engine_content(
    graph: Path, precision: Precision, batch: Sequence[int], target: TargetProfile
) -> str:
    """Hash what an engine is built from to 12 digits, for its name.

    Runtimes take an engine for their own by its name, so that one of an earlier graph must have
    another. The file is all of the graph: weights elsewhere are refused (`graph_guard`).
    """
    built_with = (precision, min_usual_max(tuple(batch)), target.use_dla, target.tensorrt)
    return content_hash(file_hash(graph), *built_with)[:12]


def build_recipe(build: EngineBuild) -> str:
    """Write recipe.md."""
    target = build.target
    on_tensorrt = target.backend == "tensorrt"
    parts = [f"# {build.precision.upper()} on {target.name}", _device(target), _check(target)]
    parts += [_trtexec(build), _power(target)] if on_tensorrt else [_onnxruntime(target)]
    if caveats := [*target.caveats, *filter(None, [target.no_int8_reason])]:
        parts.append("## Known limits\n\n" + "\n".join(f"- {caveat}" for caveat in caveats))
    return "\n\n".join(parts) + "\n"


def build_script(build: EngineBuild) -> str:
    """Write build.sh; empty where there is no TensorRT."""
    target = build.target
    if target.backend != "tensorrt":
        return ""
    return f"""#!/bin/sh
# Builds {build.engine} for {target.name}, TensorRT {target.tensorrt}, and times it.
set -eu
cd "$(dirname "$0")"
{FIND_TRTEXEC}
"$trtexec" {_shell(build_arguments(build))}
"$trtexec" {_shell(timing_arguments(build))}
"""


def build_arguments(build: EngineBuild) -> list[str]:
    """Flags of trtexec that build the engine, for the target's TensorRT."""
    arguments = [f"--onnx={build.graph}", f"--saveEngine={build.engine}", *_precision_flags(build)]
    if len(build.batch) > 1:
        pairs = zip(("min", "opt", "max"), min_usual_max(build.batch), strict=True)
        arguments += [f"--{name}Shapes={build.shape(size)}" for name, size in pairs]
    # 8.4 brought memory pools; 10 dropped the old flag, and --buildOnly too
    memory = "--memPoolSize=workspace:" if build.version >= (8, 4) else "--workspace="
    arguments += [f"{memory}{build.workspace_mib}", "--timingCacheFile=model.timing.cache"]
    if build.target.use_dla:
        arguments += ["--useDLACore=0", "--allowGPUFallback"]  # a DLA lacks some layers
    return [*arguments, "--skipInference" if build.version >= (8, 6) else "--buildOnly"]


def timing_arguments(build: EngineBuild) -> list[str]:
    """Flags of trtexec that time the engine, the same measure in every version."""
    arguments = [f"--loadEngine={build.engine}", "--warmUp=500", "--duration=10"]
    if len(build.batch) > 1:
        arguments.append(f"--shapes={build.shape(min_usual_max(build.batch)[1])}")
    if build.target.use_dla:
        arguments.append("--useDLACore=0")
    if build.version < FIRST_STRONG:  # 11 does these by default
        arguments += ["--useCudaGraph", "--noDataTransfers", "--useSpinWait"]
    several = build.version >= (8, 6)  # older ones read a single number
    return [*arguments, "--percentile=50,90,99" if several else "--percentile=99"]


def _precision_flags(build: EngineBuild) -> list[str]:
    if build.precision == "fp32":
        # golden logits are compared to FP32's; TF32 keeps 10 bits of them, from Ampere (SM 8.0) on
        return ["--noTF32"] if (build.target.sm or 0) >= 80 else []
    if build.target.typing == "strong":
        return []
    return ["--int8", "--fp16"] if build.precision == "int8" else ["--fp16"]


def _device(target: TargetProfile) -> str:
    rows = {
        "device": target.facts["title"].value if "title" in target.facts else target.module,
        "JetPack": target.jetpack,
        "L4T": target.facts["l4t"].value if "l4t" in target.facts else None,
        "TensorRT": target.tensorrt,
        "Python": target.python,
        "newest onnxruntime wheel": target.max_onnxruntime,
        "the graph takes": f"{target.graph_input} of 0 to 255, NHWC, RGB",
        "memory": f"{target.ram_gib:g} GiB" if target.ram_gib else None,
    }
    lines = [f"| {name} | {value} |" for name, value in rows.items() if value]
    return "\n".join(["| made for | |", "|---|---|", *lines])


def _check(target: TargetProfile) -> str:
    has = "TensorRT's module" if target.backend == "tensorrt" else "onnxruntime"
    text = (
        "## Prove it on the device\n\n```sh\npython3 check.pyz\n```\n\n"
        f"It needs Python 3.8 or later with numpy and {has}. "
    )
    if target.backend == "tensorrt":
        text += (
            "It builds the engine, keeps it for the next time, reproduces the golden logits and "
            "measures latency. An engine\nholds for one TensorRT version on one kind of device: "
            "build it there, never copy it from another board."
        )
    else:
        text += "It runs the model with ONNX Runtime, reproduces the golden logits and times it."
    if target.python and _numbers(target.python) < (3, 8):
        text += (
            f"\n\nThis JetPack has Python {target.python}, which is older, and "
            "TensorRT's Python module belongs\nto that one. Use trtexec below, and run check.pyz "
            "with a newer Python and onnxruntime to prove the graph."
        )
    return text


def _trtexec(build: EngineBuild) -> str:
    target = build.target
    if target.typing == "strong":
        why = "is strongly typed: the graph itself carries the precision, and no flag sets it."
    elif build.precision == "int8":
        why = (
            "takes the precision from flags: `--int8` reads the graph's Q/DQ nodes, and `--fp16`\n"
            "beside it lets the other layers run in half precision."
        )
    else:
        why = "takes the precision from flags."
    why = f"TensorRT {target.tensorrt} {why}"
    dla = (
        "\n\nThe engine goes to the DLA; layers that it lacks fall back to the GPU."
        if target.use_dla
        else ""
    )
    timing = (
        "TensorRT 11 times with CUDA graphs, spin wait and without transfers by default; the "
        "flags that ask an older\ntrtexec for the same are left out."
        if build.version >= FIRST_STRONG
        else "CUDA graphs, spin wait and no transfers are asked for, because TensorRT 11 does so "
        "by default:\nso numbers compare."
    )
    return (
        "## Or with trtexec\n\n`sh build.sh` runs these two commands; `TRTEXEC` names another "
        f"trtexec.\n\n```sh\ntrtexec {_shell(build_arguments(build))}\n```\n\n{why}{dla}\n\n"
        f"`workspace` is in MiB: a quarter of the memory, which CPU and GPU share. When the build "
        f"is killed, halve it, close\nthe desktop, or add swap.\n\n```sh\n"
        f"trtexec {_shell(timing_arguments(build))}\n```\n\n{timing}\nCompare models by the "
        "median GPU Compute Time, services by the 99th percentile of Latency.\n\ntrtexec proves no "
        "accuracy: it prints PASSED for a wrong engine too. Only check.pyz compares logits."
    )


def _power(target: TargetProfile) -> str:
    if not target.power_modes:
        return "## Power\n\nSet the power mode and clocks that you deploy with before timing."
    fastest = next((m for m in target.power_modes if m.name.startswith("MAXN")), None)
    mode = fastest or target.power_modes[0]
    rows = "\n".join(
        f"| {mode.id} | {mode.name}{' (default)' if mode.is_default else ''} |"
        for mode in target.power_modes
    )
    return f"""## Power

Latency depends on the power mode more than on the model. State both with a number.

```sh
sudo nvpmodel -q          # which mode is on
sudo nvpmodel -m {mode.id:<2}       # {mode.name}; may ask for a reboot
sudo jetson_clocks        # else short runs never reach full clocks
```

| mode | name |
|---|---|
{rows}"""


def _onnxruntime(target: TargetProfile) -> str:
    newest = f"<={target.max_onnxruntime}" if target.max_onnxruntime else ""
    return (
        "## What it needs\n\n```sh\n"
        f"python3 -m venv venv && venv/bin/pip install numpy {shlex.quote(f'onnxruntime{newest}')}"
        "\nvenv/bin/python check.pyz\n```\n\n`--threads N` limits the CPU threads; by default all "
        "cores run the model."
    )


def _shell(arguments: Sequence[str]) -> str:
    return " \\\n    ".join(shlex.quote(argument) for argument in arguments)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2])
