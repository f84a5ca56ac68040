"""What machine this is and in which state: clocks, power mode, temperature, JetPack.

Latencies mean nothing without these. Everything is read from files that any user may read, except
the power mode (`nvpmodel -q`); what cannot be read is left out, never guessed.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
from dataclasses import asdict, dataclass, field
from pathlib import Path

JETPACKS = {
    "32.6": "4.6",
    **{f"32.7.{patch}": f"4.6.{patch}" for patch in range(1, 7)},
    "35.1": "5.0.2",
    "35.2": "5.1",
    "35.3": "5.1.1",
    "35.4": "5.1.2",
    "35.5": "5.1.3",
    "35.6.0": "5.1.4",
    **dict.fromkeys(("35.6.1", "35.6.2", "35.6.3"), "5.1.5"),
    "35.6.4": "5.1.6",
    "36.3": "6.0",
    **dict.fromkeys(("36.4.0", "36.4.2"), "6.1"),
    "36.4.3": "6.2",
    **dict.fromkeys(("36.4.4", "36.4.7"), "6.2.1"),
    "36.5": "6.2.2",
    "38.2": "7.0",
    "38.4": "7.1",
    "39.2.0": "7.2",
    "39.2.1": "7.2.1",
    "39.2.2": "7.2.2",
}
"""L4T to JetPack, as jetson-stats has it; `36.3` stands for every 36.3.x."""
TO_INSTALL = "apt-get install python3-libnvinfer"
"""JetPack's TensorRT is a Debian package, for the system's Python alone."""
SPELLINGS = {"amd64": "x86_64", "arm64": "aarch64"}
"""Windows says AMD64 and ARM64, macOS arm64; Linux and our targets say it as on the right."""


def machine_name() -> str:
    """Processor architecture in Linux's spelling, whatever system this is."""
    name = platform.machine()
    return SPELLINGS.get(name.lower(), name)


@dataclass(frozen=True)
class State:
    """Clocks, power and heat at one moment; empty or 0 where it cannot be read."""

    power_mode: str = ""  # Of nvpmodel, such as `MAXN`
    cpu_mhz: int = 0  # Of the fastest core
    cpu_max_mhz: int = 0
    governor: str = ""  # What sets the CPU's clock
    gpu_mhz: int = 0
    gpu_max_mhz: int = 0
    temperature_c: dict[str, float] = field(default_factory=dict)  # By thermal zone
    power_mw: dict[str, int] = field(default_factory=dict)  # By rail

    def to_json(self) -> dict[str, object]:
        """Return what could be read."""
        return {key: value for key, value in asdict(self).items() if value}


def describe(root: Path = Path("/")) -> dict[str, str | int]:
    """Tell what machine this is; what cannot be read is left out."""
    l4t = read_l4t(root)
    facts: dict[str, str | int] = {
        "machine": machine_name(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "board": _text(root / "proc/device-tree/model"),
        "cpu": _cpu_name(root),
        "num_cores": num_cores(),
        "memory_mib": _memory_mib(root),
        "l4t": l4t,
        "jetpack": jetpack_of(l4t),
    }
    return {key: value for key, value in facts.items() if value}


def state(root: Path = Path("/")) -> State:
    """Read clocks, governor, temperatures, power and power mode as they are now."""
    return State(
        power_mode=_power_mode() if root == Path("/") else "",  # it can only ask this machine
        cpu_mhz=_cpu_mhz(root, "scaling_cur_freq"),
        cpu_max_mhz=_cpu_mhz(root, "cpuinfo_max_freq"),
        governor=_text(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        gpu_mhz=_gpu_mhz(root, "cur_freq"),
        gpu_max_mhz=_gpu_mhz(root, "max_freq"),
        temperature_c=_temperatures(root),
        power_mw=_power_mw(root),
    )


def caveats(before: State, after: State) -> list[str]:
    """Say why latencies between two states may not be repeatable."""
    lines = []
    clocks = {"CPU": (after.cpu_mhz, after.cpu_max_mhz), "GPU": (after.gpu_mhz, after.gpu_max_mhz)}
    for unit, (now, top) in clocks.items():
        if 0 < now < 0.95 * top:  # jetson_clocks holds them at the top
            lines.append(f"{unit} was at {now} of {top} MHz: clocks are not fixed")
    if before.power_mode != after.power_mode:
        lines.append("the power mode changed during the measurement")
    hottest = max(after.temperature_c.values(), default=0)
    if hottest >= 85:
        lines.append(f"{hottest:.0f} C: the chip may be throttling")
    return lines


def read_l4t(root: Path) -> str:
    """L4T release such as 36.4.3, or an empty text off a Jetson."""
    text = _text(root / "etc/nv_tegra_release")  # `# R36 (release), REVISION: 4.3, ...`
    found = re.search(r"R(\d+).*?REVISION:\s*([\d.]+)", text)
    return f"{found.group(1)}.{found.group(2)}" if found else ""


def may_be_jetson() -> bool:
    """Whether the processor is that of a Jetson; a container shows nothing more of the board."""
    return platform.machine() == "aarch64"


def jetpack_of(l4t: str) -> str:
    """JetPack of an L4T release, or an empty text where it is unknown."""
    parts = l4t.split(".")
    return JETPACKS.get(l4t) or JETPACKS.get(".".join(parts[:2])) or ""


def num_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))  # a container may be given fewer than there are
    return os.cpu_count() or 1


def peak_memory_mib() -> float:
    """Peak memory of this process so far; getrusage would count the parent's before the exec."""
    kib = _found(r"VmHWM:\s*(\d+) kB", _text(Path("/proc/self/status")))
    if kib:
        return int(kib) / 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # KiB on Linux


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").replace("\0", "").strip()
    except OSError:
        return ""


def _found(pattern: str, text: str) -> str:
    """What the first group of a pattern takes; empty where it does not match."""
    match = re.search(pattern, text, re.MULTILINE)
    return match.group(1).strip() if match else ""


def _number(path: Path) -> int:
    text = _text(path)
    return int(text) if re.fullmatch(r"-?\d+", text) else 0


def _cpu_name(root: Path) -> str:
    name = _found(r"^(?:model name|Model|Hardware)\s*:\s*(.+)$", _text(root / "proc/cpuinfo"))
    return name or platform.processor()


def _memory_mib(root: Path) -> int:
    return int(_found(r"MemTotal:\s*(\d+) kB", _text(root / "proc/meminfo")) or 0) // 1024


def _cpu_mhz(root: Path, name: str) -> int:
    cpus = root / "sys/devices/system/cpu"
    clocks = [_number(path) for path in cpus.glob(f"cpu[0-9]*/cpufreq/{name}")]  # in kHz
    return max(clocks, default=0) // 1000


def _gpu_mhz(root: Path, name: str) -> int:
    devices = root / "sys/class/devfreq"
    clocks = [
        _number(folder / name)  # in Hz
        for folder in (devices.iterdir() if devices.is_dir() else ())
        if re.search(r"gpu|gv11b|gp10b|ga10b|gb10b|gm20b", folder.name)  # GPUs of Tegra chips
    ]
    return max(clocks, default=0) // 1_000_000  # the fastest, should there be several


def _temperatures(root: Path) -> dict[str, float]:
    zones = sorted((root / "sys/class/thermal").glob("thermal_zone*"))
    values = {_text(zone / "type") or zone.name: _number(zone / "temp") / 1000 for zone in zones}
    return {name: value for name, value in values.items() if 0 < value < 150}  # else no reading


def _power_mw(root: Path) -> dict[str, int]:
    """Power of each rail of the INA3221 monitors: millivolts times milliamperes."""
    rails = {}
    for label in sorted((root / "sys/class/hwmon").glob("hwmon*/in[1-3]_label")):
        channel = label.name[2]
        volts_mv = _number(label.with_name(f"in{channel}_input"))
        amperes_ma = _number(label.with_name(f"curr{channel}_input"))
        if volts_mv and amperes_ma:
            rails[_text(label)] = volts_mv * amperes_ma // 1000  # from microwatts
    return rails


def _power_mode() -> str:
    try:
        done = subprocess.run(["nvpmodel", "-q"], capture_output=True, timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return _found(r"NV Power Mode:\s*(\S+)", done.stdout.decode(errors="replace"))


def cpu_saturates() -> bool:
    """Whether this is an x86 CPU that adds pairs of 8-bit products in 16 bits, which clips them.

    Two times 255 * 127 is too much; CPUs with VNNI add in 32 bits, as a Jetson does.
    """
    flags = _found(r"^flags\s*:(.*)$", _text(Path("/proc/cpuinfo")))  # Arm lists `Features`
    return bool(flags) and "vnni" not in flags
