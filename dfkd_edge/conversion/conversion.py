"""Exporters, chained for one student and one target; every graph is linted before it counts."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dfkd_edge.artifacts import ModelFile, StudentArtifact
from dfkd_edge.config.settings import ExportConfig
from dfkd_edge.conversion.calibration_source import CalibrationSet
from dfkd_edge.conversion.lint import LintFinding, lint_model, refuse_errors
from dfkd_edge.interfaces import Calibration, OracleReport, Reporter
from dfkd_edge.plugins import load_exporter
from dfkd_edge.runtime.counting import counted
from dfkd_edge.target_profiles.profile import Precision, TargetProfile


@dataclass(frozen=True, slots=True)
class Graphs:
    """The graphs of one student."""

    fp32: ModelFile
    final: ModelFile  # The graph of the recommended precision; the FP32 graph itself for fp32
    calibration: Calibration | None = None  # Ranges that the INT8 graph was made with

    @property
    def models(self) -> tuple[ModelFile, ...]:
        """In the order of conversion, each once."""
        return (self.fp32,) if self.final is self.fp32 else (self.fp32, self.final)


@dataclass(frozen=True, slots=True)
class Conversion:
    """What all conversions of an export have in common."""

    target: TargetProfile
    config: ExportConfig
    reporter: Reporter
    folder: Path  # Graphs are written here
    warnings: list[LintFinding] = field(default_factory=list)
    """What the lint found besides errors, each once."""

    def convert(
        self, student: StudentArtifact, precision: Precision, images: CalibrationSet | None
    ) -> Graphs:
        """Student to FP32 graph, and on to the precision; INT8 needs images to calibrate on.

        Raises:
            ConversionError: an exporter or the lint refuses.
        """
        fp32 = self.to_onnx(student, "model.fp32.onnx")
        if precision == "fp32":
            return Graphs(fp32, fp32)
        if precision == "fp16":
            with self._stage("casting to FP16"):
                path = self.folder / "model.fp16.onnx"
                fp16 = load_exporter("fp16").export(fp32, self.target, self.config, path)
            # a target of weak typing never sees the cast: there FP16 is a flag of the builder
            return Graphs(fp32, self.lint(fp16) if self.target.typing == "strong" else fp16)
        assert images is not None  # for int8 they were gathered
        calibration = self.calibrate(fp32, images)
        int8 = self.quantize(fp32, calibration, "model.int8.onnx")
        return Graphs(fp32, self.lint(int8), calibration)

    def to_onnx(self, student: StudentArtifact, name: str) -> ModelFile:
        """Write the FP32 graph; the exporter compares it with torch."""
        with self._stage("writing the ONNX graph"):
            path = self.folder / name
            model = load_exporter("onnx").export(student, self.target, self.config, path)
        return self.lint(model)

    def calibrate(self, fp32: ModelFile, images: CalibrationSet) -> Calibration:
        """Measure the activation ranges and say how far more images would change them."""
        with self._stage(f"calibrating on {len(images.images)} images"):
            calibration = load_exporter("int8").calibrate(
                fp32, images.images, self.target, self.config
            )
        self.reporter.note(
            f"  {images.description}; two halves of them differ by "
            f"{calibration.half_difference:.1%} of a range at most"
        )
        return calibration

    def quantize(
        self,
        fp32: ModelFile,
        calibration: Calibration,
        name: str,
        float_nodes: frozenset[str] = frozenset(),
    ) -> ModelFile:
        """Write an INT8 graph; one that ships must pass the lint, too."""
        return load_exporter("int8").export(
            fp32, calibration, self.target, self.config, self.folder / name, float_nodes
        )

    def lint(self, model: ModelFile) -> ModelFile:
        """Check a graph against the target and return it; warnings are kept.

        Raises:
            ConversionError: names the rule and the node.
        """
        findings = lint_model(model.path, self.target)
        refuse_errors(findings, model.path)
        self.warnings.extend(finding for finding in findings if finding not in self.warnings)
        return model

    def consult_oracle(self, models: Sequence[ModelFile]) -> dict[str, OracleReport]:
        """Parse and build graphs with TensorRT-RTX, where it is installed: file name -> report.

        Raises:
            ConversionError: it refuses one.
        """
        if self.target.backend != "tensorrt":
            return {}
        oracle = load_exporter("oracle")
        if not oracle.available():
            self.reporter.note(
                "  TensorRT-RTX's parser was not asked: pip install 'dfkd-edge[oracle]' to have "
                "every graph parsed and built here, without a device"
            )
            return {}
        reports = {}
        with self.reporter.stage("asking TensorRT-RTX's parser", len(models)) as progress:
            for model in models:
                low, usual, high = model.notes["batch"]
                reports[model.path.name] = oracle.build(model.path, (low, usual, high))
                progress.advance(1, model.path.name)
        asked = ", ".join(sorted({report.parser for report in reports.values()}))
        self.reporter.note(f"  {asked}: parses and builds {counted(len(reports), 'graph')}")
        return reports

    @contextlib.contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        with self.reporter.stage(name, 1) as progress:
            yield
            progress.advance()
