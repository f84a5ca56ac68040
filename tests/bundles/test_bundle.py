from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dfkd_edge.artifacts import ModelFile, load_tensors
from dfkd_edge.bundles.bundle import BundleContents, status_of, write_bundle
from dfkd_edge.bundles.opening import find_bundle, holds_student_of, open_bundle
from dfkd_edge.bundles.replacement import refuse_other_bundle
from dfkd_edge.config.settings import PipelineConfig
from dfkd_edge.errors import ArtifactError, EnvironmentLackingError, RunDirError, UsageError
from dfkd_edge.files import atomic_write, file_hash
from dfkd_edge.runs.run_dir import open_run
from dfkd_edge.runtime.bundle_files import Bundle
from dfkd_edge.target_profiles.profile import Precision
from tests.fixtures.files import edit_json


def test_what_was_written_is_what_is_opened_and_the_same_bytes_each_time(
    tiny_bundle: Bundle, tiny_contents: BundleContents, tmp_path: Path
) -> None:
    bundle = open_bundle(tiny_bundle.folder)
    assert bundle.classes == tiny_contents.class_names
    assert (bundle.precision, bundle.precisions) == ("int8", ("fp32", "int8"))
    assert (bundle.side_px, bundle.batch) == (16, (1, 1, 1))
    fp32 = tiny_contents.models["fp32"]
    assert bundle.model_path("fp32").read_bytes() == fp32.path.read_bytes()
    golden = bundle.golden()
    assert np.array_equal(golden["int8_logits"], tiny_contents.golden.precision_logits["int8"])
    head = load_tensors(bundle.folder / "text_head.safetensors")["text_head"]
    assert np.array_equal(head, tiny_contents.text_head)
    names = {f.relative_to(bundle.folder).as_posix() for f in bundle.folder.rglob("*.*")}
    assert names == {*bundle.manifest.files, "manifest.json"}
    assert write_bundle(tmp_path / "again", tiny_contents).sha256 == bundle.sha256


def test_a_newer_bundle_replaces_every_file_of_the_older(
    tiny_bundle: Bundle, tiny_contents: BundleContents
) -> None:
    (tiny_bundle.folder / "result.json").write_text("{}")
    fp32_only: dict[Precision, ModelFile] = {"fp32": tiny_contents.models["fp32"]}
    newer = replace(tiny_contents, models=fp32_only, precision="fp32", calibration=None)
    bundle = write_bundle(tiny_bundle.folder, newer)
    assert open_bundle(bundle.folder).precisions == ("fp32",)
    for name in ("model.int8.onnx", "calibration.json", "result.json"):
        assert not (bundle.folder / name).exists()


def test_a_write_that_fails_leaves_the_older_bundle_whole(
    tiny_bundle: Bundle, tiny_contents: BundleContents, tmp_path: Path
) -> None:
    gone = replace(tiny_contents.models["int8"], path=tmp_path / "gone.onnx")
    models: dict[Precision, ModelFile] = {"fp32": tiny_contents.models["fp32"], "int8": gone}
    with pytest.raises(EnvironmentLackingError):
        write_bundle(tiny_bundle.folder, replace(tiny_contents, models=models))
    assert open_bundle(tiny_bundle.folder).sha256 == tiny_bundle.sha256
    assert [f.name for f in tiny_bundle.folder.parent.iterdir()] == [tiny_bundle.folder.name]


@pytest.mark.parametrize("status", ["passed", "incomplete"])
def test_results_of_devices_and_hidden_files_outlive_the_older_bundle_and_stale_ones_do_not(
    tiny_bundle: Bundle, tiny_contents: BundleContents, status: str
) -> None:
    folder = tiny_bundle.folder
    edit_json(folder / "manifest.json", status=status)
    kept = (folder / "devices" / "board.json", folder / ".gitignore")
    for path in (folder / "result.json", *kept):
        path.parent.mkdir(exist_ok=True)
        path.write_text("{}", encoding="utf-8")
    write_bundle(folder, tiny_contents)
    assert [path.read_text(encoding="utf-8") for path in kept] == ["{}", "{}"]
    assert not (folder / "result.json").exists()


def test_models_that_lie_in_the_folder_already_stay(
    tiny_bundle: Bundle, tiny_contents: BundleContents, tmp_path: Path
) -> None:
    folder = tmp_path / "fresh"
    folder.mkdir()
    path = folder / "model.fp32.onnx"
    path.write_bytes(tiny_bundle.model_path("fp32").read_bytes())
    models = {**tiny_contents.models, "fp32": replace(tiny_contents.models["fp32"], path=path)}
    assert write_bundle(folder, replace(tiny_contents, models=models)).model_path("fp32") == path


@pytest.mark.parametrize(
    "manifest", [b"", b'{"marker": "dfkd', b'{"marker": "dfkd-edge bundle"}', None]
)
def test_a_bundle_whose_manifest_is_damaged_is_written_again(
    tiny_bundle: Bundle, tiny_contents: BundleContents, manifest: bytes | None
) -> None:
    path, foreign = tiny_bundle.folder / "manifest.json", tiny_bundle.folder / "thesis.doc"
    path.unlink()
    if manifest is not None:
        path.write_bytes(manifest)
    foreign.write_text("precious")
    with pytest.raises(RunDirError, match="thesis"):
        write_bundle(tiny_bundle.folder, tiny_contents)
    foreign.unlink()
    assert write_bundle(tiny_bundle.folder, tiny_contents).manifest == tiny_bundle.manifest
    open_bundle(tiny_bundle.folder)


@pytest.mark.parametrize("name", ["notes.txt", "classes.txt", "manifest.json", "student"])
def test_a_folder_of_others_is_left_alone(
    tmp_path: Path, tiny_contents: BundleContents, name: str
) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / name).write_text("precious")
    with pytest.raises(RunDirError, match=name):
        write_bundle(folder, tiny_contents)
    assert [f.name for f in folder.iterdir()] == [name]


def test_a_changed_file_or_half_a_bundle_is_an_artifact_error_a_foreign_folder_a_usage_error(
    tiny_bundle: Bundle, tmp_path: Path
) -> None:
    (tiny_bundle.folder / "recipe.md").write_text("changed")
    with pytest.raises(ArtifactError, match=r"recipe\.md"):
        open_bundle(tiny_bundle.folder)
    open_bundle(tiny_bundle.folder, verify=False)
    edit_json(tiny_bundle.folder / "manifest.json", status="incomplete")
    with pytest.raises(ArtifactError, match="never finished"):
        open_bundle(tiny_bundle.folder)
    with pytest.raises(UsageError, match="holds no bundle"):
        open_bundle(tmp_path)


def test_fp16_may_lie_in_the_fp32_graph(tmp_path: Path, tiny_contents: BundleContents) -> None:
    models: dict[Precision, ModelFile] = {"fp32": tiny_contents.models["fp32"]}
    bundle = write_bundle(
        tmp_path / "nano", replace(tiny_contents, models=models, precision="fp16", batch=(1, 4, 8))
    )
    assert bundle.precisions == ("fp32", "fp16")
    assert bundle.model_path("fp16") == bundle.model_path("fp32")
    assert bundle.batch == (1, 4, 8)


def test_the_only_bundle_of_a_run_is_found(tmp_path: Path, tiny_contents: BundleContents) -> None:
    with open_run(tmp_path / "run", "key", resume=True, exist_ok=False) as run:
        bundles = run.path / "bundles"
        with pytest.raises(
            UsageError, match=r"no student yet .*: this goes on with it: dfkd-edge d"
        ):
            find_bundle(run.path)
        run.complete("student", "key", [])
    (bundles / ".export-left").mkdir(parents=True)
    with pytest.raises(UsageError, match=r"no bundle yet .*: dfkd-edge export \S+/run makes one$"):
        find_bundle(run.path)
    first = write_bundle(bundles / "a", tiny_contents)
    assert find_bundle(run.path) == find_bundle(first.folder) == first.folder
    write_bundle(bundles / "b", tiny_contents)
    with pytest.raises(UsageError, match=r"has 2 bundles: a, b .*name one, such as \S+/bundles/a$"):
        find_bundle(run.path)


def test_a_bundle_is_of_the_student_that_lies_in_the_run_now_and_that_it_names(
    tmp_path: Path,
) -> None:
    assert not holds_student_of(tmp_path, {})
    weights = tmp_path / "student" / "student.safetensors"
    atomic_write(weights, b"weights")
    made = {"student_sha256": file_hash(weights)}
    assert holds_student_of(tmp_path, made)
    assert not holds_student_of(tmp_path, {})
    atomic_write(weights, b"other weights")
    assert not holds_student_of(tmp_path, made)
    weights.unlink()
    assert not holds_student_of(tmp_path, made)


@pytest.mark.parametrize("name", ["student", "devices", "model.fp32.onnx", "README.md"])
def test_a_link_in_an_unfinished_bundle_leads_no_file_out_of_it(
    tiny_contents: BundleContents, tmp_path: Path, name: str
) -> None:
    folder, elsewhere = tmp_path / "bundle", tmp_path / "elsewhere"
    folder.mkdir()
    elsewhere.mkdir()
    atomic_write(folder / "manifest.json", '{"marker": "dfkd-edge bundle", "status": "incomplete"}')
    (folder / name).symlink_to(elsewhere)
    (folder / ".model.fp32.onnx.tmp").symlink_to(elsewhere / "made")
    with pytest.raises(RunDirError, match="is a link, a bundle holds plain files"):
        write_bundle(folder, tiny_contents)
    (folder / name).unlink()
    write_bundle(folder, tiny_contents)
    assert not list(elsewhere.iterdir())


def test_a_link_beside_a_bundle_leads_its_replacement_nowhere(
    tiny_bundle: Bundle, tiny_contents: BundleContents, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "old").mkdir(parents=True)
    tiny_bundle.folder.with_name(f".bundle-{tiny_bundle.folder.name}").symlink_to(elsewhere)
    write_bundle(tiny_bundle.folder, replace(tiny_contents, recipe="newer\n"))
    assert [path.name for path in elsewhere.iterdir()] == ["old"]
    assert (open_bundle(tiny_bundle.folder).folder / "recipe.md").read_text() == "newer\n"


def test_a_bundle_of_an_earlier_format_is_replaced_only_when_asked_and_a_changed_one_at_once(
    tiny_bundle: Bundle, tmp_path: Path
) -> None:
    assert status_of(tiny_bundle.folder) == "passed"
    path = tiny_bundle.folder / "manifest.json"
    whole = path.read_text(encoding="utf-8")
    path.write_text(whole.replace('"passed"', '"failed"'), encoding="utf-8")
    assert status_of(tiny_bundle.folder) == "damaged"
    path.write_text(whole.replace('"format": 2', '"format": 1'), encoding="utf-8")
    assert status_of(tiny_bundle.folder) == "passed"
    with pytest.raises(RunDirError, match="another bundle is there: made by an earlier version"):
        refuse_other_bundle(tiny_bundle.folder, tmp_path, PipelineConfig(), "")
