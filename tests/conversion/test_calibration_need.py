from dataclasses import replace
from pathlib import Path

import pytest

from dfkd_edge.artifacts import SurrogateSummary
from dfkd_edge.config.file import to_toml
from dfkd_edge.config.settings import ExportConfig, PipelineConfig
from dfkd_edge.conversion.calibration_need import (
    CalibrationShortage,
    export_command,
    find_shortage,
    shortage_of,
)
from dfkd_edge.files import atomic_write
from dfkd_edge.target_profiles.lookup import ALIASES, load_target
from dfkd_edge.target_profiles.profile import TargetProfile
from tests.fixtures.typed import surrogate_summary


def summary(num_learning: int) -> SurrogateSummary:
    return surrogate_summary(num_images=num_learning + 33, num_heldout=33, num_candidates=800)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    atomic_write(tmp_path / "config.toml", to_toml(PipelineConfig(classes="classes.txt")))
    return tmp_path


JETSON, DEFAULT = load_target("jetson"), ExportConfig()


def shortage(num: int, target: TargetProfile = JETSON) -> CalibrationShortage:
    found = find_shortage(summary(num), DEFAULT, target)
    assert found is not None
    return found


def test_images_suffice_from_the_number_that_int8_calibrates_on_where_surrogates_do() -> None:
    assert find_shortage(summary(256), DEFAULT, JETSON) is None  # and all of them mirrored
    assert shortage(255)
    assert find_shortage(summary(255), replace(DEFAULT, calibration_size=500), JETSON) is None
    assert find_shortage(summary(8), DEFAULT, load_target("nano")) is None
    for own in (replace(DEFAULT, precision="fp16"), replace(DEFAULT, calibration_data="pictures")):
        assert find_shortage(summary(8), own, JETSON) is None


def test_a_shortage_says_one_number_what_works_and_what_gives_more() -> None:
    found = shortage(224)
    error = str(found.error())
    assert f"224 images to learn from, and INT8 for {JETSON.name} calibrates on 512" in error
    assert str(JETSON.min_calibration_images) not in error
    assert found.flags == ("--precision fp16", "--calib-data DIR")
    num_candidates = int(found.more.partition("num_images=")[2])
    assert num_candidates * 224 / 800 >= 256
    assert found.more in error


def test_fewer_images_are_offered_where_the_target_takes_them() -> None:
    assert shortage(252).flags[0] == "--calib-size 504"
    no_fp16 = replace(JETSON, precisions=("fp32", "int8"))
    assert shortage(249, no_fp16).flags[0] == "--precision fp32"


@pytest.mark.parametrize(("num", "flags"), [(224, " --precision fp16"), (300, "")])
def test_the_export_that_a_run_names_has_the_images_it_needs(
    run: Path, num: int, flags: str
) -> None:
    summary(num).save(run / "surrogates")
    assert export_command(run) == f"dfkd-edge export {run} --target {ALIASES['jetson']}{flags}"
    chosen = replace(DEFAULT, precision="fp16") if flags else DEFAULT
    assert shortage_of(run, chosen) is None
