"""`runs`: what lies below a folder, side by side, with what is damaged, and quickly."""

import csv
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fixtures.command import call, invoke
from tests.fixtures.files import edit_json


@pytest.fixture
def folder(finished_run: Path, exported: Path, tmp_path: Path) -> Path:
    """Two runs, one of them unfinished, three bundles of which two are damaged, and a stranger."""
    first = Path(shutil.copytree(finished_run, tmp_path / "runs" / "[red]first"))
    settings = (first / "config.toml").read_text(encoding="utf-8")
    second = tmp_path / "runs" / "second"
    second.mkdir()
    for name in ("config.toml", "classes.txt", "manifest.json"):
        shutil.copy(first / name, second / name)
    (second / "config.toml").write_text(settings.replace("seed = 0", "seed = 7"), encoding="utf-8")
    edit_json(second / "manifest.json", stages={})
    for name in ("cut", "gone"):
        shutil.copytree(exported, first / "bundles" / name)
    (first / "bundles" / "cut" / "model.int8.onnx").write_bytes(b"short")
    (first / "bundles" / "gone" / "manifest.json").write_bytes(b"{")
    (tmp_path / "runs" / "web").mkdir()
    (tmp_path / "runs" / "web" / "manifest.json").write_text('{"name": "a page"}')
    (tmp_path / "runs" / "latest").symlink_to("second")
    return tmp_path / "runs"


def test_each_run_and_bundle_is_a_row_and_a_damaged_one_says_why(folder: Path) -> None:
    code, output, errors = call("runs", folder, "--json")
    assert code == 0, errors
    rows = {row["path"]: row for row in json.loads(output)["entries"]}
    first = folder / "[red]first"
    bundles = {name: rows[str(first / "bundles" / name)] for name in ("x86-cpu", "cut", "gone")}
    assert len(rows) == 5
    assert rows[str(first)]["classes"] == 3
    assert rows[str(first)]["verdict"] == "distilled"
    assert rows[str(folder / "second")]["verdict"] == "unfinished: nothing done"
    assert (rows[str(first)]["seed"], rows[str(folder / "second")]["seed"]) == (0, 7)
    assert bundles["x86-cpu"]["measure"] == "agreement"
    assert 0 <= bundles["x86-cpu"]["low"] <= bundles["x86-cpu"]["high"] <= 1
    assert (
        bundles["x86-cpu"]["size_bytes"]
        == (first / "bundles/x86-cpu/model.int8.onnx").stat().st_size
    )
    assert bundles["x86-cpu"]["verdict"].startswith("int8 for x86-cpu: gate off")
    assert bundles["cut"]["fault"].startswith("model.int8.onnx has 5 bytes, not ")
    assert "manifest.json" in bundles["gone"]["fault"]


def test_the_table_and_the_csv_hold_the_same_rows_and_no_formula_runs(folder: Path) -> None:
    (folder / "second").rename(folder / "=1+1")
    (folder / "latest").unlink()
    code, output, _ = call("runs", folder, "--csv")
    rows = list(csv.DictReader(io.StringIO(output)))
    assert code == 0
    assert [row["kind"] for row in rows].count("bundle") == 3
    assert {row["seed"] for row in rows if row["kind"] == "run"} == {"0", "7"}
    for columns in (80, 200):
        table = invoke("runs", folder, COLUMNS=str(columns)).stdout
        assert "[red]first" in table
        assert "unfinished" in table
    relative = call("runs", folder / "=1+1", "--csv")[1]
    assert "nothing done" in relative


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_where_a_table_does_not_fit_paths_are_whole_and_lines_break_between_words(
    folder: Path, columns: int
) -> None:
    shown = [
        line.rstrip() for line in invoke("runs", folder, COLUMNS=str(columns)).stdout.split("\n")
    ]
    first = folder / "[red]first"
    for path in (
        first,
        first / "bundles" / "x86-cpu",
        first / "bundles" / "cut",
        folder / "second",
    ):
        assert str(path) in shown
    said = [line for line in shown if line.startswith("  ")]
    assert "  differs in seed=7" in said
    assert any(line.startswith("  unfinished: nothing done") for line in said)
    assert all(len(line) <= columns or " " not in line.strip() for line in said)


def test_it_loads_neither_torch_nor_onnx_and_an_empty_folder_is_no_error(tmp_path: Path) -> None:
    code = (
        "import sys; from tests.fixtures.command import call; "
        f"code, out, _ = call('runs', {str(tmp_path)!r}); "
        "assert code == 0 and 'no run and no bundle' in out; "
        "assert not {'torch', 'onnx', 'onnxruntime', 'jinja2'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
    assert call("runs", tmp_path / "none")[0] == 2
    assert call("runs", tmp_path, "--csv", "--json")[0] == 2
