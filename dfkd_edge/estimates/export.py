"""What an export takes on this machine: passes of its networks, timed, times the images they see.

Every converted graph is taken to cost as much as the student in torch: which of them is faster
depends on the CPU. The constants here are fitted to what exports of the default student took on
x86-64 Linux: `tests/benchmarks/export_seeds.py` prints that beside the estimate.

Shape suffixes: N images, C = 3 channels, H rows, W columns.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import timm
import torch

import dfkd_edge.deployment.finetune as qat
from dfkd_edge.config.settings import PipelineConfig
from dfkd_edge.conversion.precision import chosen_precision
from dfkd_edge.deployment.float_layers import MAX_FLOAT_SHARE, MAX_RANKED
from dfkd_edge.deployment.repair import CHOOSING_SIZE, NUM_RANKING_IMAGES
from dfkd_edge.estimates.distill import kept_for_gradients
from dfkd_edge.estimates.pass_times import PROBE_IMAGES, seconds_of
from dfkd_edge.networks.students import Student, load_student
from dfkd_edge.networks.teacher import Teacher, load_teacher
from dfkd_edge.results.ladder import HELDOUT_DOMAIN
from dfkd_edge.runs.finished import FinishedRun
from dfkd_edge.runtime.counting import duration_text
from dfkd_edge.runtime.timing import MIN_ITERATIONS
from dfkd_edge.target_profiles.profile import TargetProfile
from dfkd_edge.validation.confidence import IMAGES_PER_DOMAIN
from dfkd_edge.validation.evaluation_images import MORE, labelled_pictures, plan_suite

WRITING_S, GRAPH_S = 12.0, 0.2
"""Seconds of one core: libraries, the FP32 graph and its comparison with torch; an INT8 graph made
of it and opened. They grow slowly with the student's layers."""
TEACHER_GRAPH_S, TEACHER_GRAPH_COPIES = 1.0, 2.5
"""The teacher's own graph, traced and opened to be timed: seconds of the embedded one, and memory
in copies of its weights (2.3 of ViT-B/32 and RN50), not all of which goes back to the system."""
CALIBRATION_PASSES = 2
"""Cost of an image that ranges are taken from, every tensor of it, in forward passes."""
WORKING_BYTES = int(1.45 * 2**30)
"""Main memory of an export of the default student less its weights and images, most of it torch,
onnx, onnxruntime and what they keep for the next call."""
BACKWARD = 2
"""Cost of the gradients of a step, in forward passes."""
ROUNDED = 2
"""Memory of a training step with every activation rounded, relative to one without."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportEstimate:
    """Seconds and memory, with all that an export may have to do."""

    num_images: int
    """That every rung sees."""
    seconds: float
    """Conversions, ladder and confidence."""
    more_seconds: float
    """Views that are added at most where a loss over the limit may be chance."""
    repair_seconds: float
    """Repair and fine-tune at most, where INT8 misses the gate; 0 where nothing is repaired."""
    memory_gib: float
    repair_memory_gib: float
    """Peak where the fine-tune runs too."""

    def document(self) -> dict[str, Any]:
        """Return the estimate as plain values."""
        return asdict(self)

    def lines(self) -> list[str]:
        """Return the estimate for a human, a line each."""
        lines = [f"time      about {duration_text(self.seconds)}, by passes timed on this machine"]
        if self.more_seconds:
            more = f"up to {duration_text(self.more_seconds)} more"
            lines.append(f"          {more} where a loss over the limit may be chance")
        if self.repair_seconds:
            more = f"up to {duration_text(self.repair_seconds)} more"
            lines.append(f"          {more} where INT8 misses the gate and is repaired")
        memory = f"memory    about {self.memory_gib:.1f} GiB"
        if self.repair_seconds:
            memory += f", {self.repair_memory_gib:.1f} GiB with a fine-tune"
        return [*lines, memory]


def estimate_export(
    run: FinishedRun, config: PipelineConfig, target: TargetProfile, data: str
) -> ExportEstimate:
    """Time the teacher and the student here and count what an export shows them.

    Args:
        run: that would be exported.
        config: its settings, with this export's.
        target: of the bundle.
        data: labelled pictures; empty takes the built-in suite.

    Raises:
        ConfigError: `data` holds no picture of any class.
        EnvironmentLackingError: the teacher's weights are not here.
    """
    teacher, student = load_teacher(run.config.teacher, run.class_names), load_student(run.student)
    teacher_s, student_s = _pass_times(teacher, student)
    precision = chosen_precision(target, config.export)
    num_images = _num_images(run, data)
    ladder_s = num_images * (teacher_s + (2 + (precision != "fp32")) * student_s)
    calibration_s = config.export.calibration_size * CALIBRATION_PASSES * student_s
    seconds = WRITING_S + ladder_s + calibration_s * (precision == "int8")
    seconds += TEACHER_GRAPH_S + 2 * MIN_ITERATIONS * teacher_s  # in torch, and as a graph
    fitted_on = [domain for domain in plan_suite(1) if domain.name != HELDOUT_DOMAIN]
    seconds += IMAGES_PER_DOMAIN * len(fitted_on) * student_s
    is_repaired = precision == "int8" and config.export.repair and config.export.max_drop < 1
    repair_s = calibration_s + num_images * student_s  # of what was tuned; the choice is proven
    repair_s += _repair_s(run, student, teacher_s, student_s)
    num_bytes = WORKING_BYTES + run.surrogates.images.nbytes
    num_bytes += 0 if data else num_images * 3 * run.surrogates.images.shape[1] ** 2
    num_teacher = int((1 + TEACHER_GRAPH_COPIES) * teacher.num_image_parameters)
    num_bytes += 4 * (num_teacher + student.num_parameters)
    return ExportEstimate(
        num_images=num_images,
        seconds=seconds,
        more_seconds=MORE * ladder_s * (not data and config.export.max_drop < 1),
        repair_seconds=repair_s if is_repaired else 0.0,
        memory_gib=num_bytes / 2**30,
        repair_memory_gib=(num_bytes + _step_bytes(student)) / 2**30,
    )


@torch.no_grad()
def _pass_times(teacher: Teacher, student: Student) -> tuple[float, float]:
    """Seconds of an image in the teacher's image tower, and in the student."""
    sides = (teacher.image_size_px, student.image_size_px)
    ours_NCHW, theirs_NCHW = (torch.rand((PROBE_IMAGES, 3, side, side)) for side in reversed(sides))
    return (
        seconds_of(lambda: teacher.embed_images(theirs_NCHW), PROBE_IMAGES),
        seconds_of(lambda: student(ours_NCHW), PROBE_IMAGES),
    )


def _num_images(run: FinishedRun, data: str) -> int:
    if data:
        side_px = run.student.settings.image_size_px
        return labelled_pictures(Path(data), run.class_names.names, (side_px,)).num_images
    return sum(domain.num_images for domain in plan_suite(int(run.surrogates.is_heldout.sum())))


def _repair_s(run: FinishedRun, student: Student, teacher_s: float, student_s: float) -> float:
    """Seconds of the longest way: all layers ranked, all graphs judged, then the fine-tune."""
    num_layers = sum(isinstance(m, qat.QUANTIZED_LAYERS) for m in student.modules())
    num_judged = 2 * max(1, int(num_layers * MAX_FLOAT_SHARE)).bit_length() + 2  # two are tuned
    num_choosing = _num_images(run, "") * CHOOSING_SIZE
    ranked_s = min(num_layers, MAX_RANKED) * (NUM_RANKING_IMAGES * student_s + GRAPH_S)
    judged_s = num_choosing * (teacher_s + 2 * student_s)
    judged_s += num_judged * (num_choosing * student_s + GRAPH_S)
    step_s = qat.BATCH_SIZE * (teacher_s + (1 + BACKWARD) * student_s)
    return ranked_s + judged_s + qat.NUM_STEPS * step_s + WRITING_S


def _step_bytes(student: Student) -> float:
    with torch.device("meta"):
        shapes = timm.create_model(student.timm_name, num_classes=0)
    return ROUNDED * qat.BATCH_SIZE * kept_for_gradients(shapes, student.image_size_px)
