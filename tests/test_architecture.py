"""Who may import whom, read from the source with ast."""

import ast
import functools
import graphlib
import importlib
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
CORE = ROOT / "dfkd_edge"
FLOORS = (
    ("assets", "runtime", "seeding", "version"),
    ("errors",),
    ("class_lists", "files"),
    ("class_names", "config", "machine"),
    ("console", "target_profiles"),
    ("artifacts",),
    ("interfaces",),
    ("plugins", "runs"),
    ("networks", "results"),
    ("drawings", "pictures"),
    ("bundles", "conversion", "distillation", "prompts", "synthesis"),
    ("handover",),
    ("preflight",),
    ("class_lint", "report", "validation"),
    ("deployment",),
    ("pipeline",),
    ("estimates",),
    ("api", "commands"),
    ("cli",),
    ("__init__", "__main__"),
)
"""The house from the ground up. An import goes down, lazy ones included; rooms of one floor meet
through artifacts below them and are joined above them."""
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
EXPORTERS_SEE = {*(room for rooms in FLOORS[:9] for room in rooms), "conversion"}
"""Backends read graphs with the eyes of the lint, and know nothing else of the stages."""
RUNTIMES_SEE = {
    *("handover.parsers", "handover.request", "handover.wording"),
    "bundles.recipe",
}
HEAVY = {"torch", "torchvision", "open_clip", "timm", "diffusers", "onnx", "onnxruntime"}
LIGHT_FLOORS = 7
"""Up to `interfaces`, a module loads without a heavy library."""
FACES = {"cli", "commands", "console"}
"""Who may speak in colours."""
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]
MODULE_OF = {"open_clip_torch": "open_clip", "pillow": "PIL", "pyyaml": "yaml"}
"""Packages whose module has another name."""
BEHIND_TORCH = {"onnxscript"}
"""torch.onnx.export(dynamo=True) imports it, and torch does not install it."""
BROUGHT_ALONG = {"google", "huggingface_hub", "markupsafe", "pydantic_core"}
"""Of onnx (protobuf), open_clip_torch, jinja2 and pydantic, whose interfaces they are part of."""


@functools.cache
def modules() -> dict[str, Path]:
    """Every module of the core by its name below dfkd_edge; a package by the name of its folder."""
    found = {}
    for path in CORE.rglob("*.py"):
        parts = path.relative_to(CORE).with_suffix("").parts
        is_package = parts[-1] == "__init__" and len(parts) > 1
        found[".".join(parts[:-1] if is_package else parts)] = path
    return found


@functools.cache  # parsing and walking the product takes seconds
def nodes(path: Path) -> tuple[ast.AST, ...]:
    return tuple(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))


def imported(path: Path, top_level_only: bool = False) -> set[str]:
    """Names of modules, and of what is taken from them, as dotted paths."""
    found, (tree, *_) = set(), nodes(path)
    assert isinstance(tree, ast.Module)
    for node in tree.body if top_level_only else nodes(path):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


@functools.cache
def ours(path: Path) -> frozenset[str]:
    """Modules of the core that a file imports, lazily or not."""
    known, found = modules(), set()
    for node in nodes(path):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            submodules = {name for name in names if name.removeprefix("dfkd_edge.") in known}
            found |= submodules | ({node.module} if names != submodules else set())
    return frozenset({name.removeprefix("dfkd_edge.") for name in found} & set(known))


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
        of_conversion = {name for name in ours(path) if room(name) == "conversion"}
        assert of_conversion <= {"conversion", "conversion.graph_view"}, path


def test_runtimes_see_the_handover_and_the_recipe_alone() -> None:
    for path in (ROOT / "exporters/runtimes").glob("*.py"):
        assert ours(path) <= RUNTIMES_SEE, path


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
    groups = {
        "dfkd_edge.exporters": "plugins",
        "dfkd_edge.targets": "target_profiles.lookup",
        "dfkd_edge.runtimes": "handover.lookup",
    }
    for name, path in modules().items():
        texts = [
            node.value
            for node in nodes(path)
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        ]
        named = {text for text in texts if text.startswith(tuple(groups))}
        assert named == {group for group, owner in groups.items() if owner == name}, path


def test_the_wheel_carries_every_file() -> None:
    setuptools = PYPROJECT["tool"]["setuptools"]
    data, moved = setuptools["package-data"], setuptools["package-dir"]
    shipped = set()
    for package in setuptools["packages"]:  # setuptools drops in silence what none of them names
        folder = ROOT / moved.get(package, package.replace(".", "/"))
        shipped |= {path for glob in ("*.py", *data.get(package, ())) for path in folder.glob(glob)}
    there = {path for top in set(moved.values()) for path in (ROOT / top).rglob("*")}
    assert shipped == {p for p in there if p.is_file() and p.parent.name != "__pycache__"}


def test_the_product_imports_what_it_installs_and_installs_what_it_imports() -> None:
    beside = (ROOT / "exporters").rglob("*.py")
    sources = [*modules().values(), *beside]
    used = {name.partition(".")[0] for path in sources for name in imported(path)}
    core, *extras = (
        {MODULE_OF.get(r.name, r.name.replace("-", "_")) for r in map(Requirement, texts)}
        for texts in (PROJECT["dependencies"], *PROJECT["optional-dependencies"].values())
    )
    assert core - BEHIND_TORCH <= used
    known = core.union(BROUGHT_ALONG, *extras)
    assert used - sys.stdlib_module_names - {"dfkd_edge", "_typeshed"} <= known


def test_nothing_unpickles() -> None:
    for path in (*CORE.rglob("*.py"), *(ROOT / "exporters").rglob("*.py")):
        assert not imported(path) & {"dill", "cloudpickle", "joblib"}, path
        for call in (node for node in nodes(path) if isinstance(node, ast.Call)):
            name = ast.unparse(call.func)
            assert name not in {"pickle.load", "pickle.loads", "pickle.Unpickler"}, path
            if name == "torch.load":
                arguments = {k.arg: ast.unparse(k.value) for k in call.keywords}
                assert arguments.get("weights_only") == "True", path


@pytest.mark.parametrize(
    "script",
    [*ROOT.glob("examples/**/*.py"), *ROOT.glob("tests/benchmarks/*.py")],
    ids=lambda path: path.relative_to(ROOT).as_posix(),
)
def test_scripts_name_only_what_the_package_has(script: Path) -> None:
    for node in nodes(script):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("dfkd_edge"):
            module = importlib.import_module(node.module or "")
            for name in (alias.name for alias in node.names):
                is_there = hasattr(module, name) or find_spec(f"{node.module}.{name}")
                assert is_there, f"{node.module} has no {name}"
