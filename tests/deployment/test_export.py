from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dfkd_edge.bundles.bundle import BundleContents
from dfkd_edge.config.settings import ExportConfig, PipelineConfig
from dfkd_edge.deployment import export
from dfkd_edge.deployment.export import export_key
from dfkd_edge.preflight import ExportPlan


def test_another_picture_or_another_version_is_another_export(
    tmp_path: Path, tiny_contents: BundleContents, monkeypatch: pytest.MonkeyPatch
) -> None:
    run: Any = SimpleNamespace(student=tiny_contents.student)
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
    keys = {export_key(run, plan, 0), export_key(run, plan, 0)}
    for folder in (measured, calibrated):
        for name, content in (("b.png", b"b"), ("a.png", b"another")):
            (folder / name).write_bytes(content)
            keys.add(export_key(run, plan, 0))
    monkeypatch.setattr(export, "__version__", "0.0")
    assert len(keys | {export_key(run, plan, 0)}) == 1 + 4 + 1
