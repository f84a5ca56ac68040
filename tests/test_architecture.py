"""Who may import whom, read from the source with ast."""

from __future__ import annotations

import ast
import graphlib
import importlib
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CORE = ROOT / "dfkd_edge"
FLOORS = (
    ("assets", "runtime", "seeding", "version"),
    ("errors",),
    ("files",),
    ("class_names", "config", "machine"),
    ("console", "target_profiles"),
    ("artifacts",),
    ("interfaces",),
    ("plugins", "runs"),
    ("networks", "results"),
    ("drawings", "pictures"),
    ("bundles", "conversion", "distillation", "prompts", "synthesis"),
    ("class_lint", "preflight", "report", "validation"),
    ("deployment",),
    ("estimates", "pipeline"),
    ("api", "commands"),
    ("cli",),
    ("__init__", "__main__"),
)
"""The house from the ground up. An import goes down, lazy ones included; rooms of one floor meet
through artifacts below them and are joined above them."""
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
EXPORTERS_SEE = {*(room for rooms in FLOORS[:9] for room in rooms), "conversion"}
"""Backends read graphs with the eyes of the lint, and know nothing else of the stages."""
HEAVY = {"torch", "torchvision", "open_clip", "timm", "diffusers", "onnx", "onnxruntime"}
LIGHT_FLOORS = 7
"""Up to `interfaces`, a module loads without a heavy library."""
FACES = {"cli", "commands", "console"}
"""Who may speak in colours."""


def modules() -> dict[str, Path]:
    """Every module of the core by its name below dfkd_edge; a package by the name of its folder."""
    found = {}
    for path in CORE.rglob("*.py"):
        parts = path.relative_to(CORE).with_suffix("").parts
        is_package = parts[-1] == "__init__" and len(parts) > 1
        found[".".join(parts[:-1] if is_package else parts)] = path
    return found


def imported(path: Path, top_level_only: bool = False) -> set[str]:
    """Names of modules, and of what is taken from them, as dotted paths."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = set()
    for node in tree.body if top_level_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def ours(path: Path) -> set[str]:
    """Modules of the core that a file imports, lazily or not."""
    known, found = modules(), set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            submodules = {name for name in names if name.removeprefix("dfkd_edge.") in known}
            found |= submodules | ({node.module} if names != submodules else set())
    return {name.removeprefix("dfkd_edge.") for name in found} & set(known)


def room(module: str) -> str:
    return module.partition(".")[0]


def test_every_room_has_a_floor() -> None:
    assert {room(name) for name in modules()} == set(FLOOR)


def test_no_import_goes_up_and_none_leads_to_a_room_of_the_same_floor() -> None:
    wrong = [
        f"{name} -> {other}"
        for name, path in modules().items()
        for other in ours(path)
        if room(other) != room(name) and FLOOR[room(other)] >= FLOOR[room(name)]
    ]
    assert not wrong


def test_no_import_runs_in_a_circle() -> None:
    graph = {name: ours(path) - {name} for name, path in modules().items()}
    tuple(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError with the circle


def test_backends_see_the_lower_floors_and_the_view_of_graphs() -> None:
    for path in (ROOT / "exporters").glob("*.py"):
        assert {room(name) for name in ours(path)} <= EXPORTERS_SEE, path
        assert {name for name in ours(path) if room(name) == "conversion"} <= {
            "conversion",
            "conversion.graph_view",
        }, path


@pytest.mark.parametrize("name", sorted(n for n in modules() if FLOOR[room(n)] < LIGHT_FLOORS))
def test_the_lower_floors_load_no_heavy_library(name: str) -> None:
    names = imported(modules()[name], top_level_only=True)
    assert not {n.split(".")[0] for n in names} & HEAVY


def test_only_the_faces_speak_in_colours() -> None:
    for name, path in modules().items():
        if room(name) not in FACES:
            assert not any(n.split(".")[0] == "rich" for n in imported(path)), name


def test_the_root_holds_few_files() -> None:
    assert len(list(CORE.glob("*.py"))) <= 15


def test_the_core_names_no_exporter_and_no_target() -> None:
    for path in CORE.rglob("*.py"):
        for name in imported(path):
            parts = name.split(".")
            assert not {"exporters", "targets"} & set(parts[:2]), path


def test_backends_and_targets_are_looked_up_in_one_place_each() -> None:
    groups = {"dfkd_edge.exporters": "plugins", "dfkd_edge.targets": "target_profiles.lookup"}
    for name, path in modules().items():
        texts = [
            node.value
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        ]
        named = {text for text in texts if text.startswith(tuple(groups))}
        assert named == {group for group, owner in groups.items() if owner == name}, path


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
