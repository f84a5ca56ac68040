"""What `distill` takes: the whole line is run on few images and steps, and multiplied by counts.

The student and the embedded networks are run themselves. The embedded ones also play a teacher or a
decoder whose weights may have to be fetched: time grows as the operations of a pass do.
`tests/benchmarks/distill_seeds.py` prints an estimate beside what the run took.
"""

from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from dfkd_edge import pipeline
from dfkd_edge.artifacts import SurrogateSummary
from dfkd_edge.class_names import ClassNames
from dfkd_edge.config.settings import MINI, PIXELS, FewShotConfig, PipelineConfig, TeacherConfig
from dfkd_edge.distillation.stored_views import num_stored_views
from dfkd_edge.estimates.card import NO_CARD, Card, CardNeeds, side_of, view_bytes
from dfkd_edge.estimates.estimate import Estimate, StageEstimate
from dfkd_edge.estimates.guided import VQGAN_BYTES_ON_CARD, VQGAN_WEIGHT_BYTES, GuidedNeeds
from dfkd_edge.estimates.passes import Stopwatch, gradient_bytes
from dfkd_edge.files import scratch_folder
from dfkd_edge.machine.process import usable_device
from dfkd_edge.networks.baseline import baseline_config
from dfkd_edge.networks.gradient_sums import shard_size, wants_shards
from dfkd_edge.networks.operations import operations
from dfkd_edge.networks.students import load_student
from dfkd_edge.networks.teacher import activation_options, load_teacher, open_clip_name
from dfkd_edge.networks.transfer import free_bytes
from dfkd_edge.networks.weights import shapes_of_teacher
from dfkd_edge.preflight import DistillPlan
from dfkd_edge.prompts.styles import MAX_CLASSES_PER_STEP
from dfkd_edge.runtime.device import peak_memory_mib
from dfkd_edge.synthesis.amortized import REFINED_TOGETHER, uses_embedded_prior
from dfkd_edge.synthesis.decoder import load_decoder
from dfkd_edge.synthesis.network_training import DRAWS, TRAINING, num_steps_of
from dfkd_edge.synthesis.sampling import sampling_of
from dfkd_edge.synthesis.synthesizers import SYNTHESIZERS
from dfkd_edge.validation.evaluation_images import labelled_pictures

NUM_IMAGES, NUM_VIEWS = 32, 16
"""Of the small run on a CPU, which they keep busy (ours); an accelerator gets whole batches."""
SMALL_PX = 64  # Side of the images of a small run, unless the embedded prior samples them
VQGAN_OPERATIONS, VQGAN_PX = 4.8e11, 256
"""Counted in amused-256's decoder, which stands for all VQGANs; they grow with the pixels."""
STEP_OPERATIONS, DECODE_OPERATIONS = 8e11, 2.5e12
"""Counted in SD-Turbo, which stands for all pipelines: a step of its UNet, and its decoder."""


class SmallRun:
    """Runs the line on few images and steps, and extrapolates to the whole run."""

    def __init__(self, plan: DistillPlan) -> None:
        """Run it, in a folder that is not kept.

        Raises:
            ConfigError: the teacher or the student does not exist, or the decoder is incomplete.
            EnvironmentLackingError: the teacher's architecture is on the hub and out of reach.
        """
        self.config, self.classes, self.small = plan.config, plan.class_names, _small(plan.config)
        activation_options(self.config.teacher)
        self.device, self.base_bytes = self.small.device, int(peak_memory_mib() * 2**20)
        wanted, played = (
            shapes_of_teacher(open_clip_name(c.teacher)[0]) for c in (self.config, self.small)
        )
        self.teacher_bytes = sum(4 * p.numel() for p in wanted.parameters())  # FP32
        self.side_px = self.config.synthesis.image_size_px or side_of(wanted)
        self.of_image, self.of_played = _of_image(wanted), _of_image(played)
        self.embed_dim = _embed_dim(wanted)
        self.view_bytes = view_bytes(wanted)
        names, prompts = self.classes.names, self.classes.prompts
        few = slice(MAX_CLASSES_PER_STEP)
        self.few, watch = ClassNames(names[few], prompts[few]), Stopwatch()
        part = replace(plan, config=self.small, class_names=self.few, pictures=None)
        with scratch_folder() as folder:
            output = folder / "run"
            result = pipeline.distill(replace(part, output=output, tensorboard=False), watch)
            self.student = load_student(result.student).to(self.device)
        self.laps_s, summary = watch.laps_s, result.surrogates.summary
        self.summary, self.num_shown = summary, summary.num_heldout
        has_side = bool(self.small.synthesis.image_size_px)  # else the prior's own, as in the run
        stored_px = SYNTHESIZERS[self.config.synthesis.method].stored_side_px(
            self.config.synthesis, side_of(wanted)
        )
        stored = result.surrogates.images
        self.image_bytes = 3 * stored_px**2 if has_side else stored.nbytes // len(stored)
        # of the second step: the first also fills caches
        self.view_s = self.laps_s["distilling the student"][1] / self.small.distillation.batch_size
        self.shape = (3, self.student.image_size_px, self.student.image_size_px)
        has_card = self.device != "cpu"  # a card is asked; of any other one the most is told
        self.card = Card(free_bytes(torch.device(self.device))) if has_card else NO_CARD
        self.needs = CardNeeds(self.config, wanted, self.student, self.classes, self.card)
        # a pass of the teacher, one of the student and two for its gradients
        self.of_learning = 3 * operations(self.student, self.shape, self.device)
        self.of_view = self.of_played + self.of_learning
        self.times_view = (self.of_image + self.of_learning) / self.of_view

    def asked(self, config: PipelineConfig) -> "SmallRun":
        """Return the same small run, of which another run of its kind is to be told.

        Teacher, classes and student are the same, and the way in which images are made.
        """
        other = copy(self)
        other.config = config
        return other

    @property
    def expected(self) -> SurrogateSummary:
        """What the images of the whole run will be."""
        synthesis, found = self.config.synthesis, self.summary
        num_kept = round(synthesis.num_images * found.num_images / found.num_candidates)
        num_heldout = round(num_kept * synthesis.heldout_share)  # half of a small run
        return replace(
            found,
            num_candidates=synthesis.num_images,
            num_images=num_kept,
            num_heldout=num_heldout,
        )

    def estimate(self) -> Estimate:
        """Multiply times and memory of the small run by the counts of the whole one."""
        synthesis = self.config.synthesis
        drawer = synthesis.pipeline if synthesis.method == "diffusion" else synthesis.decoder
        names = self.config.teacher.name, drawer
        counted = [name for name in names if name not in (MINI, PIXELS)]
        made_from = f"a run of few images and steps on this machine's {self.device}"
        if counted:
            made_from += f"; operations of {' and '.join(counted)} counted"
        stages = (self.prompts(), self.surrogates(), self.training(), self.evaluation())
        return Estimate(stages, made_from)

    @property
    def num_prompts(self) -> int:
        """Classes x styles."""
        config = self.config.prompts
        return len(self.classes) * (1 if config.method == "base" else config.num_styles)

    def prompts(self) -> StageEstimate:
        """Estimate all steps, and the prompts of all classes."""
        config, times = self.config.prompts, len(self.classes) / len(self.few)
        *steps_s, rest_s = self.laps_s[f"making {config.method} prompts"]
        num_styles = self.num_prompts // len(self.classes)
        work = f"{len(self.classes)} classes x {num_styles} styles, {config.method}"
        seconds = times * (sum(steps_s) + rest_s)
        if config.method == "contrastive":
            work += f", {config.num_iterations} steps"
            seconds = config.num_iterations * steps_s[-1] + times * rest_s
        # the text towers of two teachers differ about as much as their image towers
        seconds *= self.of_image / self.of_played
        return self._stage("prompts", work, seconds, on_card=self.needs.prompts())

    def surrogates(self) -> StageEstimate:
        """Estimate all images, and the training of a network that makes them."""
        config, small = self.config.synthesis, self.small.synthesis
        seconds = sum(self.laps_s["synthesizing images"]) * config.num_images / small.num_images
        kept, work = config.memory_mib * 2**20, f"{config.num_images} images, {config.method}"
        on_card = None
        if config.method == "diffusion":
            sampling = sampling_of(config)
            of_picture = sampling.num_passes * STEP_OPERATIONS + DECODE_OPERATIONS
            seconds = config.num_images * of_picture * self.view_s / self.of_view
            kept, work = 0, f"{work}, pipeline {config.pipeline}, {sampling}"
        elif config.method == "per-image":
            seconds *= config.num_optimisation_steps * self._times(config.num_views)
            kept, on_card = self._guided_bytes()
            kept = min(kept, config.memory_mib * 2**20)  # fewer go together on a CPU
            work += f", {config.num_optimisation_steps} steps each, decoder {config.decoder}"
        elif config.method == "amortized" and small.image_size_px:
            times = self._times(config.num_descent_views)
            seconds *= max(1, config.num_descent_steps) * times
            work += f", {config.num_descent_steps} steps each, decoder {config.decoder}"
            num_steps = num_steps_of(config, self.num_prompts)
            if num_steps:
                batches = num_steps * config.training_batch_size / small.training_batch_size
                seconds += batches * self.laps_s[TRAINING][1] * times
                work += f", {num_steps} steps of training"
            kept, on_card = self._guided_bytes()
        elif config.method == "amortized":
            whole, work = REFINED_TOGETHER * self._refined_bytes(), f"{work}, decoder {MINI}"
            kept, on_card = min(whole, kept), self.needs.teacher_bytes + whole
        disk_bytes = config.num_images * self.image_bytes  # shards are not compressed
        stage = self._stage("surrogates", work, seconds, kept, on_card)
        return replace(stage, disk_bytes=disk_bytes)

    def training(self) -> StageEstimate:
        """Estimate all steps of the student."""
        config, num_images = self.config.distillation, self.expected.num_learning
        work = f"{config.student}, {config.student_init} start, {config.num_steps} steps"
        work += f" of {config.batch_size} views"
        num_learnt = num_labelled = config.num_steps * config.batch_size
        num_stored = num_stored_views(
            config, num_images, lambda: (self.of_image, self.of_learning // 3)
        )
        if num_stored:
            work += f", {num_stored} an image labelled once"
            num_labelled = num_stored * num_images
        of_all = num_learnt * self.of_learning + num_labelled * self.of_image
        seconds = of_all * self.view_s / self.of_view
        # weights, gradients and both moments of AdamW; what a shard keeps, or a batch whose
        # statistics are learnt; images stay on disk
        together, kept = config.batch_size, 16 * self.student.num_parameters
        if config.student_init == "pretrained" and wants_shards(self.device):
            together, kept = shard_size(together), kept + 8 * self.student.num_parameters
        kept += together * gradient_bytes(self.student, self.shape, self.device)
        stored_bytes = 2 * self.embed_dim * num_stored * num_images  # float16
        disk_bytes = 4 * self.student.num_parameters + stored_bytes
        # how many a teacher that is played keeps is not known: all of them
        pool_bytes = self.config.synthesis.num_images * self.image_bytes
        on_card = self.needs.learning(pool_bytes)
        return replace(self._stage("student", work, seconds, kept, on_card), disk_bytes=disk_bytes)

    def evaluation(self) -> StageEstimate:
        """Estimate the held-out images, and labelled pictures as if they were read already."""
        config = self.config
        num = round(config.synthesis.num_images * config.synthesis.heldout_share)
        if config.data:
            data, sides_px = Path(config.data), (self.student.image_size_px,)
            num += labelled_pictures(data, self.classes.names, sides_px).num_images
        image_s, work = sum(self.laps_s["evaluating"]) / self.num_shown * self.times_view, ""
        if config.baseline:
            beside = baseline_config(config.baseline, config.teacher.templates)
            of_baseline = _of_image(shapes_of_teacher(open_clip_name(beside)[0]))
            image_s += of_baseline * self.view_s / self.of_view
            work = f", baseline {config.baseline}"
        on_card = self.needs.evaluation(num)
        return self._stage("evaluation", f"{num} images{work}", num * image_s, on_card=on_card)

    def _times(self, num_views: int) -> float:
        """Operations of an image, decoded and seen in views, relative to one of the small run."""
        wanted, played = (c.synthesis.decoder for c in (self.config, self.small))
        of_wanted = _of_decoder(wanted, self.side_px) + num_views * self.of_image
        return of_wanted / (_of_decoder(played, SMALL_PX) + self.of_played)

    def _guided_bytes(self) -> tuple[int, int]:
        """Bytes of guided steps beside the teacher on a CPU, and with it on a card."""
        config, teacher_bytes = self.config.synthesis, self.needs.teacher_bytes
        if config.decoder == MINI:
            here = GuidedNeeds(0, self._refined_bytes(), self.view_bytes)
            there = replace(here, weight_bytes=teacher_bytes)
        elif config.decoder == PIXELS:
            here = GuidedNeeds.of_pixels(0, self.view_bytes, self.side_px)
            there = replace(here, weight_bytes=teacher_bytes)
        else:
            here, there = (
                GuidedNeeds.of_vqgan(num_bytes, self.view_bytes, self.side_px)
                for num_bytes in (VQGAN_WEIGHT_BYTES, teacher_bytes + VQGAN_BYTES_ON_CARD)
            )
        num_prompts = self.num_prompts
        on_host = here.of_all(config, num_prompts, NO_CARD)
        return on_host, there.of_all(config, num_prompts, self.card)

    def _refined_bytes(self) -> int:
        """Bytes that a guided step keeps of an image: its way through decoder and teacher."""
        teacher = load_teacher(self.small.teacher, self.few, self.device)
        decoder = load_decoder(device=self.device)
        return gradient_bytes(
            lambda latent_NLhw: teacher.embed_images(decoder.decode(latent_NLhw)),
            decoder.latent_shape,
            self.device,
        )

    def _stage(
        self, name: str, work: str, seconds: float, kept: int = 0, on_card: int | None = None
    ) -> StageEstimate:
        """Add libraries and teacher to what a stage keeps, on a card maybe something else."""
        if self.config.device == "cpu":
            return StageEstimate(name, work, seconds, self.base_bytes + kept + self.teacher_bytes)
        weights = self.needs.teacher_bytes  # an accelerator's is told where none is here, too
        if on_card is None:
            on_card = weights + kept
        return StageEstimate(name, work, seconds, self.base_bytes, on_card)


def _small(config: PipelineConfig) -> PipelineConfig:
    """Settings of few images and steps, and of no networks but those of this package."""
    synthesis, distillation = config.synthesis, config.distillation
    device = usable_device(config.device)  # the run may be planned for another machine
    has_prior = uses_embedded_prior(config.teacher.name, synthesis)
    method, num_images, batch_size = synthesis.method, NUM_IMAGES, distillation.batch_size
    training_batch_size = synthesis.training_batch_size
    if device == "cpu":
        batch_size, training_batch_size = min(NUM_VIEWS, batch_size), DRAWS
    else:
        num_images = max(num_images, SYNTHESIZERS[method].shard_size)
    return replace(
        config,
        device=device,
        data="",
        baseline="",
        teacher=TeacherConfig(templates=config.teacher.templates),
        prompts=replace(config.prompts, num_iterations=2),
        synthesis=replace(
            synthesis,
            method="amortized" if method == "diffusion" else method,
            decoder=PIXELS if synthesis.decoder == PIXELS else MINI,
            image_size_px=0 if has_prior and method != "per-image" else SMALL_PX,
            num_images=num_images,
            training_passes=0,
            num_training_steps=2 if num_steps_of(synthesis, 1) else 0,
            training_batch_size=training_batch_size,
            num_optimisation_steps=1,
            num_views=1,
            num_refinement_views=synthesis.num_refinement_views if has_prior else 1,
            num_descent_views=1,
            num_descent_steps=min(1, synthesis.num_descent_steps),
            # few are left to be refined by a descent, but most by the one step of a small run
            num_refinement_steps=synthesis.num_refinement_steps if has_prior else 0,
            heldout_share=0.5,  # so few images leave some to be evaluated on
        ),
        few_shot=FewShotConfig(),
        distillation=replace(
            distillation,
            num_steps=2,
            num_stored_views=0,
            batch_size=batch_size,
            # other start weights may have to be fetched
            student_init=distillation.student_init if distillation.student == MINI else "random",
        ),
    )


def _of_image(teacher: Any) -> int:
    """Operations of an image in a teacher on the meta device."""
    return operations(teacher.encode_image, (3, side_of(teacher), side_of(teacher)), "meta")


def _embed_dim(teacher: Any) -> int:
    """Width of the embeddings of a teacher on the meta device."""
    side_px = side_of(teacher)
    with torch.no_grad():
        return int(
            teacher.encode_image(torch.zeros(1, 3, side_px, side_px, device="meta")).shape[1]
        )


def _of_decoder(name: str, side_px: int) -> float:
    """Operations of an image in a decoder; the sums of pixels are none beside a network's."""
    if name == PIXELS:
        return 0
    if name != MINI:
        return VQGAN_OPERATIONS * (side_px / VQGAN_PX) ** 2
    decoder = load_decoder(device="meta", image_size_px=side_px)
    return operations(decoder.autoencoder.decode, decoder.latent_shape, "meta")
