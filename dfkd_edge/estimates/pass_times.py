"""How long one pass of each network of a run takes on this machine, for the plan.

What is inside this package, and the student, is timed as the run computes it: with the same
precision, threads and batches. What would have to be fetched first is counted on the meta device
and divided by the speed of a matrix product.

Shape suffixes: N images or texts, C = 3 channels, H rows, W columns, D embedding width, L latent
channels, h, w latent rows and columns, T tokens.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from dfkd_edge.class_names import ClassNames
from dfkd_edge.config.settings import MINI, PipelineConfig
from dfkd_edge.distillation.distill import set_training_mode
from dfkd_edge.networks.mixed_precision import depthwise_in_float32, mixed_precision
from dfkd_edge.networks.students import Student, student_entry
from dfkd_edge.networks.teacher import encode_text, load_teacher, reads_ends_only
from dfkd_edge.networks.views import random_view
from dfkd_edge.seeding import stage_generator
from dfkd_edge.synthesis.amortized import uses_embedded_prior
from dfkd_edge.synthesis.decoder import load_decoder

EFFICIENCY = 0.5
"""Speed of networks that are counted relative to a large matrix product (ours)."""
VQGAN_DECODE_FLOPS = 4.8e11
"""A VQGAN decoder (amused-256's) at 256 px; counted. Grows with the number of pixels."""
PROBE_IMAGES, PROBE_TEXTS = 32, 64
"""Timed together, as the stages do."""
ENOUGH_S = 0.5
PROBE_TEXT = "a bright style of a thing"
PROMPT_TOKENS = 9
"""Of such a text with its marks, and a second one for the name."""
PROBE_FLOPS = 4e10
"""A larger student is timed on fewer images than PROBE_IMAGES, so many operations forward."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PassTimes:
    """Seconds of a forward pass without gradients, of one image or text."""

    text_s: float
    """The teacher's text tower."""
    image_s: float
    """The teacher's image tower."""
    decode_s: float
    """The decoder."""
    sample_s: float
    """A step of the embedded prior with its guidance; 0 where it is not used."""
    student_s: float
    """A view in training: drawn, and through the student forward and backward."""
    product_gflops: float
    """Speed of a matrix product, in the run's precision."""
    device: str
    """Where they were taken: the run's device, or `cpu` where that is not here."""
    timed: tuple[str, ...]
    """Networks whose passes were timed; those of the others are counted operations over
    EFFICIENCY times the speed of a matrix product."""

    def counted_s(self, flops: float) -> float:
        """Seconds that counted operations take."""
        return flops / (self.product_gflops * 1e9 * EFFICIENCY)

    def sentence(self) -> str:
        """Say what the estimate is made from."""
        counted = [name for name in ("teacher", "decoder") if name not in self.timed]
        text = f"passes of {', '.join(self.timed)} timed on this machine's {self.device}"
        if counted:
            text += (
                f"; operations of {', '.join(counted)} counted, for {EFFICIENCY:g} of the "
                f"{self.product_gflops:.0f} GFLOP/s of a matrix product"
            )
        return text


def seconds_of(run: Callable[[], Tensor], num: int) -> float:
    """Seconds of a call that computes `num` at a time, for one: the best of three, warmed up.

    Of long calls, which vary less, as many count as ENOUGH_S takes.
    """
    float(run().flatten()[0])  # reading a value waits for the device
    taken_s: list[float] = []
    while len(taken_s) < 3 and sum(taken_s) < ENOUGH_S:
        begun = time.perf_counter()
        float(run().flatten()[0])
        taken_s.append(time.perf_counter() - begun)
    return min(taken_s) / num


def measure_product(device: str, side: int = 768) -> float:
    """Operations a second of a matrix product in the run's precision."""
    matrix = torch.ones((side, side), device=device)
    with mixed_precision(torch.device(device).type):
        return 2 * side**3 / seconds_of(lambda: matrix @ matrix, 1)


def count_flops(run: Any, *inputs: Tensor) -> int:
    """Count the operations of a call on meta tensors."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        run(*inputs)
    return int(counter.get_total_flops())


def time_passes(config: PipelineConfig, teacher_shapes: nn.Module, device: str) -> PassTimes:
    """Time or count one pass of each network of a run.

    Raises:
        ConfigError: the student does not exist, or the decoder cannot make images of that size.
    """
    rate = measure_product(device)
    timed = ["student"]
    if config.teacher.name == MINI:
        timed.append("teacher")
        text_s, image_s = _time_teacher(config, device)
    else:
        text_s, image_s = (f / rate / EFFICIENCY for f in _count_teacher(teacher_shapes))
    if config.synthesis.decoder == MINI:
        timed.append("decoder")
        decode_s, sample_s = _time_decoder(config, device)
    else:
        side_px = config.synthesis.image_size_px or image_size_px(teacher_shapes)
        decode_s = VQGAN_DECODE_FLOPS * (side_px / 256) ** 2 / rate / EFFICIENCY
        sample_s = 0.0
    return PassTimes(
        text_s=text_s,
        image_s=image_s,
        decode_s=decode_s,
        sample_s=sample_s,
        student_s=_time_student(config, image_size_px(teacher_shapes), device),
        product_gflops=rate / 1e9,
        device=device,
        timed=tuple(timed),
    )


def image_size_px(teacher: nn.Module) -> int:
    """Side of the teacher's input."""
    visual: Any = teacher.visual
    size = visual.image_size
    return int(size if isinstance(size, int) else size[0])


def _count_teacher(teacher: Any) -> tuple[int, int]:
    """Operations of a text and of an image."""
    context_length = getattr(getattr(teacher, "text", teacher), "context_length", 77)
    num_tokens = PROMPT_TOKENS if reads_ends_only(teacher) else context_length
    token_1T = torch.ones((1, num_tokens), dtype=torch.long, device="meta")
    side = image_size_px(teacher)
    image_1CHW = torch.empty(1, 3, side, side, device="meta")
    text = count_flops(partial(encode_text, teacher), token_1T)
    return text, count_flops(teacher.encode_image, image_1CHW)


@torch.no_grad()
def _time_teacher(config: PipelineConfig, device: str) -> tuple[float, float]:
    teacher = load_teacher(config.teacher, ClassNames(("thing",), (None,)), device)
    token_NT = teacher.tokenise([PROBE_TEXT] * PROBE_TEXTS)
    side = teacher.image_size_px
    image_NCHW = torch.rand((PROBE_IMAGES, 3, side, side), device=device)
    text_s = seconds_of(lambda: teacher.embed_tokens(token_NT), PROBE_TEXTS)
    return text_s, seconds_of(lambda: teacher.embed_images(image_NCHW), PROBE_IMAGES)


@torch.no_grad()
def _time_decoder(config: PipelineConfig, device: str) -> tuple[float, float]:
    """Seconds of an image in the embedded decoder, and of a step of its prior where it is used."""
    synthesis = config.synthesis
    decoder = load_decoder(device=device, image_size_px=synthesis.image_size_px)
    latent_NLhw = torch.zeros((PROBE_IMAGES, *decoder.latent_shape), device=device)
    decode_s = seconds_of(lambda: decoder.decode(latent_NLhw), PROBE_IMAGES)
    if synthesis.method != "amortized" or not uses_embedded_prior(config.teacher.name, synthesis):
        return decode_s, 0.0
    condition_ND = torch.zeros((PROBE_IMAGES, decoder.embed_dim), device=device)
    generator = stage_generator(0, "plan", device=torch.device(device))

    def step() -> Tensor:
        return decoder.sample(condition_ND, generator, 1, synthesis.guidance_scale)

    return decode_s, seconds_of(step, PROBE_IMAGES)


def _time_student(config: PipelineConfig, teacher_side_px: int, device: str) -> float:
    """Seconds of a view: drawn at the larger of both sizes, forward and backward."""
    distillation = config.distillation
    entry = student_entry(distillation.student, distillation.image_size_px or None)
    head_KD = torch.ones((1, 2))
    with torch.random.fork_rng(devices=[]):  # timm draws weights from the global one
        student = Student(entry.timm_name, entry.image_size_px, head_KD, 1.0).to(device)
        shapes = Student(entry.timm_name, entry.image_size_px, head_KD, 1.0).to("meta")
    student = student.to(memory_format=torch.channels_last)
    set_training_mode(student, keep_statistics=distillation.student_init == "pretrained")
    side = max(entry.image_size_px, teacher_side_px)
    flops = count_flops(shapes.eval(), torch.empty(1, 3, side, side, device="meta"))
    num = int(min(max(PROBE_FLOPS // flops, 2), PROBE_IMAGES, distillation.batch_size))
    image_NCHW = torch.rand((num, 3, side, side))
    generator = stage_generator(0, "plan")

    def step() -> Tensor:
        view_NCHW = random_view(image_NCHW, side, generator, distillation.style_probability)
        with mixed_precision(torch.device(device).type):
            embedding_ND = student.embed(view_NCHW.to(device))
        embedding_ND.sum().backward()
        return embedding_ND.detach()

    with depthwise_in_float32(student, torch.device(device).type):
        return seconds_of(step, num)
