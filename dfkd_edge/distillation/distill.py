"""The distillation stage: the student learns from the teacher on views of the surrogate images.

The teacher labels every view, not the clean image. All that a step draws follows from the seed, its
number and what a checkpoint keeps, so a run that was stopped goes on as if it had not been.

Shape suffixes: N views, C = 3 channels, H rows, W columns, D embedding width, K classes.
"""

import time

import numpy as np
import torch
from torch import Tensor

from dfkd_edge.artifacts import StudentArtifact, StudentSettings, SurrogateSet
from dfkd_edge.config.settings import DistillationConfig
from dfkd_edge.distillation.batches import STAGE, HardImages, draw_rows, pixels
from dfkd_edge.distillation.optim import WeightAverage, learning_rate_at, make_optimiser
from dfkd_edge.distillation.step import take_step
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
    """Train the student, or read it when it is already there; `load_student` builds the network."""
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
    (folder / "checkpoint.safetensors").unlink(missing_ok=True)  # only a stopped run needs it
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
    # the teacher sees the views too: in less than its own size it would see less than it can
    size_px = max(student.image_size_px, teacher.image_size_px)
    set_training_mode(student, keep_statistics=config.student_init == "pretrained")

    def embed(view_NCHW: Tensor) -> Tensor:
        with mixed_precision(view_NCHW.device.type):
            return student.embed_images(view_NCHW)

    saved_at, note = time.monotonic(), ""
    step = start
    with context.reporter.stage("distilling the student", config.num_steps, start) as progress:
        try:
            for step in range(start, config.num_steps):
                row_N = draw_rows(
                    surrogates, rows, step, config.batch_size, context.seed, config.balanced_styles
                )
                row_N = hard.replace(row_N, step)
                generator = stage_generator(context.seed, STAGE, "views", step)
                view_NCHW = random_view(
                    pixels(surrogates, row_N), size_px, generator, config.style_probability
                ).to(context.device, memory_format=torch.channels_last)
                rate = learning_rate_at(step, config)
                # set anew at each step: a run that was stopped needs no scheduler's state
                for group in optimiser.param_groups:
                    group["lr"] = rate
                made = take_step(embed, student, teacher, view_NCHW, optimiser, config)
                average.update(student, step)
                hard.remember(row_N, made.distance_N)
                if step % METRICS_EVERY_STEPS == 0 or step + 1 == config.num_steps:
                    values = {
                        "loss": float(made.loss),
                        "soft_target_loss": float(made.soft_target_loss),
                        "feature_distance": float(made.distance_N.mean()),
                        "agreement": float(made.agreement),
                        "learning_rate": rate,
                    }
                    context.run_dir.append_metrics(STAGE, step + 1, values)
                    note = f"agreement with teacher {values['agreement']:.2f}"
                progress.advance(1, note)
                if time.monotonic() - saved_at > CHECKPOINT_INTERVAL_S:
                    save_checkpoint(checkpoint, key, step + 1, student, optimiser, more)
                    saved_at = time.monotonic()
        except KeyboardInterrupt:
            if step > start:  # the step that was cut off is left out: its update may be half done
                context.run_dir.log(f"stopped at step {step} of {config.num_steps}")
            raise
    average.copy_to(student)


def set_training_mode(student: Student, *, keep_statistics: bool) -> None:
    """Put a student into training mode, its BatchNorm statistics frozen on request.

    Those of start weights come from real pictures: with surrogates' in their place 150 steps took
    the default student from 0.365 to 0.191 on PACS photo.
    """
    student.train()
    if keep_statistics:
        for module in student.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.eval()
