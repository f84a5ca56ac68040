"""Whether a bundle is of the run's student: one answer for every command."""

from pathlib import Path

from dfkd_edge.bundles.opening import holds_student_of
from dfkd_edge.files import atomic_write, file_hash


def test_a_bundle_that_does_not_name_its_student_is_of_another(tmp_path: Path) -> None:
    assert not holds_student_of(tmp_path, {})
    atomic_write(tmp_path / "student" / "student.safetensors", b"weights")
    assert not holds_student_of(tmp_path, {})


def test_a_bundle_is_of_the_student_that_lies_in_the_run_now(tmp_path: Path) -> None:
    weights = tmp_path / "student" / "student.safetensors"
    atomic_write(weights, b"weights")
    made = {"student_sha256": file_hash(weights)}
    assert holds_student_of(tmp_path, made)
    atomic_write(weights, b"other weights")
    assert not holds_student_of(tmp_path, made)
    weights.unlink()
    assert not holds_student_of(tmp_path, made)
