"""What this machine offers and lacks, each with what to do; imports no heavy library.

Versions are read from package metadata and not by importing, so that a broken library cannot take
the doctor down with it.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distributions, requires, version
from pathlib import Path
from typing import Literal

from dfkd_edge.runtime import device
from dfkd_edge.runtime.counting import counted
from dfkd_edge.runtime.cuda_memory import Cuda
from dfkd_edge.runtime.engine_build import default_cache
from dfkd_edge.runtime.faults import LackingFault
from dfkd_edge.version import __version__

Status = Literal["ok", "note", "warning", "lacking"]
GIB = 1 << 30
MIN_FREE_MEMORY_GIB, MIN_FREE_DISK_GIB = 3.0, 2.0
"""Room for `distill` with the defaults, for a run and its bundles (ours)."""
TENSORRT_PACKAGES = ("tensorrt", "tensorrt-cu12", "tensorrt-cu13")
CPU_FLAGS = {
    "AVX2": ("avx2", "training and INT8 are slow without it"),
    "VNNI": ("vnni", "INT8 sums saturate here; full-range graphs are computed in float"),
    "bfloat16": ("bf16", "training runs in float32"),
}


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the doctor."""

    name: str
    status: Status
    value: str
    """What was found."""
    advice: str = ""
    """What to do, or what it means."""


def examine(root: Path = Path("/"), folder: Path = Path()) -> list[Check]:
    """Look at everything.

    Args:
        root: where /proc, /sys and /etc lie.
        folder: where runs would be written.
    """
    steps: tuple[Callable[[], Iterator[Check]], ...] = (
        lambda: _machine(root),
        lambda: _processor(root),
        _packages,
        _onnxruntime,
        _gpu,
        lambda: _tensorrt(root),
        lambda: _memory(root),
        lambda: _disk(folder),
        _cache,
    )
    return [check for step in steps for check in step()]


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
    cores = device.num_cores()
    found = f"{facts.get('cpu', facts['machine'])}, {counted(cores, 'core')}"
    yield Check("processor", "ok", found)
    try:
        text = (root / "proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return
    flags = next((line for line in text.splitlines() if line.startswith("flags")), "")
    if not flags:  # an ARM CPU lists `Features`
        return
    for name, (flag, loss) in CPU_FLAGS.items():
        has = flag in flags
        yield Check(name, "ok" if has else "note", "yes" if has else "no", "" if has else loss)


def _packages() -> Iterator[Check]:
    """Compare what is installed with what this package requires."""
    found, faults = [], []
    for line in requires("dfkd-edge") or ():
        match = re.match(r"([\w.-]+)>=([\w.]+)(?!.*extra ==)", line)
        if not match:
            continue
        name, needed = match.groups()
        try:
            installed = version(name)
        except PackageNotFoundError:
            faults.append(
                Check(name, "lacking", "not installed", f"pip install '{name}>={needed}'")
            )
            continue
        if _numbers(installed) < _numbers(needed):
            advice = f"pip install -U '{name}>={needed}'"
            faults.append(Check(name, "lacking", f"{installed}, needs {needed}", advice))
        if name in ("torch", "onnxruntime", "open_clip_torch", "timm"):
            found.append(f"{name} {installed}")
    yield Check("packages", "ok", ", ".join(found))
    yield from faults


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(n) for n in re.findall(r"\d+", text.split("+")[0])[:3])


def _onnxruntime() -> Iterator[Check]:
    """Several ONNX Runtimes write into one folder: the last one installed wins, in part."""
    names = {str(d.metadata["Name"]).lower() for d in distributions() if d.metadata["Name"]}
    several = sorted(n for n in names if re.fullmatch(r"(onnxruntime|ort)(-\w+)*", n))
    several = [n for n in several if n not in ("onnxruntime-extensions", "onnxruntime-tools")]
    if len(several) > 1:
        advice = f"pip uninstall -y {' '.join(several)}, then pip install one of them"
        yield Check("onnx runtimes", "lacking", f"{len(several)}: {', '.join(several)}", advice)


def _gpu() -> Iterator[Check]:
    try:
        cuda = Cuda()
        sm, free = cuda.compute_capability(), cuda.free_bytes() / GIB
    except LackingFault as fault:
        yield Check("gpu", "note", f"none: {fault.what}", "all runs on the CPU; that is enough")
        return
    yield Check("gpu", "ok", f"SM {sm / 10:.1f}, {free:.1f} GiB free", "distill --device cuda")
    spec = importlib.util.find_spec("torch")
    file = Path(spec.origin).with_name("version.py") if spec and spec.origin else None
    if file and re.search(r"^cuda\b.*= None$", file.read_text(encoding="utf-8"), re.MULTILINE):
        advice = "install a CUDA build of torch, see pytorch.org/get-started"
        yield Check("torch", "warning", "built without CUDA, so the GPU is not used", advice)


def _tensorrt(root: Path) -> Iterator[Check]:
    spec = importlib.util.find_spec("tensorrt")
    if spec is not None and spec.origin:
        found = [v for name in TENSORRT_PACKAGES if (v := _version(name))]
        yield Check("tensorrt", "ok", found[0] if found else str(Path(spec.origin).parent))
        return
    stored = [p for p in (root / "usr/lib").glob("python3*/dist-packages/tensorrt") if p.is_dir()]
    if stored:
        advice = "make the environment with python3 -m venv --system-site-packages"
        yield Check("tensorrt", "warning", f"{stored[0]} is not seen from here", advice)
        return
    lacks = bool(device.read_l4t(root))
    advice = (
        "sudo apt-get install python3-libnvinfer" if lacks else "engines are built on the device"
    )
    yield Check("tensorrt", "warning" if lacks else "note", "not installed", advice)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _memory(root: Path) -> Iterator[Check]:
    try:
        text = (root / "proc/meminfo").read_text(encoding="utf-8")
    except OSError:
        return
    kib = {key: int(n) for key, n in re.findall(r"^(\w+):\s*(\d+) kB", text, re.MULTILINE)}
    free, swap = (kib.get(key, 0) / (1 << 20) for key in ("MemAvailable", "SwapFree"))
    found = f"{free:.1f} GiB free, {swap:.1f} GiB of swap"
    if free >= MIN_FREE_MEMORY_GIB:
        yield Check("memory", "ok", found)
        return
    advice = "close programs or add swap; --batch-size 32 needs less"
    yield Check("memory", "warning", found, advice)


def _disk(folder: Path) -> Iterator[Check]:
    free = shutil.disk_usage(folder).free / GIB
    found = f"{free:.1f} GiB free in {folder.resolve()}"
    if not os.access(folder, os.W_OK):
        yield Check(
            "disk", "lacking", f"cannot write in {folder.resolve()}", "go to another folder"
        )
    elif free < MIN_FREE_DISK_GIB:
        yield Check("disk", "warning", found, "free some space; dfkd-edge cache info may help")
    else:
        yield Check("disk", "ok", found)


def _cache() -> Iterator[Check]:
    """The nearest folder that is there decides whether engines can be kept."""
    cache = default_cache()
    there = next((p for p in (cache, *cache.parents) if p.exists()), Path("/"))
    if there.is_dir() and os.access(there, os.W_OK):
        yield Check("engine cache", "ok", str(cache))
    else:
        advice = "set XDG_CACHE_HOME to a folder that you may write"
        yield Check("engine cache", "warning", f"cannot write {cache}", advice)


def worst(checks: list[Check]) -> Status:
    """Return the worst status of all."""
    order: tuple[Status, ...] = ("ok", "note", "warning", "lacking")
    return max((c.status for c in checks), key=order.index, default="ok")
