"""Classes swapped in a finished bundle: the same student, the teacher's text, and what it costs."""

import contextlib
import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cryptography.hazmat.primitives.asymmetric import ec
from onnx import load, numpy_helper, save

from dfkd_edge.artifacts import StudentArtifact
from dfkd_edge.bundles.opening import open_bundle
from dfkd_edge.bundles.origin import graphs, read_origin, run_with_surrogates
from dfkd_edge.bundles.signature import load_signer, load_verifier, sign_bundle, verify_bundle
from dfkd_edge.class_names import parse_class_names
from dfkd_edge.config.settings import TeacherConfig
from dfkd_edge.deployment.head_fit import HeadFit
from dfkd_edge.drawings.memory import DrawingMemory, retrieve_drawings
from dfkd_edge.errors import ArtifactError, ConfigError
from dfkd_edge.files import atomic_write
from dfkd_edge.networks.students import load_student
from dfkd_edge.networks.teacher import Teacher, load_teacher
from dfkd_edge.runs.finished import open_finished_run
from dfkd_edge.runtime import check
from dfkd_edge.runtime.bundle_files import Bundle
from dfkd_edge.validation.rungs import open_runner
from tests.bundles.test_signature import write_pair
from tests.conftest import SilentReporter
from tests.fixtures.command import call, invoke
from tests.fixtures.exported import only_few_images
from tests.fixtures.files import edit_json, read_json

pytestmark = pytest.mark.usefixtures("few_images")
NEW = "cat\nhouse\nwine glass\ta photo of a glass of wine\ndog\n"
SHORT = ("--duration", "0.02", "--warmup", "1")


def answers(bundle: Bundle) -> Iterator[tuple[Any, Any]]:
    """Logits and embeddings of the golden images by each graph of a bundle."""
    for model in graphs(bundle):
        made = open_runner(model, 1)(bundle.golden()["images"])
        yield made.logits, made.embedding


def times(folder: Path) -> dict[str, int]:
    return {str(p): p.stat().st_mtime_ns for p in folder.rglob("*")}


@pytest.fixture(scope="module")
def source(tiny_workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bundle]:
    """A bundle for two runtimes in its run, below a user's folder, which is where tests are."""
    folder = tmp_path_factory.mktemp("swap")
    shutil.copytree(tiny_workspace, folder, symlinks=True, dirs_exist_ok=True)
    run = (folder / "runs" / "latest").resolve()
    bundle = run / "bundles" / "tiny"
    provenance = open_bundle(bundle).manifest.provenance
    asked = {**provenance["config"], "runtimes": ["triton", "onnxruntime"]}
    made = {**provenance, "run": str(run), "config": asked}
    edit_json(bundle / "manifest.json", provenance=made)
    (folder / "new.txt").write_text(NEW, encoding="utf-8")
    with contextlib.chdir(folder):
        assert call("runtimes", "add", bundle, "triton", "onnxruntime", "--quiet")[0] == 0
        yield open_bundle(bundle)


@pytest.fixture(scope="module")
def swapped(source: Bundle) -> dict[str, Any]:
    """What the command says of a swap to NEW, found in the run by its name."""
    before = times(source.folder)
    with only_few_images():
        code, output, errors = call(
            *("classes", "swap", source.folder, "--classes", "new.txt"),
            *("--max-drop", "1", "--no-drawings", "--json", "--quiet"),
        )
    assert code == 0, errors
    assert times(source.folder) == before
    document: dict[str, Any] = json.loads(output)
    return document


def test_every_graph_label_and_file_follows_the_new_list(
    source: Bundle, swapped: dict[str, Any]
) -> None:
    folder = source.folder.parents[1] / "swapped" / "tiny-new"
    assert swapped["bundle"] == str(folder)
    bundle, names = open_bundle(folder), ("cat", "house", "wine glass", "dog")
    teacher = load_teacher(TeacherConfig(), parse_class_names(NEW, "new.txt"))
    head_DK = teacher.head_KD.T.numpy()
    images = bundle.golden()["images"]
    for old, new in zip(graphs(source), graphs(bundle), strict=True):
        was, now = (open_runner(model, 1)(images) for model in (old, new))
        assert np.array_equal(was.embedding, now.embedding)
        wanted_NK = teacher.logit_scale * now.embedding @ head_DK
        assert np.allclose(now.logits, wanted_NK, atol=1e-4)
        metadata = {item.key: item.value for item in load(new.path).metadata_props}
        assert tuple(json.loads(metadata["dfkd_edge.classes"])) == names
    assert bundle.classes == names
    assert read_origin(bundle).config.runtimes == read_origin(source).config.runtimes != ()
    assert (folder / "classes.txt").read_text().split("\n")[:4] == list(names)
    assert (folder / "runtimes/triton/student/labels.txt").read_text().split("\n")[2] == names[2]
    assert json.loads((folder / "student/student.json").read_text())["classes"] == list(names)
    assert check.main(["--bundle", str(folder), *SHORT]) == 0
    for kept in ("calibration.json", "preprocess.json", "check.pyz"):
        assert bundle.manifest.files[kept] == source.manifest.files[kept]


def test_a_swap_warns_of_what_was_never_learnt_and_says_what_it_cost(
    swapped: dict[str, Any],
) -> None:
    swap = swapped["swap"]
    assert swap["learnt"] == ["dog", "house", "person"]
    assert swap["unlearnt"] == ["cat", "wine glass"]
    assert 0 < swap["cost"]["num_images"] < 30  # images of persons say nothing of what stays
    assert "learnt from no image of cat, wine glass" in swapped["notes"][0]
    assert "learnt from no image" in Path(swapped["bundle"], "README.md").read_text()
    page = Path(swapped["report"]).read_text()
    assert f"dfkd-edge classes swap {swap['bundle']} --classes {swapped['bundle']}" in page
    assert swapped["measure"] == "agreement"
    assert all(rung["mean_agreement"] is not None for rung in swapped["rungs"])
    assert swapped["confidence"]["num_images"] > 0


@pytest.mark.slow
def test_a_check_of_it_measures_on_the_same_images_and_repeats_the_figures(
    swapped: dict[str, Any],
) -> None:
    checked = json.loads(invoke("check", swapped["bundle"], "--max-drop", "1", "--json").stdout)
    assert checked["images"] == swapped["images"]
    for again, first in zip(checked["rungs"], swapped["rungs"], strict=True):
        assert again["domains"] == first["domains"]
    assert checked["notes"] == swapped["notes"]


def test_the_same_swap_again_is_the_bundle_that_is_there_and_tidies_up_what_a_kill_left(
    swapped: dict[str, Any],
) -> None:
    source = swapped["swap"]["bundle"]
    left = Path(source).with_name(".export-of-a-dead-process") / "model.fp32.onnx"
    atomic_write(left, b"graph")
    flags = ("--classes", "new.txt", "--max-drop", "1", "--no-drawings")
    before = open_bundle(Path(swapped["bundle"])).sha256
    assert call("classes", "swap", source, *flags, "--quiet")[0] == 0
    assert open_bundle(Path(swapped["bundle"])).sha256 == before
    assert not left.parent.exists()


def test_a_swap_of_a_signed_bundle_is_signed_or_says_that_it_is_not(
    source: Bundle, swapped: dict[str, Any], tmp_path: Path
) -> None:
    key = write_pair(tmp_path, "maker.key", ec.generate_private_key(ec.SECP256R1()))
    verifier = load_verifier(key.with_suffix(".pub"))
    sign_bundle(source, load_signer(key))
    made = open_bundle(Path(swapped["bundle"]))
    again = ("classes", "swap", source.folder, "--classes", "new.txt", "--max-drop", "1")
    code, _, errors = call(*again, "--no-drawings")
    assert code == 0
    assert "the signature was of the bundle as it was; --sign KEY signs this one" in errors
    with pytest.raises(ArtifactError, match=r"dfkd-edge classes swap, called again with --sign"):
        verify_bundle(made, verifier)
    assert call(*again, "--no-drawings", "--sign", key)[0] == 0
    verify_bundle(made, verifier)
    assert "not signed" not in call(*again, "--no-drawings")[2]


@pytest.mark.slow
def test_int8_that_loses_too_much_under_the_new_list_is_no_success_and_says_what_helps(
    source: Bundle, tmp_path: Path
) -> None:
    """A swap has no repair: the graph here is one whose first scales are far off."""
    folder = Path(shutil.copytree(source.folder, tmp_path / "coarse"))
    graph = load(folder / "model.int8.onnx")
    scales = [t for t in graph.graph.initializer if "scale" in t.name and not t.dims]
    for tensor in scales[:3]:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * 30, tensor.name))
    save(graph, folder / "model.int8.onnx")
    files = read_json(folder / "manifest.json")["files"]
    raw = (folder / "model.int8.onnx").read_bytes()
    entry = {"sha256": hashlib.sha256(raw).hexdigest(), "bytes": len(raw)}
    edit_json(folder / "manifest.json", files={**files, "model.int8.onnx": entry})
    given = ("--classes", "new.txt", "--no-drawings", "--max-drop", "0.01", "-o", tmp_path / "new")
    code, output, errors = call("classes", "swap", folder, *given)
    assert code == 3
    (fault,) = (line for line in errors.splitlines() if line.startswith("error: "))
    assert "gate failed: onnx-int8 loses" in fault
    run = source.folder.parents[1]
    command = f"dfkd-edge export {run} --target tiny.toml --precision fp32 -o {run}/bundles/tiny-"
    assert command in fault
    shown = "".join(output.replace("│", "").split())  # the panel folds lines, but cuts none
    assert command.replace(" ", "") in shown
    assert open_bundle(tmp_path / "new").manifest.status == "failed"


@pytest.mark.slow
def test_what_a_kill_left_is_made_whole_and_swapping_back_gives_the_old_answers(
    source: Bundle, swapped: dict[str, Any]
) -> None:
    back = Path("back")
    back.mkdir()
    (back / "manifest.json").write_text('{"marker": "dfkd-edge bundle", "status": "incomplete"}')
    code, _, errors = call(
        *("classes", "swap", swapped["bundle"], "--classes", "classes.txt", "-o", back),
        *("--max-drop", "1", "--quiet"),
    )
    assert code == 0, errors
    bundle = open_bundle(back)
    swap = read_origin(bundle).swap
    assert swap is not None
    assert not swap.unlearnt
    for was, now in zip(answers(source), answers(bundle), strict=True):
        assert np.array_equal(was[0], now[0])


@pytest.mark.parametrize(
    ("bundle", "names", "flags", "code", "said"),
    [
        ("BUNDLE", "dog\nhouse\nperson\n", (), 2, "has these 3 classes already (--classes "),
        ("BUNDLE", "dog\nunknown\n", (), 2, "predict answers so where it refuses"),
        ("BUNDLE", "dog\nDog\n", (), 2, "'Dog' is already on line 1"),
        ("BUNDLE", NEW, ("-o", "BUNDLE"), 2, "is swapped, which stays as it is"),
        ("BUNDLE", NEW, ("-o", "BUNDLE/../other"), 2, "for bundles of the run's own classes"),
        ("BUNDLE", NEW, ("-o", "pictures"), 2, "holds what is no bundle's"),
        ("CHANGED", NEW, (), 1, "differs from the manifest"),
        ("ORPHAN", NEW, (), 1, "the images of the bundle's run are not here"),
        ("nowhere", NEW, (), 2, "no such folder"),
    ],
)
def test_a_swap_that_cannot_be_made_is_one_line(
    bundle: str, names: str, flags: tuple[str, ...], code: int, said: str, source: Bundle
) -> None:
    Path("wrong.txt").write_text(names, encoding="utf-8")
    places = {"BUNDLE": str(source.folder)}
    for kind in {"CHANGED", "ORPHAN"} & {bundle}:
        places[kind] = str(shutil.copytree(source.folder, Path(kind), dirs_exist_ok=True))
    if bundle == "CHANGED":
        Path(bundle, "recipe.md").write_text("other", encoding="utf-8")
    if bundle == "ORPHAN":
        provenance = {**source.manifest.provenance, "run": "/nowhere"}
        edit_json(Path(bundle, "manifest.json"), provenance=provenance)
    words = [places.get(bundle, bundle), "--classes", "wrong.txt"]
    words += [flag.replace("BUNDLE", places["BUNDLE"]) for flag in flags]
    found, output, errors = call("classes", "swap", *words)
    assert (found, output, len(errors.splitlines())) == (code, "", 1), errors
    assert said in errors
    assert open_bundle(source.folder).sha256 == source.sha256


def test_a_teacher_that_the_drawings_are_not_of_keeps_the_text(
    source: Bundle, tiny_teacher: Teacher
) -> None:
    run = open_finished_run(run_with_surrogates(source))
    student = load_student(StudentArtifact.load(source.folder / "student"))
    new = [-1] * len(tiny_teacher.classes.names)
    fitted = HeadFit(tiny_teacher, student, run.surrogates, new, 0).fit(SilentReporter())
    assert torch.equal(fitted.head_KD, tiny_teacher.head_KD)
    assert fitted.drawn == ()
    with pytest.raises(ConfigError, match="holds nothing of what tiny sees"):
        DrawingMemory(tiny_teacher)


@pytest.mark.slow
def test_drawings_of_new_names_turn_the_head_towards_the_teacher_and_keep_old_names(
    source: Bundle,
) -> None:
    Path("drawn.txt").write_text("dog\nhouse\nperson\nguitar\nteapot\n", encoding="utf-8")
    names = parse_class_names("dog\nhouse\nperson\nguitar\nteapot\n", "drawn.txt")
    teacher = load_teacher(TeacherConfig(), names)
    run = open_finished_run(run_with_surrogates(source))
    student = load_student(StudentArtifact.load(source.folder / "student"))
    head = HeadFit(teacher, student, run.surrogates, [0, 1, 2, -1, -1], 0)
    fitted = head.fit(SilentReporter())
    assert fitted.drawn == ("guitar", "teapot")
    drawings = retrieve_drawings(DrawingMemory(teacher))
    images = torch.cat([on_white(rgba) for rgba in drawings[3:]])
    with torch.no_grad():
        wanted, seen = teacher.logits(teacher.embed_images(images)), student.embed_images(images)

    def agreement(head_KD: torch.Tensor) -> float:
        return float(((seen @ head_KD.T).argmax(1) == wanted.argmax(1)).float().mean())

    assert agreement(fitted.head_KD) > agreement(teacher.head_KD)
    turned_K = (fitted.head_KD * teacher.head_KD).sum(1)
    assert torch.allclose(fitted.head_KD.norm(dim=1), torch.ones(5), atol=1e-5)
    assert turned_K.min() > 0.5  # the text still says what the class is
    again = head.fit(SilentReporter())
    assert torch.equal(again.head_KD, fitted.head_KD)
    only_old = HeadFit(
        load_teacher(TeacherConfig(), run.class_names), student, run.surrogates, [0, 1, 2], 0
    ).fit(SilentReporter())
    assert torch.equal(only_old.head_KD, teacher.head_KD[:3])


def on_white(rgba_MCPP: torch.Tensor) -> torch.Tensor:
    rgba = rgba_MCPP.float() / 255
    return rgba[:, :3] * rgba[:, 3:] + 1 - rgba[:, 3:]
