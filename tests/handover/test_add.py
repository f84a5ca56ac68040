"""Runtimes in a bundle that is finished: sealed again, and damaged by no failure."""

import dataclasses
import json
import shutil
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from dfkd_edge.artifacts import StudentArtifact
from dfkd_edge.bundles.bundle import BundleContents, write_bundle
from dfkd_edge.bundles.extension import extend_bundle
from dfkd_edge.bundles.opening import open_bundle
from dfkd_edge.bundles.signature import load_signer, sign_bundle
from dfkd_edge.errors import ArtifactError, ConversionError, EnvironmentLackingError
from dfkd_edge.handover import parsers
from dfkd_edge.handover.parsers import read_back
from dfkd_edge.preflight import plan_check
from dfkd_edge.runtime import check
from dfkd_edge.runtime.bundle_files import Bundle, damaged_files, read_bundle
from dfkd_edge.target_profiles.lookup import load_target
from tests.bundles.test_signature import write_pair
from tests.fixtures.command import call

SHORT = ("--duration", "0.01", "--warmup", "0", "--quiet")


@pytest.fixture
def board(tmp_path: Path, tiny_contents: BundleContents) -> Bundle:
    """A bundle for a CPU board of ours."""
    contents = dataclasses.replace(tiny_contents, target=load_target("x86-cpu"))
    return write_bundle(tmp_path / "board", contents)


@pytest.fixture
def jetson(tmp_path: Path, tiny_contents: BundleContents) -> Bundle:
    """A bundle of a few weights for a Jetson, whose graph works on pixels first."""
    names = ("dog", "great;dane", "neighbour dog")
    folder = shutil.copytree(tiny_contents.student.folder, tmp_path / "student")
    settings = dataclasses.replace(tiny_contents.student.settings, classes=names)
    student = StudentArtifact(folder, settings)
    student.save_settings()
    contents = dataclasses.replace(
        tiny_contents,
        target=load_target("orin-nx-16gb@jp6.2"),
        class_names=names,
        student=student,
    )
    return write_bundle(tmp_path / "jetson", contents)


def test_what_is_added_is_listed_sealed_and_checked_and_all_else_stays(board: Bundle) -> None:
    before = dict(board.manifest.files)
    (board.folder / "devices").mkdir()
    (board.folder / "devices" / "board.json").write_text("{}", encoding="utf-8")
    code, output, errors = call("runtimes", "add", board.folder, "triton", "onnxruntime", "--quiet")
    assert code == 0, errors
    assert output.split() == [
        f"{board.folder}/runtimes/{name}/README.md" for name in ("triton", "onnxruntime")
    ]
    bundle = open_bundle(board.folder)
    assert before.items() <= bundle.manifest.files.items()
    there = {p.relative_to(board.folder).as_posix() for p in board.folder.rglob("*") if p.is_file()}
    assert there - {"manifest.json", "devices/board.json"} == bundle.manifest.files.keys()
    assert check.main(["--bundle", str(board.folder), *SHORT]) == 0
    (board.folder / "runtimes" / "triton" / "student" / "labels.txt").write_bytes(b"cat\n")
    with pytest.raises(ArtifactError, match=r"file differs from the manifest"):
        open_bundle(board.folder)
    (edited,) = damaged_files(board.folder, bundle.manifest)
    assert edited.hint.startswith("edited? edit a copy of the bundle")
    assert check.main(["--bundle", str(board.folder), *SHORT]) == 1


def test_a_bundle_that_failed_its_gate_says_so_when_runtimes_are_added_and_in_their_readmes(
    board: Bundle, tiny_contents: BundleContents
) -> None:
    failed = dataclasses.replace(tiny_contents, target=load_target("x86-cpu"), status="failed")
    write_bundle(board.folder, failed)
    code, _, errors = call("runtimes", "add", board.folder, "onnxruntime")
    assert code == 0
    assert "Gate: FAILED" in errors
    readme = board.folder / "runtimes" / "onnxruntime" / "README.md"
    assert readme.read_text(encoding="utf-8").startswith("**Gate: FAILED")


def test_adding_again_makes_it_anew_and_gives_the_same_bundle(board: Bundle) -> None:
    first = [call("runtimes", "add", board.folder, "triton", "--json") for _ in range(2)]
    assert [code for code, *_ in first] == [0, 0]
    assert json.loads(first[1][1])["runtimes"] == [f"{board.folder}/runtimes/triton"]
    once = open_bundle(board.folder)
    (board.folder / "runtimes" / "triton" / "student" / "left.engine").write_bytes(b"")
    assert call("runtimes", "add", board.folder, "triton", "--quiet")[0] == 0
    assert open_bundle(board.folder).sha256 == once.sha256
    assert not list(board.folder.rglob("left.engine"))


def test_runtimes_that_are_added_are_signed_or_the_lost_signature_is_told(
    board: Bundle, tmp_path: Path
) -> None:
    key = write_pair(tmp_path, "maker.key", ec.generate_private_key(ec.SECP256R1()))
    public = key.with_suffix(".pub")
    sign_bundle(board, load_signer(key))
    code, _, errors = call("runtimes", "add", board.folder, "triton")
    assert code == 0
    (line,) = (line for line in errors.splitlines() if "signed" in line)
    assert "the signature was of the bundle as it was; --sign KEY signs this one" in line
    code, _, errors = call("check", board.folder, "--verify", public)
    assert "ask its maker: dfkd-edge export, called again with --sign KEY" in errors
    assert call("runtimes", "add", board.folder, "triton", "--sign", key, "-q")[0] == 0
    assert plan_check(board.folder, "", public).manifest.files.keys() > (
        board.manifest.files.keys()
    )
    before = open_bundle(board.folder).sha256
    code, _, errors = call("runtimes", "add", board.folder, "triton", "--sign", public)
    assert (code, errors.count("\n")) == (2, 1)
    assert open_bundle(board.folder).sha256 == before


def test_a_failure_leaves_the_bundle_as_it_was(board: Bundle, tmp_path: Path) -> None:
    with pytest.raises(EnvironmentLackingError):
        extend_bundle(board, {"runtimes/mine/README.md": tmp_path / "gone"}, ["runtimes/mine"])
    assert open_bundle(board.folder).sha256 == board.sha256
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("jetson", "deepstrem"), "unknown runtime 'deepstrem': did you mean deepstream?"),
        (("board", "deepstream"), "deepstream never was on x86-cpu (runtime): there is 6.0 on"),
        (("jetson", "deepstream"), "deepstream cannot have the class 'great;dane': nvinfer splits"),
        (("jetson", "jetson-inference"), "cannot have the class 'neighbour dog': it takes the"),
        (("nowhere", "triton"), "no such folder"),
    ],
)
def test_a_request_that_cannot_be_met_is_one_line_and_exit_code_2(
    arguments: tuple[str, str], said: str, board: Bundle, jetson: Bundle, tmp_path: Path
) -> None:
    hashes = [board.sha256, jetson.sha256]
    code, output, errors = call("runtimes", "add", tmp_path / arguments[0], arguments[1])
    assert (code, output) == (2, "")
    assert said in errors
    assert len(errors.splitlines()) == 1
    assert [open_bundle(b.folder).sha256 for b in (board, jetson)] == hashes


def test_a_batch_that_a_runtime_cannot_fill_stops_an_export_before_it_begins(
    finished_run: Path,
) -> None:
    given = ("--target", "jetson", "--runtime", "holoscan", "--batch", "1,4,8", "--dry-run")
    code, output, errors = call("export", finished_run, *given)
    assert (code, output) == (2, "")
    assert "holoscan cannot fill a batch of 1, 4, 8 (runtime): export with `--batch 1`" in errors
    assert len(errors.splitlines()) == 1


def test_without_the_library_that_reads_it_back_a_text_is_written_and_says_so(
    board: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, readme = "runtimes/triton/student/config.pbtxt", "runtimes/triton/README.md"
    assert call("runtimes", "add", board.folder, "triton")[0] == 0
    checked = {name: (board.folder / name).read_text(encoding="utf-8") for name in (config, readme)}
    monkeypatch.setitem(sys.modules, "tritonclient.grpc", None)
    code, _, errors = call("runtimes", "add", board.folder, "triton")
    said = (
        "Not checked when written, for want of tritonclient (`pip install 'dfkd-edge[runtimes]'`): "
    )
    assert code == 0
    assert said in " ".join(errors.split())
    assert (board.folder / config).read_text(encoding="utf-8") == checked[config]
    text = (board.folder / readme).read_text(encoding="utf-8")
    assert text == f"{checked[readme]}- {said}`student/config.pbtxt`.\n"


@pytest.mark.parametrize(("name", "text"), [("a.json", "{"), ("a.py", "if"), ("a.yaml", "a: [")])
def test_a_text_that_its_parser_refuses_is_one_line_and_exit_code_1(name: str, text: str) -> None:
    pytest.importorskip("yaml")
    with pytest.raises(ConversionError, match=r"^refused by its parser: ") as refused:
        read_back({"README.md": "{", name: text}, {})
    assert f" ({name}): " in str(refused.value)
    assert "\n" not in str(refused.value)
    assert refused.value.exit_code == 1


def test_a_library_of_the_system_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parsers, "GLIB", "libnone.so")
    result = read_back({"a.txt": "[a]"}, {"a.txt": parsers.key_file})
    assert str(result) == "Not checked when written, for want of libnone.so: `a.txt`."


def test_a_bundle_that_was_changed_gets_no_runtime(board: Bundle) -> None:
    (board.folder / "recipe.md").write_text("other\n", encoding="utf-8")
    code, _, errors = call("runtimes", "add", board.folder, "triton")
    assert (code, len(errors.splitlines())) == (1, 1)
    assert "file differs from the manifest" in errors
    assert not (board.folder / "runtimes").exists()


def test_a_graph_that_works_on_pixels_first_and_a_float_input_are_handed_over_too(
    tmp_path: Path, tiny_contents: BundleContents
) -> None:
    contents = dataclasses.replace(tiny_contents, target=load_target("orin-nx-16gb@jp6.2"))
    folder = write_bundle(tmp_path / "pixels", contents).folder
    assert call("runtimes", "add", folder, "deepstream", "jetson-inference", "--quiet")[0] == 0
    assert len(list((folder / "runtimes").rglob("model-*.onnx"))) == 2
    files = open_bundle(folder).manifest.files
    (graph,) = (name for name in files if name.startswith("runtimes/deepstream/model-"))
    assert files[graph].bytes > 1_000


def test_a_newer_bundle_drops_the_runtimes_of_the_older(
    board: Bundle, tiny_contents: BundleContents
) -> None:
    assert call("runtimes", "add", board.folder, "triton", "--quiet")[0] == 0
    write_bundle(board.folder, dataclasses.replace(tiny_contents, target=load_target("x86-cpu")))
    assert not (board.folder / "runtimes").exists()


def test_the_bundle_with_every_runtime_passes_its_own_check_and_is_four_times_as_large_at_most(
    jetson_bundle: Bundle, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(jetson_bundle.folder, tmp_path / "copy"))
    sizes = {name: entry.bytes for name, entry in jetson_bundle.manifest.files.items()}
    of_runtimes = sum(size for name, size in sizes.items() if name.startswith("runtimes/"))
    assert 0 < of_runtimes < 3 * (sum(sizes.values()) - of_runtimes)
    assert check.main(["--bundle", str(copy), *SHORT, "--precision", "fp32"]) == 0
    assert read_bundle(copy).sha256 == jetson_bundle.sha256


def test_list_and_show_say_where_runtimes_are() -> None:
    code, output, _ = call("runtimes", "list")
    assert code == 0
    assert all(name in output for name in ("deepstream", "triton", "trtexec", "6.2"))
    listed = json.loads(call("runtimes", "list", "--json")[1])["runtimes"]
    assert "deepstream" in [profile["name"] for profile in listed]
    shown = call("runtimes", "show", "deepstream")[1]
    assert "nvinfer" in shown
    assert "sourced" in shown
    assert json.loads(call("runtimes", "show", "triton", "--json")[1])["feed"] == "bundle"
    assert call("runtimes", "show", "tritn")[0] == 2
