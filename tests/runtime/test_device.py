import os
import subprocess
import sys
from pathlib import Path

import pytest

from dfkd_edge.files import read_toml
from dfkd_edge.runtime import device
from dfkd_edge.runtime.bundle_files import Bundle


@pytest.fixture
def orin(tmp_path: Path) -> Path:
    """Lay the files of a Jetson Orin's /proc, /sys and /etc below a folder."""
    files = {
        "etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic\n",
        "proc/device-tree/model": "NVIDIA Jetson Orin Nano Developer Kit\0",
        "proc/meminfo": "MemTotal:        7802880 kB\n",
        "sys/class/devfreq/17000000.gpu/cur_freq": "306000000\n",
        "sys/class/devfreq/17000000.gpu/max_freq": "1020000000\n",
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "1728000\n",
        "sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq": "1728000\n",
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "schedutil\n",
        "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
        "sys/class/thermal/thermal_zone0/temp": "91500\n",
        "sys/class/hwmon/hwmon1/in1_label": "VDD_IN\n",
        "sys/class/hwmon/hwmon1/in1_input": "5000\n",
        "sys/class/hwmon/hwmon1/curr1_input": "1200\n",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return tmp_path


def test_a_jetson_is_recognised_with_its_clocks_temperature_and_power(orin: Path) -> None:
    facts, state = device.describe(orin), device.state(orin)
    assert facts["board"] == "NVIDIA Jetson Orin Nano Developer Kit"
    assert (facts["l4t"], facts["jetpack"]) == ("36.4.3", "6.2")
    assert facts["memory_mib"] == 7620
    assert (state.gpu_mhz, state.gpu_max_mhz, state.cpu_mhz) == (306, 1020, 1728)
    assert state.temperature_c == {"cpu-thermal": 91.5}
    assert state.power_mw == {"VDD_IN": 6000}


def test_low_clocks_and_heat_raise_caveats(orin: Path) -> None:
    state = device.state(orin)
    said = " ".join(device.caveats(state, state))
    assert "GPU was at 306 of 1020 MHz" in said
    assert "throttling" in said
    assert "power mode changed" in " ".join(device.caveats(device.State("15W"), state))


def test_what_cannot_be_read_is_left_out_and_this_machine_described(tmp_path: Path) -> None:
    assert device.state(tmp_path).to_json() == {}
    assert "jetpack" not in device.describe(tmp_path)
    assert device.caveats(device.State(), device.State()) == []
    assert device.describe()["num_cores"] == device.num_cores() >= 1
    assert device.peak_memory_mib() > 1


def test_jetpacks_follow_from_l4t() -> None:
    for path in (Path(__file__).parents[2] / "targets" / "jetpacks").glob("*.toml"):
        l4t = read_toml(path).get("l4t")  # bases that others share state none
        assert l4t is None or device.jetpack_of(l4t) == path.stem
    assert device.jetpack_of("40.1") == ""


def test_onnxruntime_keeps_no_telemetry_on_the_machine(tiny_bundle: Bundle, tmp_path: Path) -> None:
    graph = tiny_bundle.folder / "model.fp32.onnx"
    code = f"from dfkd_edge.runtime.session import open_graph; open_graph({str(graph)!r}, 1, False)"
    (home := tmp_path / "home").mkdir()
    places = {name: str(home) for name in ("HOME", "TMPDIR", "XDG_CACHE_HOME")}
    named = {key: value for key, value in os.environ.items() if key != "ORT_DISABLE_TELEMETRY"}
    command = [sys.executable, "-c", code]
    subprocess.run(command, env={**named, **places}, check=True)
    assert not list(home.iterdir())
