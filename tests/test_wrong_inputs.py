"""Wrong inputs as users give them: one error that says what, where and what next, and its code."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from dfkd_edge.bundles.bundle import BundleContents, write_bundle
from dfkd_edge.cli import app
from dfkd_edge.errors import EnvironmentLackingError

DISTILL = ("distill", "--classes")
WRONG: dict[str, tuple[tuple[str, ...], int, str]] = {
    "no list at all": (("distill",), 2, "no class list (--classes): name a text file"),
    "missing list": ((*DISTILL, "no.txt"), 2, "no such class list (no.txt): write one class name"),
    "folder as list": ((*DISTILL, "foreign"), 2, "class list is a folder (foreign): name a text"),
    "empty list": ((*DISTILL, "empty.txt"), 2, "no class name in the list (empty.txt): list at"),
    "binary list": ((*DISTILL, "binary.txt"), 2, "not UTF-8 text (binary.txt, line 1): save it"),
    "10,000 classes": ((*DISTILL, "many.txt"), 2, "10000 class names in the list (many.txt): list"),
    "name twice": (
        (*DISTILL, "twice.txt"),
        2,
        "'Dog' is already on line 1 (twice.txt, line 3): re",
    ),
    "unknown teacher": (
        (*DISTILL, "good.txt", "--teacher", "ViT-B32"),
        2,
        "unknown teacher 'ViT-B32' (--teacher): did you mean ViT-B-32",
    ),
    "unknown student": (
        (*DISTILL, "good.txt", "--student", "resnet-18"),
        2,
        "unknown student 'resnet-18' (--student): did you mean resnet18",
    ),
    "unknown setting": (
        (*DISTILL, "good.txt", "--set", "synthesis.num_image=9"),
        2,
        "unknown setting 'synthesis.num_image' (config): did you mean synthesis.num_images?",
    ),
    "unknown choice": (
        (*DISTILL, "good.txt", "--prompts", "contrstive"),
        2,
        "(prompts.method (--prompts)): did you mean contrastive?",
    ),
    "setting out of range": (
        (*DISTILL, "good.txt", "--batch-size", "1"),
        2,
        "1: Input should be greater than or equal to 2 (distillation.batch_size (--batch-size))",
    ),
    "precision that the target of the run lacks": (
        (*DISTILL, "good.txt", "--set", "export.target=nano", "--set", "export.precision=int8"),
        2,
        "does not compute in int8 (--precision): ",
    ),
    "settings that are no TOML": (("run", "good.txt"), 2, "not a TOML file"),
    "data without pictures": (
        (*DISTILL, "good.txt", "--data", "foreign"),
        2,
        "no picture of any class (--data foreign): expected DIR/<domain>/<class>/*.jpg",
    ),
    "foreign folder as output": (
        (*DISTILL, "good.txt", "-o", "foreign"),
        2,
        "folder is not empty and holds no run (foreign): choose another --output",
    ),
    "file as output": ((*DISTILL, "good.txt", "-o", "good.txt"), 2, "is a file, not a folder"),
    "run of other settings": (
        (*DISTILL, "good.txt", "-o", "other"),
        2,
        "folder holds a run with other settings or weights (other): choose another --output",
    ),
    "manifest that is not whole": (
        (*DISTILL, "good.txt", "-o", "half"),
        1,
        "manifest cannot be read (half/manifest.json): use a new --output",
    ),
    "output below a file": (
        (*DISTILL, "good.txt", "-o", "good.txt/run"),
        4,
        "good.txt is a file (good.txt/run): choose another --output",
    ),
    "export without a run": (
        ("export", "foreign"),
        2,
        "no run here (foreign): other is unfinished",
    ),
    "export of half a run": (
        ("export", "other"),
        2,
        "no finished student and no surrogates",
    ),
    "target with a near name": (
        ("targets", "show", "jetsn"),
        2,
        "unknown target 'jetsn': did you mean jetson?",
    ),
    "target like no other": (
        ("targets", "show", "zzzzqqqq"),
        2,
        "unknown target 'zzzzqqqq': dfkd-edge targets list shows all",
    ),
    "no bundle": (("predict", "foreign", "a.png"), 2, "folder holds no bundle (foreign): run dfkd"),
    "damaged bundle": (("benchmark", "damaged"), 1, "model.int8.onnx): copy the bundle again"),
    "bundle that was edited": (("inspect", "damaged"), 1, "1 file is not as it was written"),
    "list as bundle": (
        ("predict", "good.txt", "a.png"),
        2,
        "is a file, not a bundle (good.txt): name the folder of a bundle",
    ),
    "no picture": (("predict", "bundle", "no.png"), 2, "no picture to classify (no.png: no such"),
    "precision that is not there": (
        ("benchmark", "bundle", "--precision", "fp64"),
        2,
        "bundle holds no fp64 model (--precision): it holds fp32, int8",
    ),
    "neither run nor bundle": (("inspect", "foreign"), 2, "no run here (foreign)"),
    "unknown cache": (("cache", "clean", "engine"), 2, "unknown cache 'engine' (cache clean): did"),
    "nobody to ask": (("cache", "clean", "engines"), 2, "nobody to ask (cache clean): add --y"),
    "undeletable cache": (("cache", "clean", "drawings", "--yes"), 4, "cannot delete"),
    "unknown flag": (
        (*DISTILL, "good.txt", "--stepz", "3"),
        2,
        "no such option: --stepz (dfkd-edge distill): did you mean --steps or ",
    ),
    "unknown flag of a group": (
        ("classes", "lint", "good.txt", "--qqq"),
        2,
        "no such option: --qqq (dfkd-edge classes lint): dfkd-edge classes lint --help shows how",
    ),
    "flag without its value": (
        (*DISTILL, "good.txt", "--steps"),
        2,
        "option '--steps' requires an argument (dfkd-edge distill): dfkd-edge distill --help",
    ),
    "value that is no number": (
        (*DISTILL, "good.txt", "--steps", "many"),
        2,
        "invalid value for '--steps': ",
    ),
    "missing argument": (
        ("predict", "bundle"),
        2,
        "missing argument 'IMAGE...' (dfkd-edge predict): dfkd-edge predict --help shows how",
    ),
    "missing argument of a group": (
        ("targets", "show"),
        2,
        "missing argument 'NAME' (dfkd-edge targets show): dfkd-edge targets show --help",
    ),
    "one argument too many": (("export", "a", "b"), 2, "got unexpected extra argument(s) (b)"),
    "list without its flag": (
        ("distill", "good.txt"),
        2,
        "(dfkd-edge distill): did you mean dfkd-edge distill --classes good.txt?",
    ),
    "two lists without their flag": (
        ("distill", "good.txt", "twice.txt"),
        2,
        "argument(s) (good.txt twice.txt) (dfkd-edge distill): dfkd-edge distill --help shows how",
    ),
    "list beside another": (
        (*DISTILL, "good.txt", "twice.txt"),
        2,
        "argument(s) (twice.txt) (dfkd-edge distill): dfkd-edge distill --help shows how",
    ),
    "unknown command": (("exprot",), 2, "no such command 'exprot' (dfkd-edge): did you mean "),
    "unknown command of a group": (
        ("cache", "inof"),
        2,
        "no such command 'inof' (dfkd-edge cache): did you mean info?",
    ),
    "read-only output": ((*DISTILL, "good.txt", "-o", "sealed/run"), 4, "sealed is read-only"),
    "full disk": (
        (*DISTILL, "good.txt", "--dry-run", "--save-config", "full/run.toml"),
        4,
        "cannot write: No space left on device (full/run.toml): free some space",
    ),
}
NEED_MOUNTS = {
    "read-only output": "sealed",
    "full disk": "full",
    "undeletable cache": "cache/dfkd-edge/drawings/inside",
}

DRIVER = """
import contextlib, io, json, sys
from dfkd_edge.cli import main
results = {}
for name, arguments in json.load(sys.stdin).items():
    out, err, sys.argv = io.StringIO(), io.StringIO(), ["dfkd-edge", *arguments]
    code, sys.stdin = 0, io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as exit_:
            code = exit_.code
    results[name] = {"code": code, "out": out.getvalue(), "err": err.getvalue()}
print(json.dumps({"results": results, "torch": "torch" in sys.modules}))
"""


@pytest.fixture(scope="module")
def place(
    tmp_path_factory: pytest.TempPathFactory, tiny_contents: BundleContents
) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("wrong")
    (folder / "good.txt").write_text("dog\ncat\n", encoding="utf-8")
    (folder / "empty.txt").write_text("\n# nothing\n", encoding="utf-8")
    (folder / "binary.txt").write_bytes(bytes(range(128, 256)))
    (folder / "twice.txt").write_text("dog\ncat\nDog\n", encoding="utf-8")
    (folder / "many.txt").write_text("\n".join(f"c{i}" for i in range(10_000)), encoding="utf-8")
    for name in ("foreign", "sealed", "full", "cache"):
        (folder / name).mkdir()
    (folder / "foreign" / "thesis.doc").write_text("mine", encoding="utf-8")
    manifest: dict[str, Any] = {"marker": "dfkd-edge run", "version": "0.0.1"}
    for name, more in (
        ("half", {}),
        ("other", {"run_key": "another", "stages": {}, "earlier": {}}),
    ):
        (folder / name).mkdir()
        text = json.dumps(manifest | more)
        (folder / name / "manifest.json").write_text(text, encoding="utf-8")
    write_bundle(folder / "bundle", tiny_contents)
    shutil.copytree(folder / "bundle", folder / "damaged")
    (folder / "damaged" / "model.int8.onnx").write_bytes(b"short")
    for cache in ("engines", "drawings"):
        (folder / "cache" / "dfkd-edge" / cache / "inside").mkdir(parents=True)
        (folder / "cache" / "dfkd-edge" / cache / "made").write_bytes(b"m")
    mounted = [
        target
        for target, options in (
            ("sealed", "ro"),
            ("full", "size=4k"),
            ("cache/dfkd-edge/drawings/inside", "ro"),
        )
        if subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder / target], capture_output=True
        ).returncode
        == 0
    ]
    with contextlib.suppress(OSError):  # fills it to the last byte
        (folder / "full" / "ballast").write_bytes(b"x" * 4096)
    yield folder
    for target in mounted:
        subprocess.run(["umount", folder / target], check=True)


@pytest.fixture(scope="module")
def answers(place: Path) -> dict[str, Any]:
    """What one process says to all of them; nothing that one leaves may confuse the next."""
    requests = {name: arguments for name, (arguments, _, _) in WRONG.items()}
    hidden = ("HF_HOME", "HF_HUB_CACHE", "TORCH_HOME", "COLUMNS")
    environment = {k: v for k, v in os.environ.items() if k not in hidden}
    done = subprocess.run(
        [sys.executable, "-c", DRIVER],
        input=json.dumps(requests),
        cwd=place,
        env=environment | {"XDG_CACHE_HOME": str(place / "cache")},
        capture_output=True,
        text=True,
        check=True,
    )
    document: dict[str, Any] = json.loads(done.stdout)
    return document


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_input_gets_one_error_with_the_next_step(
    name: str, answers: dict[str, Any], place: Path
) -> None:
    if name in NEED_MOUNTS and not (place / NEED_MOUNTS[name]).is_mount():
        pytest.skip("this user may not mount a file system")
    _, code, said = WRONG[name]
    answer = answers["results"][name]
    assert (answer["code"], said in answer["err"]) == (code, True), answer
    assert "Traceback" not in answer["err"]
    assert code == 1 or not answer["out"]  # `inspect` shows what is damaged
    assert answer["err"].count("error:") == 1
    assert answer["err"].partition("error:")[2].count("\n") == 1


def test_no_wrong_input_waits_for_torch(answers: dict[str, Any]) -> None:
    assert not answers["torch"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--teacher", "hf-hub:nobody/nothing"), "out of its reach: teacher nobody/nothing"),
        (("--device", "cuda:77"), "device 'cuda:77' cannot be used"),
    ],
)
def test_what_the_machine_lacks_is_told_with_code_4(
    place: Path, arguments: tuple[str, ...], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    result = CliRunner().invoke(app, ["distill", "--classes", "good.txt", *arguments])
    assert isinstance(result.exception, EnvironmentLackingError), result.exception
    assert said in str(result.exception)
    assert result.exception.hint


def test_hostile_names_are_text(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    hostile = ("../../etc/passwd", "<script>alert(1)</script>", "[red]dog[/red]", "$(reboot)")
    Path("hostile.txt").write_text("\n".join(hostile), encoding="utf-8")
    arguments = ["distill", "--classes", "hostile.txt", "--dry-run", "--json"]
    document = json.loads(CliRunner().invoke(app, arguments).stdout)
    assert tuple(document["classes"]) == hostile
    assert document["plan"]["seconds"] > 0
