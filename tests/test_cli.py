import dataclasses
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from dfkd_edge.cli import COMMANDS, app
from dfkd_edge.commands import run as run_command
from dfkd_edge.config.file import load_config
from dfkd_edge.version import __version__
from tests.fixtures.command import call, invoke

QUICK_PLAN = ("--preset", "clip-b32", "--batch-size", "2", "--dry-run", "--json")
"""Counts most networks where others are timed."""


LIGHT_CALLS = {
    "distill --help": 0,
    "distill --classes nothing.txt": 2,
    "export nothing": 2,
    "check nothing": 2,
    "benchmark nothing": 2,
    "predict nothing picture.jpg": 2,
    "report nothing": 2,
    "inspect nothing": 2,
}
LIGHTLY = """
import sys
from dfkd_edge.cli import main
for call, code in LIGHT_CALLS.items():
    sys.argv = ["dfkd-edge", *call.split()]
    try: main()
    except SystemExit as stop: assert (stop.code or 0) == code, (call, stop.code)
    heavy = {"torch", "open_clip", "timm", "diffusers", "numpy", "onnxruntime", "PIL"}
    heavy &= set(sys.modules)
    assert not heavy, (call, heavy)
"""


def test_help_and_wrong_paths_are_answered_without_a_heavy_library(tmp_path: Path) -> None:
    command = [sys.executable, "-c", f"{LIGHT_CALLS = }\n{LIGHTLY}"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("nothing") >= len(LIGHT_CALLS) - 1


@pytest.mark.parametrize("flags", [[], ["--dry-run"]])
def test_the_first_line_comes_before_any_heavy_library(
    tmp_path: Path, quickstart: Path, flags: list[str]
) -> None:
    arguments = ["-X", "importtime", "-m", "dfkd_edge", "distill", "--classes", str(quickstart)]
    command = [sys.executable, *arguments, *flags]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("loading libraries"):
                break
            assert line.split("|")[-1].strip() not in ("torch", "numpy", "PIL", "timm")
        process.kill()  # the libraries take seconds, and the line came before them
    assert line.startswith("loading libraries")


def test_the_help_of_a_verb_breaks_lines_where_the_terminal_ends_alone() -> None:
    lines = invoke("predict", "--help", COLUMNS="300").stdout.splitlines()
    (line,) = [line for line in lines if "The bundle's own threshold" in line]
    assert line.rstrip().endswith("Ctrl-C ends a camera or a stream.")


def test_help_lists_the_verbs_along_the_pipeline() -> None:
    text = invoke("--help").stdout
    found = re.findall(r"^\W*([a-z]+)  ", text, re.MULTILINE)
    assert [name for name in found if name in COMMANDS] == list(COMMANDS)


def test_version_is_the_package_version() -> None:
    assert invoke("--version").stdout == f"dfkd-edge {__version__}\n"


@pytest.mark.usefixtures("few_images")
def test_dry_run_checks_and_writes_nothing_but_the_config_that_repeats_the_request(
    tmp_path: Path, quickstart: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    saved = tmp_path / "run.toml"
    flags = ("--seed", "5", "--steps", "7", "--save-config", saved)
    planned = invoke("distill", "--classes", quickstart, *flags, *QUICK_PLAN)
    config = json.loads(planned.stdout)["config"]
    assert config["distillation"]["num_steps"] == 7
    assert config == json.loads(json.dumps(dataclasses.asdict(load_config(saved))))
    assert list(tmp_path.iterdir()) == [saved]


@pytest.mark.parametrize("arguments", [[], ["cache"]])
def test_a_group_without_a_command_shows_its_help_and_fails(arguments: list[str]) -> None:
    code, output, errors = call(*arguments)
    assert code == 2
    assert " ".join(["Usage:", "dfkd-edge", *arguments]) in output + errors
    assert "error:" not in errors


@pytest.mark.parametrize("exist_ok", [True, False])
def test_run_replaces_a_bundle_only_when_told_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exist_ok: bool
) -> None:
    requests: list[Any] = []
    for step in ("run_distill", "run_export"):
        monkeypatch.setattr(run_command, step, lambda request, *_, **__: requests.append(request))
    settings = tmp_path / "run.toml"
    settings.write_text('classes = "classes.txt"\n', encoding="utf-8")
    flags = ["--exist-ok"] if exist_ok else []
    result = invoke("run", settings, "-o", tmp_path / "run", *flags)
    assert result.exit_code == 0, result.exception
    assert [request.exist_ok for request in requests] == [exist_ok, exist_ok]


def all_commands(group: Any, names: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every command, by the words that call it."""
    for name, command in getattr(group, "commands", {}).items():
        yield (*names, name)
        yield from all_commands(command, (*names, name))


def test_no_word_of_any_help_is_cut_on_a_narrow_terminal() -> None:
    for names in all_commands(typer.main.get_command(app)):
        shown = invoke(*names, "--help", COLUMNS="80").stdout
        cut = [line for line in shown.splitlines() if "…" in line]
        assert not cut, (names, cut)
