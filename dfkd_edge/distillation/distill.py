"""The distillation stage: the student learns from the teacher on views of the surrogate images.

The teacher labels views, not clean images. All that a step draws follows from the seed, its number
and what a checkpoint keeps, so a run that was stopped goes on as if it had not been. On an
accelerator nothing in a step waits: numbers are fetched at every tenth one.

Ranks draw the rows and keys of every batch alike, and each learns from its own part of them; what
they add up, the gradients, leaves all with the same weights.

Shape suffixes: N views, B views of all ranks, C = 3 channels, H rows, W columns, D embedding width,
K classes.
"""

import contextlib
from dataclasses import replace

import torch
from torch import Tensor

from dfkd_edge.artifacts import Ints, StudentArtifact, StudentSettings, SurrogateSet
from dfkd_edge.config.settings import DistillationConfig
from dfkd_edge.distillation.batches import Batches, Coming, Drawn, make_views, open_pool
from dfkd_edge.distillation.optim import (
    WeightAverage,
    go_back,
    learning_rate_at,
    make_optimiser,
    share_back,
)
from dfkd_edge.distillation.rows import STAGE, HardImages, RowDraws
from dfkd_edge.distillation.step import StepFigures, Trainer, set_training_mode
from dfkd_edge.distillation.stored_views import StoredViews, num_stored_views
from dfkd_edge.errors import ConfigError
from dfkd_edge.files import atomic_write, content_hash
from dfkd_edge.machine.ranks import Ranks
from dfkd_edge.networks.folding import norms_folded
from dfkd_edge.networks.frozen_tower import eyes_for
from dfkd_edge.networks.gradient_sums import GradientSums, ShardSums, wants_shards
from dfkd_edge.networks.joint_norm import jointly_normed, learns_statistics
from dfkd_edge.networks.memory import (
    Parts,
    images_that_fit,
    in_parts,
    memory_budget,
    recorded_parts,
)
from dfkd_edge.networks.mixed_precision import Precision, depthwise_in_float32
from dfkd_edge.networks.operations import operations
from dfkd_edge.networks.students import Student, build_start, student_tensors
from dfkd_edge.networks.teacher import Teacher
from dfkd_edge.networks.tuning import compiled, tuned_kernels
from dfkd_edge.runs.checkpoint import SaveClock, load_for_all, save_checkpoint
from dfkd_edge.runs.context import StageContext
from dfkd_edge.runs.key import student_content
from dfkd_edge.runs.run_dir import CHECKPOINT
from dfkd_edge.runtime.counting import counted

METRICS_EVERY_STEPS = 10
TRAINING = "training the student"
STEP_BYTES = 12  # Of a parameter, not seen in a pass: AdamW's moments, and gradients as one message
WHOLE = (
    "BatchNorm of a random start learns from the whole batch at once: start more ranks, or set a "
    "smaller distillation.batch_size or --student-init pretrained"
)


def distill(
    teacher: Teacher, surrogates: SurrogateSet, config: DistillationConfig, context: StageContext
) -> StudentArtifact:
    """Train the student, or read it when it is already there; `load_student` builds the network."""
    folder = context.run_dir.stage_dir(STAGE)
    key = context.stage_key(
        STAGE, config, student_content(config), teacher.key, surrogates.summary.content
    )
    checkpoint = folder / CHECKPOINT
    if context.is_complete(STAGE, key):
        if context.ranks.is_first:
            checkpoint.unlink(missing_ok=True)  # of a process that was killed right before
        return StudentArtifact.load(folder)
    student = _start(teacher, config, context)
    is_tuned = config.compile and teacher.device.type == "cuda"
    with contextlib.ExitStack() as stack:
        stack.enter_context(depthwise_in_float32(student, teacher.device.type))
        stack.enter_context(tuned_kernels(is_tuned))
        if config.student_init == "pretrained":  # a random start learns its statistics
            stack.enter_context(norms_folded(student.eval(), student.embed_images))
        Distillation(student, teacher, surrogates, config, context).train(key)
    back = share_back(config, surrogates.summary)
    if back:
        go_back(student, _start(teacher, config, context), back)

    def write() -> StudentArtifact:
        artifact = StudentArtifact(folder, _settings(student, teacher, config))
        atomic_write(artifact.weights, student_tensors(student))
        files = [artifact.weights, artifact.save_settings()]
        context.run_dir.complete(STAGE, key, files)
        checkpoint.unlink(missing_ok=True)  # only a stopped run needs it
        return artifact

    return context.first_then_rest(write, lambda: StudentArtifact.load(folder))


def require_images(config: DistillationConfig, ranks: Ranks) -> None:
    """Check that every rank has an image of each batch.

    Raises:
        ConfigError: there are more ranks than images.
    """
    if config.batch_size < ranks.count:
        raise ConfigError(
            f"{ranks.count} ranks would share batches of {config.batch_size}",
            where="distillation.batch_size",
            hint="start fewer ranks, or let a batch have an image for each",
        )


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


class Distillation:
    """The state of one training: what it learns from, its weights, and how they move."""

    def __init__(
        self,
        student: Student,
        teacher: Teacher,
        surrogates: SurrogateSet,
        config: DistillationConfig,
        context: StageContext,
    ) -> None:
        """Open the images, and label views where they are stored."""
        device, seed = teacher.device, context.seed
        is_tuned = config.compile and device.type == "cuda"
        self.config, self.context, self.student = config, context, student
        self.ranks, self.precision = context.ranks, Precision(device.type)
        set_training_mode(student, keep_statistics=config.student_init == "pretrained")
        # BatchNorm that learns its statistics must see the whole batch at once
        is_whole = learns_statistics(student)
        in_shards = wants_shards(device.type, self.precision.dtype) and not is_whole
        sums = (ShardSums if in_shards else GradientSums)(config.batch_size, self.ranks)
        self.mine = sums.mine
        self.parts = Parts(TRAINING, sums.together, context.device)
        num_views = config.num_steps * config.batch_size
        self.look = compiled(eyes_for(teacher, num_views, context.reporter.note), is_tuned)
        self.draws = RowDraws(surrogates, seed, config.balanced_styles)
        pool = open_pool(surrogates.images, device)
        # the teacher sees the views too: in less than its own size it would see less than it can
        size_px = max(student.image_size_px, teacher.image_size_px)
        views = make_views(self.draws, pool, size_px, config.style_probability, seed)
        self.batches = Batches(pool, views, seed)
        self.hard = HardImages(len(surrogates), config.hard_share, seed, device)
        self.average = WeightAverage(student, config.ema_decay)
        optimiser = make_optimiser(student, config, fused=self.precision.wants_fused)
        embed = compiled(student.embed_images, is_tuned)
        self.trainer = Trainer(student, teacher, optimiser, self.precision, config, embed, sums)
        self._store_views(teacher, surrogates.summary.content)

    def _store_views(self, teacher: Teacher, content: str) -> None:
        """Label views of every image once, if that is asked for or pays."""
        config, views, row_R = self.config, self.batches.views, self.draws.row_R
        student = self.student.eval()  # what is counted must not move BatchNorm's statistics

        def count() -> tuple[int, int]:
            shape = (3, views.size_px, views.size_px)
            towers = (teacher.embed_images, student.embed_images)
            of_teacher, of_student = (operations(e, shape, teacher.device) for e in towers)
            return of_teacher, of_student

        num, seed = num_stored_views(config, len(row_R), count), self.context.seed
        if not num:
            return
        sees = (num, views.size_px, config.style_probability)
        key = content_hash("views", seed, teacher.key, content, *sees)
        folder = self.context.run_dir.stage_dir(STAGE) / "views"
        stored = StoredViews(folder, key, row_R, num, seed)

        with self.context.speaking_for_all() as context:
            parts = Parts("labelling views", config.batch_size, context.device)
            parts.tell = context.reporter.note

            def embed(number_N: Ints) -> Tensor:
                drawn = Drawn(stored.rows(number_N), stored.keys(number_N))

                def see(rows: slice) -> Tensor:
                    batch = self.batches.prepare(drawn.part(rows))
                    return self.teacher_sees(self.batches.view(batch))

                return torch.cat(in_parts(len(number_N), parts, see))

            stored.write(embed, config.batch_size, context.reporter, self.ranks)
        self.batches.stored = stored

    @torch.no_grad()
    def teacher_sees(self, view_NCHW: Tensor) -> Tensor:
        """Embed views by the teacher."""
        return self.look(view_NCHW)

    def sized_parts(self, key: str) -> Parts:
        """Find how many images learn together; the student is still in evaluation mode."""
        size, device = self.parts.size, self.trainer.teacher.device

        def try_part(num: int) -> None:
            drawn = self.batches.draw(self.draws.draw(0, num), 0)
            view_NCHW = self.batches.view(self.batches.prepare(drawn))
            apart = replace(self.trainer, embed=self.student.embed_images)  # not compiled
            loss = apart.look(view_NCHW, self.teacher_sees(view_NCHW), num).loss
            parameters = [p for p in self.student.parameters() if p.requires_grad]
            torch.autograd.grad(loss, parameters, allow_unused=True)

        def find_size() -> int:
            if device.type == "cpu":
                return size
            budget = memory_budget(device, 0) - STEP_BYTES * self.student.num_parameters
            return images_that_fit(try_part, device, budget, size)

        return recorded_parts(TRAINING, STAGE, key, self.context, find_size, self.ranks)

    def learn_statistics(self) -> None:
        """Let BatchNorm see as much of a batch at once as it can: on ranks the whole one.

        Parts of a batch do not know of each other: alone, it sees one at a time.
        """
        if not learns_statistics(self.student):
            return
        if self.ranks.count > 1:  # a rank that runs out leaves the others amidst a layer
            on_card = self.trainer.teacher.device.type != "cpu"  # where a pass may be compiled
            embed = self.student.embed_images if on_card else self.trainer.embed
            self.trainer = replace(self.trainer, embed=jointly_normed(embed, self.ranks))
            self.parts = Parts(TRAINING, self.config.batch_size, self.parts.device, whole=WHOLE)
            return
        tell, aside = self.parts.tell, ", and BatchNorm's statistics are theirs, not the batch's"
        self.parts.tell = lambda text: tell(text + aside)
        if self.parts.size < self.config.batch_size:
            self.parts.tell(f"  {TRAINING}: {counted(self.parts.size, 'image')} at a time")

    def begin(self, step: int) -> tuple[Ints, Coming]:
        """Draw the batch of a step and begin to prepare this rank's rows; returns all rows too."""
        row_B = self.hard.replace(self.draws.draw(step, self.config.batch_size), step)
        drawn = self.batches.draw(row_B, step).part(self.mine)
        return row_B, self.batches.begin(drawn, self.parts.split(len(drawn.row_N)))

    def step(self, row_B: Ints, coming: Coming, step: int) -> StepFigures:
        """Move the weights once; waits for nothing on the device."""
        config, optimiser = self.config, self.trainer.optimiser

        def see(rows: slice) -> tuple[Tensor, Tensor]:
            batch = coming.part(rows)
            view_NCHW = self.batches.view(batch)
            if batch.teacher_ND is None:
                return view_NCHW, self.teacher_sees(view_NCHW)
            return view_NCHW, batch.teacher_ND

        # set anew at each step: a run that was stopped needs no scheduler's state
        for group in optimiser.param_groups:
            group["lr"] = learning_rate_at(step, config)
        made = self.trainer.step(see, len(coming.drawn.row_N), self.parts, config.batch_size)
        self.average.update(self.student, step)
        if config.hard_share:
            self.hard.remember(row_B, self._of_all(made.distance_N))
        return made

    def _of_all(self, value_N: Tensor) -> Tensor:
        """Join the numbers that ranks found of their parts of a batch."""
        if self.ranks.count == 1:
            return value_N
        value_B = value_N.new_zeros(self.config.batch_size)
        value_B[self.mine] = value_N
        self.ranks.add_up([value_B])
        return value_B

    def train(self, key: str) -> None:
        """Take every step that a checkpoint of this key leaves, and keep the averaged weights."""
        config, context, optimiser = self.config, self.context, self.trainer.optimiser
        checkpoint = context.run_dir.stage_dir(STAGE) / CHECKPOINT
        more = self._more()
        start = load_for_all(checkpoint, key, self.student, optimiser, more, self.ranks)
        self.precision.restore(more)
        self.parts = self.sized_parts(key)
        set_training_mode(self.student, keep_statistics=config.student_init == "pretrained")
        self.learn_statistics()
        clock, note, step = SaveClock(), "", start
        with (
            context.reporter.stage("distilling the student", config.num_steps, start) as progress,
            self.batches.reading_ahead(),
        ):
            coming = self.begin(start)
            try:
                for step in range(start, config.num_steps):
                    made = self.step(*coming, step)
                    if step % METRICS_EVERY_STEPS == 0 or step + 1 == config.num_steps:
                        note = self._write_metrics(made, step)
                        self.hard.catch_up()
                    if step + 1 < config.num_steps:
                        coming = self.begin(step + 1)
                    progress.advance(1, note)
                    if self.ranks.is_first and clock.is_due:
                        with clock.writing():
                            state = step + 1, self.student, optimiser, self._more()
                            save_checkpoint(checkpoint, key, *state)
            except KeyboardInterrupt:
                if step > start:  # the step that was cut off is left out: it may be half done
                    context.run_dir.log(f"stopped at step {step} of {config.num_steps}")
                raise
        self.average.copy_to(self.student)

    def _more(self) -> dict[str, Tensor]:
        """What a checkpoint holds besides weights and moments."""
        return {**self.average.tensors, **self.hard.tensors, **self.precision.tensors()}

    def _write_metrics(self, made: StepFigures, step: int) -> str:
        """Fetch the numbers of a step, all at once; returns a note for the bar."""
        names = ("loss", "soft_target_loss", "feature_distance", "agreement")  # of `numbers`
        numbers = made.numbers
        self.ranks.add_up([numbers])
        values = dict(zip(names, numbers.tolist(), strict=True))
        values["learning_rate"] = learning_rate_at(step, self.config)
        self.context.run_dir.append_metrics(STAGE, step + 1, values)
        return f"agreement with teacher {values['agreement']:.2f}"
