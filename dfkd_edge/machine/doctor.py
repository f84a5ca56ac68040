"""What this machine is, offers and lacks, each with what to do; imports no heavy library.

Versions are read from package metadata, and TensorRT is imported by a process of its own: a broken
library must not take the doctor down with it.
"""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distributions, requires, version
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement

from dfkd_edge.runtime import device
from dfkd_edge.runtime.counting import counted
from dfkd_edge.runtime.cuda_memory import Cuda
from dfkd_edge.runtime.engine_build import default_cache
from dfkd_edge.runtime.faults import LackingFault
from dfkd_edge.version import __version__

Status = Literal["ok", "note", "warning", "lacking"]
ORDER: tuple[Status, ...] = ("ok", "note", "warning", "lacking")
GIB = 1 << 30
MIN_FREE_MEMORY_GIB, MIN_FREE_DISK_GIB = 3.0, 2.0  # Of `distill` with the defaults (ours)
SHOWN_PACKAGES = ("torch", "onnxruntime", "open_clip_torch", "timm")
CPU_FLAGS = {
    "AVX2": ("avx2", "training and INT8 are slow without it"),
    "VNNI": ("vnni", "INT8 sums saturate here; full-range graphs are computed in float"),
    "bfloat16": ("bf16", "training runs in float32"),
}
TENSORRT_EXTRA = "pip install 'dfkd-edge[tensorrt]', and export builds and measures engines here"
# a folder of type stubs imports too, but has no Builder
TRY_TENSORRT = "import tensorrt; tensorrt.Builder; print(tensorrt.__version__)"
LIBRARIES = ("torch", "timm", "open_clip_torch", "onnx", "onnxruntime", "numpy", "pillow")


def describe_environment() -> dict[str, str]:
    """Name machine and versions; what is not installed is left out."""
    facts = {"dfkd-edge": __version__}
    facts |= {key: str(value) for key, value in device.describe().items()}
    for name in LIBRARIES:
        try:
            facts[name] = version(name)
        except PackageNotFoundError:
            continue
    return facts


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the doctor."""

    name: str
    status: Status
    value: str  # What was found
    advice: str = ""  # What to do, or what it means


def examine(root: Path = Path("/")) -> list[Check]:
    """Look at everything."""
    return [
        *_machine(root),
        *_processor(root),
        *_packages(),
        *_onnxruntime(),
        *_gpu(root),
        *_memory(root),
        _disk(Path()),
        _cache(),
    ]


def worst(checks: list[Check]) -> Status:
    """Return the worst status of all."""
    return max((check.status for check in checks), key=ORDER.index, default="ok")


def _machine(root: Path) -> Iterator[Check]:
    facts = device.describe(root)
    yield Check("dfkd-edge", "ok", f"{__version__}, Python {facts['python']}, {facts['system']}")
    if not facts.get("l4t"):
        return
    jetpack = facts.get("jetpack", "")
    advice = "" if jetpack else "dfkd-edge targets list shows the JetPacks that are known"
    found = f"{facts.get('board', 'Jetson')}, L4T {facts['l4t']}, JetPack {jetpack or 'unknown'}"
    yield Check("jetson", "ok" if jetpack else "warning", found, advice)
    state = device.state(root)
    if state.power_mode:
        yield Check("power mode", "note", state.power_mode, "nvpmodel -q shows all of them")
    if caveats := device.caveats(state, state):
        advice = "sudo jetson_clocks fixes them while you measure"
        yield Check("clocks", "note", "; ".join(caveats), advice)


def _processor(root: Path) -> Iterator[Check]:
    facts = device.describe(root)
    cores = counted(device.num_cores(), "core")
    yield Check("processor", "ok", f"{facts.get('cpu', facts['machine'])}, {cores}")
    found = re.search(r"^flags.*", _text(root / "proc/cpuinfo"), re.MULTILINE)
    if not found:  # an ARM CPU lists `Features`
        return
    for name, (flag, loss) in CPU_FLAGS.items():
        has = flag in found[0]
        yield Check(name, "ok" if has else "note", "yes" if has else "no", "" if has else loss)


def _packages() -> Iterator[Check]:
    """Compare what is installed with what this package requires."""
    found, faults = [], []
    for wanted in map(Requirement, requires("dfkd-edge") or ()):
        if wanted.marker and not wanted.marker.evaluate({"extra": ""}):
            continue
        try:
            installed = version(wanted.name)
        except PackageNotFoundError:
            faults.append(Check(wanted.name, "lacking", "not installed", f"pip install '{wanted}'"))
            continue
        if not wanted.specifier.contains(installed, prereleases=True):
            value = f"{installed}, needs {wanted.specifier}"
            faults.append(Check(wanted.name, "lacking", value, f"pip install -U '{wanted}'"))
        elif wanted.name in SHOWN_PACKAGES:
            found.append(f"{wanted.name} {installed}")
    yield Check("packages", "ok", ", ".join(found))
    yield from faults


def _onnxruntime() -> Iterator[Check]:
    """Several ONNX Runtimes write into one folder: the last one installed wins, in part."""
    names = {str(d.metadata["Name"]).lower() for d in distributions() if d.metadata["Name"]}
    helpers = {"onnxruntime-extensions", "onnxruntime-tools"}
    several = sorted(n for n in names - helpers if re.fullmatch(r"(onnxruntime|ort)(-\w+)*", n))
    if len(several) > 1:
        advice = f"pip uninstall -y {' '.join(several)}, then pip install one of them"
        yield Check("onnx runtimes", "lacking", f"{len(several)}: {', '.join(several)}", advice)


def _gpu(root: Path) -> Iterator[Check]:
    """Look for a GPU, and for what trains on it and builds engines for it."""
    try:
        cuda = Cuda()
        sm, free = cuda.compute_capability(), cuda.free_bytes() / GIB
    except LackingFault as fault:
        yield Check("gpu", "note", f"none: {fault.what}", "all runs on the CPU; that is enough")
        yield _tensorrt(root, has_gpu=False)
        return
    yield Check("gpu", "ok", f"SM {sm / 10:.1f}, {free:.1f} GiB free", "distill --device cuda")
    spec = importlib.util.find_spec("torch")
    text = _text(Path(spec.origin).with_name("version.py")) if spec and spec.origin else ""
    if re.search(r"^cuda\b.*= None$", text, re.MULTILINE):
        advice = "install a CUDA build of torch, see pytorch.org/get-started"
        yield Check("torch", "warning", "built without CUDA, so the GPU is not used", advice)
    yield _tensorrt(root, has_gpu=True)


def _tensorrt(root: Path, has_gpu: bool) -> Check:
    done = subprocess.run([sys.executable, "-c", TRY_TENSORRT], capture_output=True, text=True)
    if done.returncode == 0:
        advice = "export builds and measures engines" if has_gpu else "engines need a GPU"
        return Check("tensorrt", "ok" if has_gpu else "note", done.stdout.strip(), advice)
    stored = [p for p in (root / "usr/lib").glob("python3*/dist-packages/tensorrt") if p.is_dir()]
    if stored:
        advice = "make the environment with python3 -m venv --system-site-packages"
        return Check("tensorrt", "warning", f"{stored[0]} is not seen from here", advice)
    reason = (done.stderr.strip().splitlines() or ["it crashes"])[-1]
    is_there = getattr(importlib.util.find_spec("tensorrt"), "origin", None)
    found = f"cannot be used: {reason}" if is_there else "not installed"
    if device.read_l4t(root):  # NVIDIA: a Jetson stays on the TensorRT of its JetPack
        return Check("tensorrt", "warning", found, "sudo apt-get install python3-libnvinfer")
    advice = TENSORRT_EXTRA if has_gpu else "engines are built on the device"
    return Check("tensorrt", "note", found, advice)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _memory(root: Path) -> Iterator[Check]:
    kib = dict(re.findall(r"^(\w+):\s*(\d+) kB", _text(root / "proc/meminfo"), re.MULTILINE))
    if not kib:
        return
    free, swap = (int(kib.get(key, 0)) / (1 << 20) for key in ("MemAvailable", "SwapFree"))
    found = f"{free:.1f} GiB free, {swap:.1f} GiB of swap"
    advice = "close programs or add swap; --batch-size 32 needs less"
    yield _room("memory", found, free >= MIN_FREE_MEMORY_GIB, advice)


def _disk(folder: Path) -> Check:
    place, free = folder.resolve(), shutil.disk_usage(folder).free / GIB
    if not os.access(folder, os.W_OK):
        return Check("disk", "lacking", f"cannot write in {place}", "go to another folder")
    advice = "free some space; dfkd-edge cache info may help"
    return _room("disk", f"{free:.1f} GiB free in {place}", free >= MIN_FREE_DISK_GIB, advice)


def _cache() -> Check:
    cache = default_cache()
    there = next((p for p in (cache, *cache.parents) if p.exists()), Path("/"))
    can_write = there.is_dir() and os.access(there, os.W_OK)  # else no engine can be kept
    found = str(cache) if can_write else f"cannot write {cache}"
    advice = "set XDG_CACHE_HOME to a folder that you may write"
    return _room("engine cache", found, can_write, advice)


def _room(name: str, found: str, is_enough: bool, advice: str) -> Check:
    return Check(name, "ok", found) if is_enough else Check(name, "warning", found, advice)
