"""The runtime must start on Python 3.8 (JetPack 5) with numpy alone."""

from __future__ import annotations

import ast
import io
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from dfkd_edge.bundles.parts import check_archive
from dfkd_edge.runtime.bundle_files import Bundle

RUNTIME = Path(__file__).parents[2] / "dfkd_edge" / "runtime"
SOURCES = sorted(RUNTIME.glob("*.py"))
ALLOWED = {"numpy"}
LAZY = {"onnxruntime", "tensorrt", "PIL"}
NEWER_THAN_3_8 = {
    *("removeprefix", "removesuffix", "is_relative_to", "readlink", "hardlink_to", "with_stem"),
    *("file_digest", "pairwise", "batched", "lcm", "StrEnum", "UTC", "walk_up"),
    *("exc_add_note", "add_note", "parenthesize", "to_thread"),
}


def imports(nodes: list[ast.AST]) -> set[str]:
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
    return found


def run_time_nodes(tree: ast.Module) -> list[ast.AST]:
    """Everything but annotations and blocks for type checkers."""
    nodes: list[ast.AST] = []
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        nodes.append(node)
        for name, value in ast.iter_fields(node):
            if name not in ("annotation", "returns"):
                values = value if isinstance(value, list) else [value]
                waiting += [v for v in values if isinstance(v, ast.AST)]
    return nodes


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.name)
def test_a_module_needs_no_more_than_python_3_8_and_numpy(path: Path) -> None:
    tree = ast.parse(path.read_text("utf-8"), feature_version=(3, 8))
    everywhere = {name.split(".")[0] for name in imports(run_time_nodes(tree))}
    at_start = {name.split(".")[0] for name in imports(list(tree.body))}
    assert at_start <= ALLOWED | {"dfkd_edge"} | sys.stdlib_module_names
    assert everywhere <= ALLOWED | LAZY | {"dfkd_edge"} | sys.stdlib_module_names
    ours = {name for name in imports(list(ast.walk(tree))) if name.startswith("dfkd_edge")}
    assert all(name.startswith("dfkd_edge.runtime") for name in ours)
    for node in run_time_nodes(tree):
        if isinstance(node, ast.Attribute):
            assert node.attr not in NEWER_THAN_3_8
        if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name):
            assert node.value.id not in {"list", "dict", "tuple", "set", "type"}, ast.unparse(node)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
            both = (node.left, node.right)
            assert not any(isinstance(side, ast.Constant | ast.Dict) for side in both)
        if isinstance(node, ast.Call):
            newer = {"kw_only", "slots", "strict", "encoding_errors", "dir_fd"}
            assert not newer & {k.arg for k in node.keywords}, ast.unparse(node)


def test_the_archive_holds_the_runtime_and_is_the_same_each_time() -> None:
    assert check_archive() == check_archive()
    with zipfile.ZipFile(io.BytesIO(check_archive())) as archive:
        names = set(archive.namelist())
        package = archive.read("dfkd_edge/__init__.py")
    runtime = {f"dfkd_edge/runtime/{path.name}" for path in SOURCES}
    assert package == b""  # ours imports `version`, which is not packed
    assert names == runtime | {"__main__.py", "dfkd_edge/__init__.py"}


def test_the_archive_runs_its_own_modules_and_nothing_heavy(tiny_bundle: Bundle) -> None:
    archive = str(tiny_bundle.folder / "check.pyz")
    code = (
        "import sys, runpy\n"
        f"sys.argv = [{archive!r}, '--quiet', '--duration', '0']\n"
        "try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "except SystemExit as stop: assert stop.code == 0, stop.code\n"
        "ours = {name: m for name, m in sys.modules.items() if name.startswith('dfkd_edge')}\n"
        "assert all(m.__file__.startswith(sys.argv[0]) for m in ours.values()), ours\n"
        "assert all(name.startswith('dfkd_edge.runtime') for name in {*ours} - {'dfkd_edge'})\n"
        "heavy = {'torch', 'onnx', 'timm', 'pydantic', 'typer', 'rich'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
