"""Which runtime is where: every pair of runtime and target has a version, or a refusal."""

from pathlib import Path

import pytest

from dfkd_edge.errors import ConfigError
from dfkd_edge.handover.lookup import load_runtime, require_runtimes
from dfkd_edge.handover.profile import RuntimeProfile, read_runtime
from dfkd_edge.target_profiles.lookup import list_modules, list_targets, load_target
from tests.handover.conftest import EVERY

TARGETS = [load_target(name) for name in list_targets()]
SMALLEST = 'name = "mine"\ntitle = "Mine"\nfeed = "bundle"\n'


@pytest.mark.parametrize("name", EVERY)
def test_every_target_has_a_version_or_one_line_that_names_those_that_exist(name: str) -> None:
    profile, found = load_runtime(name).profile, set()
    for target in TARGETS:
        if version := profile.version_on(target):
            found.add(version)
            continue
        with pytest.raises(ConfigError, match=f"^{name} never was on {target.name} ") as refused:
            profile.require(target)
        assert refused.value.hint.startswith(("there is ", "it is wherever TensorRT is"))
        assert "\n" not in str(refused.value)
    assert found >= set(profile.versions)  # no version that no target has


@pytest.mark.parametrize("name", EVERY)
def test_every_fact_has_a_source_and_every_jetpack_is_one_that_shipped(name: str) -> None:
    profile = load_runtime(name).profile
    shipped = {jetpack for jetpacks in list_modules().values() for jetpack in jetpacks}
    listed = [jetpack for jetpacks in profile.versions.values() for jetpack in jetpacks]
    assert set(listed) <= shipped
    assert len(listed) == len(set(listed))  # one version a JetPack
    facts = {"versions", "boards", "refused_names"} & profile.shown().keys()
    assert facts <= profile.sources.keys() <= profile.shown().keys()


@pytest.mark.parametrize(
    ("runtime", "target", "version"),
    [
        ("deepstream", "nano@jp4.6.1", "6.0.1"),
        ("deepstream", "orin-nano-8gb@jp6.2", "7.1"),
        ("deepstream", "orin-nano-8gb@jp7.2", "9.1"),
        ("triton", "orin-nano-8gb@jp5.1.2", "2.34.0"),
        ("triton", "x86-cpu", "24.08"),
        ("trtexec", "orin-nano-8gb@jp6.2", "10.3.0.30"),
        ("trtexec", "t5000@jp7.2.2-trt11", "11.4.1"),
        ("deepstream", "t5000@jp7.2.2-trt11", ""),
        ("deepstream-triton", "orin-nano-8gb@jp5.1.2", "6.3"),
        ("isaac-ros", "orin-nano-8gb@jp6.2", "3.2"),
        ("isaac-ros", "t5000@jp7.1", "4.4"),
        ("isaac-ros", "orin-nano-8gb@jp7.2", "4.5"),
        ("isaac-ros", "orin-nano-8gb@jp5.1.2", ""),
        ("ros2", "orin-nano-8gb@jp6.2", "humble"),
        ("ros2", "raspberry-pi-5", "jazzy"),
        ("ros2", "nano@jp4.6.1", ""),
        ("holoscan", "t5000@jp7.0", "3.10.0"),
        ("holoscan", "t5000@jp7.1", ""),
        ("deepstream", "x86-cpu", ""),
        ("jetson-inference", "t5000@jp7.0", ""),
        ("triton", "nano@jp4.6", ""),
    ],
)
def test_the_jetpack_decides_the_version(runtime: str, target: str, version: str) -> None:
    assert load_runtime(runtime).profile.version_on(load_target(target)) == version


def test_onnxruntime_is_of_the_version_of_the_wheel_that_recipe_and_targets_name() -> None:
    profile = load_runtime("onnxruntime").profile
    wheels = {(profile.version_on(target), target.max_onnxruntime) for target in TARGETS}
    named = {(version, wheel) for version, wheel in wheels if version and wheel}
    assert named == {(version, version) for version in ("1.19.2", "1.23.2", "1.32.0")}


@pytest.mark.parametrize(
    ("runtime", "batch", "fits"),
    [
        ("holoscan", (1, 1, 1), True),
        ("holoscan", (1, 4, 8), False),
        ("isaac-ros", (1, 4, 8), True),
        ("deepstream-triton", (4, 4, 4), False),
        ("jetson-inference", (1, 4, 8), False),
        ("deepstream", (4, 4, 4), True),
    ],
)
def test_a_batch_that_a_runtime_cannot_fill_is_refused_with_the_one_that_it_can(
    runtime: str, batch: tuple[int, ...], fits: bool
) -> None:
    profile = load_runtime(runtime).profile
    if fits:
        profile.require_batch(batch)
    else:
        with pytest.raises(ConfigError, match=f"{runtime} cannot fill a batch of") as refused:
            profile.require_batch(batch)
        assert "--batch 1" in refused.value.hint


def test_a_wrong_name_gets_the_nearest_and_a_name_given_twice_counts_once() -> None:
    with pytest.raises(ConfigError, match="unknown runtime 'deepstrem': did you mean deepstream"):
        load_runtime("deepstrem")
    found = require_runtimes(["triton", "triton"], load_target("jetson"), batch=(1,))
    assert [runtime.profile.name for runtime in found] == ["triton"]


@pytest.mark.parametrize(
    ("line", "where"),
    [
        ("feed = 'bytes'", "feed"),
        ("colour = 'red'", "colour"),
        ("boards = 6", "boards"),
    ],
)
def test_a_file_that_is_wrong_is_refused_by_its_key(line: str, where: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(SMALLEST, encoding="utf-8")
    assert read_runtime(path) == RuntimeProfile(name="mine", title="Mine", feed="bundle")
    lines = [one for one in SMALLEST.splitlines() if one.split()[0] != line.split()[0]]
    path.write_text("\n".join([*lines, line]), encoding="utf-8")
    with pytest.raises(ConfigError, match=rf"mine.toml: {where}"):
        read_runtime(path)
