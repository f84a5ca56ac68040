import itertools
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from dfkd_edge.errors import ConfigError
from tests.fixtures.files import read_json, write_picture

STUDY = Path(__file__).parents[1] / "examples" / "study"


@pytest.fixture
def study(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(STUDY))  # a script names its neighbours without a package
    import study

    return study


@pytest.fixture
def request_arguments(tmp_path: Path) -> list[str]:
    names = itertools.product(("photo", "sketch"), ("dog", "house"))
    for seed, (domain, name) in enumerate(names):
        write_picture(tmp_path / "data" / domain / name / "0.png", seed)
    (tmp_path / "classes.txt").write_text("dog\nhouse\n", encoding="utf-8")
    words = f"--classes {tmp_path}/classes.txt --data {tmp_path}/data --output {tmp_path}/out -q"
    small = "--seeds 0 --num-images 32 --steps 1"
    tiny = "--set distillation.batch_size=4 --set distillation.image_size_px=64"
    return [*words.split(), *small.split(), *tiny.split()]


def test_a_finished_cell_is_not_run_again_the_table_grows_and_other_settings_are_refused(
    study: ModuleType,
    request_arguments: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert study.main([*request_arguments, "--cells", "teacher"]) == 0
    cell = tmp_path / "out" / "cells" / "teacher-seed0.json"
    first = cell.stat().st_mtime_ns, cell.read_bytes()
    assert study.main([*request_arguments, "--cells", "teacher", "dead-leaves"]) == 0
    assert (cell.stat().st_mtime_ns, cell.read_bytes()) == first
    teacher, floor = read_json(tmp_path / "out" / "table.json")["rows"]
    assert (teacher["arm"], floor["arm"]) == ("teacher", "dead-leaves")
    assert teacher["retention"] in (1.0, None)
    assert floor["num_images"] == 32
    assert floor["distillation_s"] > 0
    assert set(floor["domains"]) == {"photo", "sketch"}
    assert "dead leaves (floor)" in capsys.readouterr().out
    assert (tmp_path / "out" / "plot.png").read_bytes().startswith(b"\x89PNG")
    assert study.main([*request_arguments, "--cells", "teacher", "--steps", "2"]) == 2
    assert "other settings" in capsys.readouterr().err


def test_what_paces_a_cell_runs_before_it(study: ModuleType) -> None:
    cells = [str(cell) for cell in study.plan(["teacher", "mix-seconds"], [4, 5], False)]
    assert cells == [
        "teacher, seed 4",
        *("base, seed 4", "mix, seed 4", "mix-seconds, seed 4"),
        *("base, seed 5", "mix, seed 5", "mix-seconds, seed 5"),
    ]
    pixels = [str(cell) for cell in study.plan(["pixels-few-seconds"], [4], False)]
    assert pixels[:2] == ["descent-few, seed 4", "pixels-few, seed 4"]
    with pytest.raises(ConfigError, match="needs real pictures"):
        study.plan(["real"], [0], False)


def test_a_night_has_both_starts_of_the_student_and_none_of_them_twice(study: ModuleType) -> None:
    arms = {cell.arm for cell in study.plan([], [0], True)}
    assert {"start", "real", "pixels", "contrastive-drawings"} < arms
    assert {f"{arm}-pretrained" for arm in ("start", "real", "pixels")} < arms
    again = {cell.arm for cell in study.plan([], [0], True, "pretrained")}
    assert again == {arm for arm in arms if not arm.endswith("-pretrained")}


@pytest.mark.slow
def test_a_forecast_tells_what_each_cell_takes(
    study: ModuleType, request_arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    cells = ["--cells", "teacher", "pixels", "dead-leaves"]
    assert study.main([*request_arguments, *cells, "--dry-run"]) == 0
    *arms, total = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in arms] == cells[1:]
    assert total.startswith("3 cells: about ")


def _document(seed: int, photo: str, sketch: str) -> dict[str, object]:
    return {
        "seed": seed,
        "seconds": {"synthesis": 10.0 if seed else 30.0, "distillation": 1.0},
        "cpu_seconds": {"synthesis": 5.0 if seed else 15.0},
        "facts": {"num_images": 32, "num_candidates": 40, "mean_distance_within_class": 0.2},
        "domains": {"photo": photo, "sketch": sketch},
    }


def test_domains_weigh_the_same_and_differences_are_paired(study: ModuleType) -> None:
    import results

    base = [_document(0, "1000", "00"), _document(1, "1100", "00")]
    contrastive = [_document(0, "1000", "01"), _document(1, "1100", "01")]
    teacher = [_document(0, "1111", "11")]
    found = {"base": base, "contrastive": contrastive, "teacher": teacher}
    row = results.row("contrastive", found)
    assert row["top1"] == pytest.approx((0.375 + 0.5) / 2)
    assert row["by_seed"] == pytest.approx([0.375, 0.5])
    assert row["domains"] == pytest.approx({"photo": 0.375, "sketch": 0.5})
    assert row["retention"] == pytest.approx(row["top1"])
    delta = results.difference("contrastive", "base", found)
    assert delta["difference"] == pytest.approx(0.25)
    assert delta["by_seed"] == pytest.approx([0.25, 0.25])
    assert delta["synthesis_time_ratio"] == pytest.approx(1.0)


def test_real_pictures_are_drawn_by_seed_and_leaves_fill_the_picture(
    study: ModuleType, tmp_path: Path
) -> None:
    import picture_sets

    stored = np.arange(40, dtype=np.uint8).repeat(12).reshape(40, 2, 2, 3)
    np.save(tmp_path / "photos.npy", stored)
    path = picture_sets.stored_pictures(tmp_path / "photos.npy", tmp_path / "work")
    drawn = picture_sets.real_pictures(path, 20, seed=1)
    assert len(np.unique(drawn[:, 0, 0, 0])) == 20
    assert not np.array_equal(drawn, picture_sets.real_pictures(path, 20, seed=2))
    leaves = picture_sets.dead_leaves(2, 48, seed=0)
    assert np.array_equal(leaves[:1], picture_sets.dead_leaves(1, 48, seed=0))
    assert (leaves == 128).all(-1).mean() < 0.1
    with pytest.raises(ConfigError, match="no real pictures"):
        picture_sets.stored_pictures(tmp_path / "work", tmp_path / "work")
