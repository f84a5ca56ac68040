import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dfkd_edge.bundles.opening import open_bundle
from dfkd_edge.bundles.predict import PredictRequest, classify_pictures
from dfkd_edge.errors import ArtifactError, DfkdEdgeError
from dfkd_edge.runtime.bundle_files import STUDENT, Bundle, damaged_files, read_bundle
from dfkd_edge.runtime.bundle_manifest import sealed
from dfkd_edge.runtime.faults import Fault
from dfkd_edge.runtime.safe_files import file_sha256
from tests.fixtures.files import edit_json, read_json, write_picture
from tests.runtime.conftest import RunCheck

Document = dict[str, Any]
HUGE = 10**4000
MANIFESTS: dict[str, Document] = {
    "classes of another type": {"classes": {"cat": 1}},
    "class that is unhashable": {"classes": [["cat"], "dog", "cow"]},
    "class twice": {"classes": ["cat", "cat", "dog"]},
    "class that is empty": {"classes": ["", "dog", "cow"]},
    "one class": {"classes": ["cat"]},
    "class that turns the terminal red": {"classes": ["\x1b[31mcat", "dog", "cow"]},
    "class that reads backwards": {"classes": ["\u202ecat", "dog", "cow"]},
    "class that is half a pair": {"classes": ["\ud800", "dog", "cow"]},
    "target with a line break": {"target": "x86-cpu\nrm -rf ."},
    "target with an escape": {"target": "x\x1b]0;owned\x07"},
    "target that is no text": {"target": ["x"]},
    "machine with a path": {"machine": "../x"},
    "precision that is unknown": {"precision": "fp8"},
    "backend that is unknown": {"backend": "python"},
    "status that is unknown": {"status": "PASSED"},
    "models as a list": {"models": ["model.fp32.onnx"]},
    "model that is a list": {"models": {"fp32": ["model.fp32.onnx"]}},
    "model that is not listed": {"models": {"fp32": "other.onnx"}},
    "no model": {"models": {}},
    "notes that are no objects": {"model_notes": {"fp32": 3}},
    "tolerance of text": {"tolerance": {"fp32": {"relative": "1", "agreement": 0.9}}},
    "tolerance that lets all pass": {"tolerance": {"fp32": {"relative": 1e9, "agreement": 0.0}}},
    "no tolerance of a model": {"tolerance": {"int8": {"relative": 0.1, "agreement": 0.9}}},
    "tolerance of a truth value": {"tolerance": {"fp32": {"relative": True, "agreement": 1}}},
    "hash that is a list": {"files": {"classes.txt": {"sha256": ["a"], "bytes": 3}}},
    "size below nothing": {"files": {"classes.txt": {"sha256": "0" * 64, "bytes": -1}}},
    "size that is a truth value": {"files": {"classes.txt": {"sha256": "0" * 64, "bytes": True}}},
    "entry of null": {"files": {"classes.txt": None}},
    "name longer than a system has": {"files": {"é" * 128: {"sha256": "0" * 64, "bytes": 1}}},
    "files without the contract": {"files": {"a": {"sha256": "0" * 64, "bytes": 1}}, "models": {}},
    "confidence of text": {"confidence": "0.5"},
    "confidence without a threshold": {"confidence": {"temperature": 1.0}},
    "confidence of no temperature": {"confidence": {"temperature": 0, "reject_threshold": 0.5}},
    "confidence in text": {"confidence": {"temperature": "2", "reject_threshold": 0.5}},
    "confidence beyond all": {"confidence": {"temperature": HUGE, "reject_threshold": 0.5}},
    "threshold above 1": {"confidence": {"temperature": 1, "reject_threshold": 7}},
    "provenance as a list": {"provenance": []},
    "format of another type": {"format": [2]},
    "format of a later program": {"format": 99},
}


@pytest.mark.parametrize("kind", MANIFESTS)
def test_a_manifest_of_another_form_is_one_line_though_its_hash_is_right(
    kind: str, run_check: RunCheck, tiny_bundle: Bundle
) -> None:
    path = tiny_bundle.folder / "manifest.json"
    edit_json(path, **MANIFESTS[kind])
    code, errors, result = run_check(tiny_bundle.folder)
    assert (code, errors.count("\n"), result) == (1, 1, {})
    assert "manifest" in errors or "format" in errors or "read as JSON" in errors
    assert errors.rstrip("\n").isprintable()
    with pytest.raises(DfkdEdgeError):
        open_bundle(tiny_bundle.folder)


@pytest.mark.parametrize("key", ["confidence", "classes", "tolerance", "status", "files"])
def test_a_key_that_is_missing_is_no_default(
    key: str, run_check: RunCheck, tiny_bundle: Bundle
) -> None:
    path = tiny_bundle.folder / "manifest.json"
    document = read_json(path)
    del document[key]
    path.write_bytes(sealed(document))
    code, errors, _ = run_check(tiny_bundle.folder)
    assert (code, errors.count("\n")) == (1, 1)
    assert f"{key} is missing" in errors


NO_PLAIN_JSON = {
    "deeper than any stack": "[" * 100_000,
    "deeper than can be written": f'{{"marker": {"[" * 900}{"]" * 900}}}',
    "list": "[]",
    "null": "null",
    "empty": "",
    "cut": "{",
    "no number": '{"a": NaN}',
    "infinite": '{"a": 1e999}',
    "huge": f'{{"a": {"9" * 10_000}}}',
}


@pytest.mark.parametrize("kind", NO_PLAIN_JSON)
@pytest.mark.parametrize("name", ["manifest.json", "preprocess.json"])
def test_a_document_that_is_no_plain_json_is_one_line(
    kind: str, name: str, run_check: RunCheck, tiny_bundle: Bundle
) -> None:
    (tiny_bundle.folder / name).write_text(NO_PLAIN_JSON[kind], encoding="utf-8")
    code, errors, _ = run_check(tiny_bundle.folder)
    assert (code, errors.count("\n")) == (1, 1)
    assert name in errors


CONTRACTS: dict[str, Document] = {
    "infinite": {"batch": [1, 1, float("inf")]},
    "batch of nothing": {"batch": [0, 0, 0]},
    "batch of text": {"batch": ["1", "1", "1"]},
    "falling batch": {"batch": [4, 2, 1]},
    "batch that fills the memory": {"batch": [1, 1, 10**9]},
    "truth values": {"batch": [True, True, True]},
    "no input": {"input": None},
    "input of a list": {"input": [16, 16]},
    "side that fills the memory": {"input": {"width": 10**6, "height": 10**6}},
    "side in text": {"input": {"width": "16", "height": "16"}},
    "not square": {"input": {"width": 16, "height": 32}},
}


@pytest.mark.parametrize("kind", CONTRACTS)
def test_a_contract_out_of_range_is_one_line(
    kind: str, run_check: RunCheck, tiny_bundle: Bundle
) -> None:
    edit_json(tiny_bundle.folder / "preprocess.json", **CONTRACTS[kind])
    code, errors, _ = run_check(tiny_bundle.folder)
    assert (code, errors.count("\n")) == (1, 1)
    assert "preprocess.json" in errors


def told_of(folder: Path) -> list[str]:
    """What a reader says of a bundle, a line a fault."""
    try:
        return [str(fault) for fault in damaged_files(folder, read_bundle(folder).manifest)]
    except Fault as fault:
        return [str(fault)]


def test_every_flipped_byte_of_a_manifest_or_a_listed_file_is_refused_by_name(
    tiny_bundle: Bundle,
) -> None:
    random = np.random.default_rng(0)
    for name in ("manifest.json", *tiny_bundle.manifest.files):
        path = tiny_bundle.folder / name
        whole = path.read_bytes()
        for place in random.integers(0, len(whole), 300 if name == "manifest.json" else 20):
            changed = bytearray(whole)
            changed[place] = (changed[place] + random.integers(1, 256)) % 256
            path.write_bytes(bytes(changed))
            lines = told_of(tiny_bundle.folder)
            assert len(lines) == 1
            assert name in lines[0] or "holds no bundle" in lines[0]  # its marker was hit
        path.write_bytes(whole)
    assert not told_of(tiny_bundle.folder)


def test_classes_in_another_order_than_the_list_answer_nothing(
    run_check: RunCheck, tiny_bundle: Bundle, tmp_path: Path
) -> None:
    edit_json(tiny_bundle.folder / "manifest.json", classes=[*reversed(tiny_bundle.classes)])
    code, errors, _ = run_check(tiny_bundle.folder)
    assert (code, "class list is not that of the manifest" in errors) == (1, True)
    picture = write_picture(tmp_path / "a.png", 0)
    with pytest.raises(DfkdEdgeError, match=r"class list .*classes\.txt"):
        classify_pictures(tiny_bundle.folder, PredictRequest(images=[str(picture)], top=1))


def test_a_student_whose_classes_stand_in_another_order_is_a_damaged_bundle(
    run_check: RunCheck, tiny_bundle: Bundle
) -> None:
    path, manifest = tiny_bundle.folder / STUDENT, tiny_bundle.folder / "manifest.json"
    edit_json(path, classes=[*reversed(tiny_bundle.classes)])
    entry = {"sha256": file_sha256(path), "bytes": path.stat().st_size}
    edit_json(manifest, files={**read_json(manifest)["files"], STUDENT: entry})
    code, errors, _ = run_check(tiny_bundle.folder)
    assert (code, errors.count("\n")) == (1, 1)
    told = "classes of the student are not those of the manifest"
    assert told in errors
    with pytest.raises(ArtifactError, match=told) as refused:  # as `dfkd-edge check` opens it
        open_bundle(tiny_bundle.folder)
    assert refused.value.exit_code == 1


def test_a_bundle_of_the_format_without_its_own_hash_is_to_be_exported_again(
    run_check: RunCheck, tiny_bundle: Bundle
) -> None:
    path = tiny_bundle.folder / "manifest.json"
    path.write_text(json.dumps({**read_json(path), "format": 1}), encoding="utf-8")
    code, errors, _ = run_check(tiny_bundle.folder)
    assert (code, errors.count("\n")) == (1, 1)
    assert "export it again with this version" in errors


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def device(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("name", ["manifest.json", "preprocess.json", "classes.txt", "golden.npz"])
@pytest.mark.parametrize("lay", [pipe, device])
def test_what_never_answers_or_never_ends_is_refused_in_place_of_a_file(
    name: str, lay: Callable[[Path], None], run_check: RunCheck, tiny_bundle: Bundle
) -> None:
    lay(tiny_bundle.folder / name)
    code, errors, _ = run_check(tiny_bundle.folder)
    assert code in (1, 2)
    assert errors.count("\n") == 1


def test_a_file_of_terabytes_is_refused_by_its_size(tiny_bundle: Bundle) -> None:
    path = tiny_bundle.folder / "recipe.md"
    os.truncate(path, 1 << 42)  # sparse: it takes no space
    (fault,) = damaged_files(tiny_bundle.folder, tiny_bundle.manifest)
    assert "4,398,046,511,104 bytes, not" in str(fault)
    entry = {"sha256": "0" * 64, "bytes": 1 << 42}
    files = read_json(tiny_bundle.folder / "manifest.json")["files"]
    edit_json(tiny_bundle.folder / "manifest.json", files={**files, "recipe.md": entry})
    with pytest.raises(DfkdEdgeError, match="manifest is not whole: files"):
        open_bundle(tiny_bundle.folder)


def pack(golden: Path, **arrays: Any) -> None:
    with np.load(golden) as held:
        np.savez(golden, **{**dict(held), **arrays})


@pytest.mark.parametrize(
    "arrays",
    [
        {"student_logits": np.zeros((12, 3), "U4")},
        {"student_logits": np.zeros((12, 4), np.float32)},
        {"teacher_logits": np.array(3.0)},
        {"images": np.array(1)},
        {"images": np.zeros((0, 16, 16, 3), np.uint8)},
        {"test_card": np.zeros((2, 2), np.uint8)},
    ],
)
def test_golden_arrays_of_another_form_are_one_line(arrays: Document, tiny_bundle: Bundle) -> None:
    pack(tiny_bundle.folder / "golden.npz", **arrays)
    with pytest.raises(Fault, match=r"do not fit the contract .*golden\.npz"):
        tiny_bundle.golden()
