"""Wrong inputs as users give them: one error that says what, where and what next, and its code."""

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

from dfkd_edge.bundles.bundle import BundleContents, write_bundle
from dfkd_edge.errors import EnvironmentLackingError
from dfkd_edge.files import atomic_write
from tests.fixtures.command import invoke
from tests.fixtures.files import write_picture

WRONG: dict[int, dict[str, str]] = {
    2: {
        "distill": "no class list (--classes): name a text file",
        "distill --classes no.txt": "no such class list (no.txt)",
        "distill --classes foreign": "class list is a folder (foreign)",
        "distill --classes empty.txt": "no class name in the list (empty.txt)",
        "distill --classes binary.txt": "not UTF-8 text (binary.txt, line 1)",
        "distill --classes many.txt": "10000 class names in the list (many.txt)",
        "distill --classes twice.txt": "'Dog' is already on line 1 (twice.txt, line 3)",
        "distill --classes good.txt --teacher ViT-B32": "(--teacher): did you mean ViT-B-32",
        "distill --classes good.txt --student resnet-18": "(--student): did you mean resnet18",
        "distill --classes good.txt --set synthesis.num_image=9": "did you mean synthesis.",
        "distill --classes good.txt --prompts contrstive": "did you mean contrastive?",
        "distill --classes good.txt --batch-size 1": "(distillation.batch_size (--batch-size))",
        "distill --classes good.txt --set export.target=nano --set export.precision=int8": (
            "does not compute in int8 (--precision): "
        ),
        "run good.txt": "not a TOML file",
        "distill --classes good.txt --data foreign": (
            "no picture of any class (--data foreign): expected DIR/<domain>/<class>/*.jpg"
        ),
        "distill --classes good.txt -o foreign": "holds no run (foreign): choose another --output",
        "distill --classes good.txt -o good.txt": "is a file, not a folder",
        "distill --classes good.txt -o other": "a run with other settings or weights (other)",
        "export foreign": "no run here (foreign): other is unfinished",
        "export other": "no finished student and no surrogates",
        "export other --set seed=3": "'seed' is no setting of export (--set)",
        "teachers list nobody": "no teacher of the table has 'nobody' (teachers list): dfkd-edge",
        "targets show jetsn": "unknown target 'jetsn': did you mean jetson?",
        "targets show zzzzqqqq": "unknown target 'zzzzqqqq': dfkd-edge targets list shows all",
        "predict foreign a.png": "folder holds no bundle (foreign): run dfkd-edge export",
        "predict bundle/model.int8.onnx a.png": "name the folder of a bundle",
        "predict bundle foreign": "holds no picture",
        "predict bundle photo.png --precision fp16": "(--precision): it holds fp32, int8",
        "predict bundle photo.png --reject-threshold 1.5": "--reject-threshold",
        "check foreign": "folder holds no bundle (foreign): run dfkd-edge export",
        "benchmark bundle --percentile x": "no percentiles",
        "predict good.txt a.png": "'good.txt' is a file, not a bundle (good.txt): name the",
        "predict bundle no.png": "no picture to classify (no.png: ",
        "benchmark bundle --precision fp64": "no fp64 model (--precision): it holds fp32, int8",
        "inspect foreign": "no run here (foreign)",
        "synthesize --classes good.txt --save-images foreign": "holds no saved images (foreign): ",
        "synthesize --classes good.txt --save-images new --save-format tar": "known: folder, web",
        "cache clean engine": "unknown cache 'engine' (cache clean): did you mean engines?",
        "cache clean engines": "nobody to ask (cache clean): add --yes",
        "distill --classes good.txt --stepz 3": "(dfkd-edge distill): did you mean --steps or ",
        "classes lint good.txt --qqq": "(dfkd-edge classes lint): dfkd-edge classes lint --help",
        "distill --classes good.txt --steps": "option '--steps' requires an argument (dfkd-edge",
        "distill --classes good.txt --steps many": (
            "invalid value for '--steps': it is not a whole number (dfkd-edge distill): such as 8"
        ),
        "export other --max-drop 1%": "it is not a number (dfkd-edge export): such as 0.01",
        "distill --classes good.txt --workers 900": "it is too large: at most 256 (",
        "export other --precision FP17": "'fp17' is none of 'auto', 'fp32', 'fp16' or 'int8' (",
        "export other --runtime triton,deepstrem": "'deepstrem': did you mean deepstream?",
        "predict other a.png": "no student yet (other): this goes on with it: dfkd-edge distill",
        "predict bundle photo.png --device tpu": "no device 'tpu' (--device): cpu, cuda or cuda:1",
        "predict bundle": "missing argument 'IMAGE...' (dfkd-edge predict): dfkd-edge",
        "targets show": "missing argument 'NAME' (dfkd-edge targets show): dfkd-edge",
        "export a b": "got unexpected extra argument(s) (b)",
        "distill good.txt": "distill): did you mean dfkd-edge distill --classes good.txt?",
        "distill good.txt twice.txt": "(good.txt twice.txt) (dfkd-edge distill): dfkd-edge",
        "distill --classes good.txt twice.txt": "(twice.txt) (dfkd-edge distill): dfkd-edge",
        "exprot": "no such command 'exprot' (dfkd-edge): did you mean ",
        "cache inof": "no such command 'inof' (dfkd-edge cache): did you mean info?",
    },
    1: {
        "distill --classes good.txt -o half": "manifest cannot be read (half/manifest.json): use",
        "benchmark damaged": "model.int8.onnx): copy the bundle again",
        "predict damaged photo.png": "differs from the manifest: 5 bytes, not ",
        "check damaged": "model.int8.onnx): copy the bundle again",
        "inspect damaged": "1 file is not as it was written",
    },
    4: {
        "distill --classes good.txt -o good.txt/run": "good.txt is a file (good.txt/run): choose",
        "cache clean drawings --yes": "cannot delete",
        "predict bundle photo.png --device cuda": "device 'cuda' cannot be used: onnxruntime 1.",
        "benchmark bundle --device cuda:1": "(--device): pip install onnxruntime-gpu in its place",
        "distill --classes good.txt -o sealed/run": "sealed is read-only",
        "distill --classes good.txt --dry-run --save-config full/run.toml": (
            "cannot write: No space left on device (full/run.toml): free some space"
        ),
    },
}
"""What an exit code stands for: calls, and what they are told."""
CALLS = {call: (code, said) for code, calls in WRONG.items() for call, said in calls.items()}
NEED_MOUNTS = {
    "distill --classes good.txt -o sealed/run": "sealed",
    "distill --classes good.txt --dry-run --save-config full/run.toml": "full",
    "cache clean drawings --yes": "cache/dfkd-edge/drawings/inside",
}

ROOT = str(Path(__file__).parents[1])
DRIVER = """
import json, sys
from tests.fixtures.command import call
results = {name: call(*name.split()) for name in json.load(sys.stdin)}
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
    atomic_write(folder / "half" / "manifest.json", json.dumps(manifest))
    manifest |= {"run_key": "another", "stages": {}, "earlier": {}}
    atomic_write(folder / "other" / "manifest.json", json.dumps(manifest))
    write_bundle(folder / "bundle", tiny_contents)
    write_picture(folder / "photo.png", 0)
    shutil.copytree(folder / "bundle", folder / "damaged")
    (folder / "damaged" / "model.int8.onnx").write_bytes(b"short")
    for cache in ("engines", "drawings"):
        (folder / "cache" / "dfkd-edge" / cache / "inside").mkdir(parents=True)
        (folder / "cache" / "dfkd-edge" / cache / "made").write_bytes(b"m")
    mounted = []
    for target in NEED_MOUNTS.values():  # 4k is one page, the least that a tmpfs holds
        options = "size=4k" if target == "full" else "ro"
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder / target)]
        if subprocess.run(command, capture_output=True).returncode == 0:
            mounted.append(target)
    with contextlib.suppress(OSError):  # fills it to the last byte
        (folder / "full" / "ballast").write_bytes(b"x" * 4096)
    yield folder
    for target in mounted:
        subprocess.run(["umount", folder / target], check=True)


@pytest.fixture(scope="module")
def answers(place: Path) -> dict[str, Any]:
    """What one process says to all of them; nothing that one leaves may confuse the next."""
    hidden = ("HF_HOME", "HF_HUB_CACHE", "TORCH_HOME", "COLUMNS")  # a developer's own settings
    environment = {k: v for k, v in os.environ.items() if k not in hidden}
    done = subprocess.run(
        [sys.executable, "-c", DRIVER],
        input=json.dumps(list(CALLS)),
        cwd=place,
        env=environment | {"XDG_CACHE_HOME": str(place / "cache"), "PYTHONPATH": ROOT},
        capture_output=True,
        text=True,
        check=True,
    )
    document: dict[str, Any] = json.loads(done.stdout)
    return document


@pytest.mark.parametrize("call", CALLS)
def test_a_wrong_input_gets_one_error_with_the_next_step(
    call: str, answers: dict[str, Any], place: Path
) -> None:
    if call in NEED_MOUNTS and not (place / NEED_MOUNTS[call]).is_mount():
        pytest.skip("this user may not mount a file system")
    (code, said), (found, output, errors) = CALLS[call], answers["results"][call]
    assert (found, said in errors) == (code, True), errors
    assert "Traceback" not in errors
    assert code == 1 or not output  # `inspect` shows what is damaged
    assert errors.count("error:") == 1
    assert errors.partition("error:")[2].count("\n") == 1


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

    class Unreachable(Exception):
        """As the hub's library raises after many seconds of attempts: no OSError."""

    def unreachable(_: object) -> None:
        raise Unreachable("Name or service not known")

    monkeypatch.setattr("huggingface_hub.list_repo_files", unreachable)
    error = invoke("distill", "--classes", "good.txt", *arguments).exception
    assert isinstance(error, EnvironmentLackingError), error
    assert said in str(error)
    assert error.hint


@pytest.mark.usefixtures("few_images")
def test_hostile_names_are_text(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    hostile = ("../../etc/passwd", "<script>alert(1)</script>", "[red]dog[/red]", "$(reboot)")
    Path("hostile.txt").write_text("\n".join(hostile), encoding="utf-8")
    quick = ("--prompts", "base", "--batch-size", "2", "--set", "synthesis.num_refinement_steps=0")
    document = json.loads(
        invoke("distill", "--classes", "hostile.txt", *quick, "--dry-run", "--json").stdout
    )
    assert tuple(document["classes"]) == hostile
    assert document["plan"]["seconds"] > 0
