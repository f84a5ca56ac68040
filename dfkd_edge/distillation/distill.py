"""The distillation stage: the student learns from the teacher on views of the surrogate images.

The teacher labels every view, not the clean image. A batch depends on the seed and the step alone,
so a run that was stopped goes on as if it had not been.

Shape suffixes: N views, C = 3 channels, H rows, W columns, D embedding width, K classes.
"""

from __future__ import annotations

import time

import numpy as np
import torch
from torch import Tensor

from dfkd_edge.artifacts import StudentArtifact, StudentSettings, SurrogateSet
from dfkd_edge.config.settings import DistillationConfig
from dfkd_edge.distillation.averaging import WeightAverage
from dfkd_edge.distillation.batches import STAGE, HardImages, draw_rows, pixels
from dfkd_edge.distillation.losses import compare
from dfkd_edge.distillation.optim import descend, learning_rate_at, make_optimiser
from dfkd_edge.files import atomic_write
from dfkd_edge.networks.mixed_precision import depthwise_in_float32, mixed_precision
from dfkd_edge.networks.students import Student, build_start, student_tensors
from dfkd_edge.networks.teacher import Teacher
from dfkd_edge.networks.views import random_view
from dfkd_edge.runs.checkpoint import load_checkpoint, save_checkpoint
from dfkd_edge.runs.context import StageContext
from dfkd_edge.runs.key import student_content
from dfkd_edge.seeding import stage_generator

CHECKPOINT_INTERVAL_S = 5.0
METRICS_EVERY_STEPS = 10


def distill(
    teacher: Teacher, surrogates: SurrogateSet, config: DistillationConfig, context: StageContext
) -> StudentArtifact:
    """Train the student, or read it when it is already there.

    Returns:
        The student's files; `students.load_student` builds the network.
    """
    folder = context.run_dir.stage_dir(STAGE)
    key = context.stage_key(
        STAGE, config, student_content(config), teacher.key, surrogates.summary.content
    )
    if context.run_dir.is_complete(STAGE, key):
        return StudentArtifact.load(folder)
    student = _start(teacher, config, context)
    with depthwise_in_float32(student, teacher.device.type):
        _train(student, teacher, surrogates, config, context, key)
    artifact = StudentArtifact(folder, _settings(student, teacher, config))
    atomic_write(artifact.weights, student_tensors(student))
    files = [artifact.weights, artifact.save_settings()]
    context.run_dir.complete(STAGE, key, files)
    (folder / "checkpoint.safetensors").unlink(missing_ok=True)
    return artifact


def _start(teacher: Teacher, config: DistillationConfig, context: StageContext) -> Student:
    return build_start(
        config.student,
        config.student_init,
        teacher.head_KD,
        teacher.logit_scale,
        config.image_size_px or None,
        context.seed,
    ).to(context.device)


def _settings(student: Student, teacher: Teacher, config: DistillationConfig) -> StudentSettings:
    return StudentSettings(
        student=config.student,
        timm_name=student.timm_name,
        image_size_px=student.image_size_px,
        classes=teacher.classes.names,
        logit_scale=student.logit_scale,
        embed_dim=teacher.embed_dim,
        init=config.student_init,
        num_steps=config.num_steps,
        teacher=teacher.name,
        num_parameters=student.num_parameters,
        teacher_num_parameters=teacher.num_image_parameters,
    )


def _train(
    student: Student,
    teacher: Teacher,
    surrogates: SurrogateSet,
    config: DistillationConfig,
    context: StageContext,
    key: str,
) -> None:
    optimiser = make_optimiser(student, config)
    average = WeightAverage(student, config.ema_decay)
    hard = HardImages(len(surrogates), config.hard_share, context.seed)
    more = {**average.tensors, **hard.tensors}
    checkpoint = context.run_dir.stage_dir(STAGE) / "checkpoint.safetensors"
    start = load_checkpoint(checkpoint, key, student, optimiser, more)
    rows = np.flatnonzero(~surrogates.is_heldout)
    saved_at = time.monotonic()
    step = start
    with context.reporter.stage("distilling the student", config.num_steps, start) as progress:
        try:
            for step in range(start, config.num_steps):
                row_N = draw_rows(
                    surrogates, rows, step, config.batch_size, context.seed, config.balanced_styles
                )
                row_N = hard.replace(row_N, step)
                generator = stage_generator(context.seed, STAGE, "views", step)
                size_px = max(student.image_size_px, teacher.image_size_px)
                view_NCHW = random_view(
                    pixels(surrogates, row_N), size_px, generator, config.style_probability
                )
                values, distance_N = _step(
                    student, teacher, view_NCHW.to(context.device), optimiser, step, config
                )
                average.update(student, step)
                hard.remember(row_N, distance_N)
                if step % METRICS_EVERY_STEPS == 0 or step + 1 == config.num_steps:
                    context.run_dir.append_metrics(STAGE, step + 1, values)
                progress.advance(1, f"agreement with teacher {values['agreement']:.2f}")
                if time.monotonic() - saved_at > CHECKPOINT_INTERVAL_S:
                    save_checkpoint(checkpoint, key, step + 1, student, optimiser, more)
                    saved_at = time.monotonic()
        except KeyboardInterrupt:
            if step > start:  # the step that was cut off is left out: its update may be half done
                context.run_dir.log(f"stopped at step {step} of {config.num_steps}")
            raise
    average.copy_to(student)


def set_training_mode(student: Student, *, keep_statistics: bool) -> None:
    """Train; start weights keep their BatchNorm statistics, which come from real pictures."""
    student.train()
    if keep_statistics:
        for module in student.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.eval()


def _step(
    student: Student,
    teacher: Teacher,
    view_NCHW: Tensor,
    optimiser: torch.optim.Optimizer,
    step: int,
    config: DistillationConfig,
) -> tuple[dict[str, float], Tensor]:
    """Take one step; returns its metrics and the feature distance of each view, [N]."""
    view_NCHW = view_NCHW.contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        teacher_ND = teacher.embed_images(view_NCHW)
    for group in optimiser.param_groups:
        group["lr"] = learning_rate_at(step, config)
    set_training_mode(student, keep_statistics=config.student_init == "pretrained")
    with mixed_precision(view_NCHW.device.type):
        student_ND = student.embed(view_NCHW)
    distance = compare(student, student_ND, teacher, teacher_ND, config)
    descend(distance.loss, student, optimiser)
    values = {
        "loss": float(distance.loss.detach()),
        "soft_target_loss": float(distance.soft_target.detach()),
        "feature_distance": float(distance.feature.detach()),
        "agreement": distance.agreement,
        "learning_rate": learning_rate_at(step, config),
    }
    return values, distance.feature_N
