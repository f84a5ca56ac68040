"""A short quantization-aware fine-tune against the teacher, without data.

The student learns with its convolutions and its projection rounded as INT8 will round them:
weights per output channel, inputs per tensor within fixed ranges. Rounding has no gradient, so the
gradient passes straight through inside the range (Bengio et al., 2013). BatchNorm statistics stay:
the exporter folds them into the weights, and a scale a channel makes that folding exact.

Shape suffixes: N views, C = 3 channels, H rows, W columns, D embedding width, K classes.
"""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from dfkd_edge.artifacts import SurrogateSet
from dfkd_edge.config.settings import DistillationConfig
from dfkd_edge.distillation.batches import Batches, Drawn, as_pixels, make_views, open_pool
from dfkd_edge.distillation.optim import make_optimiser
from dfkd_edge.distillation.rows import RowDraws
from dfkd_edge.distillation.step import Trainer
from dfkd_edge.networks.gradient_sums import GradientSums
from dfkd_edge.networks.memory import Parts
from dfkd_edge.networks.mixed_precision import Precision
from dfkd_edge.networks.pointwise import spare_strided_pointwise
from dfkd_edge.networks.students import Student
from dfkd_edge.networks.teacher import Teacher
from dfkd_edge.runs.context import StageContext
from dfkd_edge.seeding import derived_seed
from dfkd_edge.target_profiles.profile import QuantizationSpec

STAGE = "qat"
NUM_STEPS = 60  # A repair, not a second training: about a minute on two cores (ours)
BATCH_SIZE = 64
TUNING = DistillationConfig(learning_rate=1e-4, weight_decay=0.0)
"""Temperature and weights of the losses are those that distillation has by default."""
NUM_RANGE_IMAGES = 256
MAX_VALUES = 1 << 16  # Values of a tensor that a quantile is taken of
QUANTIZED_LAYERS = (nn.Conv2d, nn.Linear)
Range = tuple[float, float]


@dataclass(frozen=True, slots=True)
class FinetuneReport:
    """What the fine-tune did."""

    num_steps: int
    num_layers: int  # Layers that were rounded
    first_loss: float
    last_loss: float  # Means over the first and the last tenth of the steps
    seconds: float


class RoundedWeight(nn.Module):
    """Weights as INT8 holds them: symmetric, in the range of the target, a scale a channel."""

    def __init__(self, limit: int, per_channel: bool) -> None:
        super().__init__()
        self.limit, self.per_channel = limit, per_channel

    def forward(self, weight: Tensor) -> Tensor:
        """Round to multiples of a scale, the largest magnitude to `limit` of them."""
        peak = weight.detach().flatten(1).abs().amax(1).clamp(min=1e-8)
        if not self.per_channel:
            peak = peak.amax().expand(len(peak))
        zero = torch.zeros(len(peak), dtype=torch.int32, device=weight.device)
        rounded: Tensor = torch.fake_quantize_per_channel_affine(
            weight, peak / self.limit, zero, 0, -self.limit, self.limit
        )
        return rounded


def rounded_input(value: Tensor, limits: Range, spec: QuantizationSpec) -> Tensor:
    """Round an activation as the target does; what lies outside its calibrated range is cut off."""
    low, high = min(limits[0], 0.0), max(limits[1], 0.0)
    if spec.activation_symmetric:
        scale = max(-low, high, 1e-8) / 127
        return torch.fake_quantize_per_tensor_affine(value, scale, 0, -128, 127)  # as TensorRT
    scale = max(high - low, 1e-8) / 255
    bottom = 0 if spec.activation_dtype == "uint8" else -128
    zero_point = min(max(round(-low / scale), 0), 255) + bottom
    return torch.fake_quantize_per_tensor_affine(value, scale, zero_point, bottom, bottom + 255)


def _layers(student: Student) -> dict[str, nn.Module]:
    return {name: m for name, m in student.named_modules() if isinstance(m, QUANTIZED_LAYERS)}


@torch.no_grad()
def input_ranges(student: Student, image_NCHW: Tensor, percentile: float) -> dict[str, Range]:
    """Range of the input of every layer that INT8 rounds, of images in [0, 1].

    `percentile` is the share of the values inside, in percent; the student is in evaluation mode.
    """
    tail = (100 - percentile) / 100
    found: dict[str, Range] = {}
    handles = []
    for name, module in _layers(student).items():

        def hook(_module: nn.Module, args: tuple[Tensor, ...], name: str = name) -> None:
            values = args[0].flatten()
            values = values[:: max(1, len(values) // MAX_VALUES)][:MAX_VALUES]
            low, high = float(values.quantile(tail)), float(values.quantile(1 - tail))
            seen = found.get(name, (low, high))
            found[name] = min(low, seen[0]), max(high, seen[1])

        handles.append(module.register_forward_pre_hook(hook))
    try:
        for part_NCHW in image_NCHW.split(BATCH_SIZE):
            student(part_NCHW)
    finally:
        for handle in handles:
            handle.remove()
    return found


@contextlib.contextmanager
def rounding(
    student: Student, ranges: dict[str, Range], spec: QuantizationSpec
) -> Iterator[Student]:
    """Make the student compute as its INT8 graph will; undone afterwards, trained weights kept."""
    layers = _layers(student)
    handles = []
    for name, module in layers.items():
        is_depthwise = isinstance(module, nn.Conv2d) and module.groups > 1
        rounded = RoundedWeight(spec.weight_limit(is_depthwise), spec.per_channel)
        parametrize.register_parametrization(module, "weight", rounded)

        def hook(
            _module: nn.Module, args: tuple[Tensor, ...], limits: Range = ranges[name]
        ) -> tuple[Tensor, ...]:
            return (rounded_input(args[0], limits, spec), *args[1:])

        handles.append(module.register_forward_pre_hook(hook))
    try:
        yield student
    finally:
        for handle in handles:
            handle.remove()
        for module in layers.values():
            # the weights that were trained are kept, not what they were rounded to
            parametrize.remove_parametrizations(module, "weight", leave_parametrized=False)


def finetune_quantized(
    student: Student,
    teacher: Teacher,
    surrogates: SurrogateSet,
    spec: QuantizationSpec,
    percentile: float,
    context: StageContext,
) -> FinetuneReport:
    """Fine-tune the FP32 student in place, on views of the surrogates that it was trained on.

    The teacher labels every view; `percentile` is that of the activation ranges.
    """
    student.eval()  # BatchNorm's statistics are left alone
    spare_strided_pointwise(student.backbone)
    draws, pool = RowDraws(surrogates, context.seed), open_pool(surrogates.images, teacher.device)
    size_px = max(student.image_size_px, teacher.image_size_px)
    seed = derived_seed(context.seed, STAGE)
    views = make_views(draws, pool, size_px, TUNING.style_probability, seed)
    batches = Batches(pool, views, seed)
    ranges = input_ranges(
        student, as_pixels(pool.rows(draws.draw(0, NUM_RANGE_IMAGES))), percentile
    )
    losses: list[Tensor] = []
    begun = time.monotonic()
    with (
        context.reporter.stage("quantization-aware fine-tune", NUM_STEPS) as progress,
        rounding(student, ranges, spec),
    ):
        # float32: 256 steps of a rounded activation are all that bfloat16 could tell apart
        precision = Precision(teacher.device.type, torch.float32)
        optimiser = make_optimiser(student, TUNING, fused=precision.wants_fused)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, NUM_STEPS)
        sums = GradientSums(BATCH_SIZE)
        embed = student.embed_images
        trainer = Trainer(student, teacher, optimiser, precision, TUNING, embed, sums)
        parts = Parts("fine-tuning for INT8", BATCH_SIZE, context.device, context.reporter.note)
        for step in range(NUM_STEPS):
            drawn = batches.draw(draws.draw(step, BATCH_SIZE), step)

            def see(rows: slice, drawn: Drawn = drawn) -> tuple[Tensor, Tensor]:
                view_NCHW = batches.view(batches.prepare(drawn.part(rows)))
                with torch.no_grad():
                    return view_NCHW, teacher.embed_images(view_NCHW)

            made = trainer.step(see, BATCH_SIZE, parts, BATCH_SIZE)
            progress.advance(1)  # a number would make a GPU wait for it
            losses.append(made.loss)
            schedule.step()
    tenth = max(1, len(losses) // 10)
    return FinetuneReport(
        num_steps=len(losses),
        num_layers=len(ranges),
        first_loss=float(torch.stack(losses[:tenth]).mean()),
        last_loss=float(torch.stack(losses[-tenth:]).mean()),
        seconds=time.monotonic() - begun,
    )
