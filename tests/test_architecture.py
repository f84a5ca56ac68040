"""Who may import whom, read from the source with ast."""

from __future__ import annotations

import ast
import importlib
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CORE = ROOT / "dfkd_edge"
LEAVES = (
    *("config", "config_file", "artifacts", "interfaces", "errors", "seeding", "run_dir"),
    *("class_names", "target_profile", "target_schema", "target_files", "plugins", "model_names"),
    *("certainty", "real_pictures"),
)
STAGES = ("prompts", "synthesis", "distillation", "validation", "deployment", "report")
BETWEEN_STAGES = {
    ("distillation", "synthesis.views"),  # teacher and student see the views of the synthesis
    # export proves what it writes: the gate decides what ships, and fits its confidence
    ("deployment", "validation.confidence"),
    ("deployment", "validation.evaluation_images"),
    ("deployment", "validation.gate"),
    ("deployment", "validation.image_folders"),
    ("deployment", "validation.ladder"),
    ("deployment", "validation.statistics"),
    ("deployment", "validation.torch_runners"),
    ("deployment", "distillation.qat"),  # the last resort of repair trains with simulated INT8
}
"""Who takes what from another stage, and why; everything else meets through artifacts."""
HEAVY = {"torch", "torchvision", "open_clip", "timm", "diffusers", "onnx", "onnxruntime"}


def imported(path: Path, top_level_only: bool = False) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = tree.body if top_level_only else list(ast.walk(tree))
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
    return found


@pytest.mark.parametrize("leaf", LEAVES)
def test_leaves_import_no_heavy_library_and_no_stage(leaf: str) -> None:
    names = imported(CORE / f"{leaf}.py", top_level_only=True)
    assert not {n.split(".")[0] for n in names} & HEAVY
    assert not {n for n in names if n.startswith(tuple(f"dfkd_edge.{s}" for s in STAGES))}


def test_stages_import_nothing_of_each_other_but_what_is_listed() -> None:
    found = {
        (stage, name.removeprefix("dfkd_edge."))
        for stage in STAGES
        for path in (CORE / stage).glob("*.py")
        for name in imported(path)
        if name.startswith(tuple(f"dfkd_edge.{other}" for other in STAGES if other != stage))
    }
    assert found == BETWEEN_STAGES


def test_the_core_names_no_exporter_and_no_target() -> None:
    for path in CORE.rglob("*.py"):
        for name in imported(path):
            parts = name.split(".")
            assert not {"exporters", "targets"} & set(parts[:2]), path


def test_only_plugins_looks_backends_and_targets_up() -> None:
    groups = ("dfkd_edge.exporters", "dfkd_edge.targets")
    for path in CORE.rglob("*.py"):
        texts = [
            node.value
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        ]
        named = {text for text in texts if text.startswith(groups)}
        assert named == (set(groups) if path.name == "plugins.py" else set()), path


def test_the_wheel_carries_every_target_file() -> None:
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = pyproject["tool"]["setuptools"]["package-data"]["dfkd_edge.targets"]
    shipped = {path for pattern in patterns for path in (ROOT / "targets").glob(pattern)}
    there = {path for path in (ROOT / "targets").rglob("*") if path.suffix in {".toml", ".md"}}
    assert shipped == there


def test_the_wheel_carries_every_asset() -> None:
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = pyproject["tool"]["setuptools"]["package-data"]["dfkd_edge.assets"]
    folder = CORE / "assets"
    shipped = {path for pattern in patterns for path in folder.glob(pattern)}
    there = {path for path in folder.rglob("*") if path.suffix not in {"", ".py", ".pyc"}}
    assert shipped == there


def test_every_package_is_listed_for_the_wheel() -> None:
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    listed = set(pyproject["tool"]["setuptools"]["packages"])
    there = {
        ".".join(p.parent.relative_to(ROOT).parts)
        for p in CORE.rglob("__init__.py")
        if "__pycache__" not in p.parts
    }
    assert there | {"dfkd_edge.exporters", "dfkd_edge.targets"} == listed


def test_nothing_unpickles() -> None:
    for path in (*CORE.rglob("*.py"), *(ROOT / "exporters").rglob("*.py")):
        source = path.read_text(encoding="utf-8")
        assert not imported(path) & {"dill", "cloudpickle", "joblib"}, path
        assert not {"pickle.load", "pickle.loads", "pickle.Unpickler"} & {
            ast.unparse(n.func) for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Call)
        }, path
        for call in ast.walk(ast.parse(source)):
            if isinstance(call, ast.Call) and ast.unparse(call.func) == "torch.load":
                arguments = {k.arg: ast.unparse(k.value) for k in call.keywords}
                assert arguments.get("weights_only") == "True", path


@pytest.mark.parametrize(
    "script",
    [*ROOT.glob("examples/**/*.py"), *ROOT.glob("tests/benchmarks/*.py")],
    ids=lambda path: path.relative_to(ROOT).as_posix(),
)
def test_scripts_name_only_what_the_package_has(script: Path) -> None:
    for node in ast.walk(ast.parse(script.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("dfkd_edge"):
            module = importlib.import_module(node.module or "")
            for name in (alias.name for alias in node.names):
                is_there = hasattr(module, name) or find_spec(f"{node.module}.{name}")
                assert is_there, f"{node.module} has no {name}"
