"""Whether a bundle is of the run's student: one answer for every command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dfkd_edge.bundles.of_run import holds_student_of
from dfkd_edge.files import atomic_write, file_hash


@pytest.mark.parametrize("manifest", [{}, {"provenance": {}}, {"provenance": None}])
def test_a_bundle_that_does_not_name_its_student_is_of_another(
    manifest: dict[str, Any], tmp_path: Path
) -> None:
    assert not holds_student_of(tmp_path, manifest)
    atomic_write(tmp_path / "student" / "student.safetensors", b"weights")
    assert not holds_student_of(tmp_path, manifest)


def test_a_bundle_is_of_the_student_that_lies_in_the_run_now(tmp_path: Path) -> None:
    weights = tmp_path / "student" / "student.safetensors"
    atomic_write(weights, b"weights")
    manifest = {"provenance": {"student_sha256": file_hash(weights)}}
    assert holds_student_of(tmp_path, manifest)
    atomic_write(weights, b"other weights")
    assert not holds_student_of(tmp_path, manifest)
    weights.unlink()
    assert not holds_student_of(tmp_path, manifest)
