from pathlib import Path
from typing import Any

import pytest

from dfkd_edge.bundles.bundle import BundleContents
from dfkd_edge.class_names import ClassNames
from dfkd_edge.config.settings import ExportConfig, PipelineConfig
from dfkd_edge.deployment import export
from dfkd_edge.deployment.export import export_key
from dfkd_edge.preflight import ExportPlan
from dfkd_edge.runs.finished import FinishedRun


def test_another_picture_or_another_version_is_another_export(
    tmp_path: Path,
    tiny_contents: BundleContents,
    classes: ClassNames,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    unused: Any = None
    run = FinishedRun(tmp_path, PipelineConfig(), classes, tiny_contents.student, unused)
    measured, calibrated = tmp_path / "measured" / "dog", tmp_path / "calibrated"
    for folder in (measured, calibrated):
        folder.mkdir(parents=True)
        (folder / "a.png").write_bytes(b"a")
    plan = ExportPlan(
        run=tmp_path,
        config=PipelineConfig(export=ExportConfig(calibration_data=str(calibrated))),
        target=tiny_contents.target,
        folder=tmp_path / "bundle",
        data=str(measured.parent),
        exist_ok=False,
    )

    def key() -> str:
        return export_key(run, plan, 0)

    keys = [key()]
    assert key() == keys[0]
    for folder in (measured, calibrated):
        (folder / "b.png").write_bytes(b"b")
        keys.append(key())
        (folder / "a.png").write_bytes(b"another")
        keys.append(key())
    monkeypatch.setattr(export, "__version__", "0.0")
    keys.append(key())
    assert len(set(keys)) == len(keys)
