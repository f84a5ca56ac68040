"""What a student gains over running a small CLIP as it is, on the images that both were shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from dfkd_edge.networks.runners import TorchRunner
from dfkd_edge.networks.students import Student
from dfkd_edge.networks.teacher import Teacher
from dfkd_edge.results.ladder import BASELINE, STUDENT, TEACHER, Baseline
from dfkd_edge.validation.ladder import Rung, measured_rung, step_loss
from dfkd_edge.validation.predictions import Predictions
from dfkd_edge.validation.rungs import BYTES_PER_FLOAT, graph_latency

ALL_CORES = 0


def baseline_rung(baseline: Teacher) -> Rung:
    """Make it run beside the rungs of a ladder."""
    size_bytes = BYTES_PER_FLOAT * baseline.num_image_parameters  # texts are embedded beforehand
    runner = TorchRunner(BASELINE, baseline)
    return Rung(BASELINE, runner, baseline.image_size_px, size_bytes)


def compared(
    name: str,
    baseline: Teacher,
    student: Student,
    predictions: Predictions,
    class_names: Sequence[str],
) -> Baseline:
    """Measure accuracy, size and time of a baseline, and those of the student beside them.

    Args:
        name: as the baseline was asked for.
        baseline: with the zero-shot head of the same classes.
        student: the finished one.
        predictions: of both and of the teacher on the same images.
        class_names: in the order of the logits.
    """
    rung, caveats = baseline_rung(baseline), list[str]()
    for_baseline, for_student = (graph_latency(net, ALL_CORES) for net in (baseline, student))
    for what, latency in ((name, for_baseline), ("student", for_student)):
        caveats += [f"{what}: {line}" for line in latency.unsteadiness] if latency else []
    if for_baseline:
        rung = replace(rung, onnx_latency_ms=for_baseline.percentile_ms["p50"])
    return Baseline(
        name=name,
        num_parameters=baseline.num_image_parameters,
        rung=measured_rung(rung, predictions.of_rungs(TEACHER, BASELINE), class_names),
        loss=step_loss(BASELINE, STUDENT, predictions),
        student_size_bytes=BYTES_PER_FLOAT * student.num_parameters,
        student_latency_ms=for_student.percentile_ms["p50"] if for_student else None,
        caveats=tuple(caveats),
    )
