"""Every code block of README.md and of the guides is run.

`dfkd-edge` lines run for real on a run of a few images, in a folder laid out as a user's; what is
replaced, and what cannot be run here and is only checked, is listed in the tables below. A command,
an option, a file or a name that is no longer there fails.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from dfkd_edge.bundles.recipe import EngineBuild, build_script
from dfkd_edge.class_names import read_class_names
from dfkd_edge.cli import INTERRUPTED, TERMINATED
from dfkd_edge.config.file import load_config, to_toml
from dfkd_edge.errors import DfkdEdgeError, EnvironmentLackingError, GateFailedError, UsageError
from dfkd_edge.handover import lookup
from dfkd_edge.runtime import check as device_check
from dfkd_edge.target_profiles.lookup import load_target
from tests.fixtures.command import invoke
from tests.fixtures.exported import TINY_DISTILL

pytestmark = pytest.mark.usefixtures("few_images")
ROOT = Path(__file__).parents[1]
WORKFLOW = ROOT / "examples" / "ci_pipeline" / "workflow.yml"
GUIDES = [ROOT / "README.md", *sorted((ROOT / "examples").rglob("README.md")), WORKFLOW]
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NAMED_TEST = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")
WORKFLOW_STEP = re.compile(r"^ *- run: (.*)$", re.MULTILINE)

ADDED = {
    "distill": (
        *("--set", "prompts.num_iterations=1", "--set", "synthesis.num_images=32"),
        *("--set", "synthesis.num_sampling_steps=1", "--set", "synthesis.num_refinement_steps=0"),
    ),
    "export": ("--calib-size", "8"),
    "benchmark": ("--duration", "0.02", "--warmup", "1"),
    "check.pyz": ("--duration", "0.02", "--warmup", "1", "--output", "result.json"),
}
"""What makes a command short, by verb."""
DEFAULTS = {
    "distill": {"--steps": "2", "--batch-size": "8", "--num-styles": "2", "--data": "pictures"},
    "export": {"--max-drop": "1", "--data": "pictures"},
    "check": {"--max-drop": "1"},
}
"""Options that take these values whatever the document says, so that the run made for all tests is
found again: a run is opened instead of made when its settings are the same."""
PLAN = {"--batch-size": "2"}
"""The same for a plan, which times the student on a batch."""
PATHS = {"examples/quickstart/classes.txt": "classes.txt", "models/ViT-B-32": "{clip}"}
"""Files that documents name, and the small ones that are used; those of examples/ must exist."""
PLANNED_ONLY = {"--preset", "--config", "--prompts", "--synthesis", "--student"}
"""A `distill` with one of these makes another run: only its plan is made, with --dry-run."""
SHOWN_ONLY = {"synthesize"}
"""Verbs whose options are checked by the parser, with --help behind them."""
PYTHON = {
    '("examples/quickstart/classes.txt", data="pictures")': (
        '("classes.txt", data="pictures", quiet=True, **TINY_DISTILL)'
    ),
    'target="jetson"': 'target="tiny.toml", calib_size=8, max_drop=1, quiet=True',
}
"""Calls in Python blocks that would take an hour."""


class Block(NamedTuple):
    guide: Path
    line: int
    language: str
    text: str


def blocks(guide: Path) -> Iterator[Block]:
    """Find the code blocks of a guide, or the shell lines of a workflow."""
    text = guide.read_text(encoding="utf-8")
    if guide == WORKFLOW:
        yield Block(guide, 1, "sh", "\n".join(WORKFLOW_STEP.findall(text)))
    for match in FENCE.finditer(text):
        yield Block(guide, text[: match.start()].count("\n") + 1, match[1], match[2])


def commands(text: str) -> Iterator[tuple[list[str], str]]:
    """Words of every command of a shell block, and the file that its output goes to."""
    for line in text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="&|;>")
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, ";"]:
            if word not in {";", "&&", "||", "|"}:
                words.append(word)
                continue
            words, output = (words[: words.index(">")], words[-1]) if ">" in words else (words, "")
            if words and words[0] == "sudo":
                words = words[1:]
            if words and words[0] != "export":
                yield words, output
            words = []


def check_install(guide: Path, words: list[str]) -> None:
    """Every extra and every local package that is installed exists."""
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    extras = pyproject["project"]["optional-dependencies"]
    for word in (word for word in words[2:] if not word.startswith("-")):
        path, bracket, names = word.rstrip("]").partition("[")
        if path.startswith("."):
            assert (ROOT / path / "pyproject.toml").is_file(), word
        for name in names.split(",") if bracket else ():
            assert name in extras, word


def check_script(guide: Path, words: list[str]) -> None:
    """The script exists and knows the options that it is given."""
    if words[1:3] == ["-m", "venv"]:
        return
    name = next(word for word in words if word.endswith((".py", ".sh")))
    if name == "build.sh":  # a file of the bundle
        target = load_target("jetson")
        assert build_script(
            EngineBuild(
                target=target, precision="int8", batch=(1,), image_size_px=96, content="0123"
            )
        )
        return
    script = next((p for p in (guide.parent / name, ROOT / name) if p.is_file()), None)
    assert script, f"no {name}"
    source = script.read_text(encoding="utf-8")
    for word in words:
        if word.startswith("--"):
            known = word.split("=")[0]
            assert known in source or known[2:].replace("-", "_") in source, f"{name}: no {known}"


def check_launcher(guide: Path, words: list[str]) -> None:
    """What torchrun or accelerate starts is ours and knows its options."""
    at = next(place for place, word in enumerate(words) if word in ("-m", "--module"))
    module, *arguments = words[at + 1 :]
    assert module == "dfkd_edge"
    dfkd_edge_prints([*arguments, "--help"])


def check_sbatch(guide: Path, words: list[str]) -> None:
    """The script is there, and hands on options that `distill` knows."""
    assert (guide.parent / words[1]).is_file()
    dfkd_edge_prints(["distill", *words[2:], "--help"])


def leave(guide: Path, words: list[str]) -> None:
    """It is for the machine or the network that the guide speaks of."""


CHECKED_ONLY: dict[str, Callable[[Path, list[str]], None]] = {
    "pip": check_install,
    "python": check_script,
    "sh": check_script,
    "torchrun": check_launcher,
    "accelerate": check_launcher,
    "sbatch": check_sbatch,
    **dict.fromkeys(("cd", "scp", "npm", "nvpmodel", "jetson_clocks", "pytest"), leave),
}
"""Programs that need a network, a device, an hour or another place, and what is checked of them."""


def dfkd_edge_prints(words: list[str]) -> str:
    """Run the command line in this process; it must succeed."""
    result = invoke(*words)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def shortened(words: list[str], clip: Path) -> list[str]:
    """Apply the tables to a command of ours."""
    verb, *_ = words
    for word in (word for word in words if word.startswith("examples/")):
        assert (ROOT / word).is_file(), word
        if word.endswith(".txt"):
            read_class_names(ROOT / word)
    words = [PATHS[word].format(clip=clip) if word in PATHS else word for word in words]
    words = [str(ROOT / word) if word.startswith("examples/") else word for word in words]
    if verb in SHOWN_ONLY:
        return [*words, "--help"]
    is_plan = verb == "distill" and bool({"--dry-run", *PLANNED_ONLY} & set(words))
    values = PLAN if is_plan else dict(DEFAULTS.get(verb, {}))
    if verb == "export":
        load_target(words[words.index("--target") + 1] if "--target" in words else "jetson")
        values["--target"] = "tiny.toml"  # the target that a document names must exist all the same
    if "--device" in words:
        values["--device"] = "cpu"
    for name, text in values.items():
        words = words if name in words else [*words, name, text]
        words[words.index(name) + 1] = text
    if is_plan:
        return words if "--dry-run" in words else [*words, "--dry-run"]
    return [*words, *ADDED.get(verb, ())]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory, tiny_workspace: Path) -> Path:
    """A user's folder with everything that a document takes for granted."""
    folder = tmp_path_factory.mktemp("user") / "work"
    shutil.copytree(tiny_workspace, folder, symlinks=True)
    tiny = {"export": {"target": "tiny.toml", "calibration_size": 8, "max_drop": 1.0}}
    settings = folder / "runs" / "latest" / "config.toml"
    settings.write_text(to_toml(load_config(settings, tiny)), encoding="utf-8")
    shutil.copyfile(settings, folder / "run.toml")
    bundle = next((folder / "runs" / "latest" / "bundles").iterdir())
    with np.load(bundle / "golden.npz") as golden:
        np.save(folder / "frame.npy", golden["test_card"])
    return folder


def run_shell(block: Block, workspace: Path, clip: Path) -> None:
    for words, output in commands(block.text):
        program = re.sub(r"[\d.]+$", "", Path(words[0]).name)
        if program == "dfkd-edge":
            printed = dfkd_edge_prints(shortened(words[1:], clip))
            if output:
                Path(output).write_text(printed, encoding="utf-8")
        elif "check.pyz" in words:
            bundle = next((workspace / "runs" / "latest" / "bundles").iterdir())
            options = words[words.index("check.pyz") + 1 :]
            options += [] if "--frame" in options else ADDED["check.pyz"]  # no model is run
            assert device_check.main([*options, "--bundle", str(bundle)]) == 0  # what it packs
        else:
            assert program in CHECKED_ONLY, f"no rule for {' '.join(words)}"
            CHECKED_ONLY[program](block.guide, words)


def run_python(block: Block, names: dict[str, Any]) -> None:
    text = block.text
    for long, short in PYTHON.items():
        text = text.replace(long, short)
    exec(compile(text, f"{block.guide}:{block.line}", "exec"), names)


def _marked(guide: Path) -> Any:
    """Leave the guides that take long to the slow tests."""
    marks = (pytest.mark.slow,) if guide.parent.name in ("real_clip", "quickstart") else ()
    return pytest.param(guide, id=guide.relative_to(ROOT).as_posix(), marks=marks)


@pytest.mark.parametrize("guide", [_marked(guide) for guide in GUIDES])
def test_every_block_runs(
    guide: Path,
    workspace: Path,
    small_tower: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(workspace)
    names: dict[str, Any] = {"TINY_DISTILL": TINY_DISTILL}
    for package in ("custom_exporter", "custom_runtime"):
        install(ROOT / "examples" / package, workspace, monkeypatch)
    monkeypatch.setattr(lookup, "_points", lookup._points.__wrapped__)  # not of what was installed
    found = list(blocks(guide))
    assert found
    for block in found:
        if block.language == "sh":
            run_shell(block, workspace, small_tower("clip"))
        elif block.language == "python":
            run_python(block, names)
        elif block.language == "toml":
            tomllib.loads(block.text)
        else:
            place = f"{guide.relative_to(ROOT)}:{block.line}"
            assert block.language == "text", f"{place}: a block of '{block.language}'"


def test_the_code_of_the_readme_prints_what_predict_prints(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(workspace)
    block = next(block for block in blocks(GUIDES[0]) if block.language == "python")
    run_python(block, {})
    printed = capsys.readouterr().out
    document = json.loads(dfkd_edge_prints(["predict", "runs/latest", "photo.jpg", "--json"]))
    (answer,) = document["pictures"]
    for words in (answer["label"], *(f"{t['label']} {t['score']:.3f}" for t in answer["top"])):
        assert words in printed


def install(package: Path, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a package and its entry points on the path, as pip would, without a network."""
    project = tomllib.loads((package / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    information = workspace / "site" / f"{project['name'].replace('-', '_')}-0.dist-info"
    information.mkdir(parents=True, exist_ok=True)
    text = f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    (information / "METADATA").write_text(text, encoding="utf-8")
    lines = []
    for group, points in project["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {place}" for name, place in points.items())]
    (information / "entry_points.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(package))
    monkeypatch.syspath_prepend(str(information.parent))


def test_every_list_of_exit_codes_is_whole() -> None:
    errors = (DfkdEdgeError, UsageError, GateFailedError, EnvironmentLackingError)
    codes = {0, INTERRUPTED, TERMINATED, *(error.exit_code for error in errors)}
    (line,) = re.findall(r"^Exit codes: .*$", GUIDES[0].read_text(encoding="utf-8"), re.MULTILINE)
    assert {int(code) for code in re.findall(r"\b\d+\b", line)} == codes
    for guide in ("jetson", "ci_pipeline"):
        text = (ROOT / "examples" / guide / "README.md").read_text(encoding="utf-8")
        rows = re.findall(r"^\| (\d+) \|", text.partition("| exit code |")[2], re.MULTILINE)
        assert {int(row) for row in rows} == codes, guide


def test_every_test_that_a_guide_names_is_there() -> None:
    named = {pair for guide in GUIDES for pair in NAMED_TEST.findall(guide.read_text("utf-8"))}
    assert len(named) > 20
    for path, name in named:
        text = (ROOT / path).read_text("utf-8")
        assert f"def {name}(" in text or not name, f"{path}::{name}"


def test_a_target_of_the_examples_states_only_what_differs() -> None:
    mine = load_target(str(ROOT / "examples" / "custom_target" / "acme-camera.toml"))
    base = load_target("orin-nx-16gb@jp6.2")
    assert (mine.ram_gib, base.ram_gib) == (8, 16)
    for name in ("tensorrt", "sm", "quantization"):
        assert getattr(mine, name) == getattr(base, name)


GATE = ROOT / "examples" / "ci_pipeline" / "gate.sh"


def test_the_gate_script_knows_our_options() -> None:
    lines = [s for s in GATE.read_text(encoding="utf-8").splitlines() if s.startswith("dfkd-edge")]
    assert [shlex.split(line)[1] for line in lines] == ["export", "check"]
    for words, _ in commands("\n".join(lines)):
        assert "Usage" in dfkd_edge_prints([*words[1:], "--help"])


def test_the_gate_script_passes_a_fault_of_the_job_on(workspace: Path, tmp_path: Path) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    (tmp_path / "runs").symlink_to(workspace / "runs")
    done = subprocess.run(
        ["sh", str(GATE), "no-such-folder", "x86-cpu"],
        cwd=tmp_path,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2, done.stderr
    assert "no-such-folder" in done.stderr
    assert not (tmp_path / "check.json").exists()
